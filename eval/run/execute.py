"""models x tasks x protocols, minus what is done.

``plan`` finds out what every string means and which cells are missing, without importing torch.
``execute`` scores the missing cells: a cell that fails is listed at the end, the others are saved.
"""

from __future__ import annotations

import dataclasses
import time
import traceback
from collections.abc import Callable, Hashable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from eval.common.distributed import launched
from eval.common.errors import (
    OUT_OF_MEMORY,
    BadInput,
    Conflict,
    Unreadable,
    UserError,
    one_line,
    ran_out_of_memory,
)
from eval.common.files import locked
from eval.data.inventory.unreadable import unreadable
from eval.data.task_data import TaskData
from eval.models.resolve import ResolvedModel
from eval.protocols import PROTOCOLS
from eval.results.names import format_of, plain
from eval.results.receipt import environment, model_info, task_info
from eval.results.schema import (
    ProtocolInfo,
    ReadoutInfo,
    Result,
    pack_confidence,
)
from eval.results.store import LOCK, create_result, disagreement, read_result, write_result
from eval.run.plan import Cell, Request, settled, warnings_of
from eval.run.progress import Progress
from eval.settings.readout import TOKENS, Readout
from eval.stores.front import address_of
from eval.training.context import Context

if TYPE_CHECKING:
    from pathlib import Path

    from eval.common.distributed import Workers
    from eval.features.precision import Precision
    from eval.features.read import Read
    from eval.models.backbone import Backbone
    from eval.settings.protocols import Settings

_PATIENCE = 60.0  # seconds for a lock that is held for milliseconds


@dataclass(frozen=True)
class Failure:
    """A cell that could not be scored, in one sentence."""

    title: str
    error: str
    user_mistake: bool
    planned: str = ""  # the result's path as it was planned
    conflict: bool = False  # the result that is there has other scores


@dataclass
class Report:
    """What a run did."""

    cells: list[Cell]
    scored: int = 0
    failures: list[Failure] = field(default_factory=list)
    images: int = 0
    seconds: float = 0.0
    placed: dict[Path, Path] = field(default_factory=dict)  # planned path -> the result's

    def place(self, cell: Cell, placed: Cell) -> None:
        """The cell's result lies where ``placed`` says: only now is its precision known."""
        at = next(i for i, c in enumerate(self.cells) if c.path == cell.path)
        self.cells[at] = placed
        self.placed[cell.path] = placed.path

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


