"""Results that nobody computed, offered to a board as pull requests and merged by its keeper.

What contradicts itself, its model, its data or its calendar, and what touches more than its own
file, is refused in one sentence and main stays as it is. What is consistent with itself is caught
by `merge --verify`; merged without it, the board says *self-reported*.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eval.protocols.outcome import Outcome as Scores
from eval.results.names import shelf_path
from eval.results.parquet_table import flaw
from eval.results.schema import Result
from eval.results.signoff import as_bytes as signed_bytes
from eval.results.signoff import file_of, signed
from eval.results.store import read_shelf
from tests.campaign.commands import Command, begin, fresh
from tests.campaign.outcome import TOKEN, Outcome, Place
from tests.factories import make_result
from tests.models.checkpoints import checkpoint

BOARD, EVE = "lab/board", "hf_eveForgesResults0123456789"
PATIENCE = 240.0  # seconds until a process counts as hanging

Json = dict[str, Any]
Files = dict[str, bytes | None]


@dataclass(frozen=True)
class Held:
    """What the forger has: an honest result (of a model of his on the Hub), and what main holds."""

    honest: Json
    main: dict[str, bytes]

    @property
    def other(self) -> str:
        """Somebody else's result on main."""
        return next(path for path in self.main if path.startswith("random--test_resnet"))


def _path(raw: Json) -> str:
    return shelf_path(Result.model_validate(raw))


def _changed(**changes: Any) -> Callable[[Held], Files]:
    """The honest result with other values, ``scores__0__value=...``; where it then belongs."""

    def made(held: Held) -> Files:
        raw = copy.deepcopy(held.honest)
        for place, value in changes.items():
            *way, last = [int(p) if p.isdigit() else p for p in place.split("__")]
            part: Any = raw
            for key in way:
                part = part[key]
            part[last] = value
        try:
            path = _path(raw)
        except ValueError:
            path = _path(held.honest)
        return {path: json.dumps(raw).encode()}

    return made


def _text(change: Callable[[str], str]) -> Callable[[Held], Files]:
    """The honest result's text, changed."""
    return lambda held: {_path(held.honest): change(json.dumps(held.honest)).encode()}


def _renamed(held: Held) -> Files:
    return {held.other: None, held.other.replace("seed0", "seed1"): held.main[held.other]}


def _overwritten(held: Held) -> Files:
    raw = json.loads(held.main[held.other])
    return {held.other: json.dumps(_better(raw)).encode()}


def _dropped(held: Held) -> Files:
    raw = json.loads(held.main[held.other])
    raw["scores"] = raw["scores"][:1]
    return {held.other: json.dumps(raw).encode()}


def _signed(held: Held) -> Files:
    """Eve says that ada computed it again."""
    result = Result.model_validate(held.honest)
    path = shelf_path(result)
    off = signed_bytes(signed(result, path, "equal", "ada"))
    return {path: json.dumps(held.honest).encode(), file_of(path): off}


def _beside(path: str, data: bytes) -> Callable[[Held], Files]:
    return lambda held: {_path(held.honest): json.dumps(held.honest).encode(), path: data}


def _at(path: str) -> Callable[[Held], Files]:
    return lambda held: {path: json.dumps(held.honest).encode()}


A, F = "a" * 40, "f" * 64
_EUROSAT = {"name": "eurosat", "subset": False, "split": "study", "split_hash": "f" * 64}

