"""Score against what a model costs, as a drawing of the page itself: there from the first moment,
in the page's own colours, and as wide as its place."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from space.figures.style import count, log_ticks, look, shortened
from space.markup import mark, safe

HEIGHT = 300  # pixels
_TOP, _BOTTOM, _LEFT, _RIGHT = 14, 42, 9.0, 4.0  # pixels above and below, percent at the sides
# Of a phone's width, in percent: a letter, and what is between a point and its name.
_LETTER, _GAP = 2.05, 3.2
_LINE = 14  # pixels that a line takes
_LABELS, _LETTERS = 14, 20  # points that are named at most, letters of a name
_POINTS = 200  # that are drawn at most
_ALIKE = math.log10(1.02)  # costs that differ by less are one cost
WORK = "multiply-adds an image"


@dataclass(frozen=True)
class Point:
    """A model: what it costs, its mean score in percent, half of the interval's width."""

    name: str
    objective: str
    cost: float
    mean: float
    half: float


def side_by_side(found: Mapping[str, Sequence[Point]], title: str) -> str:
    """A drawing for each kind of cost, side by side where there is room.

    ``found`` has the points by the cost's name. Where the models are alike in every cost, one
    drawing says so of all of them. Empty where nothing can be drawn.
    """
    alike = [name for name, points in found.items() if _alike(_known(points))]
    if len(alike) == len(found):
        said = " and ".join(f"{count(_known(found[name])[0].cost)} {name}" for name in alike)
        drawn = cost(found[alike[-1]], alike[-1], title, f"All have {said}")
    else:
        drawn = "".join(cost(points, name, title) for name, points in found.items())
    return f'<div class="costs">{drawn}</div>' if drawn else ""


def cost(points: Sequence[Point], axis: str, title: str, alike: str = "") -> str:
    """A figure of HTML with the points over a logarithmic axis, the best for their cost joined.

    ``axis`` is the cost's name with its unit; ``title`` says what the mean is of. Models of one
    cost stand side by side, in their order, and ``alike`` says so. Models whose cost is not known
    are counted, not drawn. Empty where there are fewer than two points.
    """
    known = _known(points)
    if len(known) < 2:
        return ""
    if missing := sum(math.isfinite(p.mean) for p in points) - len(known):
        title = f"{title}; {missing} more not drawn, whose {axis.partition(' ')[0]} are not known"
    if len(known) > _POINTS:
        title = f"{title}, of the best {_POINTS} of {len(known):,} models"
        known = sorted(known, key=lambda p: -p.mean)[:_POINTS]
    logs = [math.log10(p.cost) for p in known]
    room = max(0.06 * (max(logs) - min(logs)), 0.12)
    low, high = min(logs) - room, max(logs) + room
    least = min(p.mean - p.half for p in known)
    most = max(p.mean + p.half for p in known)
    edge = max(0.05 * (most - least), 0.5)
    # the best on top of the others, and named first
    order = sorted(known, key=lambda p: p.mean)
    told = "Dashed: the best at no more than that cost"
    if same := _alike(known):
        told = alike or f"All have {count(known[0].cost)} {axis}"
        step = 1 / len(known)
        low, high = -0.5 * step, 1 - 0.5 * step
        order = [replace(p, cost=10 ** (1 - (i + 1) * step)) for i, p in enumerate(order)]
    frame = _Frame(low, high, least - edge, most + edge, _TOP if same else _BOTTOM)
    parts = [_axes(frame, "" if same else axis), "" if same else _front(frame, known),
             *(_point(frame, p) for p in order), _names(frame, order[::-1])]  # fmt: skip
    name = axis.partition(" ")[0]
    against = "" if same else f" against {axis}"
    return (
        f'<figure class="cost" id="cost-{safe(name)}"><figcaption>Score{safe(against)}'
        f"</figcaption><p>{safe(title)}. Bars: 95 %. {safe(told)}.</p>"
        f'<svg class="drawing" width="100%" height="{HEIGHT}" role="img" '
        f'aria-label="Mean score of {len(known)} models{safe(against)}">{"".join(parts)}'
        "</svg></figure>"
    )


def _known(points: Sequence[Point]) -> list[Point]:
    return [p for p in points if p.cost > 0 and math.isfinite(p.mean)]


def _alike(points: Sequence[Point]) -> bool:
    logs = [math.log10(p.cost) for p in points]
    return bool(logs) and max(logs) - min(logs) < _ALIKE


@dataclass(frozen=True)
class _Frame:
    low: float
    high: float
    least: float
    most: float
    below: int  # pixels

    def x(self, cost: float) -> float:
        """Percent of the width."""
        share = (math.log10(cost) - self.low) / (self.high - self.low)
        return _LEFT + (100 - _LEFT - _RIGHT) * share

    def y(self, mean: float) -> float:
        """Pixels from the top."""
        share = (mean - self.least) / (self.most - self.least)
        return HEIGHT - self.below - (HEIGHT - _TOP - self.below) * share


