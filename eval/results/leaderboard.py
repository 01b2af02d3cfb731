"""Results -> tables. Unlike numbers never share a column: a table is one protocol at one setting
and one score, a column one task at one split hash."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.common.text import percent
from eval.metrics.estimates import Estimates, degrees, mean
from eval.metrics.intervals import Interval, runs_interval
from eval.metrics.ranks import ranks
from eval.metrics.scores import Score
from eval.metrics.ties import ties
from eval.protocols import PROTOCOLS
from eval.results.estimates import Measured, comparable, estimates, measured, stated
from eval.results.facts import facts_of
from eval.results.names import changes, shown, task_label
from eval.results.own_data import own_columns
from eval.results.schema import ModelFacts, ModelInfo, Result, TaskInfo
from eval.results.signoff import SELF_REPORTED, VERIFIED, SignOff, SignOffs, content_of
from eval.results.transfer import SIGN, Counted, counted, mark, pretrains, seen

Groups = dict[tuple[str, str, str, bool], list[tuple[Result, Score]]]
MIN_TASKS = 5  # fewer are no sample of data sets
_PART = r"top1_([\d.]+)(pct|each)"  # of train


@dataclass(frozen=True)
class Cell:
    """A score of a model on a task, and what it rests on."""

    model: ModelInfo
    task: TaskInfo
    score: Score
    evidence: Measured | None = None
    signed: SignOff | None = None
    clean: Score | None = None  # of the same images before they were changed


@dataclass(frozen=True)
class Table:
    """One board. ``cells[row, column]`` is None where nothing was measured."""

    protocol: str
    setting: str  # what differs from the protocol's defaults, '' for nothing
    score: str
    models: tuple[str, ...]
    revisions: tuple[str, ...]
    tasks: tuple[str, ...]
    subsets: tuple[bool, ...]
    cells: dict[tuple[int, int], Score]
    evidence: dict[tuple[int, int], Measured | None] = field(default_factory=dict, repr=False)
    own: bool = False  # of data of the submitters' own, beside a board of declared tasks
    marked: bool = False  # whether rows say who computed them
    signed: dict[tuple[int, int], SignOff] = field(default_factory=dict, repr=False)
    # cells of images that the model was pretrained on, and why that is known
    seen: dict[tuple[int, int], str] = field(default_factory=dict, repr=False)
    facts: tuple[ModelFacts, ...] = field(default=(), repr=False)  # of each row
    pretraining: tuple[bool, ...] = ()  # of each column: checkpoints that ship were trained on it
    # scores on the same images before they were changed: they stand beside, and count nowhere
    clean: dict[tuple[int, int], Score] = field(default_factory=dict, repr=False)
    about: str = ""  # what its readers must know, beside what is said of all boards

    @property
    def title(self) -> str:
        what = score_title(self.score)
        views, rest = split_views(self.setting)
        setting = f" ({rest})" if rest else ""
        own = ", on data of their own" if self.own else ""
        return f"{self.protocol}{views}, {what}, %{setting}{own}"

    def mark(self, row: int) -> str:
        """verified, where every score of the row was computed again; self-reported for none."""
        cells = [place for place in self.cells if place[0] == row]
        count = sum(place in self.signed for place in cells)
        if count < len(cells):
            return f"{count} of {len(cells)} verified" if count else SELF_REPORTED
        return VERIFIED

    @property
    def leading(self) -> list[int]:
        """The rows of which one may be called the best: the verified ones, where there are any."""
        rows = range(len(self.models))
        verified = [r for r in rows if self.marked and self.mark(r) == VERIFIED]
        return verified or list(rows)

    @cached_property
    def counted(self) -> Counted:
        """Which scores are of transfer."""
        shape = len(self.models), len(self.tasks)
        present, own = np.zeros(shape, bool), np.zeros(shape, bool)
        for place in self.cells:
            present[place], own[place] = True, place in self.seen
        shipped = self.pretraining or [False] * len(self.tasks)
        return counted(present, own, np.array(shipped, bool))

    @property
    def apart(self) -> list[int]:
        """Columns that are no transfer: they are shown behind the others, and count nowhere."""
        return np.flatnonzero(~self.counted.columns).tolist()

    @property
    def shown_columns(self) -> list[int]:
        """All columns, those that stand apart last."""
        return [*np.flatnonzero(self.counted.columns).tolist(), *self.apart]

    @property
    def common(self) -> list[int]:
        """Columns of transfer that every row has: means and ranks are over these alone."""
        return np.flatnonzero(self.counted.cells.all(0) & self.counted.columns).tolist()

    def trained_on(self, row: int) -> str:
        """What is declared of the row's training data, where that matters for its scores."""
        facts = self.facts[row] if self.facts else ModelFacts()
        mine = [self.tasks[c] for c in range(len(self.tasks)) if (row, c) in self.seen]
        return mark(facts.data, facts.objective, mine)

    @property
    def kinds(self) -> list[str]:
        """Of which chances the intervals speak, each once."""
        return list(dict.fromkeys(score.kind for score in self.cells.values()))

    def means(self) -> list[Score] | None:
        """Each row's mean over the common columns, which are taken as given and independent.

        The interval is that of the estimates where the row was asked as others; else, and of a
        single column, those of the cells add up in squares.
        """
        common = self.common
        if not common:
            return None
        out = []
        for row in range(len(self.models)):
            scores = [self.cells[row, c] for c in common]
            mean = float(np.mean([s.value for s in scores]))
            below = float(np.sqrt(np.sum([(s.value - s.ci_low) ** 2 for s in scores])))
            above = float(np.sqrt(np.sum([(s.ci_high - s.value) ** 2 for s in scores])))
            n = len(scores)
            interval = Interval(mean, mean - below / n, mean + above / n)
            kinds = {s.kind for s in scores}
            out.append(Score.of("mean", interval, n, kinds.pop() if len(kinds) == 1 else "mixed"))
        if self.standing is not None and len(common) > 1:
            asked, known = self.standing
            for row, half in zip(asked.tolist(), known.half_widths(), strict=True):
                mean = out[row].value
                interval = Interval(mean, mean - half, mean + half)
                out[row] = Score.of("mean", interval, len(common), known.kind)
        return out

    @cached_property
    def standing(self) -> tuple[NDArray[np.int64], Estimates] | None:
        """(rows, estimates of their means over the common columns) of the rows that were asked the
        same; None where nothing can be told."""
        found = []
        for c in self.common:
            everyone = range(len(self.models))
            told = comparable({r: self.evidence.get((r, c)) for r in everyone})
            if told is None:
                return None
            found.append(told)
        if not found:
            return None
        rows: NDArray[np.int64] = reduce(np.intersect1d, [asked for asked, _ in found])
        if not len(rows):
            return None
        return rows, mean([e.of(np.searchsorted(r, rows)) for r, e in found])

    @cached_property
    def ties(self) -> dict[int, tuple[int, str]]:
        """Row -> (tie group from 1, places it could hold); rows that were asked otherwise lack."""
        if self.standing is None:
            return {}
        rows, found = self.standing
        told = ties(found)
        return {
            int(row): (int(told.group[i]), told.places(i)) for i, row in enumerate(rows.tolist())
        }

    def over_tasks(self, a: int, b: int) -> Interval | None:
        """Row a minus row b over the common columns as a sample of tasks, by Student's t; None for
        fewer than five, which tell nothing of others."""
        gaps = [self.cells[a, c].value - self.cells[b, c].value for c in self.common]
        return runs_interval(np.array(gaps)) if len(gaps) >= MIN_TASKS else None

    def mean_ranks(self) -> list[float] | None:
        """Each row's rank (1 is best) averaged over the common columns."""
        common = self.common
        if not common:
            return None
        rows = range(len(self.models))
        places = [ranks(np.array([self.cells[r, c].value for r in rows])) for c in common]
        return [float(v) for v in np.mean(places, axis=0)]


