"""models x tasks x protocols, minus what is done.

``plan`` finds out what every string means and which cells are missing, without importing torch.
``execute`` scores the missing cells: a cell that fails is listed at the end, the others are saved.
"""

from __future__ import annotations

import dataclasses
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval.common.distributed import launched
from eval.common.errors import UserError, one_line
from eval.data.load import load_task
from eval.data.locations import Data
from eval.data.task_data import TaskData
from eval.models.resolve import ResolvedModel, resolve
from eval.protocols import PROTOCOLS
from eval.results.names import shown, task_label
from eval.results.receipt import environment, model_info, task_info
from eval.results.schema import (
    ProtocolInfo,
    Result,
    pack_confidence,
)
from eval.results.store import NotAResult, check_writable, read_result, write_result
from eval.settings.protocols import Detection, Fewshot, Settings, changed_settings
from eval.settings.schedules import default_schedule

if TYPE_CHECKING:
    from eval.common.distributed import Workers
    from eval.features.encode import Encoded
    from eval.features.precision import Precision
    from eval.models.backbone import Backbone
    from eval.protocols.outcome import Outcome

CONFIG = "config.json"  # of a kept model: written last


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


@dataclass(frozen=True)
class Failure:
    """A cell that could not be scored, in one sentence."""

    title: str
    error: str
    user_mistake: bool


@dataclass
class Report:
    """What a run did."""

    cells: list[Cell]
    scored: int = 0
    failures: list[Failure] = field(default_factory=list)
    images: int = 0
    seconds: float = 0.0

    @property
    def reused(self) -> int:
        return sum(c.done for c in self.cells)

    @property
    def exit_code(self) -> int:
        """0 all there; 2 nothing but the user's mistakes; else 1."""
        if not self.failures:
            return 0
        nothing_saved = self.scored == 0 and self.reused == 0
        return 2 if nothing_saved and all(f.user_mistake for f in self.failures) else 1


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
    _check_shots(request, [t for t in tasks if t.kind == "classification"])
    return [
        _cell(request, model, task, protocol, _of_task(settings, task))
        for model in models
        for task in tasks
        for protocol, settings in request.protocols.items()
        if PROTOCOLS[protocol].kind == task.kind
    ]


def _check_kind(request: Request, task: TaskData) -> None:
    """Raises UserError where none of the protocols can score the task."""
    able = [n for n, p in PROTOCOLS.items() if p.kind == task.kind]
    if not set(able) & set(request.protocols):
        what = "boxes" if task.kind == "detection" else "one label an image"
        raise UserError(
            f"task {task.name!r} has {what}; protocol {', '.join(request.protocols)} cannot score "
            f"it, {', '.join(able)} can"
        )


def _of_task(settings: Settings, task: TaskData) -> Settings:
    """The settings with what the task decides."""
    if not isinstance(settings, Detection) or settings.schedule:
        return settings
    name = task.declared.name if task.declared else ""
    return dataclasses.replace(settings, schedule=default_schedule(name, not task.subset))


def _unique(models: Any) -> list[ResolvedModel]:
    seen: dict[tuple[str, str], ResolvedModel] = {}
    for model in models:
        seen.setdefault((model.slug, model.revision), model)
    return list(seen.values())


def _check_shots(request: Request, tasks: list[TaskData]) -> None:
    """A shot count that no task can serve is a mistake; one that some cannot is noted there."""
    settings = request.protocols.get("fewshot")
    if not isinstance(settings, Fewshot) or not tasks:
        return
    from eval.protocols.episodes import Pool, refusals

    refused = [refusals(Pool.of(task), settings) for task in tasks]
    for shot in settings.shots:
        if all(shot in r for r in refused) and (
            settings.shots != Fewshot().shots or all(len(r) == len(settings.shots) for r in refused)
        ):
            raise UserError(f"task {tasks[0].name!r}: {refused[0][shot]}")


def _cell(
    request: Request, model: ResolvedModel, task: TaskData, protocol: str, settings: Settings
) -> Cell:
    changed = changed_settings(settings)
    if request.seed:
        changed["seed"] = request.seed
    if request.limit is not None and task.limit is not None:
        changed["limit"] = request.limit
    if request.precision:
        changed["precision"] = request.precision
    variant = "@" + ",".join(f"{k}={shown(v)}" for k, v in changed.items()) if changed else ""
    variant = variant.replace(":", "-")  # short:600, where a file's name has no colon
    folder = request.results / model.slug / model.revision
    name = task_label(task.name, task.split).replace("@", "__")  # @ stands before the settings
    path = folder / f"{name}.{protocol}{variant}.json"
    held = _held(path)
    if held is not None and held.task.split_hash != task.split_hash:
        # Other images under the same task name: both results are kept, side by side.
        path = folder / f"{name}~{task.split_hash[:8]}.{protocol}{variant}.json"
        held = _held(path)
    if held is None:
        return Cell(model, task, protocol, settings, path, False)
    settings, done = _merged(held, settings)
    cell = Cell(model, task, protocol, settings, path, done)
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
        raise UserError(
            f"{path} is no result file ({why}); move it away or choose another --results"
        ) from None


