"""What the commands do, as functions for Python: strings or networks in, results out.

``import eval`` offers these names (``eval.evaluate``, ``eval.load_model`` ...) and imports this
module when one of them is first used. A plan is made without torch, as for the commands.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from eval.common.distributed import is_main_process
from eval.common.errors import BadInput
from eval.common.files import default_cache
from eval.data.load import load_task as _load_task
from eval.data.locations import Data, data_from
from eval.models.names import expand
from eval.models.resolve import resolve
from eval.protocols import PROTOCOLS, protocol_named
from eval.results.collection import Boards, Results
from eval.results.item_scores import TiedBoard, item_scores, read_items, ties_of
from eval.results.leaderboard import tables
from eval.results.store import read_result
from eval.run.execute import Failure, execute
from eval.run.known import fetch_results, note_results, planned_from
from eval.run.plan import Request, check_number
from eval.run.progress import Progress, run_progress
from eval.settings.assign import with_setting
from eval.settings.presets import preset_named
from eval.settings.protocols import Fewshot, Settings
from eval.settings.readout import readouts
from eval.stores.front import check_store, folder_of

if TYPE_CHECKING:
    from eval.data.task_data import TaskData
    from eval.models.backbone import Backbone
    from eval.results.schema import Result

Place = str | Path
# Names; or each with its settings, whole or only those that are not the defaults.
Protocols = str | Sequence[str] | Mapping[str, Settings | Mapping[str, Any]]


class CellsFailed(RuntimeError):
    """Some cells could not be scored, through no mistake of the caller's. The others are saved, so
    the same call goes on from there. ``failures`` says which, each in one sentence."""

    def __init__(self, failures: Sequence[Failure]) -> None:
        super().__init__(_told(failures))
        self.failures = tuple(failures)


def evaluate(
    models: str | Backbone | Sequence[str | Backbone],
    tasks: str | Sequence[str],
    protocols: Protocols | None = None,
    *,
    results: Place = "results",
    cache: Place | None = None,
    data: Place | None = None,
    seed: int = 0,
    limit: int | None = None,
    img_size: int | None = None,
    device: str | None = None,
    precision: str | None = None,
    batch_size: int | None = None,
    strict: bool = False,
    keep_model: bool = False,
    pool: str | Sequence[str] = "default",
    layer: str | Sequence[str] = "",
    preset: str | None = None,
    progress: bool = True,
) -> Results:
    """Score every model on every task under every protocol: ``transfer-eval run`` as a function.

    ``models`` are the strings that the command takes, or networks of yours (see `backbone`), and
    ``tasks`` its strings. ``protocols`` are names, or a mapping of a name to settings:
    ``{"fewshot": {"shots": [5]}, "linear": {}}``; None is what the command runs. What lies under
    ``results``, a folder or an address such as s3://BUCKET/FOLDER, already is read, not scored
    again. ``cache`` and ``data`` default to
    TRANSFERZOO_CACHE and TRANSFERZOO_DATA, as for the command. ``pool`` (cls, mean, cls+mean,
    cls+last-mean) and ``layer`` (a name, last-N, auto) are what is read off the network: each pool
    at each layer makes results of its own, from one pass. ``preset`` takes over somebody else's
    readout and settings ("dinov2-linear"); what ``protocols`` says stands above it. ``progress``
    says a line on stderr for each finished cell. What deserves a warning stands in each result's
    ``warnings``; ``strict`` makes it an error.

    One result a cell: models vary slowest, then tasks and readouts, protocols fastest. Under
    torchrun every process calls this; the main one gets the results, the others none.

    Raises UserError for a mistake, before anything is scored where that can be known; CellsFailed
    where a cell failed otherwise. What was scored is saved in either case.

    >>> found = evaluate("random:test_resnet", "digits", "knn", limit=60, img_size=32)
    >>> found[0].score("top1").n  # test images; .value is a fraction of one
    60
    """
    for name, value in (
        ("limit", limit), ("img_size", img_size), ("batch_size", batch_size), ("seed", seed),
    ):  # fmt: skip
        check_number(name, value)
    chosen = preset_named(preset) if preset else None
    if chosen and (pool, layer) != ("default", ""):
        raise BadInput(
            f"preset {chosen.name!r} says which layers are pooled, and how; leave pool and layer "
            "out"
        )
    request = Request(
        models=_models(models),
        tasks=_several("tasks", tasks),
        protocols=protocol_settings(protocols, chosen.protocols if chosen else {}),
        cache=_cache(cache),
        results=folder_of(str(results)),
        data=_data(data),
        seed=seed,
        limit=limit,
        img_size=img_size,
        device=device,
        precision=None if precision == "auto" else precision,
        batch_size=batch_size,
        strict=strict,
        keep_model=keep_model,
        readouts=(
            (chosen.readout,)
            if chosen
            else readouts(_several("pool", pool), _several("layer", layer))
        ),
    )
    if not is_main_process():  # helps to encode and train: the main process's plan counts
        execute(request, [])
        return Results()
    check_store(request.results)
    cells, _ = planned_from(request)
    report = execute(request, cells, progress=run_progress() if progress else Progress())
    note_results(request, report)
    fetch_results(request, cells)
    failures = report.failures
    if failures and all(f.user_mistake for f in failures):
        raise BadInput(_told(failures))
    if failures:
        raise CellsFailed(failures)
    return Results(read_result(cell.path) for cell in cells)


def load_task(
    task: str,
    data: Place | None = None,
    *,
    cache: Place | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> TaskData:
    """A task string -> its splits in canonical order, with classes, labels and a split hash.

    ``data`` is where declared tasks are looked for: a folder, or ``hub:OWNER``. ``limit`` keeps at
    most that many images of each split. Raises UserError for anything wrong with the data.

    >>> task = load_task("digits")
    >>> len(task.classes), len(task.train), len(task.test)
    (10, 1258, 539)
    """
    check_number("limit", limit)
    check_number("seed", seed)
    return _load_task(task, _cache(cache), _data(data), limit, seed)


def load_model(model: str, *, img_size: int | None = None, cache: Place | None = None) -> Backbone:
    """A model string -> the network that gives features, in eval mode on the CPU.

    ``backbone.net`` maps normalised [B, 3, H, W] to [B, dim]; ``backbone.transform`` takes an RGB
    image to [3, H, W] uint8. Raises UserError for a string that names no one model, or weights
    that do not fit.

    >>> loaded = load_model("random:test_resnet", img_size=32)
    >>> loaded.dim, loaded.input_config["input_size"]
    (96, [3, 32, 32])
    """
    from eval.models.backbone import load

    check_number("img_size", img_size)
    if (named := expand(model)) != [model]:
        raise BadInput(f"{model!r} names {len(named)} models; load one, such as {named[0]!r}")
    return load(resolve(model, _cache(cache), img_size))


def read_results(place: Place = "results") -> Results:
    """All results of a folder, or of a data set repository of the Hub (``hub:ORG/NAME[@rev]``).

    A JSON file there that is not a result, or whose numbers contradict each other, is left out with
    a warning. Raises UserError where there
    is no such place, or JSON but no result at all.

    >>> shipped = read_results(Path(__file__).parents[1] / "model_cards")
    >>> shipped.to_frame().query("task == 'dtd' and score == 'top1_5shot'").shape[0]
    6
    """
    from eval.sharing.read import shelf_at

    _, shelf = shelf_at(place if isinstance(place, str) else str(place))
    for path, why in shelf.foreign:
        warnings.warn(f"skipped {path}: {why}", stacklevel=2)
    return Results(result for _, result in shelf.results)


def leaderboard(results: Iterable[Result]) -> Boards:
    """All boards of the results, one for each protocol, setting and score: ``models`` are its rows,
    ``tasks`` its columns, ``cells[row, column]`` the scores that were measured.

    >>> boards = leaderboard(read_results(Path(__file__).parents[1] / "model_cards"))
    >>> boards[0].title, len(boards[0].models)
    ('fewshot, 1-shot top-1, %', 6)
    """
    return Boards(tables(results))


def ties(scores: Place | Iterable[Mapping[str, Any]]) -> list[TiedBoard]:
    """Which models of a board cannot be told apart: ``transfer-eval ties`` as a function.

    ``scores`` are mappings with the keys ``model``, ``item`` (or ``seed``), ``score`` and, where
    there are several, ``task`` (rows of a data frame: ``frame.to_dict("records")``); or a CSV or
    Parquet file of such columns. Any models, any score, higher is better; items pair the models.

    The first board is that of the mean over the tasks, where there are several; then follows one
    for each task. ``board.models`` are best first, ``board.ties.group`` their groups from 1,
    ``board.ties.places(i)`` the places that a model could hold, ``board.estimates.half_widths()``
    half of the 95 % intervals over other items. All pairs of a board are compared at once, so that
    boards of equal models show a second group in at most 5 % of cases, however many models.

    Raises UserError for a column that is missing, a score that is not a finite number or is there
    twice, and where no two models share two items of a task.

    >>> right = {"a": [1, 1, 1, 1, 1, 1, 1, 0], "b": [1, 1, 1, 1, 1, 1, 0, 1]}
    >>> scores = [
    ...     {"model": m, "item": i, "score": s} for m in right for i, s in enumerate(right[m])
    ... ]
    >>> ties(scores)[0].ties.group.tolist()
    [1, 1]
    """
    if isinstance(scores, str | Path):
        whole, boards = ties_of(read_items(Path(scores)))
    else:
        whole, boards = ties_of(item_scores(scores))
    return [whole, *boards] if whole is not None else boards


def _models(given: str | Backbone | Sequence[str | Backbone]) -> list[str | Backbone]:
    """Strings, each a model of its own, and networks in memory. A model that was loaded from a
    string is named by that string again: somebody may have trained it since."""
    from eval.models.backbone import Backbone

    several = [given] if isinstance(given, str | Backbone) else list(given)
    strings: list[str | Backbone] = []
    for model in several:
        if isinstance(model, Backbone) and model.resolved.kind != "python":
            raise BadInput(
                f"{model.resolved.id} was loaded from a string, and its network may have changed "
                f"since; give evaluate the string {model.resolved.spec!r} itself, or "
                "backbone(loaded.net, loaded.input_config, name='mine')"
            )
        if not isinstance(model, str | Backbone):
            raise BadInput(
                "models must be strings such as 'zoo:NAME' or networks such as "
                f"backbone(net, transform, name='mine'), got a {type(model).__name__}"
            )
        strings += [model] if isinstance(model, Backbone) else expand(model)
    if not strings:
        raise BadInput("models is empty; name at least one")
    return strings


def _several(subject: str, given: str | Sequence[str]) -> list[str]:
    """One string or several, as a list. Raises UserError for none, or for what is not a string."""
    values = [given] if isinstance(given, str) else list(given)
    for value in values:
        if not isinstance(value, str):
            raise BadInput(
                f"{subject} must be strings such as 'digits' or 'linear', got a "
                f"{type(value).__name__}"
            )
    if not values:
        raise BadInput(f"{subject} is empty; name at least one")
    return values


def protocol_settings(
    protocols: Protocols | None, preset: Mapping[str, Mapping[str, Any]] = MappingProxyType({})
) -> dict[str, Settings]:
    """Each protocol's settings, every changed one checked against its bounds; None is what a run
    that names no protocol does: the preset's, or the default ones. Raises UserError."""
    if protocols is None:
        default = [name for name, protocol in PROTOCOLS.items() if protocol.default]
        protocols = list(preset) or default
    if not isinstance(protocols, Mapping):
        protocols = {name: {} for name in _several("protocols", protocols)}
    if not protocols:
        raise BadInput("protocols is empty; leave it out for the defaults")
    return {
        name: _settings_of(
            name, {**preset.get(name, {}), **given} if isinstance(given, Mapping) else given
        )
        for name, given in protocols.items()
    }


def _settings_of(name: str, given: Settings | Mapping[str, Any]) -> Settings:
    kind = protocol_named(name).settings
    if not isinstance(given, Mapping):
        if type(given) is not kind:
            raise BadInput(
                f"protocol {name!r} takes {kind.__name__} or a mapping, not {type(given).__name__}"
            )
        given = {field.name: getattr(given, field.name) for field in dataclasses.fields(given)}
    settings = kind()
    for setting, value in given.items():
        if value != getattr(settings, setting, None):
            settings = with_setting(settings, setting, value, f"protocol {name!r}")
    if isinstance(settings, Fewshot):  # the order and repeats of shots make no other result
        settings = dataclasses.replace(settings, shots=tuple(sorted(set(settings.shots))))
    return settings


def _cache(place: Place | None) -> Path:
    return default_cache() if place is None else folder_of(str(place))


def _data(place: Place | None) -> Data | None:
    return data_from(None if place is None else str(place))


def _told(failures: Sequence[Failure]) -> str:
    return "; ".join(dict.fromkeys(f"{f.title}: {f.error}" for f in failures))