def model_label(result: Result) -> str:
    """The model's name on the board; another input size is another row."""
    return row_label(result.model)


def row_label(model: ModelInfo) -> str:
    """As `model_label`."""
    return model.id + (f" @{model.img_size}px" if model.img_size else "")


def setting_label(result: Result) -> str:
    """What differs from the protocol's defaults: part of a table's identity."""
    return ", ".join(f"{k}={shown(v)}" for k, v in changes(result).items())


def main_scores(result: Result) -> list[Score]:
    """The scores that make boards: top-1, or one a shot count."""
    known = PROTOCOLS.get(result.protocol.name)
    if known is None:
        return []
    names = "|".join(re.escape(name).replace(r"\{shot\}", r"\d+") for name in known.main)
    return [stated(result, s) for s in result.scores if re.fullmatch(rf"{names}|{_PART}", s.name)]


def score_title(name: str) -> str:
    """A main score in words: 5-shot top-1, top-1 with 10 % of train, AP50 by the rules of VOC."""
    if average := re.fullmatch(r"(voc07_)?ap(\d*)", name):
        return f"AP{average[2]}" + (" (VOC 2007, 11 points)" if average[1] else "")
    if shots := re.fullmatch(r"top1_(\d+)shot", name):
        return f"{shots[1]}-shot top-1"
    if part := re.fullmatch(_PART, name):
        of = "% of train" if part[2] == "pct" else "training images a class"
        return f"top-1 with {part[1]} {of}"
    return TITLES.get(name, "top-1")


