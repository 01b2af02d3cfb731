"""Models x tasks x protocols, less what is done: every cell of a run before it begins."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from eval.common.errors import BadInput
from eval.data.concerns import concerns
from eval.data.load import load_task
from eval.data.locations import Data
from eval.data.task_data import TaskData
from eval.models.resolve import ResolvedModel, resolve
from eval.protocols import PROTOCOLS
from eval.results.names import (
    REFERENCE,
    differences,
    earlier,
    file_name,
    format_of,
    number_format,
    plain,
    scored_apart,
    shelf_folder,
    task_part,
)
from eval.results.schema import ProtocolInfo
from eval.results.store import NotAResult, check_writable, read_result
from eval.settings.protocols import Settings
from eval.settings.readout import AUTO, Readout
from eval.stores.front import address_of

if TYPE_CHECKING:
    from eval.models.backbone import Backbone

CONFIG = "config.json"  # of a kept model: written last
# The numbers of a request with the smallest value of each.
NUMBERS = {"limit": 1, "img_size": 8, "batch_size": 1, "seed": 0}
_LARGEST_SEED = 2**32 - 1
_ANSWERS = {
    "classification": "one label an image",
    "detection": "boxes",
    "segmentation": "a label a pixel",
    "multilabel": "several labels an image",
    "instances": "queries and a gallery",
}


def check_number(name: str, value: int | None, subject: str = "") -> None:
    """Raises UserError, beginning with ``subject`` or the name, for a number out of bounds."""
    subject = subject or name
    if value is not None and value < NUMBERS[name]:
        raise BadInput(f"{subject} must be at least {NUMBERS[name]}, got {value}")
    if name == "seed" and value is not None and value > _LARGEST_SEED:
        raise BadInput(f"{subject} must be below 2**32, got {value}")


@dataclass(frozen=True)
class Request:
    """What the user asked for. ``models`` are strings, or networks of this process's memory
    (`eval.models.in_memory`)."""

    models: Sequence[str | Backbone]
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
    strict: bool = False  # refuse data of the user's own that deserve a warning
    keep_model: bool = False  # of detection and finetune: what was trained, beside its result
    readouts: tuple[Readout, ...] = (Readout(),)  # each a result of its own


@dataclass(frozen=True)
class Cell:
    """One number to find: a model on a task under a protocol, and where it is written."""

    model: ResolvedModel
    task: TaskData
    protocol: str
    settings: Settings
    path: Path
    done: bool
    precision: str | None = None  # what stands of it in the file's name, and in the result
    readout: Readout = field(default_factory=Readout)
    # Of a store: the shot counts stand in the name, as the file without them lacks some of these.
    apart: bool = False
    asked: str = ""  # the task as it was asked for

    @property
    def title(self) -> str:
        how = "".join(f", {k} {v}" for k, v in self.readout.changed.items())
        return f"{self.model.id} on {self.task.name}, {self.protocol}{how}"

    @property
    def kept(self) -> Path:
        """Where a trained model is kept that is asked for."""
        return self.path.with_name(self.path.name.removesuffix(".json") + ".model")


class Held(NamedTuple):
    """What must be known of a result that is there."""

    split_hash: str
    protocol: ProtocolInfo
    computed: str  # fp32 or bf16


Known = Callable[[Path], Held | None]  # the result of a path, where there is one


def plan(request: Request, known: Known | None = None) -> list[Cell]:
    """Every cell asked for, in order, each marked done or not. ``known`` tells what is there where
    not the files do: an index, say.

    Raises UserError for whatever is wrong before a backbone is loaded: nothing is written then.
    """
    check_writable(request.results)
    if request.keep_model and address_of(request.results):
        raise BadInput(
            f"--keep-model keeps folders, which {address_of(request.results)} does not take; give "
            "--results a directory"
        )
    for model in request.models:
        _check_size_in_memory(request, model)
    models = _unique(
        resolve(m, request.cache, request.img_size) if isinstance(m, str) else m.resolved
        for m in request.models
    )
    names = list(dict.fromkeys(request.tasks))
    tasks = [load_task(t, request.cache, request.data, request.limit, request.seed) for t in names]
    texts = {id(task): name for task, name in zip(tasks, names, strict=True)}
    for task in tasks:
        _check_kind(request, task)
        if request.strict and (wrong := warnings_of(task)):
            raise BadInput(f"task {task.name!r}: {'; '.join(wrong)} (--strict)")
    # One that scores none of the tasks is no fault: detection is part of a run that names none.
    able = [name for name in request.protocols if any(map(PROTOCOLS[name].scores, tasks))]
    _check_readouts(request, able)
    _check_networks(request, models, able)
    for name, settings in request.protocols.items():
        protocol = PROTOCOLS[name]
        protocol.check(settings, [t for t in tasks if protocol.scores(t)])
    cells = [
        dataclasses.replace(
            _cell(
                request,
                model,
                task,
                name,
                PROTOCOLS[name].completed(settings, task),
                readout,
                known or held_at,
            ),
            asked=texts[id(task)],
        )
        for model in models
        for task in tasks
        for readout in request.readouts
        for name, settings in request.protocols.items()
        if PROTOCOLS[name].scores(task)
    ]
    once: dict[Path, Cell] = {}
    for cell in cells:  # a data set that is named in two ways has one result
        once.setdefault(cell.path, cell)
    return list(once.values())


def warnings_of(task: TaskData) -> tuple[str, ...]:
    """What a run warns of: all concerns about data of the user's own, none about known data."""
    return concerns(task) if task.own else ()


