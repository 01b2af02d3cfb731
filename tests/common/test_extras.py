"""A plain install: commands that need an extra say so, the others never notice."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from eval.common.extras import LIBRARIES, require
from tests.factories import Ran, refusal

ROOT = Path(__file__).resolve().parents[2]
CARD = "resnet18_narrow.ce_tin100"
MODELS = ("random:test_resnet", "random:test_resnet@1")
SMALL = ("--task", "digits", "--limit", "40", "--img-size", "32")
# What a plain install lacks. (It has pandas all the same: datasets needs it.)
ABSENT = ("matplotlib", "gradio", "plotly")


def without(libraries: tuple[str, ...], code: str, folder: Path, *argv: str) -> Ran:
    """Runs Python code in a process in which the libraries cannot be imported."""
    blocked = f"import sys; sys.modules |= dict.fromkeys({libraries!r})\n"
    done = subprocess.run(
        [sys.executable, "-c", blocked + code, *argv],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT),
             "TRANSFERZOO_CACHE": str(folder / "cache")},
        capture_output=True,
        text=True,
        timeout=240,
    )  # fmt: skip
    return Ran(done.returncode, done.stdout, done.stderr)


def command(libraries: tuple[str, ...], folder: Path, package: str, *argv: str) -> Ran:
    code = f"from {package}.__main__ import main; sys.exit(main())"
    return without(libraries, code, folder, *argv)


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[^\w.-]", requirement)[0] for requirement in requirements}


def test_the_extras_are_those_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    assert {extra: names(extras[extra]) for extra in LIBRARIES} == {
        extra: set(libraries) for extra, libraries in LIBRARIES.items()
    }
    assert "transferzoo[space,plots]" in extras["test"]
    assert not names(project["dependencies"]) & {n for some in LIBRARIES.values() for n in some}


def test_one_sentence_names_all_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    require("space", "it")
    monkeypatch.setitem(sys.modules, "plotly", None)
    assert refusal(require, "space", "it") == (
        "it needs plotly, which is not installed; run `pip install 'transferzoo[space]'`"
    )
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert "needs gradio and plotly, which are not installed" in refusal(require, "space", "it")
    require("plots", "it")


@pytest.mark.parametrize(
    ("package", "argv", "who", "extra"),
    [
        ("eval", ("cka", *MODELS, *SMALL, "--out", "a.png"), "--out a.png", "plots"),
        ("eval", ("analyze", "geometry", *MODELS, *SMALL, "--out", "a.svg"),
         "--out a.svg", "plots"),
        ("eval", ("reliability", "--results", str(ROOT / "model_cards"), "--out", "a.png"),
         "--out a.png", "plots"),
        ("eval", ("report", str(ROOT / "model_cards"), "--out", "a.html"), "a report", "plots"),
        ("zoo", ("card", CARD), f"the learning curve of {CARD}", "plots"),
        ("space", (), "transfer-space", "space"),
        ("space", ("--push", "lab/board"), "transfer-space", "space"),
    ],
)  # fmt: skip
def test_a_command_without_its_extra_says_what_to_install(
    package: str, argv: tuple[str, ...], who: str, extra: str, tmp_path: Path
) -> None:
    folder = shutil.copytree(ROOT / "model_cards" / CARD, tmp_path / CARD)
    (folder / "learning_curve.png").unlink()
    before = sorted(tmp_path.rglob("*"))
    ran = command(ABSENT, tmp_path, package, *argv)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.count("\n") == 1
    assert f": {who} needs " in ran.err
    assert ran.err.endswith(f"run `pip install 'transferzoo[{extra}]'`\n")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.slow
def test_curves_without_matplotlib(tmp_path: Path) -> None:
    """The picture is the last step there: results are read first."""
    ran = command(
        ABSENT, tmp_path, "eval", "run", MODELS[0], *SMALL, "--protocol", "linear",
        "--train-fraction", "0.5",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    ran = command(ABSENT, tmp_path, "eval", "curves", "--out", "a.png")
    assert ran.code == 2
    assert ran.err == (
        "transfer-eval: --out a.png needs matplotlib, which is not installed; "
        "run `pip install 'transferzoo[plots]'`\n"
    )


@pytest.mark.slow
def test_scoring_and_analysing_need_no_extra(tmp_path: Path) -> None:
    ran = command(ABSENT, tmp_path, "eval", "run", *MODELS, *SMALL, "--protocol", "linear", "knn")
    assert ran.code == 0, ran.err
    assert "4 scored" in ran.out
    ran = command(ABSENT, tmp_path, "eval", "compare", *MODELS)
    assert ran.code == 0, ran.err
    ran = command(ABSENT, tmp_path, "eval", "cka", *MODELS, *SMALL)
    assert ran.code == 0, ran.err


@pytest.mark.slow
def test_no_module_of_eval_or_zoo_needs_an_extra_to_be_imported(tmp_path: Path) -> None:
    code = (
        "import importlib, pkgutil, eval, zoo\n"
        "for package in (eval, zoo):\n"
        "    for found in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):\n"
        "        importlib.import_module(found.name)\n"
        "        print(found.name)"
    )
    ran = without(ABSENT, code, tmp_path)
    assert ran.code == 0, ran.err
    assert {"eval.analysis.plots", "eval.report.svg", "zoo.card.curve"} <= set(ran.out.split())


def test_help_of_the_space_needs_no_extra(tmp_path: Path) -> None:
    ran = command((*ABSENT, "pandas"), tmp_path, "space", "--help")
    assert ran.code == 0
    assert "--port" in ran.out
