"""Detection through the command line: run, board, plan, compare, verify, a kept detector."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import eval.__main__
from eval.detection.saved_model import load_detector
from eval.protocols import detection as protocol
from eval.protocols.task_schedule import resolved
from eval.results.schema import Result
from eval.results.store import read_result
from eval.run.plan import Request, plan
from eval.settings.protocols import Detection
from tests.data.boxes.make import MODEL, SHAPES, SMALL, flags, make_setup, scenes, write_set
from tests.detection.drawn import write_coco
from tests.factories import Cli, Ran, make_task

ITERATIONS = 8
SCORES = ["ap", "ap50", "ap75"]
OTHER = "random:test_efficientnet"
Run = Callable[..., list[str | Path]]


@pytest.fixture(scope="module")
def like(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("sets") / "like", tall=0)


@pytest.fixture
def run(like: Path, tmp_path: Path) -> Run:
    """The arguments of a short run."""

    def arguments(*more: str | Path, model: str = MODEL, n: int = ITERATIONS) -> list[str | Path]:
        return ["run", model, "--task", f"parquet:{like}", *common(tmp_path, n), *more]

    return arguments


def common(folder: Path, n: int = ITERATIONS) -> list[str | Path]:
    return [
        "--schedule", f"short:{n}", "--set", *flags({**SMALL, "lr": 0.02}), "--device", "cpu",
        "--precision", "fp32", "--cache", folder / "c", "--results", folder / "r",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def shelf(like: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of two models, and of one of them with another seed."""
    folder = tmp_path_factory.mktemp("shelf")
    for models, seed in (((MODEL, OTHER), 0), ((MODEL,), 1)):
        arguments = ["run", *models, "--task", f"parquet:{like}", *common(folder)]
        arguments += ["--seed", str(seed)]
        assert eval.__main__.main([str(a) for a in arguments]) == 0
    return folder


def results(folder: Path, model: str = MODEL) -> list[Result]:
    """Of one model, by seed."""
    found = [read_result(path) for path in folder.rglob("*.json") if ".model" not in str(path)]
    return sorted((r for r in found if r.model.id == model), key=lambda r: r.seed)


def only(folder: Path) -> Path:
    (file,) = (path for path in folder.rglob("*.detection*.json") if path.name != "config.json")
    return file


def fails(ran: Ran, words: str) -> None:
    """In one sentence, before anything is written."""
    assert ran.code == 2
    (line,) = ran.err.strip().splitlines()
    assert words in line
    assert ran.out == ""


# ---- what a run leaves behind


def test_a_result(shelf: Path) -> None:
    result, other = results(shelf / "r")
    assert [s.name for s in result.scores][:3] == SCORES
    for score in result.scores:
        assert score.n == 8
        assert math.isnan(score.value) or score.ci_low <= score.value <= score.ci_high
        assert not score.value > 1
    assert set(SCORES) <= set(result.samples)
    for samples in result.samples.values():
        assert (samples.unit, samples.n, samples.of) == ("resample", 1000, 8)
    assert result.protocol.name == "detection"
    assert result.protocol.config["schedule"] == f"short:{ITERATIONS}"
    assert result.protocol.config["sides"] == [48, 64]
    assert result.task.counts == {"classes": 2, "train": 10, "test": 8}
    assert result.environment.dtype == result.precision == "fp32"
    assert result.seconds["encode"] == 0
    assert result.seconds["fit"] > 0
    details = result.details
    settings = Detection(schedule=f"short:{ITERATIONS}", lr=0.02, **SMALL)
    wanted = dataclasses.asdict(resolved(settings))
    assert details["schedule"] == json.loads(json.dumps(wanted))
    assert details["classes"] == list(SHAPES)
    assert [row["name"] for row in details["per_class"]] == list(SHAPES)
    assert {"iteration", "loss_box_reg"} <= details["losses"][-1].keys()
    assert details["images_seen"] == 4 * ITERATIONS
    assert details["micro_batch"] == 4
    assert [e["row"] for e in details["examples"]] == list(range(8))
    for example in details["examples"]:
        assert len(example["boxes"]) == len(example["scores"]) == len(example["labels"]) <= 25
        assert len(example["hash"]) == len(result.details["examples"][0]["hash"])
    assert (result.seed, other.seed) == (0, 1)
    assert details["losses"] != other.details["losses"]
    assert [s.value for s in result.scores] != [s.value for s in other.scores]
    assert not list((shelf / "c").glob("detection/*/*"))


