"""The result file: one (model, task, protocol), everything needed to trust or repeat it.

``schema_version`` 1. Scores are fractions (0..1). Files lie at
``RESULTS/<model>/<revision>/<task>.<protocol>[@changed settings].json``.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from eval.common.errors import UserError
from eval.common.files import dump_json, write_json
from eval.common.text import slug
from eval.metrics.intervals import ECE_BINS
from eval.metrics.scores import Samples, Score, _Part
from eval.protocols import PROTOCOLS
from eval.tasks.declaration import SUBSET
from eval.tasks.registry import TASKS

SCHEMA_VERSION = 1
ANALYSES = "analyses"  # folder of a results directory: findings about models, no scores
_COUNTS = 65535  # of a confidence of one
SAME_CONFIDENCE = 4 / _COUNTS  # no further apart: the last bits of a float sum, and rounding


class ModelInfo(_Part):
    spec: str  # the model string that gives exactly these weights
    id: str  # its name on the board
    revision: str
    weights_sha256: str
    params: int  # of the backbone, without classifier
    input: dict[str, Any] = Field(default_factory=dict)  # timm's data config
    img_size: int | None = None  # as overridden by the user


class TaskInfo(_Part):
    name: str
    source: str
    revision: str
    split_hash: str
    counts: dict[str, int]  # classes, train, test
    duplicates: int = 0  # test images that also stand in train
    subset: bool = False  # less than the whole data set
    split: str = ""  # of a declared set: study, clean, ...; subset for a known smaller copy


class ProtocolInfo(_Part):
    name: str
    config: dict[str, Any]


class Environment(_Part):
    versions: dict[str, str]
    device: str
    dtype: str
    threads: int
    processes: int = 1


def pack_confidence(values: NDArray[np.float64]) -> str:
    """[N] probabilities as base64 of little-endian uint16, 65535 for 1. NaN is packed as 0.

    The count is the nearest, or the next above where the nearest lies in another bin of the ECE:
    classifiers that hardly prefer one of three classes answer with 1/3 and a little, and 1/3 is
    such an edge.
    """
    values = np.clip(np.nan_to_num(values), 0, 1)
    counts = np.rint(_COUNTS * values)
    edges = np.linspace(0, 1, ECE_BINS + 1)  # whole counts: 15 divides 65535
    counts += np.searchsorted(edges, values) > np.searchsorted(edges, counts / _COUNTS)
    return base64.b64encode(counts.astype("<u2").tobytes()).decode()


class Result(_Part):
    schema_version: Literal[1]
    model: ModelInfo
    task: TaskInfo
    protocol: ProtocolInfo
    scores: list[Score]
    samples: dict[str, Samples]
    environment: Environment
    seed: int
    seconds: dict[str, float]
    created: str
    details: dict[str, Any] = Field(default_factory=dict)
    notes: list[str] = Field(default_factory=list)
    limit: int | None = None  # images of each split, where the user cut the task short
    precision: str | None = None  # where the user chose it; environment.dtype is what was used
    # the largest probability of each test image, in the order of samples["top1"]: pack_confidence
    confidence: str | None = None

    @model_validator(mode="after")
    def _one_confidence_an_image(self) -> Result:
        found, samples = self.confidences(), self.samples.get("top1")
        if found is not None and samples is not None and len(found) != samples.n:
            raise ValueError(f"{len(found)} confidences where top1 has {samples.n} samples")
        return self

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without confidences the file is, byte for byte, what earlier versions wrote."""
        out: dict[str, Any] = handler(self)
        if self.confidence is None:
            out.pop("confidence", None)
        return out

    def confidences(self) -> NDArray[np.float64] | None:
        """[N_test] largest probability of each image; None where the protocol has none.

        Raises ValueError for a text that is no base64 of whole uint16, which no result has.
        """
        if self.confidence is None:
            return None
        raw = base64.b64decode(self.confidence, validate=True)
        return np.frombuffer(raw, "<u2").astype(np.float64) / _COUNTS

    def score(self, name: str) -> Score | None:
        return next((s for s in self.scores if s.name == name), None)


def confidence_gap(a: Result, b: Result) -> float:
    """How far apart the confidences are at some image; 0 where one has none, inf where they are
    not as many."""
    ours, theirs = a.confidences(), b.confidences()
    if ours is None or theirs is None:
        return 0.0
    if ours.shape != theirs.shape:
        return float("inf")
    return float(np.abs(ours - theirs).max(initial=0))


def changes(result: Result) -> dict[str, Any]:
    """What differs from the protocol's defaults: results that differ here are no equals.

    Shot counts are no change: each is a score of its own.
    """
    known = PROTOCOLS.get(result.protocol.name)
    default: dict[str, Any] = {}
    if known:
        default = {
            k: list(v) if isinstance(v, tuple) else v for k, v in vars(known.settings()).items()
        }
    changed = {
        k: v for k, v in result.protocol.config.items() if k != "shots" and default.get(k) != v
    }
    if result.seed:
        changed["seed"] = result.seed
    if result.limit:
        changed["limit"] = result.limit
    if result.precision:
        changed["precision"] = result.precision
    return changed