def warned(cells: Sequence[Cell]) -> list[str]:
    """What each task's data deserve to be warned of, a paragraph a task."""
    tasks = {cell.task.name: cell.task for cell in cells}
    found = {name: warnings_of(task) for name, task in tasks.items()}
    return [f"warning: {name}: {'; '.join(texts)}." for name, texts in found.items() if texts]


def _check_size_in_memory(request: Request, model: str | Backbone) -> None:
    """Raises UserError where another image size is asked of a network in memory."""
    if not isinstance(model, str) and request.img_size is not None:
        raise BadInput(
            "img_size changes how models named by a string are prepared; "
            f"{model.resolved.id} has a transform of its own, so let that resize"
        )


def _check_networks(
    request: Request, models: Sequence[ResolvedModel], protocols: Sequence[str]
) -> None:
    """Raises UserError for a protocol that takes networks apart in a way that only timm's allow."""
    in_memory = {m.resolved: m for m in request.models if not isinstance(m, str)}
    for model in models:
        held = in_memory.get(model)
        if held is None and model.format == "timm":
            continue
        subject = f"{model.id} is a network " + ("in memory" if held else f"of {model.format}")
        for protocol in protocols:
            if PROTOCOLS[protocol].kind == "detection" or request.keep_model:
                raise BadInput(
                    f"{subject}, which protocol {protocol!r} cannot "
                    + (
                        "keep: leave keep_model out"
                        if request.keep_model
                        else "take: it needs timm's"
                    )
                )
            if held and PROTOCOLS[protocol].trains and "mean" not in held.input_config:
                raise BadInput(
                    f"protocol {protocol!r} cuts crops of its own and must know how {model.id} "
                    "normalises; give backbone() timm's data config (input_size, mean, std) as "
                    "its transform"
                )


def _check_readouts(request: Request, protocols: Sequence[str]) -> None:
    """Raises UserError for a readout that one of the protocols cannot use."""
    for name in protocols:
        reads = PROTOCOLS[name].reads
        for readout in request.readouts:
            if reads == "own" and readout.changed:
                raise BadInput(
                    f"protocol {name!r} trains the network with the pooling it has; leave --pool "
                    "and --layer out, or name other protocols"
                )
            if reads == "tokens" and readout.pool != "default":
                raise BadInput(
                    f"protocol {name!r} learns how to pool; leave --pool {readout.pool} out, or "
                    "name other protocols"
                )
            several = "+" in readout.layer or (readout.last or 1) > 1 or readout.layer == AUTO
            if reads == "tokens" and several:
                raise BadInput(
                    f"protocol {name!r} takes the tokens of one layer, not of {readout.layer!r}; "
                    "name it with --layer"
                )