def _axes(frame: _Frame, axis: str) -> str:
    out = []
    for mean in _steps(frame.least, frame.most):
        y = frame.y(mean)
        out.append(
            f'<line class="line" x1="{_LEFT}%" x2="{100 - _RIGHT}%" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text class="soft" x="{_LEFT - 0.8}%" y="{y + 4:.1f}" text-anchor="end">{mean:g}'
            "</text>"
        )
    bottom = HEIGHT - frame.below
    ticks = zip(*log_ticks(frame.low, frame.high), strict=True) if axis else ()
    for value, letters in ticks:
        x = frame.x(value)
        out.append(
            f'<line class="line" x1="{x:.2f}%" x2="{x:.2f}%" y1="{bottom}" y2="{bottom + 5}"/>'
            f'<text class="soft" x="{x:.2f}%" y="{bottom + 18}" text-anchor="middle">{letters}'
            "</text>"
        )
    if axis:
        middle = _LEFT + (100 - _LEFT - _RIGHT) / 2
        out.append(
            f'<text class="soft" x="{middle}%" y="{HEIGHT - 6}" text-anchor="middle">{safe(axis)}'
            "</text>"
        )
    return "".join(out)


def _steps(low: float, high: float) -> list[float]:
    """Round values between the two, three to seven of them."""
    step = next(s for s in (0.5, 1, 2, 5, 10, 20, 50) if (high - low) / s <= 7)
    return [step * k for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _best(points: Sequence[Point]) -> list[Point]:
    """Those that none of less or equal cost beats, the cheapest first."""
    best: list[Point] = []
    for point in sorted(points, key=lambda p: (p.cost, -p.mean)):
        if not best or point.mean > best[-1].mean:
            best.append(point)
    return best


def _front(frame: _Frame, points: Sequence[Point]) -> str:
    """Steps through the best for their cost."""
    best = _best(points)
    if len(best) < 2:
        return ""
    lines = []
    for old, new in pairwise(best):
        x0, x1, y0, y1 = frame.x(old.cost), frame.x(new.cost), frame.y(old.mean), frame.y(new.mean)
        lines += [(x0, y0, x1, y0), (x1, y0, x1, y1)]
    return "".join(
        f'<line class="front" x1="{a:.2f}%" y1="{b:.1f}" x2="{c:.2f}%" y2="{d:.1f}"/>'
        for a, b, c, d in lines
    )


def _point(frame: _Frame, point: Point) -> str:
    x, y = frame.x(point.cost), frame.y(point.mean)
    top, low = frame.y(point.mean + point.half), frame.y(point.mean - point.half)
    told = f"{safe(point.name)}: {point.mean:.1f} % ±{point.half:.1f}"
    drawn = mark(point.objective).replace("<svg ", f'<svg x="{x:.2f}%" y="{y:.1f}" ', 1)
    return (
        f'<g><title>{told}</title><line class="bar" stroke="{look(point.objective).colour}" '
        f'x1="{x:.2f}%" x2="{x:.2f}%" y1="{top:.1f}" y2="{low:.1f}"/>'
        f'<g transform="translate(-6 -6)">{drawn}</g></g>'
    )


def _names(frame: _Frame, points: Sequence[Point]) -> str:
    """The names that find room beside the other points and names, those of the best for their cost
    first, then the best."""
    spots = {id(p): (frame.x(p.cost), frame.y(p.mean)) for p in points}
    taken: list[tuple[float, float, float]] = []  # left, right (percent), y (pixels)
    out: list[str] = []
    order = _best(points)[::-1]
    order += [p for p in points if p not in order]
    for point in order:
        if len(out) == _LABELS:
            break
        x, y = spots[id(point)]
        letters = shortened(point.name, _LETTERS)
        wide = _LETTER * len(letters)
        fits_left, fits_right = x - _GAP - wide >= _LEFT, x + _GAP + wide < 100
        right = fits_right and (x < 50 or not fits_left)
        if not (fits_left or fits_right):
            continue
        left = x + _GAP if right else x - _GAP - wide
        others = [(a - 1, a + 1, b) for k, (a, b) in spots.items() if k != id(point)]
        if any(
            left < b and a < left + wide and abs(y - at) < _LINE for a, b, at in (*taken, *others)
        ):
            continue
        taken.append((left, left + wide, y))
        anchor = "start" if right else "end"
        out.append(
            f'<text x="{x:.2f}%" dx="{10 if right else -10}" y="{y + 4:.1f}" '
            f'text-anchor="{anchor}">{safe(letters)}</text>'
        )
    return "".join(out)
