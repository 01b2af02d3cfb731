"""Tests take what they share from modules of helpers: nobody imports from a test or a conftest.

Else a file cannot be moved or split without its readers, and importing a helper runs a module of
tests once more.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parent


def imported(path: Path) -> list[str]:
    """The modules that a file imports, inside functions too; ``from a import b`` is a.b."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 or TESTS / "hub" in path.parents, f"{path}: a relative import"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def is_private(module: str) -> bool:
    """Whether it is a module of tests or of fixtures, or a name in one."""
    room, *rest = module.split(".")
    return room == "tests" and any(r == "conftest" or r.startswith("test_") for r in rest)


@pytest.mark.parametrize("module", ["tests.conftest.cli", "tests.run.test_cost.price"])
def test_private_modules_are_known(module: str) -> None:
    assert is_private(module)


def test_no_module_imports_from_tests_or_fixtures() -> None:
    files = sorted(TESTS.rglob("*.py"))
    assert len(files) > 150
    wrong = [
        f"{path.relative_to(TESTS)}: {module}"
        for path in files
        for module in imported(path)
        # A child process may import the file that started it, whose functions it runs.
        if is_private(module) and not module.endswith(f".{path.stem}")
    ]
    assert wrong == []
