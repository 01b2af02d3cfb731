"""How long a run still takes, judged by its finished parts."""

from __future__ import annotations

import random

import pytest

from eval.run.eta import Part, TimeLeft, time_left

DONE = [
    (Part("load", "small", 1), 2.0),
    (Part("encode", "small", 1000), 10.0),
    (Part("linear", "dtd", 1000), 3.0),
    (Part("encode", "small", 3000), 30.0),
    (Part("linear", "eurosat", 3000), 3.0),
    (Part("load", "large", 1), 4.0),
    (Part("encode", "large", 1000), 100.0),
]


@pytest.mark.parametrize(
    ("part", "seconds"),
    [
        (Part("encode", "small", 500), 5.0),  # 10 ms an image
        (Part("encode", "large", 500), 50.0),  # 100 ms an image
        (Part("encode", "other", 500), 14.0),  # 140 s for 5000 images of both
        (Part("linear", "dtd", 1000), 3.0),  # another model on a task that is known
        (Part("linear", "eurosat", 1500), 1.5),
        (Part("linear", "flowers102", 2000), 3.0),  # 6 s for 4000 images of both
        (Part("load", "other", 1), 3.0),
    ],
)
def test_the_most_alike_finished_parts_say_how_fast(part: Part, seconds: float) -> None:
    assert time_left(DONE, [part]) == TimeLeft(pytest.approx(seconds), False)


def test_parts_add_up() -> None:
    left = [Part("encode", "large", 500), Part("linear", "dtd", 1000)]
    assert time_left(DONE, left) == TimeLeft(pytest.approx(53.0), False)
    assert time_left(DONE, []) == TimeLeft(0, False)


def test_what_has_never_run_is_not_guessed() -> None:
    known, new = Part("encode", "large", 500), Part("finetune", "large", 1000)
    assert time_left(DONE, [known, new]) == TimeLeft(pytest.approx(50.0), True)
    assert time_left([], [known]) == TimeLeft(0, True)


def test_the_part_in_progress_counts_what_is_left_of_it() -> None:
    current, left = Part("encode", "large", 500), [Part("linear", "dtd", 1000)]
    assert time_left(DONE, left, (current, 20.0)) == TimeLeft(pytest.approx(33.0), False)
    # later than estimated: nobody knows how much later
    assert time_left(DONE, left, (current, 51.0)) == TimeLeft(pytest.approx(3.0), True)
    assert time_left([], [], (current, 20.0)) == TimeLeft(0, True)


def test_cached_features_are_expected_to_go_on() -> None:
    done = [(Part("encode", "small", 1000), 0.0), (Part("encode", "small", 2000), 0.0)]
    assert time_left(done, [Part("encode", "small", 1000)]) == TimeLeft(0, False)


def test_a_run_of_steady_speed_is_estimated_exactly() -> None:
    """Wherever it stands, once each kind has run: models x tasks, unlike in speed and size."""
    rng = random.Random(0)
    speed = {"a": 0.01, "b": 0.2}
    sizes = {"dtd": 100, "eurosat": 900, "svhn": 5000}
    run = []
    for model in speed:
        for task, size in sizes.items():
            run.append((Part("encode", model, size), speed[model] * size))
            run.append((Part("linear", task, size), rng.random() if model == "a" else 0.0))
    of_task = {p.like: s for p, s in run if p.kind == "linear" and s}
    run = [(p, of_task.get(p.like, s)) for p, s in run]
    # after the first model and the second one's first encoding every part has its like
    for begun in range(7, len(run)):
        left = time_left(run[:begun], [p for p, _ in run[begun:]])
        assert left == TimeLeft(pytest.approx(sum(s for _, s in run[begun:])), False)