def _merged(held: Result, settings: Settings) -> tuple[Settings, bool]:
    """(settings to run, whether the file already answers them). Shot counts accumulate."""
    if not isinstance(settings, Fewshot):
        return settings, True
    have = {int(k) for k in held.protocol.config.get("shots", [])}
    if set(settings.shots) <= have:
        return settings, True
    return dataclasses.replace(settings, shots=tuple(sorted(have | set(settings.shots)))), False


def execute(request: Request, cells: list[Cell], *, debug: bool = False) -> Report:
    """Score the cells that are not done.

    Under torchrun every process calls this, and the main process's cells count: two processes
    that looked at the results at different moments would wait for each other for ever.
    """
    report = Report(cells)
    missing = [c for c in cells if not c.done]
    if not missing and launched() == 1:
        return report
    start = time.perf_counter()
    from eval.common.distributed import Workers

    workers = Workers(request.device)
    missing = workers.broadcast(missing)
    for model in dict.fromkeys(c.model for c in missing):
        mine = [c for c in missing if c.model == model]
        _score_model(request, model, mine, workers, report, debug)
    workers.close()
    report.seconds = time.perf_counter() - start
    return report


def _score_model(
    request: Request,
    model: ResolvedModel,
    cells: list[Cell],
    workers: Workers,
    report: Report,
    debug: bool,
) -> None:
    from eval.features.encode import auto_precision, encode
    from eval.features.precision import Precision
    from eval.models.backbone import load

    start = time.perf_counter()
    precision = Precision.parse(request.precision) if request.precision else None
    try:
        backbone = workers.together(lambda: load(model))
    except Exception as error:
        report.failures += [_failure(c.title, error, debug) for c in cells]
        return
    loaded = time.perf_counter() - start
    by_task: dict[str, list[Cell]] = {}
    for cell in cells:
        by_task.setdefault(cell.task.split_hash, []).append(cell)
    for group in by_task.values():
        task = group[0].task
        try:
            if task.kind == "detection":  # trains on the images themselves
                encoded = None
                chosen = precision or auto_precision(backbone, task, request.cache, workers)
            else:
                encoded = encode(
                    backbone, task, request.cache, workers, precision, request.batch_size
                )
                chosen = Precision.parse(encoded.bank.precision)
        except Exception as error:
            report.failures += [_failure(c.title, error, debug) for c in group]
            continue
        report.images += encoded.images if encoded else 0
        for cell in group:
            together = PROTOCOLS[cell.protocol].trains
            if not (workers.main or together):
                continue
            score = partial(score_cell, cell, backbone, encoded, chosen, workers, request, loaded)
            try:
                result = workers.together(score) if together else score()
                if workers.main:
                    write_result(cell.path, result)
                    report.scored += 1
            except Exception as error:
                report.failures.append(_failure(cell.title, error, debug))


def _failure(title: str, error: Exception, debug: bool) -> Failure:
    if debug:
        traceback.print_exception(error)
    mistake = isinstance(error, UserError)
    text = str(error) if mistake else f"{type(error).__name__}: {one_line(error)}"
    return Failure(title, text, mistake)


def score_cell(
    cell: Cell,
    backbone: Backbone,
    encoded: Encoded | None,
    precision: Precision,
    workers: Workers,
    request: Request,
    load_seconds: float,
) -> Result:
    """Run the cell's protocol and describe everything it depended on. ``encoded`` are features,
    which detection does without."""
    task = cell.task
    start = time.perf_counter()
    outcome = _outcome(cell, backbone, encoded, precision, workers, request)
    total = time.perf_counter() - start
    notes = [*task.notes, *outcome.notes]
    if task.duplicates:
        notes.append(f"{task.duplicates} test images also stand in train, byte for byte")
    return Result(
        schema_version=1,
        model=model_info(backbone),
        task=task_info(task),
        protocol=ProtocolInfo(
            name=cell.protocol,
            config={
                k: list(v) if isinstance(v, tuple) else v
                for k, v in dataclasses.asdict(cell.settings).items()
            },
        ),
        scores=outcome.scores,
        samples=outcome.samples,
        environment=environment(workers, precision),
        seed=request.seed,
        seconds={
            "load": round(load_seconds, 3),
            "encode": round(encoded.seconds if encoded else 0.0, 3),
            "fit": round(outcome.fit_seconds, 3),
            "score": round(total - outcome.fit_seconds, 3),
        },
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        details=outcome.details,
        notes=notes,
        limit=task.limit,
        precision=request.precision,
        confidence=(None if outcome.confidence is None else pack_confidence(outcome.confidence)),
    )


def _outcome(
    cell: Cell,
    backbone: Backbone,
    encoded: Encoded | None,
    precision: Precision,
    workers: Workers,
    request: Request,
) -> Outcome:
    protocol, task = PROTOCOLS[cell.protocol], cell.task
    score = protocol.load()
    keep = cell.kept if request.keep_model and protocol.keeps else None
    if encoded is None:
        from eval.data.boxes.box_data import DetectionData
        from eval.detection.setup import DetectionSetup

        assert isinstance(task, DetectionData)  # its kind is detection
        return score(
            DetectionSetup(
                backbone, task, workers, precision, request.cache, request.seed, keep
            ),
            cell.settings,
        )  # fmt: skip
    if protocol.trains:
        from eval.training.setup import Setup

        return score(
            Setup(
                backbone, task, encoded.bank, workers, precision, request.cache, request.seed, keep
            ),
            cell.settings,
        )  # fmt: skip
    return score(encoded.bank, task, cell.settings, request.seed)
