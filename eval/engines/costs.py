"""What cells cost, by what the results of a store cost: no model is loaded for it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass

from eval.engines.planned import Planned
from eval.results.index import Row


@dataclass(frozen=True)
class Estimate:
    """Seconds of one process (and its GPU, where it has one) for a number of cells.

    ``unmeasured`` cells are of models that the store has no result of, and count as the mean of
    those it has; ``unknown`` ones are of protocols that it has none of, and count nothing.
    """

    cells: int
    groups: int
    seconds: float
    unmeasured: int
    unknown: int

    @property
    def hours(self) -> float:
        return self.seconds / 3600


class Costs:
    """Means over results: seconds an image of encoding for each model, of loading, and of scoring
    for each protocol and task."""

    def __init__(self, rows: Iterable[Row]) -> None:
        encode: dict[tuple[str, str], tuple[float, int]] = {}  # of a group: all its cells say it
        load: dict[str, float] = {}
        score: dict[Hashable, list[float]] = defaultdict(list)
        for row in rows:
            if row.encode:
                encode[row.model, row.split_hash] = row.encode, row.images
            load[row.model] = max(load.get(row.model, 0.0), row.load)
            for key in ((row.protocol, row.split_hash), row.protocol):
                score[key].append(row.fit + row.score)
        per_model: dict[str, list[tuple[float, int]]] = defaultdict(list)
        for (model, _), one in encode.items():
            per_model[model].append(one)
        self._image = {model: _rate(of) for model, of in per_model.items()}
        self._any_image = _rate(encode.values())
        self._load = load
        self._any_load = sum(load.values()) / len(load) if load else 0.0
        self._score: Mapping[Hashable, float] = {k: sum(v) / len(v) for k, v in score.items()}

    def of(self, cells: Iterable[Planned]) -> Estimate:
        """What these cells take, each group encoded once and each model loaded once."""
        groups: dict[tuple[str, str], int] = {}
        seconds, count, unmeasured, unknown = 0.0, 0, 0, 0
        for cell in cells:
            count += 1
            groups[cell.group] = cell.images
            unmeasured += cell.model not in self._image
            found = self._score.get((cell.protocol, cell.split_hash))
            found = self._score.get(cell.protocol) if found is None else found
            unknown += found is None
            seconds += found or 0.0
        for (model, _), images in groups.items():
            seconds += images * self._image.get(model, self._any_image)
        for model in {model for model, _ in groups}:
            seconds += self._load.get(model, self._any_load)
        return Estimate(count, len(groups), seconds, unmeasured, unknown)


def _rate(found: Iterable[tuple[float, int]]) -> float:
    """Seconds an image; 0 where nothing was measured."""
    seconds = images = 0.0
    for one, many in found:
        seconds += one
        images += many
    return seconds / images if images else 0.0


def in_words(estimate: Estimate, slots: int) -> str:
    """A sentence or two; ``slots`` processes share the work (0: nobody knows how many)."""
    if not estimate.cells:
        return "Nothing is left to score."
    if estimate.unknown == estimate.cells:
        return (
            f"{estimate.cells:,} cells are left; what they take is known once some like them are "
            "scored."
        )
    text = (
        f"{estimate.cells:,} cells of {estimate.groups:,} groups are left, about "
        f"{_hours(estimate.hours)} of one process"
    )
    text += f", {_hours(estimate.hours / slots)} with {slots}." if slots > 1 else "."
    if estimate.unmeasured:
        text += (
            f" {estimate.unmeasured:,} of them are of models that were not measured here, and "
            "count as the mean of those that were."
        )
    if estimate.unknown:
        text += f" {estimate.unknown:,} are of protocols that were not measured, and count nothing."
    return text


def _hours(hours: float) -> str:
    """In the unit that fits."""
    return f"{hours * 60:.1f} minutes" if hours < 1 else f"{hours:.1f} hours"
