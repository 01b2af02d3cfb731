"""What results are called: file names, labels, and paths fit to be published."""

from __future__ import annotations

import re
from typing import Any

from eval.common.text import slug
from eval.protocols import PROTOCOLS
from eval.results.schema import ModelInfo, Result, TaskInfo
from eval.tasks.declaration import SUBSET
from eval.tasks.registry import TASKS


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