# what it is -> (the pull request's files, words of the sentence)
REFUSED: dict[str, tuple[Callable[[Held], Files], str]] = {
    "a better value": (_changed(scores__0__value=0.999, scores__0__ci_high=1.0), "samples average"),
    "a value of 42": (_changed(scores__0__value=42.0), "no fraction of one"),
    "a value of NaN": (_changed(scores__0__value=float("nan")), "no fraction of one"),
    "a negative zero with samples": (_changed(scores__0__value=-0.0, scores__0__ci_low=-0.0),
                                     "samples average"),
    "a value as text": (_changed(scores__0__value="0.999"), "is not a result (scores.0.value"),
    "true for 1": (_changed(scores__0__value=True), "is not a result (scores.0.value"),
    "a value of 1e400": (_text(lambda s: s.replace('"value": 0.', '"value": 1e400, "x": 0.', 1)),
                         "no fraction of one"),
    "two values of one name": (_text(lambda s: s.replace('"value":', '"value": 1, "value":', 1)),
                               "says 'value' twice"),
    "two lists of scores": (_text(lambda s: '{"scores": [], ' + s[1:]), "says 'scores' twice"),
    "an interval from -5 to 7": (_changed(scores__0__ci_low=-5, scores__0__ci_high=7), "leaves 0"),
    "an interval to 1e9": (_changed(scores__0__ci_high=1e9), "leaves 0 to 1"),
    "an endless interval": (_changed(scores__0__ci_high=float("inf")), "is not finite"),
    "an interval beside its value": (_changed(scores__0__ci_low=0.999), "outside of its interval"),
    "n = -3": (_changed(scores__0__n=-3), "n = -3"),
    "n = 10**30": (_changed(scores__0__n=10**30), "samples"),
    "a count that is a float": (_changed(scores__0__n=300.0), "is not a result (scores.0.n"),
    "no samples": (_changed(samples={}, confidence=None), "has no samples"),
    "no scores": (_changed(scores=[]), "it has no scores"),
    "answers that are not there": (_changed(samples__top1__n=10**7), "samples"),
    "a weights hash that is none": (_changed(model__weights_sha256="not a hash"), "not 64 hexa"),
    "weights of others": (_changed(model__weights_sha256=F), "names weights of sha256 ffffff"),
    "a commit that is not there": (
        _changed(model__spec=f"hf-hub:eve/net@{A}", model__revision=A), "has no commit aaaaaaaa"),
    "a repository that is not there": (
        _changed(model__spec=f"hf-hub:eve/none@{A}", model__id="hf-hub:eve/none",
                 model__revision=A), "has no repository 'eve/none'"),
    "a branch for a commit": (_changed(model__revision="main"), "not 40 hexadecimal digits"),
    "somebody else's name": (_changed(model__id="hf-hub:facebook/dinov2"), "but it is called"),
    "a timm name": (_changed(model__id="resnet50.a1_in1k"), "which is of 'timm/resnet50.a1_in1k'"),
    "a timm name that looks alike": (_changed(model__id="resnet5\uff10.a1_in1k"), "it is called"),
    "a letter that looks alike": (_changed(model__id="hf-hub:eve/n\u0435t"), "but it is called"),
    "a name that turns around": (_changed(model__id="hf-hub:eve/net\u202e"), "but it is called"),
    "a kind of model that is none": (
        _changed(model__spec="new:net", model__id="resnet50.a1_in1k"), "is of no known kind"),
    "a checkpoint that does not ship": (
        _changed(model__spec="zoo:best", model__id="zoo:best"), "does not ship"),
    "a seed that is another": (
        _changed(model__spec="random:resnet18", model__id="random:resnet18"), "of revision"),
    "a split hash that is none": (_changed(task__split_hash="../../x"), "not 64 hexadecimal"),
    "negative images": (_changed(task__counts={"classes": -1, "train": -2, "test": -3}), "to test"),
    "a whole data set of other size": (
        lambda held: _changed(task=held.honest["task"] | _EUROSAT)(held), "where the whole of"),
    "more duplicates than images": (_changed(task__duplicates=10**6), "duplicates among"),
    "another limit": (_changed(limit=2), "limited to 2 images"),
    "the year 2999": (_changed(created="2999-01-01T00:00:00+00:00"), "its date is '2999"),
    "the year 2019": (_changed(created="2019-01-01T00:00:00+00:00"), "its date is '2019"),
    "no time zone": (_changed(created="2026-11-01T00:00:00"), "has no time zone"),
    "a seed of 10**30": (_changed(seed=10**30), "out of range"),
    "half a character": (_text(lambda s: s.replace('"notes": []', '"notes": ["\\ud800"]')),
                         "out of range"),
    "JSON nested 1,000,000 deep": (_text(lambda s: "[" * 10**6), "no readable JSON"),
    "JSON in JSON, 100,000 deep": (
        _text(lambda s: s[:-1] + ', "x": ' + "[" * 10**5 + "]" * 10**5 + "}"), "no readable JSON"),
    "a file of 34 MB": (_text(lambda s: s + " " * 34_000_000), "at most 33,554,432 are read"),
    "a link, as git keeps one": (_text(lambda s: "../../../../etc/passwd"), "no readable JSON"),
    "a README": (_beside("README.md", b"# mine"), "changes 'README.md'"),
    "the table": (_beside("results.parquet", b"PAR1"), "changes 'results.parquet'"),
    "a program": (_beside("x.py", b"import os"), "changes 'x.py'"),
    "git's attributes": (_beside(".gitattributes", b"* -text"), "changes '.gitattributes'"),
    "a workflow": (_beside(".github/workflows/x.json", b"{}"), "changes '.github/"),
    "a sign-off": (_signed, "brings the sign-off '.verified/"),
    "another's result, deleted": (lambda held: {held.other: None}, "deletes"),
    "another's result, renamed": (_renamed, "deletes"),
    "another's result, better": (_overwritten, "is on main already"),
    "another's result, with less": (_dropped, "would drop scores"),
    "the place of another": (_at("random--test_resnet/seed0/x.knn.json"), "is not where its"),
    "a place in capitals": (
        lambda held: {_path(held.honest).upper(): json.dumps(held.honest).encode()},
        "results (MODEL/REVISION/NAME.json) may be added"),
    "a hidden place": (_at(".eve/x/y.json"), "may be added"),
    "a folder of this machine": (_changed(task__source="/etc"), "names a folder"),
}  # fmt: skip


