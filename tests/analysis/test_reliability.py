"""Reliability diagrams: against torchmetrics and scipy, and by the command on a real run."""

from __future__ import annotations

import base64
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from torchmetrics.classification import BinaryCalibrationError, MulticlassCalibrationError

from eval.__main__ import main
from eval.analysis import reliability
from eval.analysis.reliability import Bin, Diagram
from eval.metrics import intervals
from eval.models.names import ZOO_FOLDER
from eval.results.schema import SAME_CONFIDENCE, Result, confidence_gap, pack_confidence
from eval.results.store import NotAResult, dump_result, read_result, read_shelf, write_result
from eval.run.tolerance import Tolerance
from eval.run.verdict import differences
from eval.sharing.changes import changes_to_publish, covers, difference
from space.receipts import receipt
from tests.factories import Cli, make_result, make_task, refusal, split_hash

MODELS = ["random:test_resnet", "random:test_resnet@1"]
EDGES = np.linspace(0, 1, 16)


def ece_of(bins: list[Bin] | tuple[Bin, ...]) -> float:
    """The error that the bins add up to."""
    total = sum(b.count for b in bins)
    return sum(b.count * abs(b.confidence - b.accuracy) for b in bins) / total


def with_ece(result: Result, values: np.ndarray | None, ece: float = 0.1) -> Result:
    """The result with an ECE and these confidences."""
    score = {"name": "ece", "value": ece, "ci_low": ece - 0.02, "ci_high": ece + 0.02, "n": 40}
    raw = result.model_dump(mode="json")
    raw["scores"].append(score)
    if values is not None:
        raw["confidence"] = pack_confidence(values)
    return Result.model_validate(raw)


# ---- the bins


@pytest.mark.parametrize("bins", [5, 15])
def test_the_bins_add_up_to_torchmetrics(bins: int) -> None:
    generator = torch.Generator().manual_seed(0)
    probability = torch.randn(700, 6, generator=generator).mul(2).softmax(1)
    labels = torch.randint(0, 6, (700,), generator=generator)
    confidence, answer = (t.numpy() for t in probability.double().max(1))
    correct = answer == labels.numpy()
    theirs = MulticlassCalibrationError(num_classes=6, n_bins=bins, norm="l1")(probability, labels)
    found = reliability.reliability(confidence, correct, bins)
    assert ece_of(found) == pytest.approx(float(theirs), abs=1e-5)
    if bins == intervals.ECE_BINS:
        ours = intervals.expected_calibration_error(confidence, correct, 0)
        assert ece_of(found) == pytest.approx(ours.value, abs=1e-12)


def test_of_two_classes() -> None:
    random = np.random.RandomState(1)
    confidence = random.uniform(0.5, 1, 300)
    correct = random.uniform(size=300) < confidence**2
    theirs = BinaryCalibrationError(n_bins=15, norm="l1")(
        torch.from_numpy(confidence), torch.from_numpy(correct.astype(int))
    )
    assert ece_of(reliability.reliability(confidence, correct)) == pytest.approx(
        float(theirs), abs=1e-5
    )


VALUES = st.one_of(st.floats(0, 1), st.sampled_from(EDGES.tolist()))


@settings(deadline=None)
@given(st.lists(st.tuples(VALUES, st.booleans()), min_size=1, max_size=60))
def test_the_bins_part_the_images(answers: list[tuple[float, bool]]) -> None:
    confidence = np.array([c for c, _ in answers])
    correct = np.array([r for _, r in answers])
    found = reliability.reliability(confidence, correct)
    assert sum(b.count for b in found) == len(answers)
    assert sum(b.count * b.accuracy for b in found) == pytest.approx(correct.sum())
    assert [b.low for b in found] == sorted({b.low for b in found})
    for b in found:
        assert b.count > 0
        inside = (confidence > b.low) & (confidence <= b.high)
        if b.low == 0:  # a confidence of 0 has no bin below it
            inside |= confidence == 0
        assert b.count == inside.sum()
        assert b.confidence == pytest.approx(confidence[inside].mean())
        assert 0 <= b.ci_low <= b.accuracy <= b.ci_high <= 1
    ours = intervals.expected_calibration_error(confidence, correct, 0)
    assert ece_of(found) == pytest.approx(ours.value, abs=1e-12)


