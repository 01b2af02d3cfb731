"""What boards claim, and of which chance: equal models, old files beside new ones, foreign ones."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from eval.metrics.episode_variance import EpisodeDesign
from eval.metrics.estimates import KINDS
from eval.metrics.scores import Samples
from eval.protocols.episodes import Draw, design
from eval.results import leaderboard as boards
from eval.results.schema import Result
from space.labels import chance
from space.tables.board import Board, build, headline
from space.tables.display import as_csv, as_json, chances, legend, mean_marks
from space.tables.matrix import Grid, grid, keys
from space.tables.means import means
from space.tables.objectives import by_domain, differences, shots, summary
from space.tables.scores import MOST_IMAGES, MOST_OF_A_CLASS, frame, rows
from space.tables.view import View
from tests.factories import make_fewshot, make_result
from tests.space.shelves import linear, scored

TESTS, SAMPLE, OLD = KINDS["test"], KINDS["sample"], KINDS["episodes"]
MODELS = 10
CLASSES = (24,) * 6
SMALL = {"n_way": 3, "queries": 4, "episodes": 100}


def board_of(results: list[Result], view: View | None = None) -> Board:
    scores = scored(results)
    return build(grid(scores, keys(scores)[0]), view or View())


# --------------------------------------------------------------------------- equal models


def quick(pattern: Result, answers: dict[tuple[str, str], NDArray[np.bool_]]) -> Board:
    """Of the same result with these answers (model, task), without a file's checks for each."""
    (row,) = rows("p", pattern)
    return build(_grid(frame(
        row | {"model": model, "task": task, "samples": np.packbits(right).tobytes(),
               "value": float(right.mean())}
        for (model, task), right in answers.items()
    )), View())  # fmt: skip


def _grid(scores: pd.DataFrame) -> Grid:
    (key,) = keys(scores)
    return grid(scores, key)


def equal_linear(seed: int, boards: int, ahead: float = 0.0) -> list[Board]:
    """Ten models that recognise each image with the same chance, one of them perhaps more."""
    out = []
    for i in range(boards):
        random = np.random.RandomState([seed, i])
        answers = {}
        for task in ("t0", "t1"):
            ease = random.beta(2, 1, 120) * (1 - ahead)  # hard images and easy ones
            for m in range(MODELS):
                answers[f"m{m}", task] = random.uniform(size=120) < ease + ahead * (m == 0)
        out.append(quick(make_result(correct=np.ones(120, bool)), answers))
    return out


@pytest.mark.slow
def test_equal_models_are_one_group_in_nineteen_boards_of_twenty() -> None:
    found = equal_linear(1, 100)
    split = sum(board.group.max() > 1 for board in found)
    assert 0 < split <= 5  # of 100: some, or the tests would find nothing anywhere
    placed = sum((board.places != f"1-{MODELS}").any() for board in found)
    assert placed == split  # no model is said to stand anywhere but where any of them could


def test_a_model_that_is_better_is_told_apart() -> None:
    found = equal_linear(2, 10, ahead=0.3)
    assert all(board.group.tolist() == [1] + [2] * (MODELS - 1) for board in found)
    assert all(board.places.tolist() == ["1"] + [f"2-{MODELS}"] * (MODELS - 1) for board in found)


def drawn(task: str, shot: int = 5, sizes: tuple[int, ...] = CLASSES, **more: int) -> EpisodeDesign:
    split = make_result(task=task).task.split_hash
    return design(Draw(sizes, shot, **SMALL | more, split_hash=split, seed=0))


@pytest.mark.slow
def test_equal_models_are_one_group_though_the_images_favour_some_of_them() -> None:
    """Models that would be equally good on all images there are. Each finds other images easy: on
    those at hand they differ in every episode alike."""
    sizes = (60,) * 6
    episodes = drawn("dtd", 1, sizes, queries=5, episodes=300)
    pattern = make_fewshot(np.ones(episodes.query.shape, bool), shot=1, class_images=sizes)
    split = by_episodes = 0
    for i in range(100):
        random = np.random.RandomState([5, i])
        ease = random.normal(0, 1, (MODELS, episodes.images))[:, episodes.query_images]
        right = random.normal(0, 0.3, ease.shape) < ease
        board = quick(pattern, {(f"m{m}", "dtd"): right[m] for m in range(MODELS)})
        split += board.group.max() > 1
        shares = right.mean((2, 3))
        gap = shares[shares.mean(1).argmax()] - shares[shares.mean(1).argmin()]
        by_episodes += gap.mean() / (gap.std() / 300**0.5) > 4.47 / 2**0.5  # Tukey's, of ten
    assert 0 < split <= 5
    assert by_episodes > 50  # what other episodes of these images would say of the same boards


# --------------------------------------------------------------------------- old files beside new


def new(model: str, task: str = "dtd", top1: float = 0.5, shot: int = 5) -> Result:
    answers = np.random.RandomState([len(model), ord(model[-1]), ord(task[-1])]).uniform(
        size=drawn(task, shot).query.shape
    )
    return make_fewshot(answers < top1, model, task, shot=shot, class_images=CLASSES)