def test_a_second_run_finds_the_first(run: Run, cli: Cli, tmp_path: Path) -> None:
    ran = cli(*run())
    assert ran.code == 0, ran.err
    assert "1 scored, 0 already there, 0 failed" in ran.out
    file = only(tmp_path / "r")
    assert f"detection@schedule=short-{ITERATIONS}" in file.name
    first = file.read_bytes()
    again = cli(*run("--json"))
    assert (again.json["scored"], again.json["reused"]) == (0, 1)
    assert file.read_bytes() == first
    more = cli(*run(n=ITERATIONS + 1))  # another schedule is another number
    assert "1 scored, 0 already there" in more.out
    assert len(results(tmp_path / "r")) == 2


def test_the_board_names_the_schedule(shelf: Path, cli: Cli) -> None:
    out = cli("leaderboard", "--results", shelf / "r").out
    titles = [line for line in out.splitlines() if line.startswith("detection,") and "%" in line]
    assert any("AP50" in title for title in titles)
    assert all(f"short:{ITERATIONS}" in title for title in titles)
    assert MODEL in out
    assert OTHER in out


def test_compare(shelf: Path, cli: Cli) -> None:
    """B with A is A with B the other way round."""
    one, other = (
        cli("compare", *models, "--results", shelf / "r", "--json").json
        for models in ((MODEL, OTHER), (OTHER, MODEL))
    )
    assert {c["score"] for c in one} >= set(SCORES)
    for mine, theirs in zip(one, other, strict=True):
        assert mine["score"] == theirs["score"]
        assert (mine["a"], mine["b"]) == (theirs["b"], theirs["a"])
        ((here,), (there,)) = mine["tasks"], theirs["tasks"]
        assert (here["a"], here["b"]) == (there["b"], there["a"])
        a, b = here, there
        assert a["difference"]["value"] == pytest.approx(-b["difference"]["value"])
        assert a["difference"]["low"] == pytest.approx(-b["difference"]["high"])
        assert a["p_value"] == pytest.approx(b["p_value"])
        assert (a["wins"], a["losses"]) == (b["losses"], b["wins"])
    assert "detection" in cli("compare", MODEL, OTHER, "--results", shelf / "r").out


def test_verify(shelf: Path, cli: Cli, tmp_path: Path) -> None:
    files = [p for p in shelf.rglob("*.detection*.json") if "seed=1" in p.name]
    verified = cli("verify", files[0], "--cache", tmp_path / "c")
    assert (verified.code, verified.out.splitlines()[0]) == (0, "equal"), verified.out
    held = json.loads(files[0].read_text())
    held["scores"][1]["value"] += 0.01
    changed = tmp_path / "changed.json"
    changed.write_text(json.dumps(held))
    verified = cli("verify", changed, "--cache", tmp_path / "c")
    assert (verified.code, verified.out.splitlines()[0]) == (1, "differs")
    assert "ap50: " in verified.out


def test_a_plan(run: Run, cli: Cli, tmp_path: Path) -> None:
    _, *rest = run(n=10_000)
    (cost,) = cli("plan", *rest, "--json").json
    assert (cost["cells"], cost["done"], cost["images"]) == (1, 0, 0)
    assert 10 < cost["training"] < 36_000
    assert not list((tmp_path / "r").rglob("*.json"))
    assert "training minutes" in cli("plan", *rest).out


def test_the_schedule_of_a_task_that_names_none(like: Path, tmp_path: Path) -> None:
    for asked, wanted in (("", "short:600"), ("short:9", "short:9")):
        request = Request(
            [MODEL], [f"parquet:{like}"], {"detection": Detection(schedule=asked)},
            tmp_path / "c", tmp_path / "r",
        )  # fmt: skip
        (cell,) = plan(request)
        assert cell.settings == Detection(schedule=wanted)
        assert f"schedule={wanted.replace(':', '-')}" in cell.path.name


def test_a_coco_folder(tmp_path: Path, cli: Cli) -> None:
    """The same command for a folder in COCO's layout, whose sets are not scored by VOC's rules."""
    parts = {"train": scenes(6, 1), "test": scenes(5, 2)}
    folder = write_coco(tmp_path / "coco", parts)
    ran = cli("run", MODEL, "--task", f"coco:{folder}", *common(tmp_path, 4))
    assert ran.code == 0, ran.err
    result = read_result(only(tmp_path / "r"))
    assert [s.name for s in result.scores][:3] == SCORES
    assert not any(s.name.startswith("voc") for s in result.scores)
    assert result.task.counts["test"] == 5


# ---- a kept detector