def test_edges_belong_to_the_bin_below() -> None:
    confidence = np.array([0.0, *EDGES])
    found = reliability.reliability(confidence, np.ones(17, bool))
    assert [b.count for b in found] == [3] + [1] * 14  # 0, 0 and 1/15; then one edge each
    assert found[-1].high == 1.0
    with pytest.raises(ValueError, match="unpaired"):
        reliability.reliability(np.zeros(3), np.zeros(4, bool))


@pytest.mark.parametrize(("right", "n"), [(0, 1), (1, 1), (0, 20), (20, 20), (7, 20), (311, 400)])
def test_wilson_is_that_of_scipy(right: int, n: int) -> None:
    theirs = scipy_stats.binomtest(right, n).proportion_ci(method="wilson")
    assert intervals.wilson(right, n) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


# ---- what result files keep


@given(st.lists(st.floats(0, 1), min_size=40, max_size=40))
def test_confidences_round_trip(values: list[float]) -> None:
    packed = pack_confidence(np.array(values))
    raw = make_result().model_dump(mode="json") | {"confidence": packed}
    result = Result.model_validate(json.loads(json.dumps(raw)))
    again = result.confidences()
    assert again is not None
    assert np.abs(again - values).max() <= 1.001 / 65535
    assert pack_confidence(again) == packed
    assert json.loads(dump_result(result)) == raw


def test_packed_as_little_endian_counts() -> None:
    packed = pack_confidence(np.array([0, 1, 0.5, 1 + 1e-16, 258 / 65535, np.nan]))
    assert base64.b64decode(packed) == b"\0\0\xff\xff\0\x80\xff\xff\x02\x01\0\0"


@pytest.mark.parametrize("off", [-1e-6, 0, 1e-6, 7e-6])
def test_no_confidence_changes_its_bin(off: float) -> None:
    """Three classes of which none is preferred: 1/3 and a little, just above an edge."""
    values = np.clip(np.resize(EDGES, 40) + off, 0, 1)
    again = with_ece(make_result(), values).confidences()
    assert again is not None
    assert np.abs(again - values).max() <= 1.001 / 65535
    assert np.searchsorted(EDGES, again[1:]).tolist() == np.searchsorted(EDGES, values[1:]).tolist()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (pack_confidence(np.ones(39)), "39 confidences where top1 has 40 samples"),
        ("AAA", "padding"),
        ("AAAA", "buffer size"),  # three bytes
        ("\u00e9\ud800", "ASCII"),
        ("A" * 7 + "!", "base64"),
        (7, "string"),
    ],
)
def test_foreign_confidences_are_refused(tmp_path: Path, text: Any, why: str) -> None:
    raw = make_result().model_dump(mode="json") | {"confidence": text}
    (tmp_path / "x.json").write_text(json.dumps(raw))
    with pytest.raises(NotAResult, match=why) as caught:
        read_result(tmp_path / "x.json")
    assert "\n" not in str(caught.value)


def test_an_old_file_reads_and_writes_back_unchanged(tmp_path: Path) -> None:
    old = sorted(ZOO_FOLDER.glob("*/results/*.json"))[0]
    assert b'"confidence"' not in old.read_bytes()
    result = read_result(old)
    assert result.confidences() is None
    assert dump_result(result) == old.read_bytes()
    write_result(tmp_path / "x.json", result)
    assert (tmp_path / "x.json").read_bytes() == old.read_bytes()
    assert "confidence" not in json.loads(result.model_dump_json())


