"""kill -9 of whatever scores a run on many machines: workers, nodes, the driver. What is in the
store afterwards is what one undisturbed process writes, and no group began more often than kills
explain."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

from eval.engines.status import status_of
from eval.results.index import Index
from eval.run.attempt import Try, tries
from eval.run.plan import Request
from eval.stores.front import fetch, folder_of, store_of
from tests.campaign.outcome import Outcome, Place
from tests.engines.groups import command_of, make_request, undisturbed_results
from tests.engines.ray_nodes import RayNodes
from tests.engines.slurm_nodes import SlurmNodes, slurm_missing
from tests.run.scored import files
from tests.stores.s3 import s3_server

MODELS, TASKS = 15, 4  # sixty groups
FEW = 2  # of each, where fewer kills are asked for: on Slurm each group starts a process of its own
PATIENCE = 900.0  # seconds until a run counts as hanging
DRIVER = "driver"

Kill = Callable[[random.Random], bool]  # whether there was something to kill


@dataclass
class Field:
    """Where a run goes on: its engine, what can be killed there, where its processes are told."""

    on: str
    kills: Mapping[str, Kill]
    settings: dict[str, str] = field(default_factory=dict)


def campaign(place: Place, seed: int, least: int) -> Outcome:
    """At least so many kills, on each engine that is here, with results in a folder and on S3; few
    kills in one of the two for each engine."""
    outcome = Outcome()
    kinds = ["local", "ray"] + ([] if slurm_missing() else ["slurm"])
    size = (MODELS, TASKS) if least >= MODELS * TASKS else (FEW, FEW)
    request = make_request(place.folder, place.folder / "undisturbed", *size)
    wanted = undisturbed_results(place.folder, *size)
    stores = ("folder", "s3")
    runs = [(kind, where) for kind in kinds for where in stores]
    if size == (FEW, FEW):  # each engine and each kind of store once
        runs = [(kind, stores[i % 2]) for i, kind in enumerate(kinds)]
    for number, (kind, where) in enumerate(runs):
        share = -(-least // len(runs))
        draw = random.Random(f"{seed} {number}")
        with ExitStack() as stack:
            settings = stack.enter_context(s3_server()) if where == "s3" else {}
            store = "s3://board/r" if where == "s3" else str(place.folder / f"{kind}-results")
            home = place.folder / f"{kind}-{where}"
            home.mkdir()
            settings = settings | {"TRANSFERZOO_CACHE": str(home / "cache")}
            stack.enter_context(patch.dict(os.environ, settings))
            field = stack.enter_context(FIELDS[kind](home, store, settings))
            hits, why = disturb(request, field, store, wanted, home, draw, share)
        outcome.note(f"{kind}, {where}, killed {hits} times", why, count=max(hits, 1))
    return outcome


def disturb(
    request: Request, field: Field, store: str, wanted: dict[str, bytes], home: Path,
    draw: random.Random, kills: int,
) -> tuple[int, str]:  # fmt: skip
    """(kills that hit, why it did not end as it must): the driver once, the rest as it comes."""
    folder = folder_of(store)
    groups = len(request.models) * len(request.tasks)
    cells = len(wanted)
    hits, lost, done, why = 0, 0, 0, ""
    driver = _start(request, field, store, home)
    fatal = draw.randrange(kills)
    deadline = time.monotonic() + PATIENCE
    while driver.poll() is None and hits < kills:
        if time.monotonic() > deadline:
            driver.kill()
            return hits, f"hangs: {(home / 'log').read_text()[-2000:]}"
        time.sleep(draw.uniform(0.1, 0.8))
        found = status_of(folder)
        if found.failed or found.cells not in (0, cells) or not done <= found.done <= cells:
            why = why or f"status says {found.done} of {found.cells}, failed {found.failed}"
        done = found.done
        if hits == fatal and tries(store_of(folder)):
            driver.kill()
            driver.wait()
            hits += 1
            if field.on.startswith("ray"):  # its cluster ends what a dead driver asked for
                time.sleep(1)
                lost += sum(not one.alive for one in tries(store_of(folder)))
            driver = _start(request, field, store, home)
            continue
        if field.kills[draw.choice(sorted(field.kills))](draw):
            hits += 1
    try:
        code = driver.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        driver.kill()
        return hits, f"hangs: {(home / 'log').read_text()[-2000:]}"
    if code:
        return hits, f"exit code {code}: {(home / 'log').read_text()[-2000:]}"
    index = Index()
    index.refresh(store_of(folder))
    fetch(folder, index.results)
    left = tries(store_of(folder))
    begun = len(index.attempts - {""}) + len(left)
    last = status_of(folder)
    print(f"{field.on} {store}: {hits} kills, {begun} starts of {groups} groups", file=sys.stderr)
    if files(folder) != wanted:
        return hits, why or "other results than undisturbed"
    if (last.cells, last.done, last.running, last.failed) != (cells, cells, (), ()):
        return hits, why or f"status says {last}"
    if begun > groups + hits + lost:
        return hits, why or f"{begun} starts of {groups} groups with {hits} kills"
    return hits, why


def _start(request: Request, field: Field, store: str, home: Path) -> subprocess.Popen[bytes]:
    command = [*command_of(request), "--results", store, "--on", field.on]
    at = command.index("--cache")
    del command[at : at + 2]  # each machine has its own
    with (home / "log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "eval", *command], stdout=log, stderr=log,
            env=os.environ | field.settings, start_new_session=True,
        )  # fmt: skip


def kill_try(store: str) -> Kill:
    """kill -9 of a process that is at a group."""

    def kill(draw: random.Random) -> bool:
        alive = [one for one in tries(store_of(folder_of(store))) if one.alive and one.here]
        return bool(alive) and _killed(draw.choice(alive))

    return kill


def _killed(one: Try) -> bool:
    try:
        os.kill(one.process, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


@contextmanager
def _local(home: Path, store: str, settings: dict[str, str]) -> Iterator[Field]:
    yield Field("local:2", {"worker": kill_try(store)}, settings)


@contextmanager
def _ray(home: Path, store: str, settings: dict[str, str]) -> Iterator[Field]:
    with RayNodes() as nodes:
        kinds = {"worker": kill_try(store), "node": nodes.kill_one}
        yield Field("ray", kinds, settings | nodes.settings)


@contextmanager
def _slurm(home: Path, store: str, settings: dict[str, str]) -> Iterator[Field]:
    with SlurmNodes() as nodes:
        kinds = {"task": kill_try(store), "slurmd": nodes.kill_one}
        yield Field("slurm", kinds, settings | nodes.settings)


FIELDS: Mapping[str, Callable[[Path, str, dict[str, str]], AbstractContextManager[Field]]] = {
    "local": _local,
    "ray": _ray,
    "slurm": _slurm,
}
