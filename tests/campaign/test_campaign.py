"""A small part of the campaign, from a fixed seed; all of it is ``python -m tests.campaign``."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.campaign.__main__ import KINDS, main
from tests.campaign.commands import PRELOAD
from tests.campaign.outcome import Campaign, Outcome, Place, open_to_ada
from tests.children import FORKS
from tests.hub import LoopbackHub

# Tries of a kind in this part. Of engines the driver's kill on each: tests/engines kills the rest.
LEAST = {
    "kills": 7, "uploads": 1, "signals": 2, "hub": 1, "forgeries": 2, "engines": 3, "hostile": 4,
    "inputs": 12,
}  # fmt: skip


@pytest.fixture
def place(tmp_path: Path, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """The session's Hub, as the campaign has it, and afterwards as it was."""
    before = {name: getattr(hub, name) for name in ("tokens", "users", "orgs")}
    strict = hub.strict_auth, hub.strict_namespaces
    FORKS.set_forkserver_preload(PRELOAD)
    open_to_ada(hub)
    yield Place(tmp_path, hub)
    for name, value in before.items():
        setattr(hub, name, value)
    hub.strict_auth, hub.strict_namespaces = strict


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_part_of_the_campaign(kind: str, place: Place) -> None:
    run: Campaign = importlib.import_module(KINDS[kind][0]).campaign
    found = run(place, 1, LEAST.get(kind, 3))
    assert found.failures == []
    assert found.equal


def test_a_try_that_fails_is_not_equal() -> None:
    found = Outcome()
    assert not found.equal  # nothing tried is nothing shown
    found.note("a", count=2)
    assert found.equal
    found.note("b", "it hangs")
    assert (found.passed, found.tried, found.failures) == (2, 3, ["b: it hangs"])
    assert not found.equal


def test_the_exit_code_says_whether_all_are_equal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(KINDS, "made", ("tests.campaign.test_campaign", "made up", 3))
    monkeypatch.setattr("os.environ", dict(os.environ))
    for failing, code in ((0, 0), (1, 1)):
        assert main(["made", "--seed", str(failing)]) == code
        out, err = capsys.readouterr()
        (row,) = (line for line in out.splitlines() if "made up" in line)
        assert [cell.strip() for cell in row.split("|")[1:4]] == ["made up", str(3 - failing), "3"]
        assert ("made: 0: because" in err) == bool(failing)


def campaign(place: Place, seed: int, least: int) -> Outcome:
    """For the test above: ``seed`` tries of ``least`` fail."""
    found = Outcome()
    for number in range(least):
        found.note(str(number), "because" if number < seed else "")
    return found