TITLES = {
    "miou": "mIoU", "map": "mAP", "recall_at_1": "R@1", "auroc": "AUROC", "r2": "R2",
    "corrupted": "top-1 under corruptions",
}  # fmt: skip


def split_views(setting: str) -> tuple[str, str]:
    """('@4', the rest) of a setting with views=4: cached views make another protocol's name."""
    parts = setting.split(", ") if setting else []
    views = [p.removeprefix("views=") for p in parts if p.startswith("views=")]
    rest = ", ".join(p for p in parts if not p.startswith("views="))
    return (f"@{views[0]}" if views else ""), rest


def score_size(name: str) -> float:
    """Where a score stands among those of its protocol: the number in it, the whole first."""
    number = re.match(r"top1_([\d.]+)|(?:voc07_)?ap(\d+)", name)
    above = 1000.0 if name.startswith("voc07_") else 0.0  # behind those of COCO
    return above + float(number[1] or number[2]) if number else above


def tables(results: Iterable[Result], signed: SignOffs | None = None) -> list[Table]:
    """All boards of a set of results: protocols in their declared order, fewer shots first. Where
    cells were measured with several seeds, a board over the seeds comes behind; so does one of the
    data that are no declared task, where others are.

    With ``signed``, the sign-offs of these results, each row says whether it is verified, and
    those that are come first.
    """
    results = list(results)
    offs = {}
    if signed:  # a digest of all samples, for nothing where there are none
        offs = {id(r): off for r in results if (off := signed.get(content_of(r)))}
    trusted = {r.task.split_hash for r in results if id(r) in offs}
    own = own_columns(((_column(r), (model_label(r), r.model.revision)) for r in results), trusted)
    groups: Groups = {}
    for result in results:
        for score in main_scores(result):
            apart = _column(result) in own
            key = (result.protocol.name, setting_label(result), score.name, apart)
            groups.setdefault(key, []).append((result, score))
    for apart in (False, True):
        mine = [found for key, group in groups.items() if key[3] == apart for found in group]
        groups |= {(*key, apart): of for key, of in _over_seeds(mine, offs).items()}
    order = list(PROTOCOLS)

    def place(key: tuple[str, str, str, bool]) -> tuple[bool, int, str, float]:
        return key[3], order.index(key[0]), key[1], score_size(key[2])

    return [
        _table(*key, groups[key], offs if signed is not None else None)
        for key in sorted(groups, key=place)
    ]