def _better(raw: Json, share: float = 0.95) -> Json:
    """Answers of one's choice, and all that follows from them."""
    images, classes = raw["samples"]["top1"]["n"], raw["task"]["counts"]["classes"]
    correct = np.random.default_rng(0).random(images) < share
    out = Scores()
    out.add_top1(correct, [float(correct.mean())] * classes)
    made = copy.deepcopy(raw) | {
        "scores": [score.model_dump(mode="json") for score in out.scores],
        "samples": {name: s.model_dump(mode="json") for name, s in out.samples.items()},
    }
    made.pop("confidence", None)
    return made


def _flipped(raw: Json) -> Json:
    """One more image is right."""
    found = Result.model_validate(raw).samples["top1"].values()
    found[int(np.flatnonzero(found == 0)[0])] = 1
    return _better_of(raw, found > 0)


def _better_of(raw: Json, correct: np.ndarray) -> Json:
    out = Scores()
    out.add_top1(correct, [float(correct.mean())] * raw["task"]["counts"]["classes"])
    made = copy.deepcopy(raw) | {
        "scores": [score.model_dump(mode="json") for score in out.scores],
        "samples": {name: s.model_dump(mode="json") for name, s in out.samples.items()},
    }
    made.pop("confidence", None)
    return made


def _of_seed(raw: Json, seed: int) -> Json:
    """Said of a network that he never drew."""
    spec = f"random:test_resnet@{seed}"
    facts = {"spec": spec, "id": spec, "revision": f"seed{seed}", "weights_sha256": F}
    return copy.deepcopy(raw) | {"model": raw["model"] | facts}


# what it is -> the result, and words of what computing it again says
INVENTED: dict[str, tuple[Callable[[Json], Json], str]] = {
    "95 % right": (_better, "differs (top1: "),
    "all right": (lambda raw: _better(raw, 1.0), "differs (top1: "),
    "one image more": (_flipped, "differs (top1: "),
    "another network's answers": (lambda raw: _of_seed(raw, 7), "differs (the weights: "),
    "other images, unknown to all": (
        lambda raw: raw | {"task": raw["task"] | {"split_hash": F}}, "differs (the data: "),
}  # fmt: skip


def campaign(place: Place, seed: int, least: int) -> Outcome:
    """All of them, or so many of those that are refused and one that is invented."""
    draw, outcome = random.Random(seed), Outcome()
    place.hub.tokens.add(EVE)
    place.hub.users[EVE] = "eve"
    held = _board(place)
    refused, invented = list(REFUSED), list(INVENTED)
    if least < 20:
        refused, invented = draw.sample(refused, least), draw.sample(invented, 1)
    for name in refused:
        make, says = REFUSED[name]
        outcome.note(name, _refused(make(held), says, place))
    for name in invented:
        made, says = INVENTED[name]
        outcome.note(f"invented: {name}", _caught(made(held.honest), says, place))
    return outcome


