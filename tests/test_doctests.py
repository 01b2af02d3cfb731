"""The examples in the docstrings of ``import eval`` say what is true."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import eval as transfer

MODULES = [
    "eval.api",
    "eval.models.in_memory",
    "eval.results.collection",
    "eval.results.compare",
    "eval.probe.training_probe",
]
# Exceptions, and what the commands are made of rather than what a notebook calls.
WITHOUT_EXAMPLE = {"UserError", "__version__", "Request", "execute", "plan"}


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_run(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TRANSFERZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    done = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert done.attempted > 0
    assert done.failed == 0


@pytest.mark.parametrize("name", sorted(set(transfer.__all__) - WITHOUT_EXAMPLE))
def test_every_public_name_has_an_example_that_is_run(name: str) -> None:
    value = getattr(transfer, name)
    assert ">>> " in str(value.__doc__)
    assert value.__module__ in MODULES
