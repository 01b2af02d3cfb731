"""A Hub that fails: what passes by itself is waited for and leaves the same files, what does not is
one sentence, after which the Hub holds what it held; then the command ends as undisturbed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.campaign.commands import COMMANDS, Command, State, begin, files_of, fresh, make_inputs
from tests.campaign.outcome import TOKEN, Outcome, Place
from tests.hub import LoopbackHub

PATIENCE = 240.0  # seconds until a process counts as hanging
_SHA = re.compile(rb"[0-9a-f]{40}")
_CONTENT = ("config.json", "model.safetensors")

Plan = Callable[[LoopbackHub], object]


@dataclass(frozen=True)
class Fault:
    """What the Hub does. ``says``: words of the one sentence that the command ends with; '' where
    it must end as if nothing had happened."""

    name: str
    plan: Plan
    says: str = ""


def _restored(place: Place, folder: Path) -> None:
    """The model anew, under its name, open to all."""
    content = place.folder / "inputs" / "checkpoint" / "resnet_tiny.ce_made"
    with place.hub.lock:
        for name in ("org/net0", "org/renamed"):
            place.hub.repos.pop(("model", name), None)
            place.hub.moved.pop(("model", name), None)
        place.hub.add_model("org/net0", {n: (content / n).read_bytes() for n in _CONTENT})


def _scored(place: Place, folder: Path) -> State:
    """Results, with the commit that is another each time blotted out."""
    found = files_of(folder / "results", "*.json")
    return {
        _SHA.sub(b"SHA", name.encode()).decode(): _SHA.sub(b"SHA", data)
        for name, data in found.items()
    }


RUN = Command(
    "run of a model on the Hub", "eval",
    lambda inputs, folder: [
        "run", "hf-hub:org/net0", "--task", "eurosat", "--data", str(inputs / "data"), "--cache",
        str(folder / "cache"), "--results", str(folder / "results"), "--protocol", "knn",
        "--precision", "fp32",
    ],
    _scored, _restored,
)  # fmt: skip


def _moves(hub: LoopbackHub) -> object:
    return hub.on_next("/resolve/", lambda: hub.add_model("org/net0", {"model.safetensors": b"x"}))


def _deleted(hub: LoopbackHub) -> object:
    return hub.repos.pop(("model", "org/net0"))


def _gated(hub: LoopbackHub) -> object:
    return hub.add_model("org/net0", {}, gated=True)


def _answers(status: int, match: str, times: int = 1) -> Plan:
    return lambda hub: hub.fail_next(times, status, match, {"Retry-After": "0"})


def _lands(status: int | None, match: str) -> Plan:
    return lambda hub: hub.land_then_fail(1, status, match)


def _drops(match: str) -> Plan:
    return lambda hub: hub.drop_next(1, match)


_NET, _COMMIT = "/api/models/lab/net", "/commit/"
FAULTS: dict[str, tuple[Fault, ...]] = {
    "publish": (
        Fault("who it is: 500, twice", _answers(500, "GET /api/whoami", 2)),
        Fault("the repository: 429", _answers(429, f"GET {_NET}")),
        Fault("made, but no answer", _lands(None, "POST /api/repos/create")),
        Fault("made, but 500", _lands(500, "POST /api/repos/create")),
        Fault("preupload: 500", _answers(500, "/preupload/")),
        Fault("upload dropped", _drops("PUT /storage/")),
        Fault("commit: 503, twice", _answers(503, _COMMIT, 2)),
        Fault("commit dropped", _drops(f"POST {_NET}{_COMMIT}")),
        Fault("committed, but no answer", _lands(None, _COMMIT)),
        Fault("committed, but 500", _lands(500, _COMMIT)),
        Fault("download cut", lambda hub: hub.cut_next(1, 1000, "GET /storage/")),
        Fault("token: 401", _answers(401, "GET /api/whoami", 9), "does not accept the token"),
        Fault("commit: 403", _answers(403, _COMMIT, 9), "the Hub forbids it"),
        Fault("commit: 404", _answers(404, _COMMIT, 9), "404"),
        Fault("commit: 500 for ever", _answers(500, _COMMIT, 99), "try again later"),
    ),
    "push --direct": (
        Fault("the repository: 500", _answers(500, "GET /api/datasets/ada/results")),
        Fault("committed, but no answer", _lands(None, _COMMIT)),
        Fault("commit: 429", _answers(429, _COMMIT)),
        Fault("preupload dropped", _drops("/preupload/")),
        Fault("commit: 403", _answers(403, _COMMIT, 9), "the Hub forbids it"),
    ),
    "push": (
        Fault("requests: 503", _answers(503, "/discussions")),
        Fault("offered, but no answer", _lands(None, _COMMIT)),
        Fault("offered, but 503", _lands(503, _COMMIT)),
    ),
    RUN.name: (
        Fault("the model: 500, twice", _answers(500, "/api/models/org/net0", 2)),
        Fault("a file: 503", _answers(503, "HEAD /org/net0/resolve/")),
        Fault("a file cut", lambda hub: hub.cut_next(1, 500, "GET /")),
        Fault("renamed", lambda hub: hub.rename("org/net0", "org/renamed")),
        Fault("main moves", _moves),
        Fault("deleted", _deleted, "no model 'org/net0'"),
        Fault("gated", _gated, "is gated"),
        Fault("401", _answers(401, "org/net0", 99), "does not accept the token"),
        Fault("404", _answers(404, "org/net0", 99), "org/net0"),
        Fault("500 for ever", _answers(500, "org/net0", 99), "the Hub cannot be reached"),
    ),
}


def campaign(place: Place, seed: int, least: int) -> Outcome:
    """Each fault once; where fewer than 20 are asked for, the first so many of each command."""
    outcome, inputs = Outcome(), make_inputs(place)
    for command in (*COMMANDS, RUN):
        faults = FAULTS.get(command.name, ())
        if faults:
            _try(command, faults if least >= 20 else faults[:least], inputs, place, outcome)
    return outcome


def _try(
    command: Command, faults: tuple[Fault, ...], inputs: Path, place: Place, outcome: Outcome
) -> None:
    folder = fresh(command, place.folder / "whole" / command.program, place)
    code, said = _run(command, inputs, folder, place)
    whole = command.state(place, folder)
    if code or not whole:
        outcome.note(command.name, f"does not even end undisturbed ({said[-300:]})")
        return
    for fault in faults:
        folder = fresh(command, place.folder / "failing" / command.program, place)
        before = command.state(place, folder)
        fault.plan(place.hub)
        code, said = _run(command, inputs, folder, place)
        place.hub.clear_faults()
        problems = list(_problems(fault, code, said))
        if fault.says:
            after = command.state(place, folder)
            kept = {k: v for k, v in after.items() if k in before or k in whole}
            if fault.name in ("deleted", "gated"):
                _restored(place, folder)
            if any(whole.get(k, before.get(k)) != v for k, v in kept.items()):
                problems.append("something half is left on the Hub")
            again, said = _run(command, inputs, folder, place)
            if again:
                problems.append(f"afterwards: exit code {again}: {said[-300:]}")
        if fault.name == "renamed":  # its results have the name of today
            wanted = {k.replace("net0", "renamed") for k in whole}
            if set(command.state(place, folder)) != wanted:
                problems.append("not filed under the model's name of today")
        elif command.state(place, folder) != whole:
            problems.append("ends otherwise than undisturbed")
        outcome.note(f"{command.name}, {fault.name}", "; ".join(problems))


def _problems(fault: Fault, code: int | None, said: str) -> Iterator[str]:
    if code is None:
        yield "hangs"
    if TOKEN in said:
        yield "prints the token"
    if "Traceback" in said:
        yield f"traceback: {said[-400:]}"
    if not fault.says and code:
        yield f"exit code {code}: {said[-400:]}"
    if fault.says and (code != 2 or fault.says not in said.splitlines()[-1]):
        yield f"does not say {fault.says!r} (exit code {code}): {said[-400:]}"


def _run(command: Command, inputs: Path, folder: Path, place: Place) -> tuple[int | None, str]:
    """(exit code, None where it hangs; what was printed)."""
    (folder / "log").unlink(missing_ok=True)
    process = begin(command, inputs, folder, place)
    process.join(PATIENCE)
    if process.exitcode is None:
        process.kill()
    return process.exitcode, (folder / "log").read_text(errors="replace")
