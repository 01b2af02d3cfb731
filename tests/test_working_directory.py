"""The installed commands are ours wherever they are called: a user's own eval.py is left alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.factories import Ran
from transferzoo import NAMES, ours_first

ROOT = Path(__file__).resolve().parents[1]
# As pip writes a console script.
SCRIPT = """#!{python}
import re
import sys
from {module} import {function}
if __name__ == '__main__':
    sys.argv[0] = re.sub(r'(-script\\.pyw|\\.exe)?$', '', sys.argv[0])
    sys.exit({function}())
"""
SMALL = ("run", "random:test_resnet", "--task", "digits", "--protocol", "knn", "--limit", "40",
         "--img-size", "32", "--device", "cpu", "--json")  # fmt: skip


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    """A folder with the commands, as an installation has them."""
    folder = tmp_path / "bin"
    folder.mkdir()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for name, place in project["scripts"].items():
        module, _, function = place.partition(":")
        file = folder / name
        file.write_text(SCRIPT.format(python=sys.executable, module=module, function=function))
        file.chmod(0o755)
    return folder


def users(folder: Path, *kinds: str) -> Path:
    """A working directory with an eval, a zoo and a space of the user's own, which say so."""
    folder.mkdir()
    for name, kind in zip(NAMES, kinds, strict=True):
        code = f"open('{name}-was-run', 'w'); print('of the user')\n"
        if kind == "file":
            (folder / f"{name}.py").write_text(code)
        else:
            (folder / name).mkdir()
            file = "__init__.py" if kind == "package" else "notes.txt"
            (folder / name / file).write_text(code)
    return folder


def ran(own: Path, scripts: Path, *argv: str, path: str = ".") -> Ran:
    """A command in that directory, which PYTHONPATH names before the place of our packages."""
    env = {k: v for k, v in os.environ.items() if k not in ("TRANSFERZOO_DATA", "RANK")}
    env |= {
        "PYTHONPATH": os.pathsep.join([path, str(ROOT)]),
        "PATH": os.pathsep.join([str(scripts), str(Path(sys.executable).parent), os.defpath]),
        "TRANSFERZOO_CACHE": str(own / "cache"), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    done = subprocess.run(argv, cwd=own, env=env, capture_output=True, text=True, timeout=240)
    assert not list(own.glob("*-was-run")), done.stderr
    return Ran(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("kind", ["file", "package", "folder"])
def test_every_command_is_ours(kind: str, scripts: Path, tmp_path: Path) -> None:
    own = users(tmp_path / "own", kind, kind, kind)
    for argv, said in (
        (("transfer-eval", "list", "protocols"), "linear-sgd"),
        (("transfer-zoo", "list", "objectives"), "selfsupcon"),
        (("transfer-space", "--help"), "--port"),
    ):
        done = ran(own, scripts, *argv)
        assert done.code == 0, done.err
        assert said in done.out


def test_python_dash_m_runs_the_users_file(tmp_path: Path) -> None:
    """Which is why no page says so: with the working directory first, nothing of ours is asked."""
    (tmp_path / "eval.py").write_text("print('of the user')")
    argv = [sys.executable, "-m", "eval", "list", "models"]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "of the user\n")


@pytest.mark.slow
def test_a_run_on_two_processes_is_ours(scripts: Path, tmp_path: Path) -> None:
    own = users(tmp_path / "own", "file", "package", "folder")
    done = ran(
        own, scripts, "torchrun", "--standalone", "--nproc_per_node", "2", "--no-python",
        "transfer-eval", *SMALL,
    )  # fmt: skip
    assert done.code == 0, done.err
    assert json.loads(done.out)["scored"] == 1
    (file,) = json.loads(done.out)["files"]
    assert json.loads(Path(own, file).read_text())["environment"]["processes"] == 2


def test_nothing_moves_where_nothing_is_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "evaluation.py").touch()
    path = [str(tmp_path), "/usr/lib/python3.11", ""]
    assert ours_first(path, home=Path.cwd()) == path


def test_others_of_our_names_come_last(tmp_path: Path) -> None:
    home, user, plain = (tmp_path / name for name in ("home", "user", "plain"))
    for folder in (home, user, plain):
        folder.mkdir()
    (home / "eval").mkdir()
    (user / "zoo.py").touch()
    found = ours_first([str(user), str(plain), str(home)], home)
    assert found == [str(plain), str(home), str(user)]
    # An editable installation has no entry for its home.
    assert ours_first([str(user), str(plain)], home) == [str(plain), str(home), str(user)]
