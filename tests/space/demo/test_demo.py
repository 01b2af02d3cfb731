"""The page's one question, from pictures to predictions; and twenty visitors asking at once."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression

from eval.mini.factors import FACTOR_TASKS
from eval.mini.suite import draw
from eval.models.names import zoo_names
from space.demo.backbones import Shelf
from space.demo.classifier import normalised
from space.demo.classify import Answer, classify
from space.demo.examples import TITLES, ExampleSet, example_sets
from space.demo.uploads import Picture
from tests.factories import refusal

ZOO = [f"zoo:{name}" for name in zoo_names()]


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    return Shelf(tmp_path_factory.mktemp("cache"))


def plain(seed: int, name: str = "") -> Picture:
    pixels = np.random.RandomState(seed).randint(0, 256, (32, 32, 3)).astype(np.uint8)
    return Picture(Image.fromarray(pixels), name or f"{seed}.png")


def sets_of(sizes: Sequence[int]) -> list[tuple[str, list[Picture]]]:
    return [(f"c{w}", [plain(100 * w + i) for i in range(n)]) for w, n in enumerate(sizes)]


@pytest.mark.parametrize("name", ["digits", "texture", "shape"])
def test_an_example_set_is_answered(shelf: Shelf, name: str) -> None:
    examples = example_sets()[name]
    answer = classify(shelf, ZOO[:2], examples.supports, examples.queries)
    assert answer.classes == tuple(c for c, _ in examples.supports)
    assert answer.notes == ()
    assert [m.model for m in answer.models] == ZOO[:2]
    for model in answer.models:
        assert [q.name for q in model.queries] == [p.name for p in examples.queries]
        for query in model.queries:
            shown = [p for _, p in query.classes]
            assert shown == sorted(shown, reverse=True)
            assert sum(shown) == pytest.approx(1, abs=1e-5)
            assert {c for c, _ in query.classes} == set(answer.classes)
            assert len(query.neighbours) == 3
            cosines = [n.similarity for n in query.neighbours]
            assert cosines == sorted(cosines, reverse=True)
        right = sum(
            q.classes[0][0] == a for q, a in zip(model.queries, examples.answers, strict=True)
        )
        assert right >= (3 if name == "digits" else 0)  # drawn tasks are hard for small models
        assert model.head.loo_top1 is not None
        assert model.head.loo_top1 > (0.7 if name == "digits" else 0.2)
        assert 0 < model.seconds < 60


def test_predictions_are_scikit_learns_on_the_backbones_features(shelf: Shelf) -> None:
    examples = example_sets()["shape"]
    (model,) = classify(shelf, ZOO[:1], examples.supports, examples.queries).models
    images = [p.image for _, pictures in examples.supports for p in pictures]
    support = shelf.encode(ZOO[0], images)
    query = shelf.encode(ZOO[0], [p.image for p in examples.queries])
    labels = np.repeat(np.arange(5), 5)
    fit = LogisticRegression(tol=1e-10, max_iter=10_000).fit(
        normalised(support.double()).numpy(), labels
    )
    logits = fit.decision_function(normalised(query.double()).numpy()) / model.head.temperature
    expected = torch.from_numpy(logits).softmax(1)
    names = [c for c, _ in examples.supports]
    for answer, row, own in zip(model.queries, expected, query, strict=True):
        for name, probability in answer.classes:
            assert probability == pytest.approx(float(row[names.index(name)]), abs=1e-4)
        best = torch.cosine_similarity(support, own[None])
        near = answer.neighbours[0]
        assert (names.index(near.label), near.index) == divmod(int(best.argmax()), 5)
        assert near.similarity == pytest.approx(float(best.max()), abs=1e-5)


# --------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("models", "sizes", "queries", "said"),
    [
        ([], [2, 2], 1, "no models are chosen; 1 to 10 are needed"),
        (ZOO[:1] * 11, [2, 2], 1, "11 models are chosen; 1 to 10 are needed"),
        ([f"hf-hub:a/{i}" for i in range(4)], [2, 2], 1, "4 models that do not ship here are"),
        (ZOO[:1] * 2, [2, 2], 1, "a model is chosen twice"),
        (ZOO[:1], [], 1, "no classes have pictures; 2 to 10 are needed"),
        (ZOO[:1], [3], 1, "1 class has pictures; 2 to 10 are needed"),
        (ZOO[:1], [1] * 11, 1, "11 classes have pictures; 2 to 10 are needed"),
        (ZOO[:1], [2, 0], 1, "no pictures are given for class 'c1'; 1 to 20 are needed"),
        (ZOO[:1], [2, 21], 1, "21 pictures are given for class 'c1'; 1 to 20 are needed"),
        (ZOO[:1], [2, 2], 21, "21 query pictures are given; 0 to 20 are needed"),
        (["local-dir:/etc"], [2, 2], 1, "cannot be used on this page"),
        ([ZOO[0], "zoo:nothing"], [2, 2], 1, "no model 'nothing' ships here"),
    ],
)
def test_what_is_refused(
    models: list[str], sizes: list[int], queries: int, said: str, cache: Path
) -> None:
    fresh = Shelf(cache)
    text = refusal(classify, fresh, models, sets_of(sizes), [plain(i) for i in range(queries)])
    assert said in text


def test_bounds_themselves_are_taken(shelf: Shelf) -> None:
    few = classify(shelf, ZOO[:1], sets_of([1, 1]), [plain(7)])
    assert few.models[0].head.loo_top1 is None
    assert len(few.models[0].queries[0].neighbours) == 2
    assert classify(shelf, ZOO[:1], sets_of([1, 1]), []).models[0].queries == ()
    most = classify(shelf, ZOO[:3], sets_of([20] * 10), [plain(i) for i in range(20)])
    assert len(most.models) == 3
    assert most.models[0].head.weight.shape[0] == 10


def test_class_names(shelf: Shelf) -> None:
    pictures = [[plain(1)], [plain(2)], [plain(3)]]
    given = list(zip(["", "b\n", " "], pictures, strict=True))
    assert classify(shelf, ZOO[:1], given, [plain(4)]).classes == ("class 1", "b", "class 3")
    twice = list(zip(["a", "b", "a "], pictures, strict=True))
    assert "two classes are called 'a'" in refusal(classify, shelf, ZOO[:1], twice, [plain(4)])


def test_copies_are_told_and_do_not_flatter(shelf: Shelf) -> None:
    """Noise in twos: with each copy left in, every picture would find itself."""
    supports = [(n, [*p, *p]) for n, p in sets_of([4, 4, 4])]
    answer = classify(shelf, ZOO[:1], supports, [supports[1][1][0], plain(9)])
    assert any("Class 'c0' holds 4 copies" in note for note in answer.notes)
    assert any("Query '100.png' is also a support picture of class 'c1'" in n for n in answer.notes)
    alone = classify(shelf, ZOO[:1], sets_of([4, 4, 4]), [plain(9)])
    doubled = answer.models[0].head.loo_top1
    assert doubled is not None
    assert alone.models[0].head.loo_top1 is not None
    assert doubled <= alone.models[0].head.loo_top1 + 0.2
    one = [("a", [plain(1)] * 5), ("b", [plain(2), plain(3)])]
    assert classify(shelf, ZOO[:1], one, [plain(4)]).models[0].head.loo_top1 is None
    both = [("a", [plain(1), plain(5)]), ("b", [plain(1), plain(3)])]
    said = classify(shelf, ZOO[:1], both, [plain(4)]).notes
    assert said == ("'1.png' is in class 'a' as well as in 'b'.",)


# --------------------------------------------------------------------------- examples


@pytest.mark.slow
def test_the_page_is_made_without_drawing_its_examples(tmp_path: Path) -> None:
    """Nor does it import what draws them: the app's start would wait for scikit-learn."""
    asked = (
        "import sys; from pathlib import Path; from space.app import build, desk_of; "
        "from space.demo.examples import example_sets; "
        "build(desk_of(sys.argv[1], Path(sys.argv[1]))); "
        "print(example_sets.cache_info().currsize, 'sklearn' in sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-c", asked, str(tmp_path)], capture_output=True, text=True,
        cwd=Path(__file__).parents[3],
    )  # fmt: skip
    assert run.stdout.split() == ["0", "False"], run.stderr