def _over_seeds(
    found: Iterable[tuple[Result, Score]], signed: Mapping[int, SignOff]
) -> dict[tuple[str, str, str], list[tuple[Result, Score]]]:
    """Boards of cells that have the same two or more seeds: the mean, and its spread over them."""
    cells: dict[tuple[Any, ...], dict[int, tuple[Result, Score]]] = {}
    for result, score in found:
        setting = ", ".join(f"{k}={shown(v)}" for k, v in changes(result).items() if k != "seed")
        where = (model_label(result), result.model.revision, *_column(result))
        cell = cells.setdefault((result.protocol.name, setting, score.name, where), {})
        cell[result.seed] = (result, score)
    groups: dict[tuple[str, str, str], list[tuple[Result, Score]]] = {}
    for (protocol, setting, name, _), by_seed in cells.items():
        if len(by_seed) < 2:
            continue
        seeds = "seeds=" + shown(sorted(by_seed))
        # as much verified as the least of them
        least = min(by_seed, key=lambda seed: (id(by_seed[seed][0]) in signed, seed))
        result = by_seed[least][0]
        key = (protocol, f"{setting}, {seeds}" if setting else seeds, name)
        runs = "trainings" if PROTOCOLS[protocol].trains else "draws"
        score = Score.of(name, _over_runs(list(by_seed.values())), len(by_seed), runs)
        groups.setdefault(key, []).append((result, score))
    return groups


def _over_runs(found: Sequence[tuple[Result, Score]]) -> Interval:
    """The mean over runs: their spread, and what other test images would change in all of them,
    where the samples tell."""
    values = np.array([score.value for _, score in found])
    held = [measured(result, score.name) for result, score in found]
    if any(one is None for one in held):
        return runs_interval(values)
    told = [estimates([one]) for one in held if one is not None]
    if any(one is None for one in told):
        return runs_interval(values)
    images = [float(one.variance[0]) for one in told if one is not None]
    free = [float(degrees(one.variance[0], one.noise[0])) for one in told if one is not None]
    return runs_interval(values, float(np.mean(images)), min(free))


def _table(
    protocol: str, setting: str, score: str, own: bool, found: Sequence[tuple[Result, Score]],
    signed: Mapping[int, SignOff] | None,
) -> Table:  # fmt: skip
    """``signed`` are sign-offs by the identity of the result; None: rows are not marked."""
    marks = signed or {}
    cells = [
        Cell(
            r.model, r.task, s,
            None if s.kind in ("draws", "trainings") else measured(r, s.name), marks.get(id(r)),
        )
        for r, s in found
    ]  # fmt: skip
    return table_of(protocol, setting, score, cells, own=own, marked=signed is not None)


def table_of(
    protocol: str, setting: str, score: str, cells: Sequence[Cell], *,
    own: bool = False, marked: bool = False, about: str = "",
) -> Table:  # fmt: skip
    """The board of these cells, rows and columns in the order in which they come; of two in one
    place the last counts."""
    lacking = {_row(c) for c in cells if c.signed is None}
    models = list(dict.fromkeys(map(_row, cells)))
    models.sort(key=lambda model: model in lacking)  # a stable sort: verified rows first
    tasks = list(dict.fromkeys(_column(c) for c in cells))
    facts = {_row(c): c.model for c in cells}

    def place(cell: Cell) -> tuple[int, int]:
        return models.index(_row(cell)), tasks.index(_column(cell))

    labels, names = [m for m, _ in models], [t for t, _ in tasks]
    subset = {c.task.split_hash: c.task.subset for c in cells}
    return Table(
        protocol,
        setting,
        score,
        # a revision or split hash is shown only where the name alone is not enough
        tuple(m if labels.count(m) == 1 else f"{m}@{rev[:7]}" for m, rev in models),
        tuple(rev for _, rev in models),
        tuple(t if names.count(t) == 1 else f"{t}~{h[:8]}" for t, h in tasks),
        tuple(subset[h] for _, h in tasks),
        {place(c): c.score for c in cells},
        {place(c): c.evidence for c in cells},
        own,
        marked,
        {place(c): c.signed for c in cells if c.signed is not None},
        {place(c): why for c in cells if (why := seen(c.model, c.task.name))},
        tuple(facts_of(facts[model]) for model in models),
        tuple(pretrains(name) for name in names),
        {place(c): c.clean for c in cells if c.clean is not None},
        about,
    )


def _row(cell: Cell) -> tuple[str, str]:
    """A row's identity: the model with its input size, and the weights behind them."""
    return row_label(cell.model), cell.model.revision