@pytest.mark.slow
def test_a_kept_detector(
    run: Run, cli: Cli, like: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is trained again for a cell that was scored without, and finds what was scored."""
    monkeypatch.setattr(protocol, "EXAMPLE_SCORE", 0.06)
    assert cli(*run(n=30)).code == 0
    file = only(tmp_path / "r")
    before = read_result(file)
    assert not list(tmp_path.rglob("*.model"))
    ran = cli(*run("--keep-model", n=30))
    assert "1 scored, 0 already there" in ran.out, ran.err
    (kept,) = tmp_path.rglob("*.model")
    assert kept == file.with_name(file.name.removesuffix(".json") + ".model")
    result = read_result(file)
    assert result.scores == before.scores
    assert result.details["examples"] == before.details["examples"]
    stamp = file.stat().st_mtime_ns
    assert "0 scored, 1 already there" in cli(*run("--keep-model", n=30)).out
    assert file.stat().st_mtime_ns == stamp

    loaded = load_detector(kept, "cpu")
    assert loaded.classes == SHAPES
    assert loaded.config["task"]["split_hash"] == result.task.split_hash
    assert loaded.config["schedule"] == "short:30"
    setup = make_setup(like, tmp_path / "c")
    split = setup.task.test
    images = []
    for example in result.details["examples"]:
        row = split.rows[example["row"]]
        ((_, data),) = split.source.images(np.array([row]))
        images.append(tmp_path / f"{example['row']}.png")
        images[-1].write_bytes(data)
        assert split.hashes[example["row"]].tobytes().hex() == example["hash"]
    boxes = 0
    for example, found in zip(
        result.details["examples"], loaded.detect(images, least=0.06), strict=True
    ):
        n = min(len(example["boxes"]), len(found.scores))
        # Of those at the edge of 0.06 one may be told here and not there.
        assert abs(len(example["boxes"]) - min(25, len(found.scores))) <= 1
        boxes += n
        np.testing.assert_allclose(found.scores[:n], example["scores"][:n], atol=2e-3)
        np.testing.assert_allclose(
            found.boxes[:n], np.reshape(example["boxes"], (-1, 4))[:n], atol=0.11
        )
        assert found.labels[:n].tolist() == example["labels"][:n]
    assert boxes > 10  # there was something to compare

    drawn = cli("detect", kept, *images[:2], "--out", tmp_path / "out", "--least", "0.06", "--json")
    assert drawn.code == 0, drawn.err
    for path, one in zip(images[:2], drawn.json, strict=True):
        assert Image.open(one["drawn"]).size[0] >= Image.open(path).size[0]
        assert {o["class"] for o in one["objects"]} <= set(SHAPES)
    assert len(list((tmp_path / "out").glob("*.png"))) == 2


# ---- what goes together


def test_protocols_that_cannot_score_the_task(
    run: Run, cli: Cli, like: Path, tmp_path: Path
) -> None:
    base = ["--cache", tmp_path / "c", "--results", tmp_path / "r"]
    photos = make_task(tmp_path / "photos", classes=2, train=6, test=4)
    fails(
        cli("run", MODEL, "--task", f"parquet:{like}", "--protocol", "knn", "linear", *base),
        "has boxes; protocol knn, linear cannot score it, detection, low-level can",
    )
    fails(
        cli("run", MODEL, "--task", f"parquet:{photos}", "--protocol", "detection", *base),
        "has one label an image; protocol detection cannot score it",
    )
    ran = cli(
        "run", MODEL, "--task", f"parquet:{photos}", "--protocol", "knn", "--schedule", "short:4",
        *base,
    )  # fmt: skip
    fails(ran, "--schedule has no effect with protocol knn")
    fails(cli(*run("--schedule", "voc")), "unknown schedule 'voc'")
    fails(cli(*run("--protocol", "detection", "--set", "detection.neck=foo")), "fpn, c4")
    assert not list((tmp_path / "r").rglob("*.json"))


def test_each_kind_of_task_has_its_defaults(like: Path, cli: Cli, tmp_path: Path) -> None:
    photos = make_task(tmp_path / "photos", classes=2, train=6, test=4)
    ran = cli(
        "run", MODEL, "--task", f"parquet:{photos}", f"parquet:{like}", "--shots", "1",
        "--n-way", "2", "--queries", "2", "--episodes", "5", "--img-size", "32",
        *common(tmp_path, 4), "--json",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    found = {(r.task.name.split("-")[1], r.protocol.name) for r in results(tmp_path / "r")}
    assert found == {
        ("photos", "fewshot"), ("photos", "knn"), ("photos", "linear"), ("like", "detection"),
    }  # fmt: skip


def test_a_training_that_diverges_is_one_failed_cell(run: Run, cli: Cli, tmp_path: Path) -> None:
    ran = cli(*run("--set", "detection.lr=1e6"))
    assert ran.code == 2
    assert "is not a finite number any more" in ran.err
    assert "Traceback" not in ran.err
    assert not list((tmp_path / "r").rglob("*.json"))