def _check_kind(request: Request, task: TaskData) -> None:
    """Raises UserError where none of the protocols can score the task."""
    own_first = sorted(PROTOCOLS.items(), key=lambda named: named[1].kind != task.kind)
    able = [n for n, p in own_first if p.scores(task)]
    if not set(able) & set(request.protocols):
        what = "images of two sets" if task.shifted else _ANSWERS[task.kind]
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
    request: Request,
    model: ResolvedModel,
    task: TaskData,
    protocol: str,
    settings: Settings,
    readout: Readout,
    known: Known,
) -> Cell:
    there = {
        name: _place(request, model, task, protocol, settings, name, readout, known)
        for name in _names(request.precision)
    }
    for name, (path, held) in there.items():
        if held is not None and _answers(request, held):
            again = PROTOCOLS[protocol].merged(held.protocol.config, settings)
            done = again is None
            if again is not None and address_of(request.results):
                path, held = _place(
                    request, model, task, protocol, settings, name, readout, known, apart=True
                )
                cell = Cell(
                    model, task, protocol, settings, path, held is not None, name, readout, True
                )
                break
            cell = Cell(model, task, protocol, again or settings, path, done, name, readout)
            break
    else:
        # An earlier version may have left another precision under the name without one.
        own, *_ = [n for n, (_, held) in there.items() if held is None] or list(there)
        return Cell(model, task, protocol, settings, there[own][0], False, own, readout)
    wanted = request.keep_model and PROTOCOLS[protocol].keeps
    if wanted and not (cell.kept / CONFIG).is_file():
        cell = dataclasses.replace(cell, done=False)
    return cell


def _names(precision: str | None) -> tuple[str | None, ...]:
    """The precisions in the names of files that may answer, the own one first."""
    return (None, "fp32", "bf16") if precision is None else (precision, None)


def _answers(request: Request, held: Held) -> bool:
    """Whether a result that is there has the precision that is asked for. Where the user leaves it
    open fp32 always has, and what else this device would choose."""
    if request.precision:
        return held.computed == format_of(request.precision)
    return held.computed == REFERENCE or held.computed == _device_format(request.device)


def _device_format(device: str | None) -> str:
    """Asked only where a result in bf16 lies there: it imports torch."""
    from eval.common.distributed import Workers
    from eval.features.precision import device_format

    return device_format(Workers(device).device)


def _place(
    request: Request,
    model: ResolvedModel,
    task: TaskData,
    protocol: str,
    settings: Settings,
    precision: str | None,
    readout: Readout,
    known: Known,
    *,
    apart: bool = False,
) -> tuple[Path, Held | None]:
    """Where a result of that name lies or would lie, and the one that does."""
    changed = _changed(settings, request.seed, task.limit, precision, readout, apart)
    folder = request.results / shelf_folder(model)
    part = task_part(task.name, task.split)
    path = folder / file_name(part, protocol, changed)
    held = known(path)
    if held is not None and held.split_hash != task.split_hash:
        # Other images under the same task name: both results are kept, side by side.
        part = task_part(task.name, task.split, task.split_hash)
        path = folder / file_name(part, protocol, changed)
        held = known(path)
    if held is not None and (since := _changed_since(held, settings)):
        # Older than a setting, whose default is not what was done then: both are kept again.
        path = folder / file_name(part, protocol, changed | since)
        held = known(path)
    return path, held


@lru_cache(maxsize=4096)
def _changed(
    settings: Settings, seed: int, limit: int | None, precision: str | None, readout: Readout,
    apart: bool,
) -> dict[str, Any]:  # fmt: skip
    """What stands in the names of such results: the same for all models and most tasks."""
    return differences(
        plain(settings), type(settings), seed=seed, limit=limit, precision=precision,
        **readout.changed, **(scored_apart(settings) if apart else {}),
    )  # fmt: skip


def settled(request: Request, cell: Cell, used: str) -> tuple[Cell, Held | None]:
    """The cell where its result belongs, and the result that lies there by now.

    ``used`` is the precision, known only now where the user left it open: bf16 stands in the name,
    fp32 where another one lies under the name without it.
    """
    computed = format_of(used)
    names: tuple[str | None, ...] = (cell.precision,)
    if not request.precision:
        names = (None, REFERENCE) if computed == REFERENCE else (computed,)
    for name in names:
        path, held = _place(
            request, cell.model, cell.task, cell.protocol, cell.settings, name, cell.readout,
            held_at, apart=cell.apart,
        )  # fmt: skip
        if held is None or held.computed == computed:
            break
    return dataclasses.replace(cell, path=path, precision=name), held


def _changed_since(held: Held, settings: Settings) -> dict[str, Any]:
    """The settings that the result is older than, where they ask for something else."""
    asked = plain(settings)
    return {k: asked[k] for k, then in earlier(held.protocol).items() if asked[k] != then}


def held_at(path: Path) -> Held | None:
    """The result that is already there. Raises UserError where something else is."""
    if not path.exists():
        return None
    try:
        result = read_result(path)
        return Held(result.task.split_hash, result.protocol, number_format(result))
    except NotAResult as why:
        raise BadInput(
            f"{path} is not a result file ({why}); move it away or choose another --results"
        ) from None
