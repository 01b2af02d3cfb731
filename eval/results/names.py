"""What results are called: file names, labels, and paths fit to be published."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from eval.common.text import slug
from eval.protocols import PROTOCOLS
from eval.results.schema import ModelInfo, ProtocolInfo, Result, TaskInfo
from eval.settings.readout import Readout
from eval.tasks.declaration import SUBSET
from eval.tasks.names import SHIFT, shift_parts
from eval.tasks.registry import TASKS

if TYPE_CHECKING:
    from eval.models.resolve import ResolvedModel


# Each value of these settings makes a score of its own, whatever else was asked for: no change.
_SCORED_APART = ("shots",)
REFERENCE = "fp32"  # the number format that no name mentions


def plain(settings: Any) -> dict[str, Any]:
    """The settings of a protocol or an analysis as JSON has them."""
    return {
        k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(settings).items()
    }


def differences(
    config: Mapping[str, Any], settings: type[Any] | None, **asked: Any
) -> dict[str, Any]:
    """What was asked for otherwise than by default, in the order of ``config``: plain settings.

    ``settings`` is their class; None, of a protocol or analysis that this version does not know,
    has no defaults. ``asked`` are seed, limit, precision and what is not the default of the
    readout: whatever has none or 0 as its default.
    """
    default = plain(settings()) if settings else {}
    changed = {k: v for k, v in config.items() if k not in _SCORED_APART and v != default.get(k)}
    return changed | {k: v for k, v in asked.items() if v}


def scored_apart(settings: Any) -> dict[str, Any]:
    """The settings that no name mentions, for a result that must not lie where another does."""
    return {k: v for k, v in plain(settings).items() if k in _SCORED_APART}


def earlier(protocol: ProtocolInfo) -> dict[str, Any]:
    """Settings that the config lacks, as it is older than they are, with what was done then."""
    known = PROTOCOLS.get(protocol.name)
    then = known.earlier if known else {}
    return {k: v for k, v in then.items() if k not in protocol.config}


def changes(result: Result) -> dict[str, Any]:
    """What differs from the protocol's defaults: results that differ here are no equals.

    The precision is that in which the features were computed, asked for or not, and fp32 is the
    default. The layout in memory changes numbers by rounding alone, and does not count.
    """
    computed = number_format(result)
    return _changes(result, computed if computed != REFERENCE else None)


def _changes(result: Result, precision: str | None) -> dict[str, Any]:
    known = PROTOCOLS.get(result.protocol.name)
    return differences(
        result.protocol.config | earlier(result.protocol), known.settings if known else None,
        seed=result.seed, limit=result.limit, precision=precision, **readout_of(result).changed,
    )  # fmt: skip


def readout_of(result: Result) -> Readout:
    """Which features the result scores."""
    return Readout(**result.readout.model_dump()) if result.readout else Readout()


def number_format(result: Result) -> str:
    """fp32 or bf16: what the result was computed in, whoever chose it."""
    return format_of(result.environment.dtype)


def format_of(precision: str) -> str:
    """The number format of a precision: fp32 of fp32-channels_last."""
    return precision.partition("-")[0]


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


def task_part(name: str, split: str, split_hash: str = "") -> str:
    """The task in a file's name. ``split_hash`` tells a second data set of the same name apart."""
    # @ stands before the settings
    part = slug(task_label(name, split).replace("@", "__"))
    return f"{part}~{slug(split_hash)[:8]}" if split_hash else part


def file_name(task: str, what: str, changed: Mapping[str, Any], most: int | None = None) -> str:
    """``TASK.PROTOCOL@changed.json`` of a result, ``TASKS.MODELS@changed.json`` of a finding.

    ``changed`` (see `differences`) stands behind an @, so that no file replaces one that was made
    by other settings; longer than ``most`` characters it becomes a hash. Safe on any system.
    """
    words = ",".join(f"{k}={shown(v)}" for k, v in changed.items())
    variant = "@" + re.sub(r"[^A-Za-z0-9._+=,-]+", "-", words) if words else ""
    if most is not None and len(variant) > most:
        variant = f"@{hashlib.sha256(variant.encode()).hexdigest()[:8]}"
    return f"{task}.{what}{variant}.json"


def shelf_folder(model: ModelInfo | ResolvedModel) -> str:
    """The folder of a model's results, below a results directory."""
    size = f"@{model.img_size}px" if model.img_size else ""
    return f"{slug(model.id.partition('@')[0])}{size}/{slug(model.revision)}"


def shelf_path(result: Result, *, by_hash: bool = False, by_precision: bool = False) -> str:
    """Where the result lies below a results directory, by its content alone; safe as a path.

    ``by_hash`` is for a second data set of the same task name: its split hash tells them apart.
    The precision in the name is the recorded one, so results of versions that did not record what
    they chose keep their names; ``by_precision`` tells one computed otherwise apart from those.
    """
    task = result.task
    part = task_part(task.name, task.split, task.split_hash if by_hash else "")
    precision = number_format(result) if by_precision else result.precision
    name = file_name(part, slug(result.protocol.name), _changes(result, precision))
    return f"{shelf_folder(result.model)}/{name}"


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
    if task.source.startswith(SHIFT):
        first, second, mapping = shift_parts(task.source)
        sides = "=>".join(_portable_source(side) for side in (first, second))
        named = f"&map={_last(mapping)}" if mapping else ""
        return task.model_copy(update={"source": f"{SHIFT}{sides}{named}"})
    return task.model_copy(update={"source": _portable_source(task.source)})


def _portable_source(source: str) -> str:
    place = _PLACE.fullmatch(source)
    return f"local:{place[1]}" if place else source


def portable_model(model: ModelInfo) -> ModelInfo:
    kind, _, path = model.spec.partition(":")
    local = kind == "local-dir"
    return model.model_copy(update={"spec": f"local-dir:{_last(path)}"}) if local else model


def _last(path: str) -> str:
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1]