def execute(
    request: Request,
    cells: list[Cell],
    *,
    debug: bool = False,
    progress: Progress | None = None,
    networks: Networks | None = None,
) -> Report:
    """Score the cells that are not done, and tell ``progress`` of each. A cell's path in ``cells``
    is afterwards that of its result, where the precision that was chosen stands in the name.
    ``networks`` keeps the last model for a call that may ask for it again.

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
    progress, networks = progress or Progress(), networks or Networks()
    with progress.over(missing):
        for model in dict.fromkeys(c.model for c in missing):
            mine = [c for c in missing if c.model == model]
            _score_model(request, model, mine, workers, report, debug, progress, networks)
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
    progress: Progress,
    networks: Networks,
) -> None:
    from eval.features.encode import auto_precision
    from eval.features.precision import Precision
    from eval.features.read import read

    def failed(cells: list[Cell], error: Exception) -> None:
        failures = [_failure(c, error, debug) for c in cells]
        report.failures += failures
        progress.failed(cells, failures[0].error)

    progress.loading(model)
    precision = Precision.parse(request.precision) if request.precision else None
    try:
        backbone, loaded = workers.together(lambda: networks.get(request, model))
    except Exception as error:
        failed(cells, error)
        return
    groups: dict[Hashable, list[Cell]] = {}
    for cell in cells:  # tokens of all images are large: they have banks of their own
        tokens = PROTOCOLS[cell.protocol].reads == "tokens"
        groups.setdefault((cell.task.split_hash, tokens), []).append(cell)
    for group in groups.values():
        task = group[0].task
        found: dict[Readout, Read] = {}
        try:
            chosen = precision or auto_precision(backbone, task, workers)
            if any(PROTOCOLS[c.protocol].features for c in group):
                progress.encoding(group[0])
                wanted = list(dict.fromkeys(feature_readout(c) for c in group))
                found = read(
                    backbone, wanted, task, request.cache, workers, chosen, request.batch_size,
                    request.seed,
                )  # fmt: skip
                chosen = Precision.parse(found[wanted[0]].encoded.bank.precision)
        except Exception as error:
            failed(group, _with_all_unreadable(error, task))
            continue
        report.images += next(iter(found.values())).encoded.images if found else 0
        for cell in group:
            together = PROTOCOLS[cell.protocol].trains
            if not (workers.main or together):
                continue
            progress.scoring(cell)
            placed, _ = settled(request, cell, str(chosen))
            score = partial(
                score_cell, backbone=backbone, features=found.get(feature_readout(cell)),
                precision=chosen, workers=workers, request=request, load_seconds=loaded,
            )  # fmt: skip
            try:
                first = partial(score, placed)
                result = workers.together(first) if together else first()
                if workers.main:
                    placed, result = _save(request, placed, result, str(chosen), score)
                    report.place(cell, placed)
                    report.scored += 1
                    progress.scored(cell, result)
            except Exception as error:
                failed([cell], _with_all_unreadable(error, task))


def encode_share(
    request: Request, cells: list[Cell], share: tuple[int, int], networks: Networks
) -> int:
    """Encode one share (which, of how many) of what `execute` would encode for the cells that are
    missing, all of one model and one task, and score none. Images that were encoded now.

    Raises what loading and encoding raise.
    """
    from eval.common.distributed import Workers
    from eval.features.encode import auto_precision
    from eval.features.precision import Precision
    from eval.features.read import read_share

    wanted: dict[bool, dict[Readout, None]] = {}  # tokens have a bank of their own
    for cell in cells:
        if not cell.done and PROTOCOLS[cell.protocol].features:
            tokens = PROTOCOLS[cell.protocol].reads == "tokens"
            wanted.setdefault(tokens, {})[feature_readout(cell)] = None
    if not wanted:
        return 0
    workers, task = Workers(request.device), cells[0].task
    backbone, _ = networks.get(request, cells[0].model)
    precision = Precision.parse(request.precision) if request.precision else None
    chosen = precision or auto_precision(backbone, task, workers)
    images = 0
    for readouts in wanted.values():
        images += read_share(
            backbone, list(readouts), task, request.cache, workers, chosen, request.batch_size,
            share,
        )  # fmt: skip
    workers.close()
    return images


def _with_all_unreadable(error: Exception, task: TaskData) -> Exception:
    """The error; where it is about one image that cannot be read, about all of the task."""
    if not isinstance(error, Unreadable):
        return error
    from eval.data.decoding import undecodable

    found = undecodable(task)
    return BadInput(f"task {task.name!r}: {unreadable(found)}") if len(found) > 1 else error


def feature_readout(cell: Cell) -> Readout:
    """What the cell's protocol takes as features, for what the user asked for."""
    if PROTOCOLS[cell.protocol].reads == "tokens":
        return dataclasses.replace(cell.readout, pool=TOKENS)
    return cell.readout


def _save(
    request: Request, cell: Cell, result: Result, used: str, score: Callable[[Cell], Result]
) -> tuple[Cell, Result]:
    """Write the result, and nothing over what another run has written meanwhile.

    What is there must say the same. Where it lacks shot counts that this result has, a folder gets
    one file with both, scored once more; a store, where files never change, one beside it. The cell
    as it is then, and what its file holds. Raises Conflict where the scores that are there differ.
    """
    protocol, store = PROTOCOLS[cell.protocol], bool(address_of(request.results))
    while True:
        # Several writers of one folder take turns; a store tells who was first, without a lock.
        with nullcontext() if store else locked(request.results / LOCK, _PATIENCE):
            now, held = settled(request, cell, used)
            if held is None:
                if create_result(request.results, now.path, result):
                    return now, result
                continue  # somebody was faster: that one is looked at
            wider: Settings | None = None
            if protocol.merge and held.computed == format_of(result.environment.dtype):
                wider = protocol.merged(held.protocol.config, cell.settings)
            if wider is None:  # it has all that this one has
                return now, _agreed(now, result)
            if store:
                cell = dataclasses.replace(now, apart=True)
                continue
            if wider == cell.settings:
                _agreed(now, result)
                write_result(now.path, result)
                return now, result
        cell = dataclasses.replace(now, settings=wider)
        result = score(cell)


