"""Run one result again and say whether it comes out equal."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from eval.common.errors import BadInput, UserError
from eval.data.load import load_task
from eval.data.locations import Data, HubData
from eval.models.backbone import load
from eval.models.resolve import resolve
from eval.protocols import protocol_named
from eval.results.receipt import versions
from eval.results.schema import SAME_CONFIDENCE, Result, confidence_gap
from eval.results.store import NotAResult, read_result
from eval.run.execute import score_cell
from eval.run.plan import Cell, Request
from eval.tasks.declaration import SUBSET
from eval.tasks.registry import TASKS

LATER = ("nll",)  # scores that earlier results of this schema do not have


@dataclass(frozen=True)
class Verdict:
    """What came out. ``differences`` are about the numbers, ``context`` about their making."""

    differences: tuple[str, ...]
    context: tuple[str, ...]

    @property
    def equal(self) -> bool:
        return not self.differences


def verify(path: Path, cache: Path, data: Data | None = None) -> Verdict:
    """Encode and score again, in the recorded precision, without using any cached features.

    Raises UserError when the file is not a result, or its model or data cannot be found again.
    """
    try:
        old = read_result(path)
    except NotAResult as why:
        raise BadInput(f"{path} is not a result file: {why}") from None
    protocol = protocol_named(old.protocol.name)
    config = {k: tuple(v) if isinstance(v, list) else v for k, v in old.protocol.config.items()}
    try:
        settings = protocol.settings(**config)
    except TypeError:
        raise BadInput(
            f"{path} has settings this version of {protocol.name} does not know"
        ) from None
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
    differences = []
    if task.split_hash != old.task.split_hash:
        differences.append(
            f"the data: split hash {task.split_hash[:12]} where {old.task.split_hash[:12]} "
            "was recorded"
        )
    backbone = load(model)
    if backbone.weights_sha256 != old.model.weights_sha256:
        differences.append(
            f"the weights: sha256 {backbone.weights_sha256[:12]} where "
            f"{old.model.weights_sha256[:12]} was recorded"
        )
    if differences:  # other inputs: other numbers would say nothing
        return Verdict(tuple(differences), ())

    from eval.common.distributed import Workers
    from eval.features.encode import encode
    from eval.features.precision import Precision

    try:
        precision = Precision.parse(old.environment.dtype)
    except ValueError as why:
        raise UserError(f"{path} names an {why}") from None
    workers = Workers(old.environment.device if old.environment.device == "cpu" else None)
    cell = Cell(model, task, protocol.name, settings, path, done=False)
    with tempfile.TemporaryDirectory(prefix="transferzoo-verify-") as fresh:
        request = Request([], [], {}, Path(fresh), path.parent, seed=old.seed)
        encoded = (
            encode(backbone, task, Path(fresh), workers, precision)
            if protocol.features else None
        )  # fmt: skip
        new = score_cell(cell, backbone, encoded, precision, workers, request, 0.0)
    return Verdict(tuple(_score_differences(old, new)), tuple(_context(old, new)))


def _score_differences(old: Result, new: Result) -> list[str]:
    out = []
    for score in old.scores:
        again = new.score(score.name)
        if again is None:
            out.append(f"{score.name}: recorded, but not found now")
        elif (again.value, again.ci_low, again.ci_high, again.n) != (
            score.value,
            score.ci_low,
            score.ci_high,
            score.n,
        ):
            out.append(
                f"{score.name}: {again.value} [{again.ci_low}, {again.ci_high}] where "
                f"{score.value} [{score.ci_low}, {score.ci_high}] was recorded"
            )
    missing = [s.name for s in new.scores if old.score(s.name) is None and s.name not in LATER]
    missing += [name for name in new.samples if name not in old.samples]
    out += [f"{name}: found now, but not recorded" for name in dict.fromkeys(missing)]
    for name, samples in old.samples.items():
        if name not in new.samples or new.samples[name].correct != samples.correct:
            out.append(f"{name}: other episodes or images are answered right")
    gap = confidence_gap(old, new)  # results of earlier versions have none
    if gap > SAME_CONFIDENCE:
        out.append(f"confidence: up to {gap:.4f} off at an image")
    return out


def _recorded(old: Result) -> Data | None:
    """Where the result says its data lie."""
    repo = old.task.source.removeprefix("hub:")
    if repo == old.task.source:
        return Path(old.task.source).parent
    copy = TASKS[old.task.name].hub
    owner = "" if copy and copy.repo == repo else repo.partition("/")[0]
    return HubData(owner, old.task.revision)


def _context(old: Result, new: Result) -> list[str]:
    now = versions()
    out = [
        f"{name} {now.get(name, 'absent')} here, {then} recorded"
        for name, then in old.environment.versions.items()
        if now.get(name) != then
    ]
    for what in ("device", "threads", "processes"):
        then, here = getattr(old.environment, what), getattr(new.environment, what)
        if then != here:
            out.append(f"{what} {here} here, {then} recorded")
    return out
