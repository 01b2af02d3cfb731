"""Whether a result can be from where it says: model, data and date, as far as the file alone tells.

Sentences, none for a result that may be right. What the Hub says of the model is asked in
`eval.sharing.models`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from eval.models.names import split_architecture, under_architecture
from eval.results.evidence import against_numbers
from eval.results.leaderboard import main_scores
from eval.results.schema import ModelInfo, Result, TaskInfo
from eval.tasks.declaration import SUBSET, Task
from eval.tasks.registry import TASKS, known_splits

FIRST = datetime(2026, 1, 1, tzinfo=UTC)  # no result is older than the project
_AHEAD = timedelta(days=1)  # clocks differ, and time zones are mistaken
_SHA256, _COMMIT = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{40}")
# Names that somebody else gives out: letters of other alphabets that look alike name nothing there.
# A folder of one's own is called as one likes.
_NAME = r"[A-Za-z0-9_](?:[\w.+-]*[\w+])?"
_IDS = {
    "hf-hub": rf"hf-hub:{_NAME}/{_NAME}(?:\?arch=\w+)?|{_NAME}",
    "zoo": rf"zoo:{_NAME}",
    "random": rf"random:{_NAME}(?:@\d{{1,10}})?",
    "python": r"python:[\w.+-]{1,80}(?:@\d{1,12})?",
    "local-dir": r"local-dir:.{1,255}",
}


def objection(result: Result, now: datetime | None = None) -> str:
    """The first thing that speaks against publishing it; empty where nothing does."""
    return next(objections(result, now), "")


def objections(result: Result, now: datetime | None = None) -> Iterator[str]:
    """All that speaks against publishing a result; ``now`` is for tests."""
    yield from against_numbers(result)
    yield from _unshown(result)
    yield from _unfinite(result)
    yield from _model(result.model)
    yield from _task(result.task, result.limit)
    yield from _date(result.created, now or datetime.now(UTC))


def _unshown(result: Result) -> Iterator[str]:
    for score in main_scores(result):
        part = "pct" in score.name or "each" in score.name  # means over several answers an image
        if score.name not in result.samples and not part:
            yield (
                f"score {score.name!r} has no samples, so that nothing shows what it is the mean of"
            )


def _unfinite(result: Result) -> Iterator[str]:
    """Numbers that JSON does not have; what a protocol tells beside its scores may have them."""
    found = result.model_dump(exclude={"details", "samples", "scores"})
    for place, value in _numbers(found, ""):
        if not math.isfinite(value):
            yield f"{place} is {value}"
    if not all(math.isfinite(s) and s >= 0 for s in result.seconds.values()):
        yield "its seconds are not all finite and 0 or more"
    if result.seed < 0 or result.model.params < 0:
        yield f"seed {result.seed} or params {result.model.params} is less than 0"


def _numbers(value: Any, place: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, float):
        yield place, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _numbers(inner, f"{place}.{key}" if place else str(key))
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from _numbers(inner, f"{place}.{number}")


def _model(model: ModelInfo) -> Iterator[str]:
    if not _SHA256.fullmatch(model.weights_sha256):
        yield f"weights_sha256 is {model.weights_sha256[:80]!r}, not 64 hexadecimal digits"
    kind, colon, rest = model.spec.partition(":")
    if not colon or kind not in _IDS:
        yield f"its model {model.spec[:80]!r} is of no known kind; use one of {', '.join(_IDS)}"
        return
    if not re.fullmatch(_IDS[kind], model.id, 0 if kind == "local-dir" else re.ASCII):
        yield f"its weights are of {model.spec[:80]!r}, but it is called {model.id[:80]!r}"
        return
    if kind == "random":
        seed = rest.partition("@")[2] or "0"
        if (model.id, model.revision) != (model.spec, f"seed{seed}"):
            yield f"model {model.spec!r} is called {model.id!r} of revision {model.revision!r}"
        return
    if not _COMMIT.fullmatch(model.revision):
        yield f"revision {model.revision[:80]!r} of {model.id!r} is not 40 hexadecimal digits"
        return
    repo, _, at = rest.partition("@")
    if kind == "hf-hub":
        yield from _of_hub(model, repo, *split_architecture(at))
        return
    named = {
        "zoo": model.id == model.spec,
        "python": model.id.partition("@")[0] == model.spec.partition("@")[0],  # a step
    }
    if not named.get(kind, True):
        yield f"its weights are of {model.spec!r}, but it is called {model.id!r}"


def _of_hub(model: ModelInfo, repo: str, sha: str, architecture: str | None) -> Iterator[str]:
    asked = f"?arch={architecture}" if architecture else ""
    timm = model.id.partition(".")[0] if ":" not in model.id else None  # the latter are timm names
    if timm is None and model.id != f"hf-hub:{repo}{asked}":
        yield f"its weights are of {model.spec!r}, but it is called {model.id!r}"
    elif timm is not None and architecture not in (None, timm):
        yield f"its network is {architecture!r}, but it is called {model.id!r}"
    elif under_architecture(sha, architecture) != model.revision:
        yield f"its weights are of {model.spec!r}, but its revision is {model.revision!r}"


def _task(task: TaskInfo, limit: int | None) -> Iterator[str]:
    if not _SHA256.fullmatch(task.split_hash):
        yield f"split_hash is {task.split_hash[:80]!r}, not 64 hexadecimal digits"
    counts = [task.counts.get(name, 0) for name in ("classes", "train", "test")]
    if min(counts) < 1:
        said = ", ".join(f"{name} {count}" for name, count in task.counts.items())
        yield f"its counts ({said or 'none'}) lack one or more classes, images to train and to test"
        return
    if not 0 <= task.duplicates <= counts[2]:
        yield f"it counts {task.duplicates} duplicates among {counts[2]} test images"
    if limit is not None and (limit < 1 or max(counts[1:]) > limit):
        yield f"it is limited to {limit} images a split, but counts {counts[1]} and {counts[2]}"
    if (named := _BY_HASH.get(task.split_hash)) and named != task.name:
        yield f"its split hash is that of {named!r}, but its task is called {task.name!r}"
    declared = TASKS.get(task.name)
    if declared is not None:
        yield from _declared(task, declared, counts)


def _declared(task: TaskInfo, declared: Task, counts: list[int]) -> Iterator[str]:
    """Counts against the declaration: exact for the whole set and the known smaller copy."""
    known = declared.subset
    if known is not None and task.split_hash == known.split_hash:
        if not task.subset or counts != [known.classes, known.train, known.test]:
            has = _counted([known.classes, known.train, known.test])
            yield (
                f"its images are the known smaller copy of {task.name!r} with {has}, but it counts "
                f"{_counted(counts)}" + ("" if task.subset else " and calls that the whole set")
            )
        return
    if task.subset:
        if counts[0] > declared.classes or sum(counts[1:]) > max(declared.images, 1):
            yield (
                f"it counts {_counted(counts)}, more than the {declared.classes} classes and "
                f"{declared.images:,} images of {task.name!r}"
            )
        return
    rule = next((s for s in declared.splits if task.split in ("", s.name)), None)
    if rule is None:
        has = ", ".join(s.name for s in declared.splits) or SUBSET
        yield f"its split of {task.name!r} is {task.split!r}, which has {has}"
        return
    whole = [declared.classes, rule.train, rule.test]
    if any(want and have != want for have, want in zip(counts, whole, strict=True)):
        yield (
            f"it counts {_counted(counts)} where the whole of {task.name!r} has {_counted(whole)}"
        )


def _counted(counts: list[int]) -> str:
    return f"{counts[0]} classes, {counts[1]:,} and {counts[2]:,} images"


def _date(created: str, now: datetime) -> Iterator[str]:
    try:
        when = datetime.fromisoformat(created)
    except ValueError:
        yield f"its date is {created[:80]!r}, no ISO date with its time zone"
        return
    if when.tzinfo is None:
        yield f"its date {created!r} has no time zone"
    elif not FIRST <= when <= now + _AHEAD:
        yield f"its date is {created!r}, not from {FIRST:%Y} to today"


_BY_HASH = {split: name for name in TASKS for split in known_splits(name)}