def shown(value: Any) -> str:
    """A setting's value in names of files and tables."""
    if isinstance(value, list | tuple):
        return "+".join(map(shown, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def task_label(name: str, split: str) -> str:
    """The task's name with its split, where that is not the one a reader would expect."""
    task = TASKS.get(name)
    default = task.splits[0].name if task and task.splits else ""
    return name if split in ("", default, SUBSET) else f"{name}@{split}"


def shelf_path(result: Result, *, by_hash: bool = False) -> str:
    """Where the result lies below a results directory, by its content alone; safe as a path.

    ``by_hash`` is for a second data set of the same task name: its split hash tells them apart.
    """
    size = f"@{result.model.img_size}px" if result.model.img_size else ""
    model = slug(result.model.id.partition("@")[0]) + size
    label = task_label(result.task.name, result.task.split)
    task = slug(label.replace("@", "__")) + (
        f"~{slug(result.task.split_hash)[:8]}" if by_hash else ""
    )
    changed = ",".join(f"{k}={shown(v)}" for k, v in changes(result).items())
    variant = "@" + re.sub(r"[^A-Za-z0-9._+=,-]+", "-", changed) if changed else ""
    name = f"{task}.{slug(result.protocol.name)}{variant}.json"
    return f"{model}/{slug(result.model.revision)}/{name}"


# /home/me/photos, C:\photos, parquet:/home/me/photos?image=img: the last part is the name
_PLACE = re.compile(
    r"(?!\w+://)(?:\w+:)?(?:/|~|\\|[A-Za-z]:)(?:[^?]*[/\\])?([^/\\?]+)[/\\]?(?:\?.*)?"
)


def portable(result: Result) -> Result:
    """The result without this machine's folders, fit to be published: data that lie here are
    ``local:NAME``, a model here is ``local-dir:NAME``."""
    parts = {"task": portable_task(result.task), "model": portable_model(result.model)}
    return result.model_copy(update=parts)


def portable_task(task: TaskInfo) -> TaskInfo:
    place = _PLACE.fullmatch(task.source)
    return task.model_copy(update={"source": f"local:{place[1]}"}) if place else task


def portable_model(model: ModelInfo) -> ModelInfo:
    kind, _, path = model.spec.partition(":")
    local = kind == "local-dir"
    return model.model_copy(update={"spec": f"local-dir:{_last(path)}"}) if local else model


def _last(path: str) -> str:
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1]


class NotAResult(ValueError):
    """The file is no result of this schema; the text says why."""


def read_result(path: Path) -> Result:
    """Read and validate one file. Raises NotAResult in one line."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise NotAResult(f"no readable JSON ({type(error).__name__})") from None
    if not isinstance(value, dict) or "schema_version" not in value:
        raise NotAResult("it has no schema_version")
    if value["schema_version"] != SCHEMA_VERSION:
        raise NotAResult(
            f"schema_version is {value['schema_version']!r}, this version reads {SCHEMA_VERSION}"
        )
    try:
        return Result.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(p) for p in first["loc"])
        raise NotAResult(f"{where}: {first['msg']}") from None


def dump_result(result: Result) -> bytes:
    """The file's content."""
    return dump_json(result.model_dump(mode="json"))


def write_result(path: Path, result: Result) -> None:
    """Write atomically. Raises UserError when the place cannot be written."""
    try:
        write_json(path, result.model_dump(mode="json"))
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from None


@dataclass(frozen=True)
class Shelf:
    """All results under a directory, and the JSON files there that are none."""

    results: tuple[tuple[Path, Result], ...]
    foreign: tuple[tuple[Path, str], ...]  # (file, why)


def read_shelf(directory: Path) -> Shelf:
    """Read every JSON file below ``directory``. Raises UserError when it is missing, a file,
    or holds JSON but no result at all."""
    if not directory.exists():
        raise UserError(f"results directory {str(directory)!r} does not exist")
    if not directory.is_dir():
        raise UserError(f"results directory {str(directory)!r} is a file")
    results, foreign = [], []
    for path in result_files(directory):
        try:
            results.append((path, read_result(path)))
        except NotAResult as why:
            foreign.append((path, str(why)))
    if foreign and not results:
        raise UserError(
            f"results directory {str(directory)!r} holds {len(foreign)} JSON files and none is a "
            f"result (the first, {foreign[0][0].relative_to(directory)}: {foreign[0][1]})"
        )
    return Shelf(tuple(results), tuple(foreign))


def result_files(directory: Path) -> Iterator[Path]:
    """The JSON files below a directory that may be results, in a stable order."""
    for folder, folders, files in os.walk(directory):
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f != ANALYSES)
        for name in sorted(files):
            # config.json is timm's: a folder of checkpoints with their results is a shelf too
            if name.endswith(".json") and not name.startswith(".") and name != "config.json":
                yield Path(folder, name)


def check_writable(directory: Path) -> None:
    """Raises UserError when results could not be written under ``directory``; writes nothing."""
    if directory.exists() and not directory.is_dir():
        raise UserError(f"results directory {str(directory)!r} is a file; name a directory")
    place = directory
    while not place.exists():
        place = place.parent
    if not place.is_dir():
        raise UserError(f"results directory {str(directory)!r} lies under the file {str(place)!r}")
    if not os.access(place, os.W_OK | os.X_OK):
        raise UserError(
            f"results directory {str(directory)!r} cannot be written; choose another with --results"
        )
    if directory.exists():
        read_shelf(directory)  # refuses a directory that is full of somebody else's JSON
