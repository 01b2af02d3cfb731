"""How far the runs of a store are, by the store alone: whoever may read it may ask."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from eval.engines.costs import Costs, Estimate, in_words
from eval.engines.lease import Driver, drivers
from eval.engines.planned import Planned, read_planned
from eval.results.index import Index, Row
from eval.run.attempt import Try, tries
from eval.stores.front import store_of


@dataclass(frozen=True)
class Status:
    """``cells`` of all runs that were planned here, each once."""

    cells: int
    done: int
    running: tuple[Try, ...]
    dead: tuple[Try, ...]  # of which nobody has heard, and whose group is not done
    failed: tuple[Row, ...]
    left: Estimate
    drivers: tuple[Driver, ...]  # at work now


def status_of(folder: Path) -> Status:
    """What a store says of its runs. Raises UserError where it cannot be read."""
    store, index = store_of(folder), Index()
    index.refresh(store)
    planned: dict[str, Planned] = {}
    for cells in read_planned(store).values():
        planned |= {cell.path: cell for cell in cells}
    left = {
        path: cell
        for path, cell in planned.items()
        if path not in index.planned and path not in index.results
    }
    failed = [row for row in index.failed() if row.conflict or row.planned in left]
    lost = {row.planned for row in failed}
    todo = [cell for path, cell in left.items() if path not in lost]
    # A try that ended between the two looks is in the index by now, and no longer running.
    now = [one for one in tries(store) if one.name not in index.attempts]
    running = [one for one in now if one.alive]
    again = {one.group for one in running} | {row.group for row in index.results.values()}
    dead = [one for one in now if not one.alive and one.group not in again]
    at_work = [driver for driver in drivers(store).values() if driver.alive]
    return Status(
        len(planned), len(planned) - len(left), tuple(running), tuple(dead), tuple(failed),
        Costs(index.results.values()).of(todo), tuple(at_work),
    )  # fmt: skip


def render(status: Status) -> str:
    """A few lines: done, running, failed, what is left."""
    if not status.cells:
        return "No run was started here with --on."
    lines = [f"{status.done:,} of {status.cells:,} cells are done."]
    for driver in status.drivers:
        lines.append(f"driver: process {driver.process} on {driver.host}, --on {driver.engine}")
    lines += [
        f"running: {one.title}, on {one.host} for {60 * one.hours:.1f} min"
        for one in status.running
    ]
    lines += [
        f"died: {one.title}, on {one.host}, last heard of {one.beat[:19]}; it is tried again"
        for one in status.dead
    ]
    lines += [f"failed: {row.title}: {row.error}" for row in status.failed]
    lines.append(in_words(status.left, len(status.running)))
    return "\n".join(lines)


def as_json(status: Status) -> dict[str, Any]:
    """The same as plain data."""
    return {
        "cells": status.cells,
        "done": status.done,
        "running": [
            {"group": one.title, "host": one.host, "since": one.since} for one in status.running
        ],
        "died": [{"group": o.title, "host": o.host, "last": o.beat} for o in status.dead],
        "failed": [{"cell": row.title, "error": row.error} for row in status.failed],
        "left": asdict(status.left) | {"hours": status.left.hours},
        "drivers": [{"host": d.host, "process": d.process} for d in status.drivers],
    }
