"""``transfer-eval`` from end to end: what it prints, writes and returns, and every bad input.

The commands run in this process where a process of their own is not the point: importing torch
and timm takes longer than all the rest.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from eval.cli.parser import COMMANDS
from eval.protocols import PROTOCOLS
from eval.results.schema import Result
from eval.results.store import LOCK, read_result
from eval.tasks.registry import SUITES, TASKS
from tests.cli.bad_inputs import (
    BAD,
    QUICK,
    Place,
    broken_model,
    command_line,
    spoiled,
)
from tests.factories import Cli, Ran, blobs, make_task
from tests.hub import LoopbackHub

ROOT = Path(__file__).resolve().parents[2]

DEFAULTS = [n for n, p in PROTOCOLS.items() if p.default and p.kind == "classification"]


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No default of the developer's machine, and a working directory where nothing lies."""
    for name in ("TRANSFERZOO_DATA", "TRANSFERZOO_CACHE", "RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")


def process(*argv: str | Path, python: tuple[str, ...] = ()) -> Ran:
    """Runs a command as users do."""
    done = subprocess.run(
        [sys.executable, *python, "-m", "eval", *map(str, argv)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its content, but for locks."""
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file() and p.name != LOCK
    }


def numbers(result: Result) -> dict[str, tuple[float, float, float, int]]:
    return {s.name: (s.value, s.ci_low, s.ci_high, s.n) for s in result.scores}


# ---- the board of two models on two data sets, made once


@dataclass(frozen=True)
class Shop:
    """A folder with data, a cache and results of two models on two tasks."""

    data: Path
    cache: Path
    results: Path
    first: Ran

    @property
    def where(self) -> list[str]:
        return ["--data", str(self.data), "--cache", str(self.cache)]

    @property
    def arguments(self) -> list[str]:
        """The command that made the results."""
        return [
            "run", "random:test_resnet", "random:test_vit", "--task", "eurosat", "dtd",
            "--shots", "1", "5", *QUICK, *self.where, "--results", str(self.results),
        ]  # fmt: skip

    def result(self, task: str = "eurosat", protocol: str = "knn") -> Path:
        folder = self.results / "random--test_resnet@32px" / "seed0"
        (path,) = folder.glob(f"{task}.{protocol}*.json")
        return path


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("shop")
    made = Shop(folder / "data", folder / "cache", folder / "results", Ran(-1, "", ""))
    for seed, name in enumerate(("eurosat", "dtd")):
        make_task(made.data / name, seed=seed)
    done = process(*made.arguments)
    assert done.code == 0, done.err
    return Shop(made.data, made.cache, made.results, done)


def test_run_prints_boards_and_writes_one_file_a_cell(shop: Shop) -> None:
    out = shop.first.out
    for title in (
        "fewshot, 1-shot top-1, % (episodes=20)",
        "fewshot, 5-shot top-1, % (episodes=20)",
        "knn, top-1, %\n",
        "linear, top-1, %\n",
    ):
        assert title in out
    assert "±" in out
    assert "12 scored, 0 already there, 0 failed; 672 images encoded" in out
    assert str(shop.results.resolve()) in out
    files = list(shop.results.rglob("*.json"))
    assert len(files) == 2 * 2 * 3
    for path in files:
        result = read_result(path)
        assert result.schema_version == 1
        assert (result.task.counts, result.task.subset) == (
            {"classes": 6, "train": 96, "test": 72},
            True,
        )
        assert result.environment.dtype == "fp32"
        assert result.scores
        for score in result.scores:
            if score.name in result.samples:
                values = result.samples[score.name].values()
                assert score.n == len(values)
                assert score.value == pytest.approx(values.mean(), abs=1e-6)
            assert 0 <= score.ci_low <= score.value <= score.ci_high <= 1 or score.name in (
                "ece",
                "nll",
            )


def test_a_run_in_a_log_says_each_finished_cell(shop: Shop) -> None:
    """In order, counted, with the numbers of the result files and an estimate until the last."""
    said = [line for line in shop.first.err.splitlines() if " so far" not in line]
    cells = [
        (model, task, protocol)
        for model in ("resnet", "vit")
        for task in ("eurosat", "dtd")
        for protocol in DEFAULTS
    ]
    assert len(said) == len(cells) == 12
    for i, (line, (model, task, protocol)) in enumerate(zip(said, cells, strict=True)):
        (path,) = (shop.results / f"random--test_{model}@32px" / "seed0").glob(
            f"{task}.{protocol}*.json"
        )
        scores = {s.name: f"{100 * s.value:.1f} ±" for s in read_result(path).scores}
        assert line.startswith(f"[{i + 1}/12] random:test_{model} on {task}, {protocol}: ")
        if protocol == "fewshot":
            assert f": 1-shot top-1 {scores['top1_1shot']}" in line
            assert f", 5-shot top-1 {scores['top1_5shot']}" in line
        else:
            assert f": top-1 {scores['top1']}" in line
        assert re.search(r"±[\d.]+, [\d.]+ (s|min)(; (about|at least) [\d.]+ (s|min) left)?$", line)
    assert re.search(r"; about [\d.]+ (s|min) left$", said[5])  # each protocol has run
    assert "left" not in said[-1]


def test_a_second_run_needs_no_torch(shop: Shop) -> None:
    before = tree(shop.results)
    again = process(*shop.arguments, python=("-X", "importtime"))
    assert again.code == 0
    imported = {line.rpartition("|")[2].strip() for line in again.err.splitlines()}
    assert "eval.run.execute" in imported
    assert not {"torch", "timm", "accelerate", "safetensors", "sklearn"} & imported
    # tie groups take two small parts of scipy; these are the large ones
    assert not {"scipy.stats", "scipy.optimize", "scipy.signal", "scipy.ndimage"} & imported
    assert "0 scored, 12 already there, 0 failed; 0 images encoded" in again.out
    assert tree(shop.results) == before
    boards = [r.out.partition("\n- ")[0] for r in (shop.first, again)]
    assert boards[0] == boards[1]


def test_help_needs_no_torch() -> None:
    asked = process("--help", python=("-X", "importtime"))
    assert asked.code == 0
    assert all(command in asked.out for command in COMMANDS)
    imported = {line.rpartition("|")[2].strip() for line in asked.err.splitlines()}
    assert not {"torch", "timm", "numpy", "pyarrow", "pydantic"} & imported


def test_the_installed_command_is_the_same() -> None:
    script = Path(sys.executable).parent / "transfer-eval"
    done = subprocess.run([script, "list", "suites"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "mini" in done.stdout


@pytest.mark.parametrize("command", [*COMMANDS, "cache ls", "cache rm"])
def test_help_of_every_command(command: str, cli: Cli) -> None:
    done = cli(*command.split(), "--help")
    assert done.code == 0
    assert done.out.startswith(f"usage: transfer-eval {command}")
    assert done.err == ""


def test_json_is_all_that_stdout_holds(shop: Shop, cli: Cli, tmp_path: Path) -> None:
    arguments = [*shop.arguments[:-1], str(tmp_path / "results"), "--json"]
    for scored in (12, 0):
        done = cli(*arguments)
        assert done.code == 0
        summary = done.json
        assert (summary["scored"], summary["reused"]) == (scored, 12 - scored)
        assert summary["failures"] == []
        assert len(summary["files"]) == 12
        assert all(Path(f).is_file() for f in summary["files"])
        assert {b["protocol"] for b in summary["boards"]} == set(DEFAULTS)
        assert f"{scored} scored" in done.err


@pytest.mark.parametrize("what", ["tasks", "suites", "protocols", "models"])
def test_list(what: str, cli: Cli) -> None:
    done = cli("list", what)
    assert (done.code, done.err) == (0, "")
    listed = cli("list", what, "--json").json
    known = {"tasks": TASKS, "suites": SUITES, "protocols": PROTOCOLS}.get(what)
    if known is not None:
        assert [e[what[:-1]] for e in listed] == list(known)
    for entry in listed:
        assert next(iter(entry.values())) in done.out


def test_plan_says_what_is_missing_and_writes_no_result(
    shop: Shop, cli: Cli, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    new = ["random:test_resnet", "--task", "eurosat", "dtd", "--shots", "1", "5", *QUICK]
    fresh = cli(
        "plan", *new, "--data", shop.data, "--cache", tmp_path / "cache", "--results", results,
        "--json",
    )  # fmt: skip
    assert fresh.code == 0
    assert [c["images"] for c in fresh.json] == [168, 168]
    assert [c["cells"] - c["done"] for c in fresh.json] == [3, 3]
    assert all(c["seconds"] > 0 and not c["cached"] for c in fresh.json)
    assert not results.exists()
    cached = cli("plan", *new, *shop.where, "--results", results, "--json")
    assert [c["images"] for c in cached.json] == [0, 0]
    assert all(c["cached"] for c in cached.json)
    done = cli("plan", *new, *shop.where, "--results", shop.results)
    assert done.code == 0
    assert "0 of 6 cells to score; 0 images to encode" in done.out


def test_leaderboard(shop: Shop, cli: Cli) -> None:
    done = cli("leaderboard", "--results", shop.results)
    assert (done.code, done.err) == (0, "")
    assert "random:test_resnet @32px" in done.out
    boards = cli("leaderboard", "--results", shop.results, "--json").json
    assert [(b["protocol"], b["score"]) for b in boards] == [
        ("fewshot", "top1_1shot"),
        ("fewshot", "top1_5shot"),
        ("knn", "top1"),
        ("linear", "top1"),
    ]
    knn = boards[2]
    assert set(knn["common_tasks"]) == {"eurosat", "dtd"}
    cell = next(r for r in knn["rows"] if "resnet" in r["model"])["cells"]["eurosat"]
    score = read_result(shop.result()).score("top1")
    assert score is not None
    assert (cell["value"], cell["n"]) == (score.value, 72)
    only = cli("leaderboard", "--results", shop.results, "--protocol", "linear", "--json").json
    assert [b["protocol"] for b in only] == ["linear"]


def test_leaderboard_skips_and_names_foreign_files(shop: Shop, cli: Cli, tmp_path: Path) -> None:
    results = tmp_path / "results"
    shutil.copytree(shop.results, results)
    (results / "package.json").write_text('{"name": "x"}')
    done = cli("leaderboard", "--results", results, "--json")
    assert done.code == 0
    assert len(done.json) == 4
    assert "skipped" in done.err
    assert "package.json" in done.err


def test_compare(shop: Shop, cli: Cli) -> None:
    names = ("random:test_resnet @32px", "random:test_vit @32px")
    done = cli("compare", *names, "--results", shop.results)
    assert (done.code, done.err) == (0, "")
    assert "Holm-corrected" in done.out
    found = cli("compare", *names, "--results", shop.results, "--json").json
    assert {(c["protocol"], c["score"]) for c in found} >= {("knn", "top1"), ("linear", "top1")}
    for comparison in found:
        assert {t["task"] for t in comparison["tasks"]} == {"eurosat", "dtd"}
        for task in comparison["tasks"]:
            gap = task["difference"]
            assert gap["value"] == pytest.approx(task["a"] - task["b"], abs=1e-5)
            assert gap["low"] <= gap["value"] <= gap["high"]
            assert task["kind"] in ("sample", "test")


# ---- verify


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As the process had that made the results."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("protocol", DEFAULTS)
def test_verify_says_equal(protocol: str, shop: Shop, cli: Cli, tmp_path: Path) -> None:
    path = shop.result("dtd", protocol)
    before, cached = path.read_bytes(), tree(shop.cache / "banks")
    done = cli("verify", path, "--cache", tmp_path / "cache")
    assert (done.code, done.out) == (0, "equal\n")
    assert path.read_bytes() == before
    assert tree(shop.cache / "banks") == cached


def edited(path: Path, to: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    value = json.loads(path.read_bytes())
    change(value)
    to.write_text(json.dumps(value))
    return to


def other_versions(value: dict[str, Any]) -> None:
    value["environment"]["versions"]["pillow"] = "9.9"


def other_packages(value: dict[str, Any]) -> None:
    value["environment"]["versions"]["huggingface-hub"] = "0.1"


def raise_score(value: dict[str, Any]) -> None:
    value["scores"][0]["value"] += 0.001


def widen(value: dict[str, Any]) -> None:
    value["scores"][0]["ci_high"] += 0.001


def other_samples(value: dict[str, Any]) -> None:
    samples = value["samples"]["top1"]
    samples["correct"] = ("B" if samples["correct"][0] == "A" else "A") + samples["correct"][1:]


def drop_score(value: dict[str, Any]) -> None:
    del value["scores"][1]


def drop_samples(value: dict[str, Any]) -> None:
    value["samples"] = {}


def invent_score(value: dict[str, Any]) -> None:
    value["scores"].append({**value["scores"][0], "name": "top1_invented"})


def other_weights(value: dict[str, Any]) -> None:
    value["model"]["weights_sha256"] = "0" * 64


def other_data(value: dict[str, Any]) -> None:
    value["task"]["split_hash"] = "0" * 64


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (raise_score, "top1:"),
        (widen, "top1:"),
        (other_samples, "other episodes or images are answered right"),
        (drop_score, "mean_per_class: found now, but not recorded"),
        (drop_samples, "top1: found now, but not recorded"),
        (invent_score, "top1_invented: recorded, but not found now"),
        (other_weights, "the weights: sha256"),
        (other_data, "the data: split hash"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_verify_says_what_differs(
    change: Callable[[dict[str, Any]], None], said: str, shop: Shop, cli: Cli, tmp_path: Path
) -> None:
    path = edited(shop.result(), tmp_path / "eurosat.knn.json", change)
    done = cli("verify", path, "--cache", shop.cache)
    assert done.code == 1
    assert done.out.startswith("differs\n")
    assert said in done.out
    report = cli("verify", path, "--cache", shop.cache, "--json")
    assert report.code == 1
    assert (report.json["equal"], report.json["verdict"]) == (False, "differs")
    assert any(said in line for line in report.json["differences"])
    assert any(said in line for line in report.json["beyond"])


@pytest.mark.usefixtures("one_thread")
def test_verify_says_within_tolerance_and_why(shop: Shop, cli: Cli, tmp_path: Path) -> None:
    """A calibration error that was recorded with another Pillow, a little off what is found now:
    no samples give it, and no limit is given it where nothing or nothing that computes differs."""

    def a_little(value: dict[str, Any]) -> None:
        score = next(s for s in value["scores"] if s["name"] == "ece")
        assert "confidence" in value
        for name in ("value", "ci_low", "ci_high"):
            score[name] += 1e-5  # as far as rounded confidences tell

    def verified(*changes: Callable[[dict[str, Any]], None]) -> tuple[int, str, Any]:
        path = edited(
            shop.result("eurosat", "linear"), tmp_path / "r.json", lambda v: [c(v) for c in changes]
        )
        said = cli("verify", path, "--cache", shop.cache)
        report = cli("verify", path, "--cache", shop.cache, "--json")
        assert said.code == report.code
        return said.code, said.out, report.json

    code, out, report = verified(a_little, other_versions)
    assert code == 3
    assert out.startswith("within tolerance\n  ece: ")
    here = version("pillow")
    assert "tolerance: 4 answers of a score, or 0.3 % where that is more, and ECE" in out
    assert f"NLL by 0.5 %: pillow {here} here, 9.9 recorded\n" in out
    assert (report["verdict"], report["equal"], report["beyond"]) == ("within tolerance", False, [])
    assert report["tolerance"]["why"] == f"pillow {here} here, 9.9 recorded"
    assert report["context"] == [f"pillow {here} here, 9.9 recorded"]
    for same in ((a_little,), (a_little, other_packages)):
        code, out, report = verified(*same)
        assert (code, report["verdict"]) == (1, "differs")
        none = "none: versions, device, instructions, threads and processes are those recorded"
        assert f"tolerance: {none}" in out
    code, out, report = verified(a_little, raise_score, other_versions)
    assert (code, out.splitlines()[0]) == (1, "differs")
    assert "the recorded answers give" in out
    assert out.count("(within tolerance)") == 1  # the calibration error
    assert [line.partition(":")[0] for line in report["beyond"]] == ["top1"]
    code, out, report = verified(other_versions)
    assert (code, out.splitlines()[0], report["verdict"]) == (0, "equal", "equal")
    assert "tolerance" not in out


def test_verify_says_its_exit_codes(cli: Cli) -> None:
    shown = cli("verify", "--help").out
    for line in ("0  equal", "1  differs", "2  your mistake", "3  within tolerance"):
        assert f"\n  {line}" in shown


def test_verify_of_moved_data(shop: Shop, cli: Cli, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(shop.data, moved)
    path = edited(
        shop.result(), tmp_path / "r.json", lambda v: v["task"].update(source="/nowhere/eurosat")
    )
    lost = cli("verify", path, "--cache", shop.cache)
    assert lost.code == 2
    assert len(lost.err.splitlines()) == 1
    assert cli("verify", path, "--cache", shop.cache, "--data", moved).code == 0


# ---- settings


def test_more_shots_go_into_the_same_file(shop: Shop, cli: Cli, tmp_path: Path) -> None:
    results = tmp_path / "results"

    def run(*shots: str) -> Result:
        done = cli(
            "run", "random:test_resnet", "--task", "eurosat", "--protocol", "fewshot",
            *QUICK, *shop.where, "--results", results, "--shots", *shots,
        )  # fmt: skip
        assert done.code == 0, done.err
        (path,) = results.rglob("*.json")
        return read_result(path)

    few = run("1", "5")
    more = run("1", "5", "10")
    assert {s.name for s in more.scores} - {s.name for s in few.scores} == {
        f"top1_10shot{c}" for c in ("", "_centroid", "_cosine")
    }
    for name, score in numbers(few).items():
        assert numbers(more)[name] == score
        assert more.samples[name] == few.samples[name]
    assert more.protocol.config["shots"] == [1, 5, 10]
    # Asked for one of them, or another order, nothing is lost or done again.
    assert run("5") == more
    assert run("10", "1") == more
    last = run("2")
    assert last.protocol.config["shots"] == [1, 2, 5, 10]
    assert {n: v for n, v in numbers(last).items() if "_2shot" not in n} == numbers(more)


def test_unlike_settings_never_share_a_file(shop: Shop, cli: Cli, tmp_path: Path) -> None:
    results = tmp_path / "results"
    base = ["random:test_resnet", "--task", "eurosat", "--protocol", "knn", "fewshot"]
    base += ["--shots", "1", "--precision", "fp32", *shop.where, "--results", str(results)]
    variants: dict[str, list[str]] = {
        "": ["--episodes", "20"],
        "seed": ["--episodes", "20", "--seed", "1"],
        "limit": ["--episodes", "20", "--limit", "60", "--queries", "5"],
        "size": ["--episodes", "20", "--img-size", "20"],
        "way": ["--episodes", "20", "--n-way", "3"],
        "queries": ["--episodes", "20", "--queries", "7"],
        "episodes": ["--episodes", "21"],
        "precision": ["--episodes", "20", "--precision", "bf16"],
    }
    made: dict[str, set[str]] = {}
    for name, options in variants.items():
        before = set(tree(results)) if results.exists() else set()
        size = [] if name == "size" else ["--img-size", "32"]
        assert cli("run", *base, *size, *options).code == 0
        made[name] = set(tree(results)) - before
    # --n-way, --queries and --episodes are about fewshot: the knn file is that of the first run
    assert {k: len(v) for k, v in made.items()} == {
        "": 2, "seed": 2, "limit": 2, "size": 2, "way": 1, "queries": 1, "episodes": 1,
        "precision": 2,
    }  # fmt: skip
    found = {name: [read_result(results / f) for f in files] for name, files in made.items()}
    assert {r.seed for r in found["seed"]} == {1}
    assert {r.limit for r in found["limit"]} == {60}
    assert {r.task.counts["train"] for r in found["limit"]} == {60}
    assert {r.model.img_size for r in found["size"]} == {20}
    assert {r.model.input["input_size"][1] for r in found["size"]} == {20}
    boards = cli("leaderboard", "--results", results, "--json").json
    assert len({(b["protocol"], b["setting"], b["score"]) for b in boards}) == len(boards)
    assert {r.environment.dtype for r in found["precision"]} == {"bf16"}
    # another size is another row, all else another board; two seeds: a board over them each
    assert len(boards) == 7 + 4 + 2


def test_the_seed_draws_other_episodes(shop: Shop, cli: Cli, tmp_path: Path) -> None:
    drawn = []
    for seed in ("0", "1", "0"):
        results = tmp_path / f"results{len(drawn)}"
        assert cli(
            "run", "random:test_resnet", "--task", "eurosat", "--protocol", "fewshot",
            "--shots", "1", *QUICK, *shop.where, "--results", results, "--seed", seed,
        ).code == 0  # fmt: skip
        (path,) = results.rglob("*.json")
        drawn.append(read_result(path).samples["top1_1shot"].correct)
    assert drawn[0] == drawn[2]
    assert drawn[0] != drawn[1]


def test_other_images_under_the_same_task_name(shop: Shop, cli: Cli, tmp_path: Path) -> None:
    """Both results are kept, and each is found again."""
    results, data = tmp_path / "results", tmp_path / "data"
    make_task(data / "eurosat", seed=9)
    base = ["random:test_resnet", "--task", "eurosat", "--protocol", "knn", *QUICK]
    base += ["--cache", str(shop.cache), "--results", str(results)]
    for scored in (1, 0):
        for folder in (shop.data, data):
            done = cli("run", *base, "--data", folder, "--json")
            assert done.code == 0
            assert done.json["scored"] == scored
    hashes = {read_result(p).task.split_hash for p in results.rglob("*.json")}
    assert len(hashes) == 2


def test_one_unreadable_image_fails_its_task_alone(shop: Shop, cli: Cli, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(shop.data / "dtd", data / "dtd")
    spoiled(data / "eurosat", row=30)
    results, cache = tmp_path / "results", tmp_path / "cache"
    base = ["run", "random:test_resnet", "--task", "eurosat", "dtd", "--shots", "1", *QUICK]
    base += ["--cache", str(cache), "--results", str(results), "--data", str(data)]
    for scored in (3, 0):  # and again: what was saved is not lost, the rest still fails
        done = cli(*base)
        assert done.code == 1
        assert f"{scored} scored, {3 - scored} already there, 3 failed" in done.out
        said = done.err.splitlines()
        failed = [line for line in said if line.startswith("failed: ")]
        # in the log at once, as the run goes on; of a run that ends here, in the list alone
        told = [line for line in said if " and 2 more: failed: task 'eurosat': row 30" in line]
        assert len(told) == (scored > 0)
        assert len([line for line in said if re.match(r"\[[456]/6\] .* on dtd", line)]) == scored
        assert said[len(said) - 3 :] == failed
        assert len(said) == 3 + len(told) + scored
        for line in failed:
            assert line.startswith("failed: random:test_resnet on eurosat, ")
            assert "row 30 of eurosat/train-00000-of-00001.parquet (train)" in line
        assert {p.name.partition(".")[0] for p in results.rglob("*.json")} == {"dtd"}
        assert not [p for p in cache.rglob("*") if ".tmp" in p.name]
    summary = cli(*base, "--json")
    assert summary.code == 1
    assert [f["cell"] for f in summary.json["failures"]] == [
        f"random:test_resnet on eurosat, {p}" for p in DEFAULTS
    ]


def test_a_model_that_does_not_load_fails_alone(
    shop: Shop, cli: Cli, model_dir: Path, tmp_path: Path
) -> None:
    misfit = broken_model(tmp_path / "misfit", model_dir, lambda s: s.pop("conv1.0.weight"))
    done = cli(
        "run", f"local-dir:{misfit}", "random:test_resnet", "--task", "dtd", "--protocol", "knn",
        *QUICK, *shop.where, "--results", tmp_path / "results",
    )  # fmt: skip
    assert done.code == 1
    assert "1 scored, 0 already there, 1 failed" in done.out
    at_once, scored, failed = done.err.splitlines()
    assert at_once.startswith("[1/2] local-dir:misfit on dtd, knn: failed: ")
    assert scored.startswith("[2/2] random:test_resnet on dtd, knn: top-1 ")
    assert failed == at_once.replace("[1/2] ", "failed: ").replace("knn: failed: ", "knn: ")


def test_debug_shows_the_traceback(shop: Shop, cli: Cli, model_dir: Path, tmp_path: Path) -> None:
    misfit = broken_model(tmp_path / "misfit", model_dir, lambda s: s.pop("conv1.0.weight"))
    done = cli(
        "run", f"local-dir:{misfit}", "--task", "dtd", "--protocol", "knn", "--debug",
        *QUICK, *shop.where, "--results", tmp_path / "results",
    )  # fmt: skip
    assert done.code == 2
    assert "Traceback" in done.err


# ---- bad input


@pytest.fixture
def place(tmp_path: Path, shop: Shop, model_dir: Path, hub: LoopbackHub) -> Place:
    return Place(tmp_path, shop.data, model_dir, hub, tmp_path / "results", shop.results)


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case: str, place: Place, cache: Path, cli: Cli) -> None:
    make, said = BAD[case]
    line = command_line(make(place), place, cache)
    before = tree(place.tmp) if case.startswith("results") else {}
    done = cli(*line)
    assert done.code == 2, done
    assert done.out == ""
    assert len(done.err.splitlines()) == 1, done.err
    assert done.err.startswith("transfer-eval: ")
    for words in said:
        assert words in done.err
    if before:
        written = {name: data for name, data in tree(place.tmp).items() if name[:5] != "cache"}
        assert written == before
    else:
        assert not place.results.exists()
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.slow
def test_bad_input_in_a_process_of_its_own(place: Place, cache: Path) -> None:
    """What only shows there: tracebacks at exit, lines printed by libraries. Two mistakes that
    are found late, after everything has been loaded."""
    (image, in_image), (weights, in_weights) = (
        BAD[case] for case in ("task: unreadable image", "weights: tensor missing")
    )
    line = command_line(image(place), place, cache)
    made = weights(place)
    assert isinstance(made, dict)
    line.insert(1, made["model"])
    done = process(*line)
    assert (done.code, done.out) == (2, "")
    told, sentence = done.err.splitlines()  # the first at once, as the run went on
    assert told.startswith("[1/2] local-dir:")
    assert all(words in told.partition(", knn: failed: ")[2] for words in in_weights)
    assert sentence.startswith("transfer-eval: ")
    assert all(words in sentence for words in (*in_image, *in_weights))
    assert not place.results.exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_results_that_cannot_be_written(place: Place, cache: Path, cli: Cli) -> None:
    place.results.mkdir(mode=0o555)
    done = cli(*command_line([], place, cache))
    assert done.code == 2
    assert "cannot be written" in done.err
    assert len(done.err.splitlines()) == 1


def test_foreign_json_where_the_second_result_would_go(place: Place, cache: Path, cli: Cli) -> None:
    """The name that a result gets when other images already hold the first one."""
    line = command_line([], place, cache)
    assert cli(*line).code == 0
    other = place.tmp / "other"
    make_task(other / "dtd", seed=9)
    line[line.index("--data") + 1] = str(other)
    assert cli(*line).code == 0
    (path,) = place.results.rglob("dtd~*.json")
    path.write_text('{"a": 1}')
    done = cli(*line)
    assert done.code == 2
    assert len(done.err.splitlines()) == 1
    assert "is not a result file" in done.err
    assert path.read_text() == '{"a": 1}'


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["runn"], ("unknown command 'runn'", "'run'")),
        (["frobnicate"], ("unknown command 'frobnicate'", "commands are run, plan")),
        ([], ("COMMAND",)),
        (["run"], ("MODEL",)),
        (["list"], ("what",)),
        (["list", "taskss"], ("'taskss'", "tasks")),
        (["leaderboard"], ("'results' does not exist",)),
        (["leaderboard", "--protocol", "knnn"], ("'knnn'", "'knn'")),
        (["compare", "a"], ("MODEL_B",)),
        (["compare", "a", "b"], ("'results' does not exist",)),
        (["verify"], ("RESULT.json",)),
        (["verify", "absent.json"], ("absent.json is not a result file",)),
        (["cache"], ("ls|rm",)),
        (["cache", "rm"], ("--all",)),
        # The command that was asked for says where its own options stand.
        (["curves", "--cache", "x"], ("--cache x; see transfer-eval curves --help\n",)),
        (
            ["run", "m", "--protcol", "knn"],
            ("see transfer-eval run --help; did you", "'--protocol'"),
        ),
        (["cache", "ls", "--bogus"], ("see transfer-eval cache ls --help\n",)),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_command(argv: list[str], said: tuple[str, ...], cli: Cli) -> None:
    done = cli(*argv)
    assert (done.code, done.out) == (2, "")
    assert len(done.err.splitlines()) == 1, done.err
    for words in said:
        assert words in done.err
    assert list(Path.cwd().iterdir()) == []


def test_compare_with_a_model_that_is_not_there(shop: Shop, cli: Cli) -> None:
    done = cli("compare", "random:test_resnt", "random:test_vit", "--results", shop.results)
    assert done.code == 2
    assert "'random:test_resnt'" in done.err
    assert "'random:test_resnet'" in done.err
    assert len(done.err.splitlines()) == 1


@pytest.mark.parametrize(
    "content",
    ["", "{}", "[]", '{"schema_version": 1}', '{"schema_version": "1"}', "\0\0", "[" * 100_000],
    ids=["nothing", "object", "list", "incomplete", "text", "binary", "deep"],
)
def test_verify_and_leaderboard_of_foreign_files(content: str, cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "shelf" / "r.json"
    path.parent.mkdir()
    path.write_text(content)
    for argv in (["verify", str(path)], ["leaderboard", "--results", str(path.parent)]):
        done = cli(*argv)
        assert (done.code, done.out) == (2, "")
        assert len(done.err.splitlines()) == 1, done.err


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v["protocol"].update(name="knnn"),
        lambda v: v["protocol"]["config"].update(unknown=1),
        lambda v: v["environment"].update(dtype="fp8"),
        lambda v: v["model"].update(spec="random:resnt18"),
        lambda v: v["model"].update(spec="nonsense/path"),
    ],
    ids=["protocol", "config", "dtype", "model", "spec"],
)
def test_verify_of_a_result_that_cannot_be_repeated(
    change: Callable[[dict[str, Any]], None], shop: Shop, cli: Cli, tmp_path: Path
) -> None:
    path = edited(shop.result(), tmp_path / "r.json", change)
    done = cli("verify", path, "--cache", shop.cache)
    assert (done.code, done.out) == (2, "")
    assert len(done.err.splitlines()) == 1, done.err


def test_a_model_on_the_hub(place: Place, cache: Path, cli: Cli) -> None:
    """The commit is pinned before anything runs; the model is found again by it alone."""
    model = place.repo({})
    line = command_line({"model": model}, place, cache)
    done = cli(*line)
    assert done.code == 0, done.err
    (path,) = place.results.rglob("*.json")
    result = read_result(path)
    commit = place.hub.repos["model", model.removeprefix("hf-hub:")].head.sha
    assert (result.model.id, result.model.revision) == (model, commit)
    assert result.model.spec == f"{model}@{commit}"
    place.hub.add_model(model.removeprefix("hf-hub:"), {"README.md": b"# New"})
    pinned = [result.model.spec if argument == model else argument for argument in line]
    assert "0 scored, 1 already there" in cli(*pinned).out
    assert "1 scored, 0 already there" in cli(*line).out  # main is another commit now


def test_parquet_made_by_pandas_needs_no_metadata(cli: Cli, tmp_path: Path, cache: Path) -> None:
    """Plain binary images and text labels are a task too."""
    folder = tmp_path / "plain"
    folder.mkdir()
    for part, seed in (("train", 1), ("test", 2)):
        images = blobs(0, 12, seed) + blobs(3, 12, seed)
        table = pa.table({"img": images, "kind": ["cat"] * 12 + ["dog"] * 12})
        pq.write_table(table, folder / f"{part}.parquet")
    done = cli(
        "run", "random:test_resnet", "--task", f"parquet:{folder}?image=img&label=kind",
        "--protocol", "knn", *QUICK, "--cache", cache, "--results", tmp_path / "results", "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    (path,) = done.json["files"]
    assert read_result(Path(path)).task.counts == {"classes": 2, "train": 24, "test": 24}
