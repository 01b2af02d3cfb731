"""Findings of the analyses, learning curves and reliability diagrams as sections."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from eval.analysis import ANALYSES, curves
from eval.analysis.finding import Finding
from eval.analysis.module import module_of
from eval.common.errors import UserError, one_line
from eval.common.text import percent
from eval.report.blocks import Block, Section, sheet
from eval.report.svg import inline
from eval.results.names import task_label
from eval.results.schema import Result

if TYPE_CHECKING:
    from eval.analysis.reliability import Diagram

TITLES = {
    "cka": "How alike the layers are (CKA)",
    "profile": "What each layer knows",
    "geometry": "How classes lie in each layer",
    "robustness": "Robustness to corrupted images",
    "reconstruction": "What can be rebuilt from features",
    "predictors": "Cheap predictors of transfer",
}
LEADS = {
    "cka": "Centred kernel alignment of the features of two layers on the same images: 1 is the "
    "same but for a rotation and scale, 0 is nothing in common. A bright diagonal means that the "
    "two networks do the same work in the same places.",
    "profile": "A linear classifier is fitted on the frozen features of each layer, for tasks "
    "whose semantic level is known: low is for example hue or position, high is what is seen. A "
    "line that falls towards the end shows what the network gives up.",
    "geometry": "Separation is 1 less the mean squared distance within classes over that between "
    "any two images: 0 is no separation, 1 is classes that are points. The effective rank counts "
    "the dimensions that are in use, and NC1 is the spread within classes that is left (neural "
    "collapse: 0).",
    "robustness": "A linear head is fitted on clean images and tested on corrupted ones: noise, "
    "blur, weather and loss of detail, at severities from 1 (slight) to 5.",
    "reconstruction": "Images are rebuilt from the features of a layer: the better the copy, the "
    "more of the image the layer still holds.",
    "predictors": "Numbers that need features and labels but no training, each held against the "
    "measured accuracy of a linear classifier. A rising cloud is a predictor that can be trusted; "
    "the weighted Kendall tau is 1 for the same order and 0 for no relation.",
}  # fmt: skip
CURVES = (
    "Accuracy on the test images against the number of labelled images that a classifier was "
    "trained on: the mean over draws of the training images, and their range as a band. The "
    "steeper a curve still is at its end, the more further labels would bring."
)
CALIBRATION = (
    "Of the answers that a classifier gives with a confidence of 80 %, eight in ten should be "
    "right: bars on the diagonal. Bars below it are overconfidence. The expected calibration error "
    "(ECE) is the mean distance from the diagonal, weighted by images; 0 is best."
)
MOST_PANELS, PANEL_COLUMNS, PANEL_ROWS = 60, 4, 7  # all, and those of one picture
# what a file of another version or hand can make an analysis stumble over
STUMBLES = (
    UserError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, ImportError,
    AssertionError, StopIteration,
)  # fmt: skip


def learning(results: Sequence[Result], say: Callable[[str], None]) -> list[Section]:
    """The learning curves, where any result has parts of train."""
    try:
        found = curves.curves(results)
        if not found:
            return []
        picture = inline("curves", partial(curves.figure, found))
    except STUMBLES as error:
        say(f"no learning curves: {one_line(error)}")
        return []
    lines = [
        [
            c.model,
            ", ".join(filter(None, (c.task, c.protocol, c.setting))),
            f"{p.train:,.0f}",
            f"{100 * p.top1:.1f}" + (f" ({100 * p.low:.1f} to {100 * p.high:.1f})"
                                     if p.high > p.low else ""),
        ]
        for c in found
        for p in c.points
    ]  # fmt: skip
    header = ["model", "task", "training images", "top-1 % (range of the draws)"]
    block = Block(sentence=_leading(found), picture=picture, sheets=sheet(header, lines))
    return [Section("curves", "Learning curves", CURVES, (block,))]


def _leading(found: Sequence[curves.Curve]) -> str:
    """Who is best with the fewest and who with all images."""
    panels: dict[tuple[str, str, str], list[curves.Curve]] = {}
    for curve in found:
        panels.setdefault((curve.task, curve.protocol, curve.setting), []).append(curve)
    shared = {place: panel for place, panel in panels.items() if len(panel) > 1}
    said = []
    for (task, protocol, _), panel in list(shared.items())[:3]:
        few = max(panel, key=lambda c: c.points[0].top1).model
        most = max(panel, key=lambda c: c.points[-1].top1).model
        ends = "with the fewest images and with all"
        if few != most:
            ends = f"with the fewest images, {most} with all"
        said.append(f"on {task} ({protocol}) {few} {ends}")
    if not said:
        return f"{len(found)} curve{'s' * (len(found) != 1)}, each of one model alone on its task."
    more = f"; {len(shared) - 3} more below" if len(shared) > 3 else ""
    return f"Best {'; '.join(said)}{more}."


def calibration(results: Sequence[Result], say: Callable[[str], None]) -> list[Section]:
    """Reliability diagrams of the linear protocol, else of all: every model on the tasks with most
    test images, where bins say most."""
    from eval.analysis.reliability import diagrams, sentence

    kept = [r for r in results if r.confidence is not None]
    try:
        known = diagrams([r for r in kept if r.protocol.name == "linear"] or kept)
        if not known:
            return []
        images: dict[tuple[str, str, str], int] = {}
        for d in known:
            images[_cell(d)] = max(d.images, images.get(_cell(d), 0))
        models = dict.fromkeys(d.model for d in known)
        most = max(1, MOST_PANELS // len(models))
        largest = sorted(images, key=lambda cell: -images[cell])[:most]
        found = [d for d in known if _cell(d) in largest][:MOST_PANELS]
        blocks, summary = _reliability(found), sentence(found)
    except STUMBLES as error:
        say(f"no reliability diagrams: {one_line(error)}")
        return []
    notes = []
    if len(found) < len(kept):
        notes = [f"Of {len(kept)} results with probabilities, {len(found)} are drawn here."]
    return [
        Section("calibration", "Reliability", CALIBRATION, tuple(blocks), tuple(notes), summary)
    ]


def _cell(diagram: Diagram) -> tuple[str, str, str]:
    return diagram.task, diagram.protocol, diagram.setting


def _reliability(found: Sequence[Diagram]) -> list[Block]:
    """A picture for a few models on a few tasks: more could not be read in print."""
    from eval.analysis.reliability import figure, sentence

    columns = list(dict.fromkeys(map(_cell, found)))
    models = list(dict.fromkeys(d.model for d in found))
    places = itertools.product(
        range(0, len(columns), PANEL_COLUMNS), range(0, len(models), PANEL_ROWS)
    )
    blocks = []
    for c, m in places:
        tasks, rows = columns[c : c + PANEL_COLUMNS], models[m : m + PANEL_ROWS]
        some = [d for d in found if _cell(d) in tasks and d.model in rows]
        if not some:
            continue
        lines = [
            [
                d.model,
                ", ".join(filter(None, _cell(d))),
                percent(d.ece.value, (d.ece.high - d.ece.low) / 2),
                f"{100 * d.confidence:.1f}",
                f"{100 * d.accuracy:.1f}",
                f"{d.images:,}",
            ]
            for d in some
        ]
        header = ["model", "task", "ECE %", "mean confidence %", "right %", "images"]
        picture = inline(f"calibration {c} {m}", partial(figure, some))
        blocks.append(Block(sentence=sentence(some), picture=picture, sheets=sheet(header, lines)))
    return blocks


def analyses(findings: Sequence[tuple[str, Finding]], say: Callable[[str], None]) -> list[Section]:
    """A section for each analysis that has findings, in the order of the registry."""
    for file, finding in findings:
        if finding.analysis not in ANALYSES:
            say(f"skipped {file}: analysis {finding.analysis!r} is not known here")
    sections = []
    for name, analysis in ANALYSES.items():
        blocks = []
        for file, finding in findings:
            if finding.analysis != name:
                continue
            try:
                module = module_of(analysis)
                header, lines = module.table(finding)
                blocks.append(
                    Block(
                        title=_heading(finding),
                        sentence=module.sentence(finding),
                        picture=inline(file, partial(module.figure, finding)),
                        sheets=sheet(header, lines),
                        notes=tuple(finding.notes),
                    )
                )
            except STUMBLES as error:
                why = f"{type(error).__name__}: {one_line(error)}"
                say(f"skipped {file}: it cannot be shown ({why})")
        if blocks:
            title = TITLES.get(name, name.capitalize())
            lead = LEADS.get(name, analysis.summary)
            sections.append(Section(name, title, lead, tuple(blocks)))
    return sections


def _heading(finding: Finding) -> str:
    tasks = ", ".join(task_label(t.name, t.split) for t in finding.tasks)
    ids = [m.id for m in finding.models]
    return f"{tasks}: {' and '.join(ids) if len(ids) < 3 else f'{len(ids)} models'}"