def test_example_sets_are_drawn_the_same() -> None:
    sets = example_sets()
    assert list(sets) == list(TITLES) == ["digits", "texture", "shape"]
    assert {name: each.title for name, each in sets.items()} == TITLES
    for each in sets.values():
        assert len(each.supports) == len(each.queries) == 5
        assert sorted(each.answers) == sorted(c for c, _ in each.supports)
        pictures = [p for _, shots in each.supports for p in shots] + list(each.queries)
        assert {len(shots) for _, shots in each.supports} == {5}
        assert {(p.image.mode, p.image.size) for p in pictures} == {("RGB", (64, 64))}
        assert len({p.digest for p in pictures}) == 30  # no query among the support
        assert each.licence
    shape: ExampleSet = sets["shape"]
    heart = FACTOR_TASKS["shape"].classes.index("heart")
    drawn_heart = draw("shape", "train", heart, 2)
    assert np.array_equal(np.asarray(dict(shape.supports)["heart"][2].image), drawn_heart)
    drawn = [p.digest for s in sets.values() for _, shots in s.supports for p in shots]
    example_sets.cache_clear()
    again = example_sets()
    assert drawn == [p.digest for s in again.values() for _, shots in s.supports for p in shots]


# --------------------------------------------------------------------------- many visitors


@pytest.mark.slow
def test_twenty_visitors_at_once(shelf: Shelf) -> None:
    """Other pictures each, three models each: no error, right answers, bounded memory."""

    def visit(i: int) -> Answer:
        supports = [
            (f"k{w}", [plain(10_000 * i + 100 * w + n) for n in range(5)]) for w in range(5)
        ]
        return classify(shelf, ZOO[:3], supports, [supports[w][1][0] for w in range(5)])

    expected = visit(0)
    process = psutil.Process()
    with ThreadPoolExecutor(20) as pool:
        list(pool.map(visit, range(20)))
        before = process.memory_info().rss
        answers = list(pool.map(visit, [0, *range(100, 139)]))
    assert process.memory_info().rss - before < 150e6
    assert len(answers) == 40
    for found, wanted in zip(answers[0].models, expected.models, strict=True):
        assert torch.allclose(found.head.weight, wanted.head.weight, atol=1e-3)


@pytest.mark.slow
def test_the_engine_needs_no_gradio() -> None:
    engine = "space.demo.classify, space.demo.head_file, space.demo.examples"
    code = f"import sys, {engine}\nsys.exit('gradio' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
