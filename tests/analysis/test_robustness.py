"""`transfer-eval analyze robustness`: corrupted test images under the head of clean ones."""

from __future__ import annotations

import base64
import json
import math
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from eval.__main__ import main
from eval.analysis import Robustness, corrupted_features, plots, robustness
from eval.analysis.analyze import analyze
from eval.analysis.corrupted_features import Condition, Corrupted, seed_of
from eval.analysis.finding import Finding, read_findings
from eval.analysis.measures.corruptions import CORRUPTIONS, corrupt
from eval.analysis.robustness import calibration_error, intervals
from eval.analysis.study import Study
from eval.common.distributed import Workers
from eval.common.errors import UserError
from eval.common.images import decode
from eval.data.load import load_task
from eval.data.task_data import TaskData
from eval.features.encode import encode
from eval.features.precision import Precision, forward, prepared
from eval.metrics.intervals import DRAWS, accuracy, expected_calibration_error
from eval.models.backbone import load
from eval.models.names import ZOO_FOLDER
from eval.models.resolve import resolve
from eval.protocols.linear import fit_head
from eval.results.store import read_shelf
from tests.factories import make_task, refusal

# In the order of the page's columns.
SIX = ("ce", "ce-strong", "selfsupcon", "supcon", "ce_selfsupcon", "supcon_selfsupcon")

MODELS = ("random:test_resnet", "random:test_resnet@1")
SIZE = 32
SETTINGS = Robustness(("contrast", "gaussian_noise"), (5, 1))
CONDITIONS = [
    Condition(name, severity) for name in ("gaussian_noise", "contrast") for severity in (1, 5)
]

Count = list[tuple[str, int, int]]  # (corruption, severity, seed) of each call


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_task(tmp_path_factory.mktemp("robust") / "photos", classes=3, train=12, test=8)


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that tests share."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def task(photos: Path, warm: Path) -> TaskData:
    return load_task(f"parquet:{photos}", warm)


@pytest.fixture(scope="module")
def finding(photos: Path, warm: Path) -> Finding:
    task = load_task(f"parquet:{photos}", warm)
    return analyze(
        "robustness", MODELS, [task], warm, settings=SETTINGS, img_size=SIZE, device="cpu"
    )


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Count:
    """What is corrupted while a test runs."""
    seen: Count = []

    def counted(pixels: Any, name: str, severity: int, seed: int) -> Any:
        seen.append((name, severity, seed))
        return corrupt(pixels, name, severity, seed)

    monkeypatch.setattr(corrupted_features, "corrupt", counted)
    return seen


def again(task: TaskData, cache: Path, **changed: Any) -> Finding:
    facts: dict[str, Any] = {"settings": SETTINGS, "img_size": SIZE, "device": "cpu"}
    return analyze("robustness", MODELS, [task], cache, **facts | changed)


def copied(warm: Path, tmp_path: Path) -> Path:
    """A cache that holds the clean banks and no corrupted ones."""
    new = tmp_path / "copy"
    shutil.copytree(warm, new)
    for bank in (new / "banks").glob("*.safetensors"):
        if b'"train_rows": "0"' in bank.read_bytes()[:4000]:
            bank.unlink()
    return new


def values_of(finding: Finding, model: str = MODELS[0]) -> dict[str, Any]:
    (found,) = finding.values["models"][model].values()
    return found


