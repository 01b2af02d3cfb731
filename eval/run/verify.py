"""Run one result again: does the same come out?"""

from __future__ import annotations

import tempfile
from pathlib import Path

from eval.common.errors import BadInput, UserError
from eval.data.load import load_task
from eval.data.locations import Data, HubData
from eval.models.backbone import load
from eval.models.resolve import resolve
from eval.protocols import protocol_named
from eval.results.names import earlier, readout_of
from eval.results.schema import Result
from eval.results.store import NotAResult, read_result
from eval.run.execute import feature_readout, score_cell
from eval.run.plan import Cell, Request
from eval.run.tolerance import changed, tolerance
from eval.run.verdict import Difference, Verdict, choices, differences
from eval.tasks.declaration import SUBSET
from eval.tasks.registry import TASKS


def verify(path: Path, cache: Path, data: Data | None = None) -> Verdict:
    """Encode and score again, in the recorded precision, without using any cached features.

    Raises UserError when the file is not a result, or its model or data cannot be found again.
    """
    try:
        old = read_result(path)
    except NotAResult as why:
        raise BadInput(f"{path} is not a result file: {why}") from None
    protocol = protocol_named(old.protocol.name)
    recorded = old.protocol.config | earlier(old.protocol)
    config = {k: tuple(v) if isinstance(v, list) else v for k, v in recorded.items()}
    try:
        settings = protocol.settings(**config)
    except TypeError:
        raise BadInput(
            f"{path} has settings this version of {protocol.name} does not know"
        ) from None
    if old.model.spec.startswith("python:") and old.model.spec.count(":") == 1:
        raise BadInput(
            f"{path} scores {old.model.id}, a network in the memory of a Python process; call "
            "evaluate there again, with another folder of results, and compare"
        )
    model = resolve(old.model.spec, cache, old.model.img_size)
    name = old.task.name
    if old.task.source.startswith("local:") and (name not in TASKS or data is None):
        cure = "say where they lie with --data DIR" if name in TASKS else "verify it there"
        raise BadInput(f"{path} was measured on data of another machine; {cure}")
    if name in TASKS:
        split = f"@{old.task.split}" if old.task.split not in ("", SUBSET) else ""
        task = load_task(name + split, cache, data or _recorded(old), old.limit, old.seed)
    else:
        task = load_task(old.task.source, cache, data, old.limit, old.seed)
    other = []
    if task.split_hash != old.task.split_hash:
        other.append(
            f"the data: split hash {task.split_hash[:12]} where {old.task.split_hash[:12]} "
            "was recorded"
        )
    backbone = load(model)
    if backbone.weights_sha256 != old.model.weights_sha256:
        other.append(
            f"the weights: sha256 {backbone.weights_sha256[:12]} where "
            f"{old.model.weights_sha256[:12]} was recorded"
        )
    if backbone.params != old.model.params:
        other.append(
            f"the network: {backbone.params:,} parameters where {old.model.params:,} were recorded"
        )
    if other:  # other inputs: other numbers would say nothing
        return Verdict(tuple(map(Difference, other)), ())

    from eval.common.distributed import Workers
    from eval.features.precision import Precision
    from eval.features.read import read

    try:
        precision = Precision.parse(old.environment.dtype)
    except ValueError as why:
        raise UserError(f"{path} names an {why}") from None
    workers = Workers(old.environment.device if old.environment.device == "cpu" else None)
    cell = Cell(model, task, protocol.name, settings, path, False, readout=readout_of(old))
    wanted = feature_readout(cell)
    with tempfile.TemporaryDirectory(prefix="transferzoo-verify-") as fresh:
        request = Request([], [], {}, Path(fresh), path.parent, seed=old.seed)
        features = None
        if protocol.features:
            found = read(backbone, [wanted], task, Path(fresh), workers, precision, seed=old.seed)
            features = found[wanted]
        new = score_cell(cell, backbone, features, precision, workers, request, 0.0)
    limits = tolerance(old.environment, new.environment)
    labels = task.test.labels if task.kind == "classification" else None
    return Verdict(
        differences(old, new, limits, labels),
        (*map(str, changed(old.environment, new.environment)), *choices(old, new)),
        limits,
    )


def _recorded(old: Result) -> Data | None:
    """Where the result says its data lie."""
    repo = old.task.source.removeprefix("hub:")
    if repo == old.task.source:
        return Path(old.task.source).parent
    copy = TASKS[old.task.name].hub
    owner = "" if copy and copy.repo == repo else repo.partition("/")[0]
    return HubData(owner, old.task.revision)
