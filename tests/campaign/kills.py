"""kill -9 at random moments of every command that writes: the same command then ends as if nothing
had happened, and between the two whatever has its name is whole."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

from tests.campaign.commands import COMMANDS, LEASE, Command, State, begin, fresh, make_inputs
from tests.campaign.outcome import Outcome, Place

PATIENCE = 240.0  # seconds until a process counts as hanging
IN_A_ROW = 4  # kills before the command may end; a fifth is what a queue takes for fatal


def campaign(place: Place, seed: int, least: int) -> Outcome:
    """At least so many kills, spread over the commands."""
    draw, outcome = random.Random(seed), Outcome()
    inputs = make_inputs(place)
    share = -(-least // len(COMMANDS))
    for command in COMMANDS:
        _disturb(command, share, inputs, place, draw, outcome)
    return outcome


def _disturb(
    command: Command, least: int, inputs: Path, place: Place, draw: random.Random, outcome: Outcome
) -> None:
    folder = fresh(command, place.folder / "undisturbed" / command.name, place)
    whole, lasts = undisturbed(command, inputs, folder, place, outcome, least)
    if not whole:
        return
    kills = 0
    while kills < least:
        folder = fresh(command, place.folder / "killed" / command.name, place)
        hits, why = 0, ""
        while hits < IN_A_ROW and not why:
            process = begin(command, inputs, folder, place)
            process.join(draw.uniform(0.05, 1) * lasts)
            if process.exitcode is not None:
                break
            process.kill()
            process.join()
            hits += process.exitcode == -signal.SIGKILL
            why = half(command.state(place, folder), whole)
        why = why or finish(command, inputs, folder, place)
        why = why or unlike(command.state(place, folder), whole)
        if hits:
            outcome.note(f"{command.name}, killed {hits} times", why, count=hits)
        kills += hits


def undisturbed(
    command: Command, inputs: Path, folder: Path, place: Place, outcome: Outcome, least: int
) -> tuple[State, float]:
    """(what the command leaves when nothing happens, seconds it takes); ({}, ..), noted as
    ``least`` failures, where it does not even end well then."""
    start = time.monotonic()
    why = finish(command, inputs, folder, place)
    lasts = time.monotonic() - start
    whole = command.state(place, folder)
    if why or not whole:
        outcome.note(command.name, f"does not even end undisturbed ({why})", count=least)
        return {}, lasts
    return whole, lasts


def finish(command: Command, inputs: Path, folder: Path, place: Place) -> str:
    """Carries the command out; '' or why that does not end well."""
    if command.name == "worker":
        time.sleep(1.5 * LEASE)  # the killed one's request is free then
    process = begin(command, inputs, folder, place)
    process.join(PATIENCE)
    log = folder / "log"
    if process.exitcode is None:
        process.kill()
        return f"hangs: {log.read_text()[-300:]}"
    said = log.read_text(errors="replace")
    if "Traceback" in said:
        return f"traceback: {said[-600:]}"
    return "" if process.exitcode == 0 else f"exit code {process.exitcode}: {said[-300:]}"


def half(found: State, whole: State) -> str:
    """What a kill left under a name that is whole undisturbed, and is not that."""
    wrong = [name for name, data in found.items() if whole.get(name) != data]
    return f"{wrong[0]} is not whole after the kill" if wrong else ""


def unlike(found: State, whole: State) -> str:
    if found == whole:
        return ""
    names = sorted(n for n in found.keys() | whole.keys() if found.get(n) != whole.get(n))
    return f"{', '.join(names[:5])} {'are' if len(names) > 1 else 'is'} not as undisturbed"
