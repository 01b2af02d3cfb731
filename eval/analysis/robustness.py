"""``analyze robustness``: what is left of a model's answers when the test images are corrupted.

The rules, which are ours:

- A test image passes the model's own evaluation transform (resize, crop). Its pixels, at that size,
  are then corrupted, as in ImageNet-C, whose images are such crops; then they are normalised. So
  models of one transform see the very same corrupted pixels.
- What is drawn for an image follows from its hash alone (its first 8 bytes are the seed).
- The classifier is that of the protocol ``linear``, fitted on clean train features: the clean
  numbers are those of ``transfer-eval run --protocol linear``.
- A condition is one corruption at one severity. Corrupted top-1 and ECE are means over all
  conditions, each of which counts the same; the relative drop is 1 - corrupted / clean top-1.
  Intervals are 95 % bootstraps over test images, of which each keeps all its conditions.

The features of each model under each condition stay in the cache as a feature bank. A second run
encodes nothing, and one that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import base64
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from eval.analysis import Robustness
from eval.analysis.corrupted_features import Condition, Corrupted, alike
from eval.analysis.finding import Finding
from eval.analysis.measures.corruptions import CORRUPTIONS, GROUPS, MIN_SIDE, strength_of
from eval.analysis.plots import legend_below, style
from eval.analysis.reliability import reliability
from eval.analysis.study import Study, task_key
from eval.common.errors import BadInput
from eval.common.text import counted
from eval.data.task_data import TaskData
from eval.features.precision import Precision
from eval.metrics.estimates import of_items
from eval.metrics.intervals import Interval, bootstrap
from eval.models.backbone import Backbone
from eval.protocols.linear import Head, fit_head
from eval.protocols.outcome import Outcome
from eval.protocols.trained import describe
from eval.results.model_names import called

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]


def run(study: Study, settings: Robustness) -> dict[str, Any]:
    """{"models": {model: {task: see ``measure``}}, "severities": [...], "corruptions": [...]}.

    All models are in memory at once, because those of one transform share the corrupted pixels.
    Raises UserError for an unknown corruption or severity and for images that are too small.
    """
    conditions = _conditions(settings)
    models = dict(study.backbones())
    _check_sizes(study, models.values())
    banks = {
        (name, task_key(task)): study.bank(backbone, task)
        for name, backbone in models.items()
        for task in study.tasks
    }
    held: dict[tuple[str, str], Corrupted] = {}
    for task in study.tasks:
        key = task_key(task)
        for names in alike(models):
            seen = [(models[n], Precision.parse(banks[n, key].precision)) for n in names]
            images = Corrupted(study, task, seen, conditions)
            study.seconds += images.encode()
            held |= dict.fromkeys(((n, key) for n in names), images)

    def score() -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, backbone in models.items():
            for task in study.tasks:
                place = name, task_key(task)
                head = fit_head(banks[place], task, study.seed)
                shifted = (held[place].features(backbone, c) for c in conditions)
                found.setdefault(name, {})[place[1]] = measure(
                    head, banks[place].test[0], shifted, task, conditions, study.seed
                )
        return found

    # Once, not by all processes: they share the cores.
    main = study.workers.together(lambda: score() if study.workers.main else {})
    return {
        "models": study.workers.broadcast(main),
        "severities": sorted({c.severity for c in conditions}),
        "corruptions": list(dict.fromkeys(c.name for c in conditions)),
    }


def _conditions(settings: Robustness) -> list[Condition]:
    """Corruption by corruption in the order of their groups, severities rising; each once."""
    for name, severity in itertools.product(
        settings.corruptions or CORRUPTIONS, settings.severities
    ):
        strength_of(name, severity, MIN_SIDE)  # raises UserError
    if not settings.severities:
        raise BadInput("severities is empty; choose from 1, 2, 3, 4 and 5")
    return [
        Condition(name, severity)
        for name in CORRUPTIONS
        if name in (settings.corruptions or CORRUPTIONS)
        for severity in sorted(set(settings.severities))
    ]


def _check_sizes(study: Study, models: Iterable[Backbone]) -> None:
    """Raises UserError for images that are too small; notes where models differ in size."""
    sizes: dict[str, str] = {}
    for backbone in models:
        height, width = backbone.input_config["input_size"][1:]
        size = f"{width} x {height}"
        if min(height, width) < MIN_SIDE:
            raise BadInput(
                f"{backbone.resolved.id} takes images of {size} pixels, which are too small to "
                f"corrupt; use --img-size {MIN_SIDE} or more"
            )
        sizes.setdefault(size, backbone.resolved.id)
    if len(sizes) > 1:
        study.notes.append(
            f"the models take images of {' and '.join(sizes)} pixels, and each size is corrupted "
            "with the strengths that belong to it, so these models are not strictly comparable"
        )


# --------------------------------------------------------------------------- scoring


def measure(
    head: Head,
    clean: Tensor,
    shifted: Iterable[Tensor],
    task: TaskData,
    conditions: Sequence[Condition],
    seed: int = 0,
) -> dict[str, Any]:
    """A model on a task, as plain data; fractions of one, six digits.

    ``clean`` [N_test, D] and, for each condition, ``shifted`` [N_test, D] are features.

    - clean: top1, its interval's low and high, ece, nll; as the protocol linear has them
    - corrupted: top1, low, high, ece
    - drop: value, low, high of 1 - corrupted / clean top-1; None where clean top-1 is 0
    - conditions: {corruption: {top1, ece: [a severity each]}}
    - by_severity: top1 and ece, the mean over corruptions
    - hits: base64 of uint8 [N_test], how many conditions an image is answered rightly under
    """
    labels = task.test.labels
    out = Outcome()
    probability = head.probability(clean)
    describe(out, probability, labels, seed)
    scores = {s.name: s for s in out.scores}
    right: list[NDArray[np.bool_]] = []  # [N_test] a condition
    errors: list[float] = []
    for features in shifted:
        answers = head.probability(features)
        right.append(answers.argmax(1) == labels)
        errors.append(calibration_error(answers.max(1), right[-1]))
    # 75 conditions at most fit into a byte
    hits: NDArray[np.uint8] = np.stack(right).sum(0).astype(np.uint8)
    share = hits.astype(np.float64) / len(right)
    top1, drop = intervals(probability.argmax(1) == labels, share, seed)
    # [corruptions, severities]
    names = list(dict.fromkeys(c.name for c in conditions))
    accuracy = np.mean(right, axis=1).reshape(len(names), -1)
    error = np.reshape(errors, accuracy.shape)
    clean_top1 = scores["top1"]
    return {
        "clean": {
            "top1": clean_top1.value, "low": clean_top1.ci_low, "high": clean_top1.ci_high,
            "ece": scores["ece"].value, "nll": scores["nll"].value,
        },
        "corrupted": {
            "top1": _round(top1.value), "low": _round(top1.low), "high": _round(top1.high),
            "ece": _round(error.mean()),
        },
        "drop": {
            "value": _round(drop.value), "low": _round(drop.low), "high": _round(drop.high),
        },
        "conditions": {
            name: {"top1": _rounded(accuracy[i]), "ece": _rounded(error[i])}
            for i, name in enumerate(names)
        },
        "by_severity": {"top1": _rounded(accuracy.mean(0)), "ece": _rounded(error.mean(0))},
        "hits": base64.b64encode(hits.tobytes()).decode(),
    }  # fmt: skip


def calibration_error(confidence: Floats, correct: NDArray[np.bool_]) -> float:
    """The ECE of ``eval.metrics.intervals`` without its interval, which 75 conditions have no need
    of."""
    bins = reliability(confidence, correct)
    return sum(b.count * abs(b.confidence - b.accuracy) for b in bins) / len(correct)


def intervals(clean: NDArray[np.bool_], corrupted: Floats, seed: int) -> tuple[Interval, Interval]:
    """(corrupted top-1, relative drop) with intervals from the same resamples of [N] images.

    ``corrupted`` is each image's share of conditions that are answered rightly.
    """
    hits = clean.astype(np.float64)
    top1 = bootstrap(lambda w: w @ corrupted / w.sum(1), len(hits), seed)
    if not clean.any():
        return top1, Interval(math.nan, math.nan, math.nan)

    def lost(weights: Floats) -> Floats:
        whole = weights @ hits
        # undefined, and dropped, where none of the images drawn is answered rightly
        return 1 - weights @ corrupted / np.where(whole > 0, whole, math.nan)

    return top1, bootstrap(lost, len(hits), seed)


def _round(value: float) -> float | None:
    return round(float(value), 6) if math.isfinite(value) else None


def _rounded(values: Floats) -> list[float]:
    return [round(float(v), 6) for v in values]


# --------------------------------------------------------------------------- showing


def _mean(values: Iterable[float | None]) -> float:
    """Of those that are defined."""
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else math.nan


def _per_corruption(finding: Finding) -> Floats:
    """[models, corruptions] mean top-1 over severities and tasks."""
    return np.array([
        [
            _mean(_mean(v["conditions"][name]["top1"]) for v in tasks.values())
            for name in finding.values["corruptions"]
        ]
        for tasks in finding.values["models"].values()
    ])  # fmt: skip


def sentence(finding: Finding) -> str:
    """Who keeps most, who loses least of what it had, what costs most, and calibration."""
    values = finding.values
    models = {name: list(tasks.values()) for name, tasks in values["models"].items()}
    clean = {n: _mean(v["clean"]["top1"] for v in found) for n, found in models.items()}
    kept = {n: _mean(v["corrupted"]["top1"] for v in found) for n, found in models.items()}
    drop = {n: _mean(v["drop"]["value"] for v in found) for n, found in models.items()}
    most = max(kept, key=kept.__getitem__)
    least = min(drop, key=lambda n: (math.isnan(drop[n]), drop[n]))
    kinds, steps = len(values["corruptions"]), len(values["severities"])
    over = counted(kinds, "corruption") + " at " + counted(steps, "severity", "severities")
    if len(finding.tasks) > 1:
        over += f" and {len(finding.tasks)} tasks"
    text = f"On the mean of {over} {most} keeps "
    text += "most, " if len(models) > 1 else ""
    text += f"{100 * kept[most]:.1f} % top-1 of its {100 * clean[most]:.1f} % on clean images"
    if len(models) > 1 and not math.isnan(drop[least]):
        if least == most:
            text += f", and loses least relatively ({100 * drop[least]:.1f} %)"
        else:
            text += (
                f", and {least} loses least relatively ({100 * drop[least]:.1f} % of its "
                f"{100 * clean[least]:.1f} %)"
            )
    if kinds > 1:
        accuracy = _per_corruption(finding).mean(0)
        worst = int(np.argmin(accuracy))
        text += f"; {values['corruptions'][worst]} costs most ({100 * accuracy[worst]:.1f} % left)"
    before, after = (
        _mean(v[part]["ece"] for found in models.values() for v in found)
        for part in ("clean", "corrupted")
    )
    who = "mean ECE" if len(models) > 1 else "ECE"
    how = "rises" if after > before else "falls"
    return f"{text}. The {who} {how} from {before:.3f} to {after:.3f}."


def table(finding: Finding) -> tuple[list[str], list[list[str]]]:
    """(header, lines), in percent but for the ECE; the difference to the first model is paired,
    with its 95 % interval."""
    values = finding.values
    first, lines = next(iter(values["models"])), []
    for name, tasks in values["models"].items():
        for task, found in tasks.items():
            clean, corrupted, drop = found["clean"], found["corrupted"], found["drop"]["value"]
            left = {n: _mean(v["top1"]) for n, v in found["conditions"].items()}
            worst = min(left, key=left.__getitem__)
            beside = "-"
            if name != first:
                gap = difference(found, values["models"][first][task])
                beside = f"{100 * gap.value:+.1f} [{100 * gap.low:+.1f}, {100 * gap.high:+.1f}]"
            lines.append([
                name, task, f"{100 * clean['top1']:.1f}",
                f"{100 * corrupted['top1']:.1f} "
                f"±{50 * (corrupted['high'] - corrupted['low']):.1f}",
                "-" if drop is None else f"{100 * drop:.1f}",
                f"{clean['ece']:.3f} -> {corrupted['ece']:.3f}",
                f"{worst} {100 * left[worst]:.1f}", beside,
            ])  # fmt: skip
    header = ["model", "task", "clean %", "corrupted %", "relative drop %", "ECE",
              "worst corruption %", "corrupted, to the first"]  # fmt: skip
    return header, lines


def difference(one: dict[str, Any], other: dict[str, Any]) -> Interval:
    """Corrupted top-1 of one measured model less that of another, on the same images."""
    count = sum(len(v["top1"]) for v in one["conditions"].values())
    a, b = (
        np.frombuffer(base64.b64decode(v["hits"]), np.uint8).astype(np.float64) / count
        for v in (one, other)
    )
    return of_items(np.stack([a, b])).difference()[0]


def figure(finding: Finding) -> Figure:
    """Top-1 and ECE against severity, and a map of models and corruptions; means over tasks."""
    from matplotlib.figure import Figure  # no pyplot: no window, no state

    names = list(finding.values["models"])
    width = max(9.0, 3.4 + 0.52 * (1 + len(finding.values["corruptions"])))
    height = 3.2 + 1.5 + 0.42 * len(names)
    drawn = Figure(figsize=(width, height), dpi=130)
    grid = drawn.add_gridspec(2, 2, height_ratios=[3.2, 1.1 + 0.32 * len(names)])
    lines = [drawn.add_subplot(grid[0, i]) for i in (0, 1)]
    _draw_lines(lines[0], finding, "top1", 100, "top-1, %")
    _draw_lines(lines[1], finding, "ece", 1, "expected calibration error")
    _draw_map(drawn.add_subplot(grid[1, :]), finding)
    legend_below(drawn, lines[0], names)
    return drawn


def _draw_lines(axis: Axes, finding: Finding, score: str, scale: float, label: str) -> None:
    severities = finding.values["severities"]
    for i, tasks in enumerate(finding.values["models"].values()):
        y = [_mean(v["clean"][score] for v in tasks.values())]
        for at in range(len(severities)):
            y.append(_mean(v["by_severity"][score][at] for v in tasks.values()))
        axis.plot([0, *severities], scale * np.array(y), ms=4, lw=1.4, **style(i))
    axis.set_xticks([0, *severities], ["clean", *map(str, severities)])
    axis.set_xlabel("severity", fontsize=9)
    axis.set_ylabel(label, fontsize=9)
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.25)


def _draw_map(axis: Axes, finding: Finding) -> None:
    """Clean and each corruption's mean top-1, a row a model, lines between the groups."""
    names, kinds = list(finding.values["models"]), finding.values["corruptions"]
    clean = [
        _mean(v["clean"]["top1"] for v in tasks.values())
        for tasks in finding.values["models"].values()
    ]
    shares = 100 * np.column_stack([clean, _per_corruption(finding)])
    axis.imshow(shares, cmap="viridis", aspect="auto")
    middle = (shares.min() + shares.max()) / 2
    for (y, x), value in np.ndenumerate(shares):
        colour = "black" if value > middle else "white"
        axis.text(x, y, f"{value:.0f}", ha="center", va="center", color=colour, fontsize=8)
    at = 0.5  # the right edge of the clean column
    for group, members in GROUPS.items():
        if count := sum(name in kinds for name in members):
            axis.axvline(at, color="white", lw=3)
            axis.annotate(
                group, (at + count / 2, 1), (0, 3), ("data", "axes fraction"), "offset points",
                ha="center", va="bottom", fontsize=9,
            )  # fmt: skip
            at += count
    labels = ["clean", *(name.replace("_", " ") for name in kinds)]
    axis.set_xticks(range(len(labels)), labels, rotation=40, ha="right", fontsize=8)
    axis.set_yticks(range(len(names)), called(names), fontsize=8)
    axis.tick_params(length=0)
    for edge in axis.spines.values():
        edge.set_visible(False)
    axis.set_title("top-1, %, mean over severities", fontsize=10, pad=18)