def _column(of: Result | Cell) -> tuple[str, str]:
    """A column's identity: the data set with its split, and the images behind them."""
    return task_label(of.task.name, of.task.split), of.task.split_hash


def as_json(table: Table) -> dict[str, Any]:
    """A board as plain data, fractions of one."""
    means, places = table.means(), table.mean_ranks()

    def numbers(score: Score) -> dict[str, Any]:
        return score.model_dump(include={"value", "ci_low", "ci_high", "n", "kind"})

    def cell(place: tuple[int, int]) -> dict[str, Any]:
        off = table.signed.get(place)
        by = {"verified": {"by": off.by, "when": off.when.isoformat()} if off else None}
        beside = {"clean": numbers(table.clean[place])} if place in table.clean else {}
        return numbers(table.cells[place]) | beside | (by if table.marked else {})

    return {
        "protocol": table.protocol,
        "setting": table.setting,
        "score": table.score,
        **({"own_data": True} if table.own else {}),
        "tasks": list(table.tasks),
        "subset_tasks": [t for t, s in zip(table.tasks, table.subsets, strict=True) if s],
        "common_tasks": [table.tasks[c] for c in table.common],
        "apart_tasks": [table.tasks[c] for c in table.apart],
        "rows": [
            {
                "model": model,
                "revision": table.revisions[r],
                **({"standing": table.mark(r)} if table.marked else {}),
                "facts": table.facts[r].model_dump(mode="json") if table.facts else None,
                "seen": {
                    table.tasks[c]: table.seen[r, c]
                    for c in range(len(table.tasks))
                    if (r, c) in table.seen
                },
                "cells": {
                    task: cell((r, c))
                    for c, task in enumerate(table.tasks)
                    if (r, c) in table.cells
                },
                "mean": numbers(means[r]) if means else None,
                "mean_rank": places[r] if places else None,
                "tie_group": table.ties[r][0] if r in table.ties else None,
                "places": table.ties[r][1] if r in table.ties else None,
            }
            for r, model in enumerate(table.models)
        ],
    }


def score_text(score: Score | None) -> str:
    """The score with its interval, †: over other episodes alone; - where nothing was measured."""
    if score is None:
        return "-"
    mark = "†" if score.kind == "episodes" else ""
    return percent(score.value, (score.ci_high - score.ci_low) / 2) + mark


def grid(table: Table) -> tuple[list[str], list[list[str]]]:
    """(header, lines) of text cells: the longer of models and tasks runs down the page."""
    means, places = table.means(), table.mean_ranks()
    order, apart = table.shown_columns, set(table.apart)
    tasks = [table.tasks[c] + "*" * table.subsets[c] + SIGN * (c in apart) for c in order]
    count, whole = len(table.common), len(tasks) - len(apart)
    mean = "mean corrupted" if table.clean else "mean"
    extra = [mean if count == whole else f"{mean} of {count} common", "mean rank"]
    ranked = len(tasks) > 1 and len(table.models) > 1
    tied = len(table.models) > 1 and bool(table.ties)
    lines = []
    for r, model in enumerate(table.models):
        cells = []
        for c in order:
            own = SIGN * ((r, c) in table.seen and c not in apart)
            if table.clean:
                cells.append(score_text(table.clean.get((r, c))) + own)
            cells.append(score_text(table.cells.get((r, c))) + own)
        if len(tasks) > 1:
            cells.append(score_text(means[r]) if means else "-")
        if ranked:
            cells.append(f"{places[r]:.2f}" if places else "-")
        if tied:
            cells += [str(v) for v in table.ties.get(r, ("-", "-"))]
        if table.marked:
            cells.append(table.mark(r))
        lines.append([model, *cells])
    heads = [f"{t} {what}" for t in tasks for what in ("clean", "corrupted")]
    header = ["model", *(heads if table.clean else tasks)]
    header += extra[: 1 + ranked] if len(tasks) > 1 else []
    header += ["tie group", "place"] if tied else []
    header += ["computed"] if table.marked else []
    if len(tasks) > len(table.models):
        turned = [list(line) for line in zip(header, *lines, strict=True)]
        turned[0][0] = "task"
        return turned[0], turned[1:]
    return header, lines