def test_confidences_in_what_is_compared_and_published(tmp_path: Path) -> None:
    values = np.linspace(0.2, 0.9, 40)
    bare, full = with_ece(make_result(), None), with_ece(make_result(), values)
    near = with_ece(make_result(), values + SAME_CONFIDENCE / 2)
    far = with_ece(make_result(), values + 0.01)
    assert confidence_gap(bare, full) == 0
    assert confidence_gap(full, far) == pytest.approx(0.01, abs=1e-4)
    shorter = full.model_copy(update={"confidence": pack_confidence(values[1:])})
    assert math.isinf(confidence_gap(full, shorter))
    exact = Tolerance("the same")
    assert differences(bare, full, exact) == differences(full, near, exact) == ()
    (found,) = differences(full, far, exact)
    assert (found.text, found.allowed) == ("confidence: up to 0.0100 off at an image", False)
    assert difference(full, far) == "the confidences are up to 0.0100 off"
    assert difference(full, near) == difference(bare, full) == ""
    # a run of this version adds them to what is published; who has none takes none away
    assert covers(full, bare)
    assert not covers(bare, full)
    (path,) = (o.path for o in changes_to_publish([(Path("x"), bare)], {}, "lab/x"))
    (offer,) = changes_to_publish([(Path("x"), full)], {path: bare}, "lab/x")
    assert (offer.kind, offer.result.confidence) == ("more", full.confidence)
    assert changes_to_publish([(Path("x"), bare)], {path: full}, "lab/x") == ()
    two = [(Path("x"), bare), (Path("y"), full)]
    assert "one has confidences that the other lacks" in refusal(
        changes_to_publish, two, {}, "lab/x"
    )
    # the Space shows a file without its long texts
    write_result(tmp_path / "a.json", full)
    assert not {"confidence", "samples"} & receipt(tmp_path, "a.json").content.keys()


# ---- diagrams


def test_results_without_probabilities_are_left_out() -> None:
    full = with_ece(make_result(), np.full(40, 0.7))
    odd = [
        make_result(),
        make_result(protocol="fewshot"),
        with_ece(make_result(), None),
        full.model_copy(update={"scores": full.scores[:1]}),
        full.model_copy(update={"samples": {}}),
        with_ece(make_result(), np.full(40, 0.7), ece=math.nan),
    ]
    (found,) = reliability.diagrams([*odd, full])
    assert (found.model, found.task, found.protocol) == ("random:resnet18", "dtd", "linear")
    (only,) = found.bins
    assert (only.count, only.accuracy, found.images) == (40, 0.5, 40)
    assert found.gap == pytest.approx(0.2, abs=1e-5)
    assert (found.ece.value, found.ece.low) == pytest.approx((0.1, 0.08))
    text = refusal(reliability.sentence, reliability.diagrams(odd))
    assert "fewshot and knn give none" in text
    assert "--protocol linear" in text


def test_revisions_and_splits_are_named_where_they_must() -> None:
    values = np.full(40, 0.7)
    results = [
        with_ece(make_result(), values),
        with_ece(make_result(revision="other-revision"), values),
        with_ece(make_result(split="another"), values),
    ]
    found = reliability.diagrams([*results, results[0]])
    assert {(d.model, d.task) for d in found} == {
        ("random:resnet18@seed0", f"dtd~{split_hash('dtd')[:8]}"),
        ("random:resnet18@other-r", f"dtd~{split_hash('dtd')[:8]}"),
        ("random:resnet18@seed0", f"dtd~{split_hash('dtd', 'another')[:8]}"),
    }


def diagram(
    model: str = "m", task: str = "t", ece: float = 0.1, confidence: float = 0.8
) -> Diagram:
    only = Bin(confidence - 0.05, confidence, 10, confidence, 0.6, 0.3, 0.85)
    interval = intervals.Interval(ece, ece - 0.01, ece + 0.02)
    return Diagram(task, "linear", "", model, (only,), interval, 10, confidence, 0.6)


