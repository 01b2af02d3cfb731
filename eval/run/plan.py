"""Models x tasks x protocols, less what is done: every cell of a run before it begins."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.common.errors import BadInput
from eval.data.load import load_task
from eval.data.locations import Data
from eval.data.task_data import TaskData
from eval.models.resolve import ResolvedModel, resolve
from eval.protocols import PROTOCOLS
from eval.results.names import differences, file_name, plain, shelf_folder, task_part
from eval.results.schema import Result
from eval.results.store import NotAResult, check_writable, read_result
from eval.settings.protocols import Settings

CONFIG = "config.json"  # of a kept model: written last
# The numbers of a request with the smallest value of each.
NUMBERS = {"limit": 1, "img_size": 8, "batch_size": 1, "seed": 0}
_LARGEST_SEED = 2**32 - 1


def check_number(name: str, value: int | None, subject: str = "") -> None:
    """Raises UserError, beginning with ``subject`` or the name, for a number out of bounds."""
    subject = subject or name
    if value is not None and value < NUMBERS[name]:
        raise BadInput(f"{subject} must be at least {NUMBERS[name]}, got {value}")
    if name == "seed" and value is not None and value > _LARGEST_SEED:
        raise BadInput(f"{subject} must be below 2**32, got {value}")


@dataclass(frozen=True)
class Request:
    """What the user asked for."""

    models: Sequence[str]
    tasks: Sequence[str]
    protocols: dict[str, Settings]
    cache: Path
    results: Path
    data: Data | None = None
    seed: int = 0
    limit: int | None = None
    img_size: int | None = None
    device: str | None = None
    precision: str | None = None
    batch_size: int | None = None
    keep_model: bool = False  # of detection and finetune: what was trained, beside its result


@dataclass(frozen=True)
class Cell:
    """One number to find: a model on a task under a protocol, and where it is written."""

    model: ResolvedModel
    task: TaskData
    protocol: str
    settings: Settings
    path: Path
    done: bool

    @property
    def title(self) -> str:
        return f"{self.model.id} on {self.task.name}, {self.protocol}"

    @property
    def kept(self) -> Path:
        """Where a trained model is kept that is asked for."""
        return self.path.with_name(self.path.name.removesuffix(".json") + ".model")


def plan(request: Request) -> list[Cell]:
    """Every cell asked for, in order, each marked done or not.

    Raises UserError for whatever is wrong before a backbone is loaded: nothing is written then.
    """
    check_writable(request.results)
    models = _unique(resolve(m, request.cache, request.img_size) for m in request.models)
    names = list(dict.fromkeys(request.tasks))
    tasks = [load_task(t, request.cache, request.data, request.limit, request.seed) for t in names]
    for task in tasks:
        _check_kind(request, task)
    for name, settings in request.protocols.items():
        protocol = PROTOCOLS[name]
        protocol.check(settings, [t for t in tasks if t.kind == protocol.kind])
    return [
        _cell(request, model, task, name, PROTOCOLS[name].completed(settings, task))
        for model in models
        for task in tasks
        for name, settings in request.protocols.items()
        if PROTOCOLS[name].kind == task.kind
    ]


def _check_kind(request: Request, task: TaskData) -> None:
    """Raises UserError where none of the protocols can score the task."""
    able = [n for n, p in PROTOCOLS.items() if p.kind == task.kind]
    if not set(able) & set(request.protocols):
        what = "boxes" if task.kind == "detection" else "one label an image"
        raise BadInput(
            f"task {task.name!r} has {what}; protocol {', '.join(request.protocols)} cannot score "
            f"it, {', '.join(able)} can"
        )


def _unique(models: Any) -> list[ResolvedModel]:
    seen: dict[str, ResolvedModel] = {}  # by where their results lie
    for model in models:
        seen.setdefault(shelf_folder(model), model)
    return list(seen.values())


def _cell(
    request: Request, model: ResolvedModel, task: TaskData, protocol: str, settings: Settings
) -> Cell:
    changed = differences(
        plain(settings), type(settings),
        seed=request.seed, limit=task.limit, precision=request.precision,
    )  # fmt: skip
    folder = request.results / shelf_folder(model)
    path = folder / file_name(task_part(task.name, task.split), protocol, changed)
    held = _held(path)
    if held is not None and held.task.split_hash != task.split_hash:
        # Other images under the same task name: both results are kept, side by side.
        part = task_part(task.name, task.split, task.split_hash)
        path = folder / file_name(part, protocol, changed)
        held = _held(path)
    if held is None:
        return Cell(model, task, protocol, settings, path, False)
    again = PROTOCOLS[protocol].merged(held.protocol.config, settings)
    cell = Cell(model, task, protocol, again or settings, path, again is None)
    wanted = request.keep_model and PROTOCOLS[protocol].keeps
    if wanted and not (cell.kept / CONFIG).is_file():
        cell = dataclasses.replace(cell, done=False)
    return cell


def _held(path: Path) -> Result | None:
    """The result that is already there. Raises UserError where something else is."""
    if not path.exists():
        return None
    try:
        return read_result(path)
    except NotAResult as why:
        raise BadInput(
            f"{path} is not a result file ({why}); move it away or choose another --results"
        ) from None