def _board(place: Place) -> Held:
    """Somebody's honest results on main, and eve's model with an honest one of hers."""
    folder = checkpoint(place.folder / "net")
    place.hub.add_model("eve/net", {p.name: p.read_bytes() for p in folder.iterdir()})
    code, said = _command(
        place, "run", "random:test_resnet", "hf-hub:eve/net", "--task", "hue", "--protocol", "knn",
        "--img-size", "32", "--precision", "fp32", "--device", "cpu", "--results",
        str(place.folder / "results"),
    )  # fmt: skip
    if code:
        raise RuntimeError(said)
    found = {r.model.id: r for _, r in read_shelf(place.folder / "results").results}
    others = [found["random:test_resnet"], make_result(task="photos")]
    main = {shelf_path(r): json.dumps(r.model_dump(mode="json")).encode() for r in others}
    place.hub.add_dataset(BOARD, {**main, "README.md": b"# results"})
    return Held(found["hf-hub:eve/net"].model_dump(mode="json"), main)


def _refused(files: Files, says: str, place: Place) -> str:
    """'' or what is wrong with how its merge ended."""
    repo = place.hub.repos["dataset", BOARD]
    before = repo.head.sha
    number = _offer(files, place)
    code, said = _command(place, "merge", BOARD, str(number))
    return _stands(code, said, says, number, before, place)


def _caught(raw: Json, says: str, place: Place) -> str:
    """'' or what is wrong with an invention: caught by `--verify`, told by the board without."""
    if why := flaw(Result.model_validate(raw)):
        return f"is not consistent with itself: {why}"
    repo = place.hub.repos["dataset", BOARD]
    before = repo.head
    number = _offer({_path(raw): json.dumps(raw).encode()}, place)
    code, said = _command(place, "merge", BOARD, str(number), "--verify", "1")
    if why := _stands(code, said, says, number, before.sha, place):
        return why
    code, said = _command(place, "merge", BOARD, str(number))
    if code:
        return f"is not merged without --verify: {said[-300:]}"
    code, said = _command(place, "leaderboard", "--results", f"hub:{BOARD}", "--json")
    boards = json.loads(said[said.index("[\n") :]) if code == 0 else []
    rows = [r for b in boards for r in b["rows"] if r["model"].startswith(raw["model"]["id"])]
    place.hub.add_dataset(BOARD, {_path(raw): None})
    if not rows or any(row.get("standing") != "self-reported" for row in rows):
        return f"is not shown as self-reported: {rows or said[-300:]}"
    return ""


def _stands(code: int | None, said: str, says: str, number: int, before: str, place: Place) -> str:
    """'' or what is wrong with a merge that had to be refused."""
    repo = place.hub.repos["dataset", BOARD]
    lines = [line for line in said.splitlines() if not line.startswith("[")]
    if repo.head.sha != before:
        return f"is merged: {said[-300:]}"
    if code != 2 or len(lines) != 1:
        return f"not one sentence (exit code {code}): {said[-400:]}"
    if says not in lines[0]:
        return f"does not say {says!r}: {lines[0]}"
    if not lines[0].isprintable() or len(lines[0]) > 600:
        return f"steers the terminal, or is {len(lines[0])} characters long"
    if TOKEN in said or EVE in said:
        return "prints a token"
    return "" if repo.discussions[number].status == "open" else "closes the request"


def _offer(files: Files, place: Place) -> int:
    """The number of a pull request of eve's, made without our code."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    done = HfApi(endpoint=place.hub.url, token=EVE).create_commit(
        BOARD,
        [
            CommitOperationDelete(path) if data is None else CommitOperationAdd(path, data)
            for path, data in files.items()
        ],
        repo_type="dataset", commit_message="results", create_pr=True,
    )  # fmt: skip
    assert done.pr_num is not None
    return int(done.pr_num)


def _command(place: Place, *argv: str) -> tuple[int | None, str]:
    """(exit code, None where it hangs; what it printed) of a command of ada's."""
    cache = ["--cache", str(place.folder / "cache")] if argv[0] in ("run", "merge") else []
    command = Command(argv[0], "eval", lambda i, f: [*argv, *cache], lambda place, folder: {})
    folder: Path = fresh(command, place.folder / "command", place)
    process = begin(command, folder, folder, place)
    process.join(PATIENCE)
    if process.exitcode is None:
        process.kill()
    return process.exitcode, (folder / "log").read_text(errors="replace")