def _agreed(cell: Cell, result: Result) -> Result:
    """The result that is there. Raises Conflict where it does not say the same."""
    held = read_result(cell.path)
    if why := disagreement(held, result):
        raise Conflict(f"{cell.path} is there with other scores, and stays as it is: {why}")
    return held


class Networks:
    """The network that was asked for last: the groups of one model come one after another."""

    def __init__(self) -> None:
        self._held: tuple[ResolvedModel, Backbone, float] | None = None

    def get(self, request: Request, model: ResolvedModel) -> tuple[Backbone, float]:
        """The model's network and the seconds of loading it: held, or one of the request's own, or
        loaded now, after the one before is let go."""
        from eval.models.backbone import load

        if self._held is None or self._held[0] != model:
            self._held = None
            start = time.perf_counter()
            own = (m for m in request.models if not isinstance(m, str) and m.resolved == model)
            backbone = next(own, None) or load(model)
            self._held = model, backbone, time.perf_counter() - start
        return self._held[1:]


def _failure(cell: Cell, error: Exception, debug: bool) -> Failure:
    if debug:
        traceback.print_exception(error)
    mistake, title, planned = isinstance(error, UserError), cell.title, str(cell.path)
    if ran_out_of_memory(error):
        return Failure(title, OUT_OF_MEMORY, False, planned)
    text = str(error) if mistake else f"{type(error).__name__}: {one_line(error)}"
    conflict = isinstance(error, Conflict)
    return Failure(title, text, mistake and not conflict, planned, conflict)


def score_cell(
    cell: Cell,
    backbone: Backbone,
    features: Read | None,
    precision: Precision,
    workers: Workers,
    request: Request,
    load_seconds: float,
) -> Result:
    """Run the cell's protocol and describe everything it depended on. ``features`` may be None for
    a protocol that takes none."""
    task, protocol = cell.task, PROTOCOLS[cell.protocol]
    if not protocol.features:
        features = None
    encoded = features.encoded if features else None
    context = Context(
        backbone=features.backbone if features else backbone,
        task=task,
        bank=encoded.bank if encoded else None,
        workers=workers,
        precision=precision,
        cache=request.cache,
        seed=request.seed,
        keep=cell.kept if request.keep_model and protocol.keeps else None,
    )
    start = time.perf_counter()
    outcome = protocol.load()(context, cell.settings)
    total = time.perf_counter() - start
    read_how = {"readout": features.details} if features and features.details else {}
    notes = [*task.notes, *backbone.notes, *outcome.notes]
    if task.duplicates:
        both = ("queries", "the gallery") if task.kind == "instances" else ("test images", "train")
        notes.append(f"{task.duplicates} {both[0]} also stand in {both[1]}, byte for byte")
    return Result(
        schema_version=1,
        model=model_info(backbone),
        task=task_info(task),
        protocol=ProtocolInfo(
            name=cell.protocol,
            config=plain(cell.settings),
        ),
        scores=outcome.scores,
        samples=outcome.samples,
        environment=environment(workers, precision, backbone.resolved),
        seed=request.seed,
        seconds={
            "load": round(load_seconds, 3),
            "encode": round(encoded.seconds if encoded else 0.0, 3),
            "fit": round(outcome.fit_seconds, 3),
            "score": round(total - outcome.fit_seconds, 3),
        },
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        details=outcome.details | read_how,
        notes=notes,
        warnings=list(warnings_of(task)),
        limit=task.limit,
        precision=cell.precision,
        readout=ReadoutInfo(**asdict(cell.readout)) if cell.readout.changed else None,
        confidence=(None if outcome.confidence is None else pack_confidence(outcome.confidence)),
    )
