"""What a store says of its runs, and what the rest will take."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from eval.engines.costs import Costs, in_words
from eval.engines.drive import key_of
from eval.engines.planned import Planned, planned_cells, read_planned, write_planned
from eval.engines.status import render, status_of
from eval.results.index import Row, add_part
from eval.results.names import plain
from eval.run.attempt import Try, _bytes, now, tried
from eval.run.known import planned_from
from eval.run.plan import plan
from eval.stores.front import folder_of, store_of
from eval.stores.store import Disk
from tests.engines.groups import make_groups, make_request
from tests.factories import Cli


def row(model: str, task: str, protocol: str, **changes: float) -> Row:
    return Row(
        f"{model}/{task}.{protocol}", f"{model}/{task}.{protocol}", f"{model} {task} {protocol}",
        f"{model} {task}", "try", "2026", "here", model=model, split_hash=task, protocol=protocol,
        **changes,
    )  # fmt: skip


def cell(model: str, task: str, protocol: str, images: int) -> Planned:
    return Planned(f"{model}/{task}.{protocol}", "", model, task, task, protocol, images)


def test_costs_by_hand() -> None:
    """Two models on one task of 100 images; both tasks of a third one are asked for."""
    costs = Costs([
        row("a", "t", "knn", images=100, encode=10, load=1, fit=2, score=1),
        row("a", "t", "linear", images=100, encode=10, load=1, fit=20, score=4),
        row("b", "t", "knn", images=100, encode=30, load=3, fit=4, score=1),
    ])  # fmt: skip
    known = costs.of([cell("a", "t", "knn", 100)])
    assert known.seconds == pytest.approx(1 + 10 + 4)
    assert (known.cells, known.groups, known.unmeasured, known.unknown) == (1, 1, 0, 0)
    new = costs.of([cell("c", "t", "knn", 100), cell("c", "t", "linear", 100),
                    cell("c", "u", "knn", 50), cell("c", "u", "attentive", 50)])  # fmt: skip
    # encoding at the mean of 40 s for 200 images, loading once at the mean of 1 and 3 s
    assert new.seconds == pytest.approx(0.2 * 150 + 2 + 4 + 24 + 4)
    assert (new.cells, new.groups, new.unmeasured, new.unknown) == (4, 2, 4, 1)
    assert in_words(new, 2) == (
        "4 cells of 2 groups are left, about 1.1 minutes of one process, 0.5 minutes with 2. 4 of "
        "them are of models that were not measured here, and count as the mean of those that were. "
        "1 are of protocols that were not measured, and count nothing."
    )
    assert in_words(Costs([]).of([]), 1) == "Nothing is left to score."
    assert "once some like them are scored" in in_words(Costs([]).of([cell("a", "t", "k", 1)]), 1)


def test_each_state_is_told(tmp_path: Path) -> None:
    store = Disk(tmp_path)
    cells = [cell(m, "t", p, 100) for m in "abcd" for p in ("knn", "linear")]
    write_planned(store, "run", cells)
    assert read_planned(store) == {"run": cells}
    add_part(store, [
        row("a", "t", "knn", images=100, encode=3600, fit=1800),
        row("a", "t", "linear", images=100, encode=3600, fit=1800),
        dataclasses.replace(row("b", "t", "knn"), path="", error="no image is left"),
    ])  # fmt: skip
    dead = Try("x", "c t", "c on t", "elsewhere", 1, now(), "2026-01-01T00:00:00+00:00")
    store.put(dead.file, _bytes(dead))
    with tried(store, "d t", "d on t"):
        status = status_of(tmp_path)
        lines = render(status).splitlines()
    assert (status.cells, status.done) == (8, 2)
    assert [one.title for one in status.running] == ["d on t"]
    assert [one.title for one in status.dead] == ["c on t"]
    assert [r.error for r in status.failed] == ["no image is left"]
    assert (status.left.cells, status.left.groups) == (5, 3)
    assert status.left.hours == pytest.approx(3 + 5 * 0.5)
    assert lines[0] == "2 of 8 cells are done."
    assert lines[-2] == "failed: b t knn: no image is left"
    assert lines[-1].startswith("5 cells of 3 groups are left, about 5.5 hours of one process.")


def test_the_command(tmp_path: Path, cli: Cli) -> None:
    said = cli("status", "--results", tmp_path / "none")
    assert (said.code, "does not exist" in said.err) == (2, True)
    request = make_request(tmp_path, tmp_path / "r", models=2)
    cells = plan(request)
    write_planned(Disk(tmp_path / "r"), key_of(request), planned_cells(cells, tmp_path / "r"))
    told = cli("status", "--results", tmp_path / "r", "--json").json
    assert (told["cells"], told["done"], told["left"]["groups"]) == (4, 0, 2)
    assert "4 cells are left" in cli("status", "--results", tmp_path / "r").out
    assert len(make_groups(request)) == 2


def test_a_plan_by_an_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a store, no result needs to lie here; of a plain folder, one that is gone is not done."""
    monkeypatch.setenv("TRANSFERZOO_CACHE", str(tmp_path / "cache"))
    for place, done in ((f"memory://{tmp_path.name}", 3), (str(tmp_path / "r"), 0)):
        folder = folder_of(place)
        request = make_request(tmp_path, folder, models=2)
        cells = plan(request)
        rows = [
            dataclasses.replace(
                row("m", "t", cell.protocol, images=90, encode=1, fit=1),
                path=cell.path.relative_to(folder).as_posix(), computed="fp32",
                planned=cell.path.relative_to(folder).as_posix(),
                split_hash=cell.task.split_hash, config=json.dumps(plain(cell.settings)),
            )
            for cell in cells[:3]
        ]  # fmt: skip
        add_part(store_of(folder), rows)
        again, index = planned_from(request)
        assert len(index.results) == 3
        assert [c.path for c in again] == [c.path for c in cells]
        assert sum(c.done for c in again) == done
