"""A result's precision: by a rule, in the name of its file, and a board of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import eval as evaluator
from eval.results import leaderboard
from eval.results.names import shelf_path
from eval.results.schema import Result
from eval.results.store import read_result
from tests.factories import Cli, make_task

MODEL = "random:test_convnext"


@pytest.fixture
def declares_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that declares bf16, as CUDA devices do; the CPU computes in its place."""
    monkeypatch.setattr("eval.features.precision.device_format", lambda device: "bf16")


@pytest.fixture
def photos(tmp_path: Path) -> str:
    return f"parquet:{make_task(tmp_path / 'photos', classes=3, train=12, test=8)}"


class Bench:
    """One model on one task under knn, into one results folder."""

    def __init__(self, task: str, folder: Path) -> None:
        self.task, self.cache, self.results = task, folder / "cache", folder / "results"

    def run(self, precision: str | None = None) -> Result:
        (result,) = evaluator.evaluate(
            MODEL, self.task, ["knn"], results=self.results, cache=self.cache, img_size=32,
            device="cpu", precision=precision,
        )  # fmt: skip
        return result

    def files(self) -> dict[str, Result]:
        """By what stands behind the task's and the protocol's name."""
        found = {p: read_result(p) for p in self.results.rglob("*.json")}
        for path, result in found.items():
            assert path == self.results / shelf_path(result)
        return {p.name.partition(".knn")[2].removesuffix(".json"): r for p, r in found.items()}

    def boards(self) -> dict[str, float]:
        """{setting: top-1}"""
        tables = leaderboard.tables(self.files().values())
        return {t.setting: t.cells[0, 0].value for t in tables}


@pytest.fixture
def bench(photos: str, tmp_path: Path) -> Bench:
    return Bench(photos, tmp_path)


def test_a_cpu_computes_in_fp32_and_asking_for_it_is_the_same(bench: Bench) -> None:
    auto = bench.run()
    assert (auto.precision, auto.environment.dtype) == (None, "fp32-channels_last")
    assert bench.run("fp32").created == auto.created
    assert set(bench.files()) == {""}
    half = bench.run("bf16")
    assert (half.precision, half.environment.dtype) == ("bf16", "bf16")
    assert set(bench.files()) == {"", "@precision=bf16"}
    assert set(bench.boards()) == {"", "precision=bf16"}
    assert bench.run() == auto  # what is in bf16 does not answer


def test_what_was_asked_for_answers_who_asks_for_nothing(bench: Bench) -> None:
    asked = bench.run("fp32")
    assert asked.precision == "fp32"
    assert bench.run() == asked
    assert set(bench.files()) == {"@precision=fp32"}
    assert set(bench.boards()) == {""}


@pytest.mark.usefixtures("declares_bf16")
def test_bf16_that_nobody_asked_for_stands_in_the_name(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = bench.run()
    assert (half.precision, half.environment.dtype) == ("bf16", "bf16-channels_last")
    assert bench.run() == half
    assert set(bench.files()) == {"@precision=bf16"}
    monkeypatch.undo()
    exact = bench.run()  # in the same folder, on a CPU
    assert exact.environment.dtype == "fp32-channels_last"
    assert set(bench.files()) == {"", "@precision=bf16"}
    assert set(bench.boards()) == {"", "precision=bf16"}


def test_a_result_in_fp32_answers_on_any_device(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = bench.run()
    monkeypatch.setattr("eval.features.precision.device_format", lambda device: "bf16")
    assert bench.run() == exact


def of_an_earlier_version(bench: Bench) -> Path:
    """A result that was computed in bf16 because that was faster; its name does not say so."""
    bench.run("bf16-channels_last")
    (path,) = bench.results.rglob("*.json")
    said = json.loads(path.read_text())
    said["precision"] = None
    old = path.with_name(path.name.replace("@precision=bf16-channels_last", ""))
    old.write_text(json.dumps(said))
    path.unlink()
    return old


def test_results_of_an_earlier_version_are_kept_beside(bench: Bench, cli: Cli) -> None:
    path = of_an_earlier_version(bench)
    before = path.read_bytes()
    exact = bench.run()
    assert (exact.precision, exact.environment.dtype) == ("fp32", "fp32-channels_last")
    assert bench.run() == exact
    assert path.read_bytes() == before
    assert set(bench.files()) == {"", "@precision=fp32"}
    old = read_result(path).score("top1")
    new = exact.score("top1")
    assert old is not None
    assert new is not None
    assert bench.boards() == {"precision=bf16": old.value, "": new.value}
    assert bench.run("bf16") == read_result(path)  # asked for, it is there
    verified = cli("verify", path, "--cache", bench.cache)
    assert (verified.code, verified.out.splitlines()[0]) == (0, "equal"), verified.out


def test_on_a_device_in_bf16_a_result_of_an_earlier_version_answers(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = of_an_earlier_version(bench)
    monkeypatch.setattr("eval.features.precision.device_format", lambda device: "bf16")
    assert bench.run() == read_result(path)
    assert set(bench.files()) == {""}
