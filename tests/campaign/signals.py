"""SIGTERM at random moments of every command, as Slurm and Kubernetes send it: exit code 143, one
sentence, whatever has its name is whole, and the same command then ends as undisturbed."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Sequence
from pathlib import Path

from tests.campaign.commands import COMMANDS, LONGER, Command, begin, fresh, make_inputs
from tests.campaign.kills import finish, half, undisturbed, unlike
from tests.campaign.outcome import TOKEN, Outcome, Place

SOON = 60.0  # seconds in which a command must end


def campaign(place: Place, seed: int, least: int) -> Outcome:
    """At least so many, spread over the commands; where fewer than 20 are asked for, of `run`."""
    draw, outcome = random.Random(seed), Outcome()
    commands: Sequence[Command] = (*COMMANDS, *LONGER) if least >= 20 else COMMANDS[:1]
    inputs = make_inputs(place)
    for command in commands:
        _disturb(command, -(-least // len(commands)), inputs, place, draw, outcome)
    return outcome


def _disturb(
    command: Command, least: int, inputs: Path, place: Place, draw: random.Random, outcome: Outcome
) -> None:
    folder = fresh(command, place.folder / "undisturbed" / command.name, place)
    whole, lasts = undisturbed(command, inputs, folder, place, outcome, least)
    if not whole:
        return
    hits = misses = 0
    while hits < least and misses < 10 * least:
        folder = fresh(command, place.folder / "ended" / command.name, place)
        process = begin(command, inputs, folder, place)
        process.join(draw.uniform(0.1, 1) * lasts)
        if process.exitcode is None:
            os.kill(process.pid, signal.SIGTERM)
        process.join(SOON)
        if process.exitcode in (0, -signal.SIGTERM):  # done already, or not yet begun
            misses += 1
            continue
        hits += 1
        said = (folder / "log").read_text(errors="replace")
        if process.exitcode is None:
            process.kill()
            why = f"does not end in {SOON:.0f} s"
        elif process.exitcode != 128 + signal.SIGTERM:
            why = f"exit code {process.exitcode}: {said[-300:]}"
        elif "Traceback" in said or not said.splitlines()[-1].startswith("terminated"):
            why = f"not one sentence: {said[-400:]}"
        else:
            why = "prints the token" if TOKEN in said else half(command.state(place, folder), whole)
        (folder / "log").unlink()
        why = why or finish(command, inputs, folder, place)
        why = why or unlike(command.state(place, folder), whole)
        outcome.note(command.name, why)
    if hits < least:
        outcome.note(command.name, f"ended before SIGTERM came, {misses} times")