def old(model: str, task: str = "dtd", top1: float = 0.5) -> Result:
    """The same, as a file of before the answers of episodes were kept."""
    found = new(model, task, top1)
    (score,), (samples,) = found.scores, found.samples.values()
    counts = samples.answers().sum(1).tolist()
    return found.model_copy(update={
        "scores": [score.model_copy(update={"kind": "", "these": None,
                                            "ci_low": score.value - 0.01,
                                            "ci_high": score.value + 0.01})],
        "samples": {score.name: Samples(unit="episode", n=samples.n, of=samples.of,
                                        correct=counts)},
        "details": {},
    })  # fmt: skip


@pytest.fixture
def mixed() -> Board:
    return board_of([new("a", top1=0.9), new("b", top1=0.3), old("c", top1=0.6),
                     new("a", "eurosat", 0.9), new("b", "eurosat", 0.3),
                     new("c", "eurosat", 0.6)])  # fmt: skip


def test_an_old_file_stands_on_the_board_and_claims_nothing(mixed: Board) -> None:
    assert list(mixed.models["model"]) == ["a", "c", "b"]
    assert mixed.group.tolist() == [1, 0, 2]
    assert mixed.places.tolist() == ["1", "", "2"]
    assert mixed.mean_kind.tolist() == ["sample", "mixed", "sample"]
    assert sorted(mixed.kind[1].tolist()) == ["episodes", "sample"]
    assert mixed.half[1] == pytest.approx(np.hypot(0.01, 0.05) / 2)


def test_its_mark_is_beside_its_mean(mixed: Board) -> None:
    assert [mark == "†" for mark in mean_marks(mixed)] == [False, True, False]
    assert chances(mixed) == (
        f"± 95 % over {SAMPLE} or {OLD} or unlike chances on unlike data sets."
    )


def test_the_legend_explains_the_signs_that_are_there_alone(mixed: Board) -> None:
    without = board_of([new("a", top1=0.9), new("b", top1=0.3)])
    for board, has in ((mixed, True), (without, False)):
        assert ("† only over other episodes" in legend(board)) == has
        assert bool(board.tasks["subset"].any()) == ("`*` a subset" in legend(board))


def test_downloads_say_the_kinds_the_groups_and_the_places(mixed: Board) -> None:
    csv = pd.read_csv(io.StringIO(as_csv(mixed, View())), keep_default_na=False)
    assert list(csv["mean_kind"]) == ["sample", "mixed", "sample"]
    assert list(csv["dtd_kind"]) == ["sample", "episodes", "sample"]
    assert list(csv["tie_group"]) == [1, 0, 2]
    assert list(csv["places"].astype(str)) == ["1", "", "2"]
    found = json.loads(as_json(mixed, View()))
    assert found["kinds"] == {"sample": SAMPLE, "episodes": OLD,
                              "mixed": "unlike chances on unlike data sets"}  # fmt: skip
    assert found["level"] == 0.95
    for row, kind, places in zip(found["rows"], csv["mean_kind"], ("1", "", "2"), strict=True):
        assert (row["mean_kind"], row["places"]) == (kind, places)


def test_old_files_alone_say_so_in_words() -> None:
    board = board_of([old("a", top1=0.9), old("b", top1=0.3)])
    assert board.group.tolist() == [0, 0]
    said = headline(board)
    assert said.startswith("a has the highest score on this data set: ")
    assert f"±1.0 among the 2 models in view (95 % over {OLD})" in said
    assert said.endswith("points before b (not tested).")
    assert chances(board) == f"± 95 % over {OLD}."


def test_an_old_file_is_compared_with_nothing() -> None:
    scores = scored([new("a"), new("b"), old("c"), new("c", "eurosat"), new("a", "eurosat")])
    one = grid(scores, keys(scores)[0])
    a, b, c = (list(one.models["model"]).index(name) for name in "abc")
    assert list(differences(one, a, b)["task"]) == ["dtd"]
    assert list(differences(one, a, c)["task"]) == ["eurosat"]
    assert set(differences(one, a, c)["kind"]) == {"sample"}
    assert f"paired tests and intervals over {SAMPLE}; Holm" in summary(
        differences(one, a, b), "A", "B"
    )


def test_the_table_of_eval_says_the_same(mixed: Board) -> None:
    results = [new("a", top1=0.9), new("b", top1=0.3), new("d", top1=0.85), old("c", top1=0.6)]
    (theirs,), mine = boards.tables(results), board_of(results)
    for r, model in enumerate(mine.models["model"]):
        row = theirs.models.index(model)
        expected = theirs.ties.get(row, (0, ""))
        assert (int(mine.group[r]), str(mine.places[r])) == expected
        (cell,) = (score for (at, _), score in theirs.cells.items() if at == row)
        assert mine.kind[r, 0] == cell.kind


# --------------------------------------------------------------------------- kinds of means