def test_sentence() -> None:
    found = [diagram("a", ece=0.2), diagram("b", ece=0.05), diagram("c", confidence=0.5)]
    assert reliability.sentence(found) == (
        "Best calibrated of 3: b on t (linear) has an ECE of 5.0 ±1.5 %, worst: a on t (linear) "
        "has an ECE of 20.0 ±1.5 %; on the whole they are over-confident (mean confidence is 10.0 "
        "points above accuracy; so are 2 of 3)."
    )
    assert reliability.sentence(found[2:]) == (
        "c on t (linear) has an ECE of 10.0 ±1.5 % and is under-confident (mean confidence is "
        "10.0 points below accuracy)."
    )
    even = [diagram("a", confidence=0.7), diagram("b", confidence=0.5)]
    assert "neither over- nor under-confident (mean confidence equals" in reliability.sentence(even)


def test_figure() -> None:
    found = [diagram("a", "t"), diagram("b", "u"), diagram("hf-hub:x/$y^_\ud800 " + "n" * 90, "t")]
    picture = reliability.figure(found)
    assert len(picture.axes) == 6
    texts = [t.get_text() for axis in picture.axes for t in axis.texts]
    assert texts.count("no result") == 3
    assert texts.count("ECE 10.0 ±1.5 %") == 3
    picture.draw_without_rendering()  # foreign names are no formulas
    many = [diagram(f"m{i}", f"t{j}") for i in range(7) for j in range(9)]
    text = refusal(reliability.figure, many)
    assert "63 panels, more than 60; choose with --task, --protocol or --model" in text


# ---- the command


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of two models under three protocols; finetune's head is trained for one epoch."""
    folder = tmp_path_factory.mktemp("calibration")
    photos = make_task(folder / "photos", classes=3, train=12, test=20)
    run = [
        "run", *MODELS, "--task", f"parquet:{photos}", "--protocol", "linear", "linear-sgd", "knn",
        "--grid", "small", "--set", "linear-sgd.epochs=2", "--results", str(folder / "r"),
        "--cache", str(folder / "cache"), "--device", "cpu", "--img-size", "24",
    ]  # fmt: skip
    assert main(run) == 0
    return folder / "r"


def test_a_run_keeps_its_confidences(ran: Path) -> None:
    results = [r for _, r in read_shelf(ran).results]
    assert {r.protocol.name for r in results if r.confidence is None} == {"knn"}
    found = reliability.diagrams(results)
    assert len(found) == 4
    for each in found:
        assert each.images == 60
        assert ece_of(each.bins) == pytest.approx(each.ece.value, abs=1e-3)
        assert each.confidence >= 1 / 3 - 1e-4


def test_command(ran: Path, cli: Cli, tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    done = cli("reliability", "--results", ran, "--out", picture)
    assert (done.code, done.err) == (0, "")
    path, sentence = done.out.splitlines()
    assert Path(path) == picture.resolve()
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert sentence.startswith("Best calibrated of 4: random:test_resnet")
    done = cli(
        "reliability", "--results", ran, "--out", tmp_path / "a.svg", "--json",
        "--protocol", "linear", "--model", f"{MODELS[0]} @24px",
    )  # fmt: skip
    (only,) = done.json
    assert (only["protocol"], only["images"]) == ("linear", 60)
    assert sum(b["count"] for b in only["bins"]) == 60
    assert "<svg" in (tmp_path / "a.svg").read_text()


@pytest.mark.parametrize(
    ("rest", "why"),
    [
        (["--task", "dtd"], "no result of task 'dtd' here; there are parquet-photos-"),
        (["--task", "parquet-photos"], "did you mean 'parquet-photos-"),
        (["--protocol", "finetune"], "'finetune' here; there are knn, linear, linear-sgd"),
        (["--model", "random:vit"], "no result of model 'random:vit' here"),
        (["--protocol", "knn"], "no result here has probabilities: fewshot and knn give none"),
        (["--out", "a.pdf"], "--out 'a.pdf' must end in .png or .svg"),
        (["--results", "/nowhere"], "does not exist"),
    ],
)
def test_mistakes(ran: Path, cli: Cli, tmp_path: Path, rest: list[str], why: str) -> None:
    done = cli("reliability", "--results", ran, "--out", tmp_path / "a.png", *rest)
    assert (done.code, done.out) == (2, "")
    assert why in done.err
    assert done.err.count("\n") == 1
    assert not list(tmp_path.iterdir())