def hits_of(found: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(base64.b64decode(found["hits"]), np.uint8)


def test_clean_numbers_are_those_of_the_protocol_linear(
    finding: Finding, photos: Path, warm: Path, tmp_path: Path
) -> None:
    places = ["--results", str(tmp_path), "--cache", str(warm)]
    rest = ["--protocol", "linear", "--device", "cpu", "--img-size", str(SIZE), *places]
    assert main(["run", *MODELS, "--task", f"parquet:{photos}", *rest]) == 0
    results = {r.model.id: r for _, r in read_shelf(tmp_path).results}
    assert set(results) == set(MODELS)
    for model, result in results.items():
        clean = values_of(finding, model)["clean"]
        scores = {s.name: s for s in result.scores}
        assert clean["top1"] == scores["top1"].value
        # over the test images alone: the corrupted ones are of the same training
        images = accuracy(result.samples["top1"].values() > 0)
        assert (clean["low"], clean["high"]) == pytest.approx((images.low, images.high), abs=1e-6)
        assert scores["top1"].ci_low < clean["low"]
        assert clean["high"] <= scores["top1"].ci_high
        assert (clean["ece"], clean["nll"]) == (scores["ece"].value, scores["nll"].value)


def test_a_condition_done_by_hand(finding: Finding, task: TaskData, warm: Path) -> None:
    backbone = load(resolve(MODELS[0], warm, SIZE))
    workers = Workers("cpu")
    bank = encode(backbone, task, warm, workers).bank
    precision = Precision.parse(bank.precision)
    mean, std = (
        torch.tensor(backbone.input_config[k]).view(1, 3, 1, 1) * 255 for k in ("mean", "std")
    )
    images = dict(task.test.source.images(np.sort(task.test.rows)))
    pixels = []
    for row, image_hash in zip(task.test.rows.tolist(), task.test.hashes, strict=True):
        clean = np.asarray(backbone.transform(decode(images[row]))).transpose(1, 2, 0)
        assert clean.shape == (SIZE, SIZE, 3)
        seed = int(image_hash.tobytes()[:8].hex(), 16)
        pixels.append(corrupt(np.ascontiguousarray(clean), "contrast", 5, seed).transpose(2, 0, 1))
    batch = (torch.from_numpy(np.stack(pixels)).float() - mean) / std
    with prepared(backbone.net, workers.device, precision) as net:
        wanted = forward(net, batch, precision)

    study = Study((), (task,), warm, workers)
    kept = Corrupted(study, task, [(backbone, precision)], CONDITIONS)
    features = kept.features(backbone, Condition("contrast", 5))
    torch.testing.assert_close(features, wanted, atol=1e-5, rtol=1e-5)
    probability = fit_head(bank, task).probability(wanted)
    right = probability.argmax(1) == task.test.labels
    found = values_of(finding)["conditions"]["contrast"]
    assert found["top1"][1] == round(right.mean(), 6)
    ece = expected_calibration_error(probability.max(1), right, 0).value
    assert found["ece"][1] == pytest.approx(ece, abs=1e-5)


def test_values(finding: Finding) -> None:
    values = finding.values
    assert values["severities"] == [1, 5]
    assert values["corruptions"] == ["gaussian_noise", "contrast"]  # in the order of the groups
    assert list(values["models"]) == list(MODELS)
    found = values_of(finding)
    top1 = np.array([v["top1"] for v in found["conditions"].values()])
    ece = np.array([v["ece"] for v in found["conditions"].values()])
    assert found["corrupted"]["top1"] == pytest.approx(top1.mean(), abs=2e-6)
    assert found["corrupted"]["ece"] == pytest.approx(ece.mean(), abs=2e-6)
    assert found["by_severity"]["top1"] == pytest.approx(top1.mean(0), abs=2e-6)
    assert found["by_severity"]["ece"] == pytest.approx(ece.mean(0), abs=2e-6)
    hits = hits_of(found)
    assert hits.shape == (24,)
    assert hits.max() <= 4
    assert hits.mean() / 4 == pytest.approx(top1.mean(), abs=1e-6)
    lost = 1 - found["corrupted"]["top1"] / found["clean"]["top1"]
    assert found["drop"]["value"] == pytest.approx(lost, abs=1e-5)
    assert finding.seconds["encode"] > 0
    json.dumps(values, allow_nan=False)


def test_a_second_run_corrupts_and_encodes_nothing(
    finding: Finding, task: TaskData, warm: Path, calls: Count
) -> None:
    second = again(task, warm)
    assert second.values == finding.values
    assert calls == []
    assert second.seconds["encode"] == 0
    one = again(task, warm, settings=Robustness(("contrast",), (5,)))
    assert calls == []
    wanted = values_of(finding)["conditions"]["contrast"]["top1"][1:]
    assert values_of(one)["conditions"] == {
        "contrast": {"top1": wanted, "ece": values_of(finding)["conditions"]["contrast"]["ece"][1:]}
    }


def test_models_of_one_transform_share_the_pixels(
    finding: Finding, task: TaskData, warm: Path, tmp_path: Path, calls: Count
) -> None:
    cache = copied(warm, tmp_path)
    assert again(task, cache).values == finding.values
    seeds = {seed_of(h) for h in task.test.hashes}
    assert len(calls) == len(set(calls)) == 4 * len(task.test)
    assert set(calls) == {(c.name, c.severity, s) for c in CONDITIONS for s in seeds}


def test_chunks_give_the_same(
    finding: Finding,
    task: TaskData,
    warm: Path,
    tmp_path: Path,
    calls: Count,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        corrupted_features, "CHUNK_BYTES", 7 * 3 * SIZE * SIZE
    )  # 24 images: 7, 7, 7, 3
    cache = copied(warm, tmp_path)
    before = len(list((cache / "banks").iterdir()))
    found = again(task, cache)
    for model in MODELS:
        assert (hits_of(values_of(found, model)) == hits_of(values_of(finding, model))).all()
    assert len(calls) == 4 * len(task.test)
    assert len(list((cache / "banks").iterdir())) - before == 4 * len(CONDITIONS) * len(MODELS)
    calls.clear()
    again(task, cache)
    assert calls == []


def test_an_interrupted_run_goes_on(
    finding: Finding,
    task: TaskData,
    warm: Path,
    tmp_path: Path,
    calls: Count,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cache = copied(warm, tmp_path)
    write = corrupted_features.write_bank
    written = 0

    def failing(*args: Any, **kwargs: Any) -> None:
        nonlocal written
        if written == 3:  # both models' first condition, and one model's second
            raise KeyboardInterrupt
        written += 1
        write(*args, **kwargs)

    monkeypatch.setattr(corrupted_features, "write_bank", failing)
    with pytest.raises(KeyboardInterrupt):
        again(task, cache)
    assert len(calls) == 2 * len(task.test)
    monkeypatch.setattr(corrupted_features, "write_bank", write)
    calls.clear()
    assert again(task, cache).values == finding.values
    assert len(calls) == 3 * len(task.test)
    assert not list((cache / "banks").glob(".*"))


def test_the_order_of_rows_does_not_matter(
    finding: Finding, photos: Path, task: TaskData, warm: Path, tmp_path: Path, calls: Count
) -> None:
    """The same images in other rows of a file are the same task with the same corrupted pixels."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    for file in photos.glob("*.parquet"):
        table = pq.read_table(file)
        pq.write_table(table.take(np.arange(len(table))[::-1].copy()), folder / file.name)
    mirror = load_task(f"parquet:{folder}", tmp_path / "cache")
    assert mirror.test.rows.tolist() != task.test.rows.tolist()
    cache = copied(warm, tmp_path)
    (found,) = again(mirror, cache).values["models"][MODELS[0]].values()
    assert found == values_of(finding)
    assert len(calls) == 4 * len(task.test)


class Ranked:
    """One of several processes; what the main one finds missing is found once for all."""

    def __init__(self, rank: int, count: int) -> None:
        self.rank, self.count, self.main = rank, count, rank == 0
        self.device = torch.device("cpu")
        self.found: list[Any] = []

    def together(self, work: Callable[[], Any]) -> Any:
        return work()

    def broadcast(self, value: Any) -> Any:
        if self.main:
            self.found.append(value)
        return self.found[0]


def test_processes_share_the_conditions(
    finding: Finding, task: TaskData, warm: Path, tmp_path: Path, calls: Count
) -> None:
    cache = copied(warm, tmp_path)
    backbone = load(resolve(MODELS[0], cache, SIZE))
    precision = Precision.parse(encode(backbone, task, cache, Workers("cpu")).bank.precision)
    shares, found = [], []
    for rank in range(3):
        workers = Ranked(rank, 3)
        workers.found = found  # 4 conditions for 3 processes
        study = Study((), (task,), cache, workers)  # type: ignore[arg-type]
        Corrupted(study, task, [(backbone, precision)], CONDITIONS).encode()
        shares.append({(name, severity) for name, severity, _ in calls})
        calls.clear()
    assert sorted(map(len, shares)) == [1, 1, 2]
    assert set.union(*shares) == {(c.name, c.severity) for c in CONDITIONS}
    again(task, cache)
    assert len(calls) == 4 * len(task.test)  # of the other model alone; the first has its banks


def test_intervals_against_a_naive_bootstrap() -> None:
    random = np.random.RandomState(3)
    clean = random.random_sample(60) < 0.8
    corrupted_features = random.randint(0, 11, 60) / 10
    top1, drop = intervals(clean, corrupted_features, seed=5)
    draws = np.random.RandomState(5).randint(60, size=(DRAWS, 60))
    naive = [
        (corrupted_features[d].mean(), 1 - corrupted_features[d].mean() / clean[d].mean())
        for d in draws
    ]
    low, high = np.quantile(naive, [0.025, 0.975], axis=0)
    assert [top1.low, drop.low] == pytest.approx(low)
    assert [top1.high, drop.high] == pytest.approx(high)
    assert drop.value == pytest.approx(1 - corrupted_features.mean() / clean.mean())
    _, undefined = intervals(np.zeros(60, bool), corrupted_features, seed=5)
    assert math.isnan(undefined.value)


def test_calibration_error_is_that_of_the_scores() -> None:
    random = np.random.RandomState(0)
    confidence = np.append(random.random_sample(500), [0.0, 1.0])
    right = random.random_sample(502) < confidence**2
    wanted = expected_calibration_error(confidence, right, 0).value
    assert calibration_error(confidence, right) == pytest.approx(wanted, abs=1e-12)


def test_shown(finding: Finding, tmp_path: Path) -> None:
    header, lines = robustness.table(finding)
    assert [len(line) for line in lines] == [len(header)] * 2
    assert lines[0][-1] == "-"
    one, other = (values_of(finding, m) for m in MODELS)
    gap = robustness.difference(other, one)
    wanted = other["corrupted"]["top1"] - one["corrupted"]["top1"]
    assert gap.value == pytest.approx(wanted, abs=2e-6)
    assert lines[1][-1].startswith(f"{100 * gap.value:+.1f} [")
    kept = {m: values_of(finding, m)["corrupted"]["top1"] for m in MODELS}
    text = finding.sentence
    assert f"of 2 corruptions at 2 severities {max(kept, key=kept.__getitem__)} keeps most" in text
    assert "costs most" in text
    assert "mean ECE" in text
    file = plots.saved(partial(robustness.figure, finding), tmp_path / "robust.svg")
    assert "<svg" in file.read_text()


def test_one_model_whose_answers_are_all_wrong(finding: Finding) -> None:
    """Nothing can be lost: the drop is undefined, and is not shown."""
    model = json.loads(json.dumps(finding.values["models"][MODELS[0]]))
    (found,) = model.values()
    found["clean"]["top1"] = 0.0
    found["drop"] = {"value": None, "low": None, "high": None}
    values = finding.values | {"models": {"m": model, "n": model}}
    changed = finding.model_copy(update={"values": values})
    assert "nan" not in robustness.sentence(changed)
    assert robustness.table(changed)[1][0][4] == "-"
    alone = finding.model_copy(update={"values": finding.values | {"models": {"m": model}}})
    text = robustness.sentence(alone)
    assert " m keeps " in text
    assert "most" not in text.split(";")[0]


def test_models_of_unlike_sizes_are_noted(finding: Finding, task: TaskData, warm: Path) -> None:
    small, large = (load(resolve(MODELS[0], warm, size)) for size in (32, 64))
    study = Study((), (task,), warm, Workers("cpu"))
    robustness._check_sizes(study, [small, small])
    assert study.notes == finding.notes == []
    robustness._check_sizes(study, [small, large])
    (note,) = study.notes
    assert "32 x 32 and 64 x 64 pixels" in note
    assert "not strictly comparable" in note
    assert corrupted_features.alike({"a": small, "b": large, "c": small}) == [["a", "c"], ["b"]]


def test_refusals(task: TaskData, tmp_path: Path, calls: Count) -> None:
    cache = tmp_path / "untouched"

    def tried(img_size: int = SIZE, **settings: Any) -> str:
        return refusal(lambda: again(
            task, cache, settings=Robustness(**settings), img_size=img_size,
        ))  # fmt: skip

    assert "no corruption 'fogg'; did you mean 'fog'" in tried(corruptions=("fogg",))
    assert "from 1 to 5, got 6" in tried(severities=(1, 6))
    assert "severities is empty" in tried(severities=())
    assert "takes images of 8 x 8 pixels" in tried(img_size=8)
    assert calls == []
    assert not (cache / "banks").exists()


def test_all_conditions_are_the_default() -> None:
    found = robustness._conditions(Robustness())
    assert len(found) == 75
    assert [c.name for c in found[::5]] == list(CORRUPTIONS)


def test_damaged_features_are_said(
    finding: Finding, task: TaskData, warm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = copied(warm, tmp_path)
    monkeypatch.setattr(
        corrupted_features,
        "forward",
        lambda net, images, precision: torch.full((len(images), 4), math.nan),
    )
    with pytest.raises(UserError, match=r"not finite .* under gaussian_noise 1"):
        again(task, cache)


def test_command(
    finding: Finding,
    photos: Path,
    warm: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    calls: Count,
) -> None:
    rest = ["--task", f"parquet:{photos}", "--results", str(tmp_path), "--cache", str(warm),
            "--device", "cpu", "--img-size", str(SIZE)]  # fmt: skip
    start = ["analyze", "robustness", *MODELS, *rest, "--set"]
    chosen = ['corruptions=["contrast", "gaussian_noise"]', "severities=[1,5]"]
    picture = tmp_path / "robust.png"
    assert main([*start, *chosen, "--out", str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    out = capsys.readouterr().out
    assert finding.sentence in out
    assert "relative drop %" in out
    assert main([*start, *chosen, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["models"] == finding.values["models"]
    assert len(list((tmp_path / "analyses" / "robustness").glob("*.json"))) == 1
    assert main([*start, 'corruptions=["fogg"]']) == 2
    assert "did you mean 'fog'" in capsys.readouterr().err
    assert calls == []


def test_the_page_s_table_is_that_of_the_shipped_findings() -> None:
    """And what eval/analysis/README.md says of the joint objectives on both sets."""
    page = (Path(__file__).resolve().parents[2] / "eval" / "analysis" / "README.md").read_text()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines()]
    first = next(i for i, row in enumerate(rows) if row[0].startswith("corrupted top-1, eurosat"))
    text = " ".join(page.split())
    found = {f.tasks[0].name: f for _, f in read_findings(ZOO_FOLDER) if f.analysis == "robustness"}
    assert list(found) == ["dtd", "eurosat"]
    for i, task in enumerate(("eurosat", "dtd")):
        values = found[task].values
        assert (len(values["corruptions"]), values["severities"]) == (15, [1, 2, 3, 4, 5])
        six = [values["models"][f"zoo:resnet18_narrow.{name}_tin100"][task] for name in SIX]
        assert rows[first + i][1:7] == [f"{100 * v['corrupted']['top1']:.1f}" for v in six]
        assert rows[first + 2 + i][1:7] == [f"{100 * v['drop']['value']:.1f}" for v in six]
        for joint, alone in ((4, 0), (5, 3)):
            gap = robustness.difference(six[joint], six[alone])
            assert f"{100 * gap.value:+.1f}" in text
            assert f"{100 * gap.low:+.1f} to {100 * gap.high:+.1f}" in text