def test_intervals_of_means_are_those_of_the_board_everywhere() -> None:
    results = [new(m, t, p) for t in ("dtd", "eurosat", "resisc45")
               for m, p in (("a", 0.8), ("b", 0.5), ("c", 0.4))]  # fmt: skip
    scores = scored(results)
    one = grid(scores, keys(scores)[0])
    # of two models in another order, estimated without the third
    domain = by_domain(one, [2, 0])
    both = domain[domain["domain"] == "satellite"].set_index("model")
    satellite = build(one, View(domains=("satellite",)))
    for model in ("a", "c"):
        at = list(satellite.models["model"]).index(model)
        assert both["tasks"][model] == 2
        assert both["half"][model] == pytest.approx(satellite.half[at])
    assert set(domain["kind"]) == {"sample"}


def test_shots_have_the_intervals_of_their_boards() -> None:
    results = [new(m, t, 0.4 + 0.1 * k, shot) for k, shot in enumerate((1, 5))
               for m in "ab" for t in ("dtd", "eurosat")]  # fmt: skip
    scores = scored(results)
    found = shots(scores, [("b", "seed0"), ("a", "seed0")], setting=keys(scores)[0].setting)
    assert len(found) == 4
    for key in keys(scores):
        board = build(grid(scores, key), View())
        for r, model in enumerate(board.models["model"]):
            mine = found[(found["model"] == model) & (key.score == "top1_" + found["shot"].map(
                "{}shot".format))]  # fmt: skip
            assert mine["half"].tolist() == pytest.approx([board.half[r]])
            assert mine["kind"].tolist() == ["sample"]


def test_a_mean_of_nothing_has_no_interval() -> None:
    one = linear([make_result("a", "x"), make_result("b", "y")])
    for tasks in ([], [0, 1]):
        found = means(one, [0, 1], tasks, one.standing(tasks))
        assert np.isnan(found.value).all()
        assert np.isnan(found.half).all()
        assert list(found.kind) == ["", ""]


def test_a_mean_of_one_is_that_score_as_it_stands() -> None:
    one = linear([make_result("a", top1=0.9), make_result("b", top1=0.4)])
    found = means(one, [1, 0], [0], one.standing([0]))
    assert found.value.tolist() == one.value[[1, 0], 0].tolist()
    assert found.half.tolist() == ((one.high - one.low) / 2)[[1, 0], 0].tolist()
    assert list(found.kind) == ["test", "test"]


# --------------------------------------------------------------------------- words, foreign files


def test_chances_in_words() -> None:
    assert chance(["test"]) == TESTS
    assert chance(["sample", "test", "sample"]) == f"{SAMPLE} or {TESTS}"
    assert chance(["<b>"]) == chance([""]) == "a chance not stated"


def with_samples(result: Result, **changes: Any) -> Result:
    ((name, held),) = result.samples.items()
    return result.model_copy(update={"samples": {name: held.model_copy(update=changes)}})


def forged(**details: Any) -> Result:
    return new("a").model_copy(update={"details": details})


@pytest.mark.parametrize("result", [
    with_samples(make_result(), of=3),
    with_samples(make_result(), correct="////////////////"),
    with_samples(make_result(), n=0),
    with_samples(make_result(), without=[0.5]),
    with_samples(make_result(), without=[0.5, float("nan")]),
    with_samples(make_result(), without=[0.5, 7.0]),
    with_samples(new("a"), of=13),
    forged(), forged(class_images="24"), forged(class_images=[24] * 2),
    forged(class_images=[MOST_OF_A_CLASS + 1] * 3),
    forged(class_images=[MOST_OF_A_CLASS] * (MOST_IMAGES // MOST_OF_A_CLASS + 1)),
])  # fmt: skip
def test_samples_in_no_form_of_ours_are_left_out(result: Result) -> None:
    (row,) = rows("p", result)
    assert (row["samples"], row["of"], row["unit"], row["draw"]) == (b"", 0, "", "")
    assert board_of([result]).group.tolist() == [0]


def test_the_samples_count_their_own_units() -> None:
    """A score may say another number of them."""
    made = make_result("a", correct=np.arange(41) < 30)
    score = made.scores[0].model_copy(update={"n": 40})
    forged = made.model_copy(update={"scores": [score]})
    (row,) = rows("p", forged)
    assert row["n"] == 41
    board = build(linear([forged, make_result("b", correct=np.arange(41) < 4)]), View())
    assert board.group.tolist() == [1, 2]


def test_a_kind_that_nobody_knows_is_not_repeated() -> None:
    result = make_result()
    score = result.scores[0].model_copy(update={"kind": "<script>"})
    (row,) = rows("p", result.model_copy(update={"scores": [score]}))
    assert row["kind"] == ""


def test_answers_are_kept_as_they_are() -> None:
    result = new("a")
    (row,) = rows("p", result)
    held: NDArray[np.uint8] = np.unpackbits(np.frombuffer(row["samples"], np.uint8))
    answers = result.samples["top1_5shot"].answers()
    assert held[: answers.size].tolist() == answers.astype(int).ravel().tolist()
    assert (row["n"], row["of"], row["unit"]) == (100, 12, "episode")
    assert json.loads(row["draw"])["class_images"] == list(CLASSES)
