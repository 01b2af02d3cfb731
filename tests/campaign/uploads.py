"""kill -9 at random moments within an upload: from when the files go out, or the commit is asked
for, on a Hub that takes the commit and drops the answer. The same command then ends in the files
and commits of an undisturbed run."""

from __future__ import annotations

import random
import signal
import threading
from pathlib import Path

from tests.campaign.commands import COMMANDS, Command, begin, fresh, make_inputs
from tests.campaign.kills import PATIENCE, finish, half, undisturbed, unlike
from tests.campaign.outcome import Outcome, Place

# command -> requests from which on it is killed; before them the repository has been made
MOMENTS = (
    ("publish", "PUT /storage/"),
    ("publish", "POST /api/models/lab/net/commit/"),
    ("push --direct", "POST /api/datasets/ada/results/commit/"),
    ("push", "POST /api/datasets/lab/results/commit/"),
)
SOON = 0.15  # seconds after that request, in which the client asks again and ends


def campaign(place: Place, seed: int, least: int) -> Outcome:
    """At least so many kills, as many at each moment; of fewer than 20, all at one."""
    draw, outcome, inputs = random.Random(seed), Outcome(), make_inputs(place)
    named = {command.name: command for command in COMMANDS}
    moments = MOMENTS if least >= 20 else draw.sample(MOMENTS, 1)
    for name, request in moments:
        _disturb(named[name], request, -(-least // len(moments)), inputs, place, draw, outcome)
    return outcome


def _disturb(
    command: Command, request: str, least: int, inputs: Path, place: Place, draw: random.Random,
    outcome: Outcome,
) -> None:  # fmt: skip
    folder = _fresh(command, place.folder / "undisturbed", place)
    whole, _ = undisturbed(command, inputs, folder, place, outcome, least)
    if not whole:
        return
    kills = misses = 0
    while kills < least and misses < 5 * least:
        folder = _fresh(command, place.folder / "killed", place)
        place.hub.land_then_fail(1, None, "/commit/")
        process = begin(command, inputs, folder, place)
        timer = threading.Timer(draw.uniform(0, SOON), process.kill)
        place.hub.on_next(request, timer.start)
        process.join(PATIENCE)
        timer.cancel()
        place.hub.clear_faults()
        if process.exitcode != -signal.SIGKILL:  # it had ended, or it hangs
            process.kill()
            misses += 1
            continue
        kills += 1
        why = half(command.state(place, folder), whole)
        why = why or finish(command, inputs, folder, place)
        why = why or unlike(command.state(place, folder), whole)
        outcome.note(f"{command.name}, from {request} on", why)
    if kills < least:
        outcome.note(f"{command.name}, from {request} on", f"ended before the kill {misses} times")


def _fresh(command: Command, folder: Path, place: Place) -> Path:
    """As `fresh`, on a Hub that knows no large file either: else none is sent again."""
    with place.hub.lock:
        place.hub.blobs.clear()
    return fresh(command, folder / command.name, place)
