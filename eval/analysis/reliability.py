"""Reliability diagrams: is an answer of confidence 0.8 right eight times in ten?

A panel shows one model on one task: the share of right answers among the test images of each bin of
confidence (the largest predicted probability), with Wilson's 95 % interval. The bins are those of
``eval.metrics.intervals.expected_calibration_error``, so the gaps in a panel, each weighted by its
share of images, add up to the ECE that is written in it.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from eval.analysis.plots import check_picture, saved
from eval.common.errors import BadInput, NotFound, did_you_mean
from eval.metrics.intervals import ECE_BINS, Interval, wilson
from eval.results.compare import find_model
from eval.results.leaderboard import model_label, setting_label
from eval.results.names import task_label
from eval.results.schema import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]

MOST_PANELS = 60  # more cannot be read in one picture


@dataclass(frozen=True)
class Bin:
    """The images whose confidence is above ``low`` and at most ``high``; all fractions of one."""

    low: float
    high: float
    count: int
    confidence: float  # mean
    accuracy: float
    ci_low: float  # of the accuracy: Wilson's 95 % interval
    ci_high: float


@dataclass(frozen=True)
class Diagram:
    """One model on one task under one protocol and setting."""

    task: str
    protocol: str
    setting: str
    model: str
    bins: tuple[Bin, ...]
    ece: Interval  # as the result has it
    images: int
    confidence: float  # mean over the images
    accuracy: float

    @property
    def gap(self) -> float:
        """Mean confidence less accuracy: positive where the model claims more than it can."""
        return self.confidence - self.accuracy


def reliability(confidence: Floats, correct: NDArray[np.bool_], bins: int = ECE_BINS) -> list[Bin]:
    """The bins that hold any of [n] images: equal-width, (low, high], a confidence of 0 in the
    first. Raises ValueError where the arrays do not belong together."""
    if confidence.shape != correct.shape or confidence.ndim != 1:
        raise ValueError(f"unpaired: {confidence.shape} confidences, {correct.shape} answers")
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    found = []
    for index in np.unique(place).tolist():
        mine = place == index
        right, count = int(correct[mine].sum()), int(mine.sum())
        found.append(
            Bin(
                float(edges[index]),
                float(edges[index + 1]),
                count,
                float(confidence[mine].mean()),
                right / count,
                *wilson(right, count),
            )
        )
    return found


def chosen(
    results: Sequence[Result],
    tasks: Sequence[str] | None = None,
    protocols: Sequence[str] | None = None,
    models: Sequence[str] | None = None,
) -> list[Result]:
    """The results that pass every filter that is given; a task is named with or without its split,
    a model as for ``compare``. Raises UserError for a name that no result has."""
    found = list(results)
    if tasks:
        found = _having(found, "task", tasks, lambda r: {r.task.name, _task(r)})
    if protocols:
        found = _having(found, "protocol", protocols, lambda r: {r.protocol.name})
    if models:
        kept = [id(r) for text in models for r in find_model(text, found)]
        found = [r for r in found if id(r) in kept]
    return found


def _having(
    results: Sequence[Result], what: str, wanted: Sequence[str], names: Callable[[Result], set[str]]
) -> list[Result]:
    known = sorted(set().union(*map(names, results)))
    for name in wanted:
        if name not in known:
            there = f"there are {', '.join(known)}" if known else "there are none at all"
            raise NotFound(f"no result of {what} {name!r} here" + did_you_mean(name, known, there))
    return [r for r in results if names(r) & set(wanted)]


def _task(result: Result) -> str:
    return task_label(result.task.name, result.task.split)


def diagrams(results: Iterable[Result]) -> list[Diagram]:
    """The results that have confidences, each as a diagram; of two of one cell the last counts.

    A revision or split hash is in a name only where the name alone is not enough.
    """
    usable = [r for r in results if _usable(r)]
    revisions: dict[str, set[str]] = {}
    splits: dict[str, set[str]] = {}
    for r in usable:
        revisions.setdefault(model_label(r), set()).add(r.model.revision)
        splits.setdefault(_task(r), set()).add(r.task.split_hash)
    found = {}
    for r in usable:
        model, task = model_label(r), _task(r)
        model += f"@{r.model.revision[:7]}" if len(revisions[model]) > 1 else ""
        task += f"~{r.task.split_hash[:8]}" if len(splits[task]) > 1 else ""
        diagram = _diagram(r, task, model)
        found[diagram.task, diagram.protocol, diagram.setting, diagram.model] = diagram
    return list(found.values())


def _usable(result: Result) -> bool:
    """Result files may come from anywhere: one answer an image, and a finite ECE."""
    ece, samples = result.score("ece"), result.samples.get("top1")
    return (
        result.confidence is not None
        and samples is not None
        and (samples.unit, samples.of) == ("image", 1)
        and samples.n > 0
        and ece is not None
        and all(map(math.isfinite, (ece.value, ece.ci_low, ece.ci_high)))
    )


def _diagram(result: Result, task: str, model: str) -> Diagram:
    confidence, ece = result.confidences(), result.score("ece")
    assert confidence is not None  # usable
    assert ece is not None
    correct = result.samples["top1"].values() > 0.5
    return Diagram(
        task,
        result.protocol.name,
        setting_label(result),
        model,
        tuple(reliability(confidence, correct)),
        Interval(ece.value, ece.ci_low, ece.ci_high),
        len(correct),
        float(confidence.mean()),
        float(correct.mean()),
    )


def as_json(diagram: Diagram) -> dict[str, Any]:
    """A diagram as plain data, fractions of one."""
    return dataclasses.asdict(diagram)


def sentence(found: Sequence[Diagram]) -> str:
    """Which is calibrated best and worst, and which way they err on the whole."""
    _check(found)
    gap = float(np.mean([d.gap for d in found]))
    over = sum(d.gap > 0 for d in found)
    manner = "over" if gap > 0 else "under"
    lean = (
        "neither over- nor under-confident (mean confidence equals accuracy"
        if round(100 * abs(gap), 1) == 0
        else f"{manner}-confident (mean confidence is {100 * abs(gap):.1f} points "
        f"{'above' if gap > 0 else 'below'} accuracy"
    )
    order = sorted(found, key=lambda d: d.ece.value)
    if len(found) == 1:
        return f"{_words(order[0])} and is {lean})."
    count = over if gap > 0 else len(found) - over
    tally = "" if lean.startswith("neither") else f"; so are {count} of {len(found)}"
    return (
        f"Best calibrated of {len(found)}: {_words(order[0])}, worst: {_words(order[-1])}; on the "
        f"whole they are {lean}{tally})."
    )


def _words(diagram: Diagram) -> str:
    rest = ", ".join(filter(None, (diagram.protocol, diagram.setting)))
    return f"{diagram.model} on {diagram.task} ({rest}) has an ECE of {_ece(diagram)} %"


def _ece(diagram: Diagram) -> str:
    ece = diagram.ece
    return f"{100 * ece.value:.1f} ±{50 * (ece.high - ece.low):.1f}"


def _check(found: Sequence[Diagram]) -> None:
    if not found:
        raise NotFound(
            "no result here has probabilities: fewshot and knn give none, and earlier versions "
            "kept none; make some with `transfer-eval run MODEL --task T --protocol linear "
            "--results NEW_DIR` (linear-sgd and finetune have them too)"
        )


def figure(found: Sequence[Diagram]) -> Figure:
    """A grid of panels: a row a model, a column a task under a protocol and setting.

    Raises UserError where there are none, or too many for one picture.
    """
    _check(found)
    models = list(dict.fromkeys(d.model for d in found))
    columns = list(dict.fromkeys((d.task, d.protocol, d.setting) for d in found))
    if len(models) * len(columns) > MOST_PANELS:
        raise BadInput(
            f"{len(models)} models in {len(columns)} columns of tasks and settings are "
            f"{len(models) * len(columns)} panels, more than {MOST_PANELS}; choose with --task, "
            "--protocol or --model"
        )
    from matplotlib.figure import Figure  # no pyplot: no window, no state

    picture = Figure(
        figsize=(max(5.0, 0.9 + 2.3 * len(columns)), 0.9 + 2.45 * len(models)),
        dpi=130,
        layout="compressed",  # the panels are squares
    )
    axes = picture.subplots(len(models), len(columns), squeeze=False, sharex=True, sharey=True)
    cells = {(d.model, (d.task, d.protocol, d.setting)): d for d in found}
    for line, model in zip(axes, models, strict=True):
        for axis, column in zip(line, columns, strict=True):
            axis.tick_params(labelsize=7)
            if diagram := cells.get((model, column)):
                _panel(axis, diagram)
            else:
                axis.text(50, 50, "no result", ha="center", va="center", color="grey", fontsize=8)
        name = _wrapped(model, 24)
        line[0].set_ylabel(f"{name}\nright answers, %", fontsize=8)
    for axis in axes[-1]:
        axis.set_xlabel("confidence, %", fontsize=8)
    for axis, (task, protocol, setting) in zip(axes[0], columns, strict=True):
        title = (
            f"{_wrapped(task, 28)}\n{_wrapped(', '.join(filter(None, (protocol, setting))), 28)}"
        )
        axis.set_title(title, fontsize=9)
    filled = next(axis for axis in axes.flat if axis.containers)
    handles, labels = filled.get_legend_handles_labels()
    picture.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=4 if len(columns) > 2 else 2,
        fontsize=8,
        frameon=False,
    )
    return picture


def _panel(axis: Axes, diagram: Diagram) -> None:
    """Bars of accuracy, errors at each bin's mean confidence, and the share of images."""
    bins = diagram.bins
    low, mean = [100 * b.low for b in bins], [100 * b.confidence for b in bins]
    width = [100 * (b.high - b.low) for b in bins]
    accuracy = [100 * b.accuracy for b in bins]
    below = [100 * max(0.0, b.accuracy - b.ci_low) for b in bins]
    above = [100 * max(0.0, b.ci_high - b.accuracy) for b in bins]
    share = [100 * b.count / diagram.images for b in bins]
    axis.bar(low, accuracy, width, align="edge", color="C0", alpha=0.45, ec="white", lw=0.6,
             label="right answers in the bin")  # fmt: skip
    axis.bar(low, share, width, align="edge", color="0.25", alpha=0.28,
             label="share of the images")  # fmt: skip
    axis.plot([0, 100], [0, 100], "--", color="0.35", lw=0.9, label="perfectly calibrated")
    axis.errorbar(mean, accuracy, [below, above], fmt="o", ms=2.4, lw=1, capsize=1.8, color="C0",
                  label="95 % interval, at the mean confidence")  # fmt: skip
    axis.text(4, 109, f"ECE {_ece(diagram)} %", va="center", fontsize=8)
    axis.set_xlim(0, 100)
    axis.set_ylim(0, 117)  # the text above hides no bar
    axis.set_xticks([0, 50, 100])
    axis.set_yticks([0, 50, 100])
    axis.set_aspect("equal")


def _wrapped(text: str, most: int) -> str:
    """Foreign text in lines of about ``most`` characters, broken behind ``.,/`` and blanks, inside
    of longer parts behind ``_`` and ``-``."""
    text = " ".join(text.encode("utf-8", "replace").decode().split())
    lines = [""]
    for part in re.findall(r"[^.,/\s]*[.,/\s]?", text):
        for word in [part] if len(part) <= most else re.findall(r"[^_-]*[_-]?", part):
            if lines[-1] and len(lines[-1]) + len(word) > most:
                lines.append("")
            lines[-1] += word
    return "\n".join(line.strip() for line in lines)


def draw(found: Sequence[Diagram], path: Path) -> Path:
    """Draw the diagrams to a PNG or SVG file. Raises UserError as ``figure`` does."""
    check_picture(path)
    return saved(partial(figure, found), path)
