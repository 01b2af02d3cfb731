"""What a set of results adds to those that are already published. Knows no Hub and no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from eval.common.errors import BadInput, Conflict
from eval.common.files import dump_json
from eval.results.names import changes, number_format, shelf_path
from eval.results.schema import SAME_CONFIDENCE, Result, confidence_gap

Held = Mapping[str, Result | str]  # path -> what is published there, or why it is not a result


@dataclass(frozen=True)
class Change:
    """A file that a push would write: not there yet, one that says more than the one there, or
    one that takes its place."""

    path: str
    result: Result
    kind: Literal["new", "more", "replaced"]


def candidate_paths(result: Result) -> tuple[str, str, str, str]:
    """The paths a result may have: its own, the one beside another data set's, and each of these
    beside a result in another precision."""
    return (
        shelf_path(result),
        shelf_path(result, by_hash=True),
        shelf_path(result, by_precision=True),
        shelf_path(result, by_hash=True, by_precision=True),
    )


def changes_to_publish(
    local: Sequence[tuple[Path, Result]], held: Held, repo: str, *, replace: bool = False
) -> tuple[Change, ...]:
    """What ``local`` adds to ``held``, by path; nothing for what is there already.

    Raises UserError where two local files, or a local and a published one, say different things
    of the same; ``replace`` lets the local one win over the published.
    """
    mine: dict[str, tuple[Path, Result]] = {}
    found = []
    # By split hash: of two new data sets of one name the same one is always the first.
    for file, result in sorted(local, key=lambda r: (r[1].task.split_hash, str(r[0]))):
        path = _place(result, held, {p: r for p, (_, r) in mine.items()})
        if path in mine:
            first, other = mine[path]
            if what := _unlike(result, other):
                raise BadInput(f"{first} and {file} are both {path}, but {what}; keep one of them")
            continue
        mine[path] = file, result
        if offer := _offer(path, file, result, held.get(path), repo, replace):
            found.append(offer)
    return tuple(sorted(found, key=lambda o: o.path))


def _place(result: Result, held: Held, mine: Held) -> str:
    plain, hashed, precise, both = candidate_paths(result)
    other = held.get(plain) or mine.get(plain)
    clash = isinstance(other, Result) and other.task.split_hash != result.task.split_hash
    if clash or hashed in held or hashed in mine:
        plain, precise = hashed, both
    other = held.get(plain) or mine.get(plain)
    unlike = isinstance(other, Result) and number_format(other) != number_format(result)
    return precise if unlike else plain


def _offer(
    path: str, file: Path, result: Result, there: Result | str | None, repo: str, replace: bool
) -> Change | None:
    if there is None:
        return Change(path, result, "new")
    what = (
        f"the one there is no result ({there})"
        if isinstance(there, str)
        else difference(there, result)
    )
    if what and not replace:
        raise Conflict(
            f"{path} is in {repo!r} already and {what}; check yours with "
            f"`transfer-eval verify {file}`, or replace the one there with --replace"
        )
    if what or isinstance(there, str):
        return Change(path, result, "replaced")
    if covers(there, result):
        return None
    return Change(path, combine(result, there), "more")


def _unlike(one: Result, other: Result) -> str:
    """What keeps two local files from being one; neither may know more than the other."""
    if what := difference(other, one):
        return what
    if (one.confidence is None) != (other.confidence is None):
        return "one has confidences that the other lacks"
    same = covers(one, other) and covers(other, one)
    return "" if same else "one has scores that the other lacks"


def difference(there: Result, here: Result) -> str:
    """Where two results of one path contradict each other, else an empty text.

    When, where and how fast each was computed is not a contradiction.
    """
    facts = {
        "model.id": (there.model.id, here.model.id),
        "model.weights_sha256": (there.model.weights_sha256, here.model.weights_sha256),
        "task.name": (there.task.name, here.task.name),
        "task.split_hash": (there.task.split_hash, here.task.split_hash),
        "the settings": (changes(there), changes(here)),
    }
    for name, (a, b) in facts.items():
        if a != b:
            return f"{name}: {a!r} there, {b!r} here"
    for score in there.scores:
        own = here.score(score.name)
        if own is None:
            continue
        for field in ("value", "ci_low", "ci_high", "n"):
            a, b = getattr(score, field), getattr(own, field)
            if a != b:
                name = score.name if field == "value" else f"{score.name} ({field})"
                return f"{name} is {a} there and {b} here"
    for name in there.samples.keys() & here.samples.keys():
        # Values with training images left out are an estimate's raw material, and may be absent.
        ours, theirs = (
            result.samples[name].model_copy(update={"without": None}) for result in (here, there)
        )
        if ours != theirs:
            return f"the samples of {name} are others"
    if (gap := confidence_gap(there, here)) > SAME_CONFIDENCE:
        return f"the confidences are up to {gap:.4f} off"
    return ""


def covers(one: Result, other: Result) -> bool:
    """Whether ``one`` has every score, the samples and the confidences that ``other`` has."""
    return (
        {s.name for s in other.scores} <= {s.name for s in one.scores}
        and other.samples.keys() <= one.samples.keys()
        and (one.confidence is not None or other.confidence is None)
    )


def combine(mine: Result, theirs: Result) -> Result:
    """``mine`` with all that only ``theirs`` says: scores, samples, notes, warnings,
    fields of its own."""
    ours, other = mine.model_dump(mode="json"), theirs.model_dump(mode="json")
    out = _filled(ours, other)
    names = {score["name"] for score in ours["scores"]}
    out["scores"] = ours["scores"] + [s for s in other["scores"] if s["name"] not in names]
    out["notes"] = list(dict.fromkeys([*ours["notes"], *other["notes"]]))
    out["warnings"] = list(dict.fromkeys([*mine.warnings, *theirs.warnings]))
    shots = [r["protocol"]["config"].get("shots") for r in (ours, other)]
    if all(isinstance(s, list) for s in shots):
        out["protocol"]["config"]["shots"] = sorted({*shots[0], *shots[1]})
    return Result.model_validate(out)


def _filled(mine: Any, theirs: Any) -> Any:
    if isinstance(mine, dict) and isinstance(theirs, dict):
        return {key: _filled(value, theirs.get(key)) for key, value in mine.items()} | {
            key: value for key, value in theirs.items() if key not in mine
        }
    return theirs if mine is None else mine


def as_bytes(results: Mapping[str, Result]) -> dict[str, bytes]:
    """Each result as the file that `write_result` makes."""
    return {path: dump_json(result.model_dump(mode="json")) for path, result in results.items()}
