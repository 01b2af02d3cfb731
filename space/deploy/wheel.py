"""The project as one wheel, the same bytes for the same sources: what a public Space installs."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from eval.common.errors import BadInput, without_token

ROOT = Path(__file__).resolve().parents[2]
_PACKAGES = ("eval", "zoo", "space")
_PROJECT = ("pyproject.toml", "README.md", "LICENSE")  # what the wheel is built from besides


def sources() -> list[str]:
    """Paths in the checkout of what a wheel installs: modules, and data files they declare."""
    setuptools = pyproject()["tool"]["setuptools"]
    declared = setuptools.get("package-data", {})
    found = [
        path
        for package in _PACKAGES
        for pattern in ("**/*.py", *declared.get(package, ()))
        for path in (ROOT / package).glob(pattern)
    ]
    modules = [f"{name}.py" for name in setuptools.get("py-modules", ())]
    places = {path.relative_to(ROOT) for path in found if path.is_file() and not path.is_symlink()}
    inside = [p for p in places if p.suffix != ".py" or (ROOT / p.parent / "__init__.py").is_file()]
    return sorted([*modules, *(place.as_posix() for place in inside)])


def build_wheel(build: Path) -> tuple[str, bytes]:
    """(file name, content), the same for the same sources.

    Built from a copy of the sources: a build leaves files where it is done, and takes up those
    that an earlier one left. Raises UserError with what the build says.
    """
    source, out = build / "source", build / "wheel"
    for path in (*sources(), *_PROJECT):
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_bytes((ROOT / path).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check",
               "--no-input", "--no-deps", "--no-cache-dir", "--wheel-dir", str(out)]  # fmt: skip
    if _have_setuptools():  # else pip fetches it
        command.append("--no-build-isolation")
    env = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    env["SOURCE_DATE_EPOCH"] = "315532800"  # 1980: the first that a zip file can name
    done = subprocess.run(
        [*command, "."], cwd=source, env=env, capture_output=True, text=True, errors="replace"
    )
    wheels = list(out.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        said = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        errors = [line for line in said if "error" in line.lower()]
        why = without_token(" ".join((errors or said or ["no wheel"])[-1].split())[:200])
        raise BadInput(f"the project's wheel could not be built ({why})")
    return wheels[0].name, _still(wheels[0])


def _still(wheel: Path) -> bytes:
    """The wheel without what differs between builds and machines: its files' times, modes and
    order, and how they are compressed."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as new:
        for name in sorted(old.namelist(), key=lambda n: (".dist-info/" in n, n)):
            entry = zipfile.ZipInfo(name)  # of 1980
            entry.create_system, entry.external_attr = 3, 0o100644 << 16
            new.writestr(entry, old.read(name))
    return buffer.getvalue()


def _have_setuptools() -> bool:
    required = next(r for r in pyproject()["build-system"]["requires"] if "setuptools" in r)
    least = int((re.search(r"\d+", required) or ["0"])[0])
    try:
        return int(version("setuptools").partition(".")[0]) >= least
    except (PackageNotFoundError, ValueError):
        return False


def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def project() -> dict[str, Any]:
    return pyproject()["project"]


def check_checkout() -> None:
    needed = [*_PROJECT, *(f"{package}/__init__.py" for package in _PACKAGES)]
    if missing := [name for name in needed if not (ROOT / name).is_file()]:
        raise BadInput(
            f"a Space is made from a checkout of TransferZoo, and {ROOT} is none (it has no "
            f"{missing[0]}); run `pip install -e .` in one and push again"
        )
