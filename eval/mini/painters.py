"""Painters of the factor tasks: deterministic numpy rasterising, one function per task.

A painter takes a random stream and a label and returns a clean scene; `photograph` adds the light
and noise of a camera. Coordinates run from -1 to 1 (x right, y down), so one pixel is 1/32. Every
edge is a ramp one pixel wide over a distance, computed in float64 without BLAS, so that the rounded
pixels are the same on every machine and numpy version.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.random import RandomState

from eval.mini.factors import FACTOR_TASKS, IMAGE_SIZE, MINI_VERSION

Array = np.ndarray
PIXEL = 2.0 / IMAGE_SIZE
TAU = 2.0 * np.pi

_AXIS = (np.arange(IMAGE_SIZE) + 0.5) * PIXEL - 1.0  # [64] centres of the pixels
X = np.repeat(_AXIS[None, :], IMAGE_SIZE, axis=0)  # [64, 64]
Y = np.repeat(_AXIS[:, None], IMAGE_SIZE, axis=1)  # [64, 64]


def random_state(*parts: str | int) -> RandomState:
    """Return the stream (frozen across numpy versions) that belongs to these parts."""
    key = "/".join(["mini", str(MINI_VERSION), *map(str, parts)])
    return RandomState(np.frombuffer(hashlib.sha256(key.encode()).digest(), dtype="<u4"))


def photograph(task: str, label: int, rng: RandomState) -> Array:
    """Paint a scene of `task` and expose it: uneven light, noise, rounding; [64, 64, 3] uint8."""
    scene = PAINTERS[task](rng, label)  # [64, 64, 3] in 0..1
    angle, depth = rng.uniform(0.0, TAU), rng.uniform(0.0, 0.35)
    ramp = (np.cos(angle) * X + np.sin(angle) * Y) / np.sqrt(2.0)  # [64, 64] in -1..1
    light = 1.0 - depth * (0.5 + 0.5 * ramp)  # only darkens: clipping would shift the hue
    noise = rng.uniform(-1.0, 1.0, scene.shape) * rng.uniform(0.02, 0.12)
    return np.rint(255.0 * np.clip(scene * light[..., None] + noise, 0.0, 1.0)).astype(np.uint8)


# Drawing kit -------------------------------------------------------------------------------------


def ink(distance: Array, pixel: float = PIXEL) -> Array:
    """Return coverage 0..1 of the region `distance` < 0, with an edge one `pixel` wide."""
    return np.clip(0.5 - distance / pixel, 0.0, 1.0)


def paint(canvas: Array, coverage: Array, colour: Array) -> Array:
    """Lay `colour` ([3] or [64, 64, 3]) over the canvas [64, 64, 3] where `coverage` [64, 64]."""
    return canvas + coverage[..., None] * (colour - canvas)


def palette(rng: RandomState, count: int) -> Array:
    """Return [count, 3] random colours: a darker ground, then brighter inks of unlike lightness.

    The ground is darker in every image: with both polarities, random filters measure nothing.
    """
    lights = [rng.uniform(0.05, 0.4)]
    while len(lights) < count:
        light = rng.uniform(0.65, 1.0)
        if all(abs(light - other) >= 0.1 for other in lights):
            lights.append(light)
    tints = rng.uniform(-0.3, 0.3, (count, 3))
    tints = tints - luminance(tints)[:, None]  # colour without change of lightness
    return np.clip(np.array(lights)[:, None] + tints, 0.0, 1.0)


def luminance(colours: Array) -> Array:
    """Return the luma of colours [..., 3]."""
    return 0.299 * colours[..., 0] + 0.587 * colours[..., 1] + 0.114 * colours[..., 2]


def clouds(rng: RandomState, cells: int) -> Array:
    """Return smooth value noise in 0..1, [64, 64], with `cells` knots a side."""
    knots = rng.uniform(0.0, 1.0, (cells + 1, cells + 1))
    place = (_AXIS + 1.0) * 0.5 * cells  # [64]
    low = np.floor(place).astype(int)
    part = place - low
    ease = part * part * (3.0 - 2.0 * part)
    rows = knots[low] + ease[:, None] * (knots[low + 1] - knots[low])  # [64, cells + 1]
    return rows[:, low] + ease[None, :] * (rows[:, low + 1] - rows[:, low])


def background(rng: RandomState, colour: Array) -> Array:
    """Return a canvas [64, 64, 3] of uneven `colour`: soft clouds in a random direction of RGB."""
    tint = rng.uniform(-0.25, 0.25, 3)
    field = clouds(rng, rng.randint(2, 9)) - 0.5
    return np.clip(colour + field[..., None] * tint, 0.0, 1.0)


def stroke_distance(start: Array, end: Array, half: Array | None = None) -> Array:
    """Return the distance [64, 64] to the nearest of s segments with ends [s, 2].

    With half widths [s] it is the signed distance to the thick strokes. A loop over segments keeps
    its arrays in the processor's cache: four times as fast as one [s, 64, 64] array.
    """
    nearest = np.full(X.shape, np.inf)
    widths = np.zeros(len(start)) if half is None else half
    for (x, y), (span_x, span_y), width in zip(start, end - start, widths, strict=True):
        dx, dy = _AXIS[None, :] - x, _AXIS[:, None] - y  # [1, 64], [64, 1]
        length2 = max(span_x * span_x + span_y * span_y, 1e-12)
        along = dx * (span_x / length2) + dy * (span_y / length2)  # [64, 64]
        place = np.minimum(np.maximum(along, 0.0), 1.0)
        square = (dx - place * span_x) ** 2 + (dy - place * span_y) ** 2
        np.minimum(nearest, np.sqrt(square) - width, out=nearest)
    return nearest


def stray_strokes(rng: RandomState, canvas: Array, colour: Array) -> Array:
    """Draw one to four short thin strokes of `colour` anywhere on the canvas."""
    count = rng.randint(1, 5)
    middle = rng.uniform(-1.0, 1.0, (count, 2))
    angle, half = rng.uniform(0.0, TAU, count), rng.uniform(0.08, 0.2, count)
    arm = half[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    distance = stroke_distance(middle - arm, middle + arm)
    return paint(canvas, ink(distance - rng.uniform(0.6, 1.0) * PIXEL), colour)


def turn(x: Array, y: Array, angle: float) -> tuple[Array, Array]:
    """Return the coordinates in a frame turned by `angle` radians."""
    cos, sin = np.cos(angle), np.sin(angle)
    return cos * x + sin * y, cos * y - sin * x


def outline_distance(shape: str, x: Array, y: Array) -> Array:
    """Return the signed distance (negative inside) to a named outline of about unit radius."""
    if shape == "circle":
        return np.hypot(x, y) - 0.9
    if shape == "crescent":
        return np.maximum(np.hypot(x, y) - 1.0, 0.85 - np.hypot(x - 0.55, y))
    if shape == "cross":
        long, wide = np.maximum(np.abs(x), np.abs(y)), np.minimum(np.abs(x), np.abs(y))
        return np.maximum(long - 0.95, wide - 0.32)
    if shape == "heart":
        u, v = np.abs(y) * 0.6, 0.55 + x * 0.6  # the usual heart: tip at v = 0, lobes to v = 1.1
        lobe = np.hypot(u - 0.25, v - 0.75) - np.sqrt(2.0) / 4.0
        lean = 0.5 * np.maximum(u + v, 0.0)
        side = np.minimum(np.hypot(u, v - 1.0), np.hypot(u - lean, v - lean)) * np.sign(u - v)
        return np.where(u + v > 1.0, lobe, side) / 0.6
    corners, inner = {
        "triangle": (3, np.cos(np.pi / 3)),
        "square": (4, np.cos(np.pi / 4)),
        "pentagon": (5, np.cos(np.pi / 5)),
        "star": (5, 0.42),
    }[shape]
    # Fold the plane into half a sector: one edge is left, from the tip (1, 0) to the inner corner.
    sector = TAU / corners
    angle = np.arctan2(y, x)
    angle = np.abs(angle - sector * np.rint(angle / sector))
    radius = np.hypot(x, y)
    edge_x, edge_y = inner * np.cos(sector / 2) - 1.0, inner * np.sin(sector / 2)
    across = (radius * np.cos(angle) - 1.0) * edge_y - radius * np.sin(angle) * edge_x
    return across / np.hypot(edge_x, edge_y)


def hsv(hue: Array | float, saturation: Array | float, value: Array | float) -> Array:
    """Return RGB [..., 3] in 0..1 of hue in degrees, saturation and value in 0..1."""
    channels = []
    for shift in (5.0, 3.0, 1.0):
        k = np.mod(shift + np.asarray(hue) / 60.0, 6.0)
        channels.append(value - value * saturation * np.clip(np.minimum(k, 4.0 - k), 0.0, 1.0))
    return np.stack(np.broadcast_arrays(*channels), axis=-1)


def wave(rng: RandomState, cycles: Array) -> Array:
    """Return a random profile 0..1 of period one: sine, near-square or triangle."""
    sine = np.sin(TAU * cycles)
    kind = rng.randint(3)
    if kind == 0:
        return 0.5 + 0.5 * sine
    if kind == 1:
        return np.clip(0.5 + rng.uniform(1.0, 2.5) * sine, 0.0, 1.0)
    return 0.5 + np.arcsin(np.clip(sine, -1.0, 1.0)) / np.pi


# Low level ---------------------------------------------------------------------------------------


def paint_orientation(rng: RandomState, label: int) -> Array:
    """Stripes at 22.5 degrees x label, with weaker ones crossing at a random angle."""

    def stripes(angle: float) -> Array:
        across = X * np.sin(angle) + Y * np.cos(angle)
        if rng.randint(2):
            return wave(rng, 0.5 * rng.uniform(3.0, 10.0) * across + rng.uniform(0.0, 1.0))
        knots = rng.randint(10, 24)  # an irregular profile: bars of many widths
        return np.interp(across, np.linspace(-1.5, 1.5, knots), rng.uniform(0.0, 1.0, knots))

    angle = np.deg2rad(22.5 * label + rng.uniform(-4.0, 4.0))
    main, crossing = stripes(angle), stripes(rng.uniform(0.0, np.pi))
    share = rng.uniform(0.15, 0.4)
    dark, bright = palette(rng, 2)
    return paint(background(rng, dark), (1.0 - share) * main + share * crossing, bright)


def paint_frequency(rng: RandomState, label: int) -> Array:
    """A grating of 2 x 1.5**label cycles an image, seen through a soft window."""
    cycles = 2.0 * 1.5**label * rng.uniform(0.94, 1.06)
    across = turn(X, Y, rng.uniform(0.0, TAU))[0]
    grating = wave(rng, 0.5 * cycles * across + rng.uniform(0.0, 1.0))
    centre = rng.uniform(-0.35, 0.35, 2)
    window = np.exp(-((X - centre[0]) ** 2 + (Y - centre[1]) ** 2) / rng.uniform(0.5, 2.0))
    mean = rng.uniform(0.2, 0.8)
    dark, bright = palette(rng, 2)
    return paint(background(rng, dark), mean + window * (grating - mean), bright)


def paint_hue(rng: RandomState, label: int) -> Array:
    """A vivid patch of hue 45 degrees x label on paler clouds of two independent hues."""
    hue = 45.0 * label + rng.uniform(-8.0, 8.0)
    field = clouds(rng, rng.randint(2, 7))
    first, second = (hsv(rng.uniform(0.0, 360.0), rng.uniform(0.1, 0.6), 1.0) for _ in range(2))
    canvas = paint(np.broadcast_to(first, (*X.shape, 3)), ink(field - 0.5, 0.3), second)
    canvas = canvas * (rng.uniform(0.4, 0.8) + 0.2 * clouds(rng, 5))[..., None]
    radius = rng.uniform(0.28, 0.5)
    centre = rng.uniform(radius - 1.0, 1.0 - radius, 2)
    x, y = turn(X - centre[0], Y - centre[1], rng.uniform(0.0, TAU))
    stretch = rng.uniform(0.75, 1.0)
    blob = np.hypot(x, y / stretch) - radius * (0.8 + 0.4 * (clouds(rng, 4) - 0.5))
    value = rng.uniform(0.45, 0.85) + 0.15 * clouds(rng, rng.randint(2, 9))
    return paint(canvas, ink(blob), hsv(hue, rng.uniform(0.75, 1.0), value))


# Middle level ------------------------------------------------------------------------------------


def paint_texture(rng: RandomState, label: int) -> Array:
    """Two colours mixed by one family of texture in a turned, scaled and slightly warped frame."""
    cells = rng.uniform(3.5, 8.0)  # an image is so many cells wide
    x, y = turn(X, Y, rng.uniform(0.0, TAU))
    warp, knots = rng.uniform(0.0, 0.25), 3
    u = 0.5 * cells * x + rng.uniform(0.0, 16.0) + warp * clouds(rng, knots)
    v = 0.5 * cells * y + rng.uniform(0.0, 16.0) + warp * clouds(rng, knots)
    coverage = texture(FACTOR_TASKS["texture"].classes[label], rng, u, v, 0.5 * cells * PIXEL)
    dark, bright = palette(rng, 2)
    strength = rng.uniform(0.7, 1.0)
    return paint(background(rng, dark), strength * coverage, bright)


def texture(family: str, rng: RandomState, u: Array, v: Array, pixel: float) -> Array:
    """Return coverage 0..1 of a texture with cells of one unit in u and v; `pixel` in cells."""
    width = rng.uniform(0.08, 0.16)  # half the width of a line
    if family == "stripes":
        return ink(middle_distance(v) - rng.uniform(0.12, 0.38), pixel)
    if family == "waves":
        swing, length = rng.uniform(0.3, 0.5), rng.uniform(1.5, 2.5)
        bent = v + swing * np.sin(TAU * u / length)
        return ink(middle_distance(bent) - rng.uniform(0.12, 0.38), pixel)
    if family == "checker":
        same = (np.mod(u, 2.0) - 1.0) * (np.mod(v, 2.0) - 1.0)
        edge = np.minimum(0.5 - middle_distance(u), 0.5 - middle_distance(v))
        return ink(np.where(same > 0.0, -edge, edge), pixel)
    if family == "dots":
        shifted = u + (0.5 * np.floor(v) if rng.randint(2) else 0.0)
        spot = np.hypot(middle_distance(shifted), middle_distance(v))
        return ink(spot - rng.uniform(0.2, 0.4), pixel)
    if family == "bricks":
        brick = 0.5 * u + 0.5 * np.mod(np.floor(v), 2.0)  # two cells long, every other row shifted
        joint = np.minimum(1.0 - 2.0 * middle_distance(brick), 0.5 - middle_distance(v))
        return ink(joint - width, pixel)
    if family == "hatch":
        lean = np.deg2rad(rng.uniform(-30.0, 30.0))  # the lines cross at 60 to 120 degrees
        other = np.cos(lean) * u + np.sin(lean) * v
        return ink(np.minimum(middle_distance(other), middle_distance(v)) - width, pixel)
    if family == "clouds":
        knots = rng.randint(5, 10)
        field = 0.6 * clouds(rng, knots) + 0.4 * clouds(rng, 2 * knots)
        return np.clip(0.5 + rng.uniform(1.5, 3.0) * (field - 0.5), 0.0, 1.0)
    if family == "voronoi":
        near, next_near = voronoi(rng, u, v)
        return ink(0.5 * (next_near - near) - width, pixel)
    raise KeyError(family)


def middle_distance(u: Array) -> Array:
    """Return the distance, 0..0.5, of u to the middle of its unit cell."""
    return np.abs(u - np.floor(u) - 0.5)


def voronoi(rng: RandomState, u: Array, v: Array) -> tuple[Array, Array]:
    """Return the distances to the nearest and second nearest point of a jittered unit grid."""
    points = rng.uniform(0.05, 0.95, (32, 32, 2))
    row, column = np.floor(v).astype(int), np.floor(u).astype(int)
    near = np.full(u.shape, 9.0)
    next_near = near
    for dr in (-1, 0, 1):
        for dc in (-1, 0, 1):
            point = points[(row + dr) % 32, (column + dc) % 32]  # [64, 64, 2]
            distance = np.hypot(column + dc + point[..., 0] - u, row + dr + point[..., 1] - v)
            next_near = np.minimum(next_near, np.maximum(near, distance))
            near = np.minimum(near, distance)
    return near, next_near


def paint_shape(rng: RandomState, label: int) -> Array:
    """One outline, drawn as a line or filled, over stray strokes."""
    ground, front, stray = palette(rng, 3)
    canvas = stray_strokes(rng, background(rng, ground), stray)
    size = rng.uniform(0.45, 0.75)
    centre = rng.uniform(size - 0.98, 0.98 - size, 2)
    upright = np.deg2rad(-90.0)  # a triangle points up, give or take the turn
    x, y = turn(X - centre[0], Y - centre[1], upright + np.deg2rad(rng.uniform(-30.0, 30.0)))
    stretch = rng.uniform(0.88, 1.0)
    name = FACTOR_TASKS["shape"].classes[label]
    distance = size * outline_distance(name, x / size, y / (size * stretch))
    if rng.randint(2):
        half = rng.uniform(0.8, 1.6) * PIXEL
        distance = np.abs(distance + half) - half
    return paint(canvas, ink(distance), background(rng, front))


def symmetric_strokes(rng: RandomState, kind: str) -> tuple[Array, Array]:
    """Return hooks [n, 3, 2] (corner points about the origin) and their half widths [n].

    Each drawn hook is repeated by the group of `kind`; the number n of hooks in the figure does not
    depend on the kind, so that nothing but their arrangement tells it.
    """
    identity, mirror_x, mirror_y = np.eye(2), np.diag([-1.0, 1.0]), np.diag([1.0, -1.0])
    quarter = np.array([[0.0, -1.0], [1.0, 0.0]])
    group = {
        "none": [identity],
        "left-right": [identity, mirror_x],
        "top-bottom": [identity, mirror_y],
        "both": [identity, mirror_x, mirror_y, -identity],
        "half-turn": [identity, -identity],
        "quarter-turn": [identity, quarter, -identity, -quarter],
    }[kind]
    drawn = 4 * rng.randint(1, 4) // len(group)
    radius, angle = rng.uniform(0.15, 0.75, drawn), rng.uniform(0.0, TAU, drawn)
    middle = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)  # [drawn, 2]
    heading = rng.uniform(0.0, TAU, drawn)
    bend = heading + np.deg2rad(rng.uniform(60.0, 120.0, drawn)) * rng.choice([-1.0, 1.0], drawn)
    reach = rng.uniform(0.2, 0.5, (2, drawn))
    arms = [
        length[:, None] * np.stack([np.cos(way), np.sin(way)], axis=1)
        for length, way in zip(reach * [[1.0], [0.6]], (heading, bend), strict=True)
    ]
    hooks = np.stack([middle + arms[0], middle, middle + arms[1]], axis=1)  # [drawn, 3, 2]
    copies = [
        np.stack([m[0, 0] * hooks[..., 0] + m[0, 1] * hooks[..., 1],
                  m[1, 0] * hooks[..., 0] + m[1, 1] * hooks[..., 1]], axis=-1)
        for m in group
    ]  # fmt: skip
    return np.concatenate(copies), np.tile(rng.uniform(0.03, 0.09, drawn), len(group))


def hook_coverage(hooks: Array, half: Array) -> Array:
    """Return the ink [64, 64] of hooks [n, 3, 2] with half widths [n]."""
    start, end = hooks[:, :2].reshape(-1, 2), hooks[:, 1:].reshape(-1, 2)
    return ink(stroke_distance(start, end, np.repeat(half, 2)))


def paint_symmetry(rng: RandomState, label: int) -> Array:
    """A figure of hooks with the symmetry of the class about a roughly central point."""
    hooks, half = symmetric_strokes(rng, FACTOR_TASKS["symmetry"].classes[label])
    tilt, scale = np.deg2rad(rng.uniform(-6.0, 6.0)), rng.uniform(0.75, 1.0)
    x, y = turn(hooks[..., 0], hooks[..., 1], tilt)
    hooks = scale * np.stack([x, y], axis=-1) + rng.uniform(-0.12, 0.12, 2)
    ground, front = palette(rng, 2)
    canvas = background(rng, ground)
    return paint(canvas, hook_coverage(hooks, scale * half), front)


# High level --------------------------------------------------------------------------------------


def scatter(rng: RandomState, radii: Array) -> Array:
    """Return centres [n, 2] of n discs inside the image that keep clear of each other."""
    while True:
        centres: list[Array] = []
        for radius in radii:
            for _ in range(40):
                centre = rng.uniform(radius - 0.97, 0.97 - radius, 2)
                room = [
                    np.hypot(*(centre - other)) - radius - taken
                    for other, taken in zip(centres, radii, strict=False)
                ]
                if all(gap > 2.5 * PIXEL for gap in room):
                    centres.append(centre)
                    break
        if len(centres) == len(radii):
            return np.stack(centres)


def paint_count(rng: RandomState, label: int) -> Array:
    """label + 1 separate objects; either their total area or their size ignores the count."""
    count = label + 1
    weight = rng.uniform(0.6, 1.4, count)
    if rng.randint(2):
        radii = np.sqrt(rng.uniform(0.25, 0.75) * weight / weight.sum() / np.pi)
    else:
        radii = rng.uniform(0.14, 0.26) * np.sqrt(weight)
    ground, front, other = palette(rng, 3)
    canvas = background(rng, ground)
    for radius, centre in zip(radii, scatter(rng, radii), strict=True):
        x, y = turn(X - centre[0], Y - centre[1], rng.uniform(0.0, TAU))
        shape = ("circle", "square", "triangle", "star", "pentagon")[rng.randint(5)]
        distance = radius * outline_distance(shape, x / radius, y / radius)
        canvas = paint(canvas, ink(distance), front if rng.randint(2) else other)
    return canvas


def place_pair(rng: RandomState, kind: str) -> tuple[Array, float, Array, float, float]:
    """Return disc centre [2] and radius, square centre [2], half side and tilt in radians."""
    disc, side = rng.uniform(0.12, 0.2), rng.uniform(0.3, 0.42)
    tilt = np.deg2rad(rng.uniform(-12.0, 12.0))
    way = {"left": (-1.0, 0.0), "right": (1.0, 0.0), "above": (0.0, -1.0), "below": (0.0, 1.0)}
    if kind in way:
        offset = np.array(way[kind]) * (disc + 1.2 * side + rng.uniform(0.08, 0.3))
        offset = offset + np.abs(way[kind])[::-1] * rng.uniform(-0.25, 0.25)
    else:
        reach = side - disc - 3.0 * PIXEL  # leaves the disc clear of the outline
        if kind == "inside":
            local = rng.uniform(-reach, reach, 2)
        else:  # the disc's centre near a side: the outline cuts it
            local = np.array([side + 0.4 * disc * rng.uniform(-1.0, 1.0), rng.uniform(-side, side)])
            local = (local * rng.choice([-1.0, 1.0]))[:: rng.choice([-1, 1])]
        offset = np.stack(turn(local[0], local[1], -tilt))
    reach = 1.2 * side
    low = np.minimum(-reach, offset - disc)  # [2] box of the pair about the square's centre
    high = np.maximum(reach, offset + disc)
    centre = rng.uniform(-0.97 - low, 0.97 - high)
    return centre + offset, disc, centre, side, tilt


def paint_relation(rng: RandomState, label: int) -> Array:
    """A filled disc and an outlined square in one of six relations, over stray strokes."""
    kind = FACTOR_TASKS["relation"].classes[label]
    disc_at, radius, square_at, side, tilt = place_pair(rng, kind)
    ground, front, frame = palette(rng, 3)
    canvas = stray_strokes(rng, background(rng, ground), front)
    x, y = turn(X - square_at[0], Y - square_at[1], tilt)
    half = rng.uniform(1.0, 1.6) * PIXEL
    edge = np.abs(np.maximum(np.abs(x), np.abs(y)) - side) - half
    canvas = paint(canvas, ink(np.hypot(X - disc_at[0], Y - disc_at[1]) - radius), front)
    return paint(canvas, ink(edge), frame)


@cache
def glyph_strokes(label: int) -> Array:
    """Return the strokes of a glyph class, [strokes, 3, 2] control points of quadratic curves.

    A stroke starts at the end, or leaves the middle, of an earlier one: characters hang together.
    """
    rng = random_state("glyph", "prototype", label)
    strokes: list[Array] = []
    for _ in range(3 + label % 2):
        start = rng.uniform(-0.6, 0.6, 2)
        if strokes:
            earlier = strokes[rng.randint(len(strokes))]
            start = curve(earlier[None], 3)[0, rng.randint(3)]
        end = start
        while np.hypot(*(end - start)) < 0.6:
            end = rng.uniform(-0.7, 0.7, 2)
        bow = rng.choice([0.0, 0.5, -0.5]) * (end - start)[::-1] * [1.0, -1.0]
        strokes.append(np.stack([start, 0.5 * (start + end) + bow, end]))
    return np.stack(strokes)


def curve(strokes: Array, points: int) -> Array:
    """Return [strokes, points, 2] places along quadratic curves [strokes, 3, 2]."""
    t = np.linspace(0.0, 1.0, points)[None, :, None]
    first, middle, last = (strokes[:, None, i] for i in range(3))
    return (1.0 - t) ** 2 * first + 2.0 * t * (1.0 - t) * middle + t**2 * last


def paint_glyph(rng: RandomState, label: int) -> Array:
    """A character of three or four strokes, written anew with jitter and an affine pose."""
    strokes = glyph_strokes(label)
    path = curve(strokes + rng.uniform(-0.07, 0.07, strokes.shape), 8)  # [strokes, 8, 2]
    x, y = turn(path[..., 0], path[..., 1], np.deg2rad(rng.uniform(-15.0, 15.0)))
    x = x + rng.uniform(-0.2, 0.2) * y
    scale = rng.uniform(0.75, 1.1, 2)
    path = np.stack([x * scale[0], y * scale[1]], axis=-1)
    low, high = path.min(axis=(0, 1)), path.max(axis=(0, 1))
    slack = np.maximum(0.94 - 0.5 * (high - low), 0.0)  # room to move the middle of the character
    path = path - 0.5 * (low + high) + slack * rng.uniform(-0.6, 0.6, 2)
    distance = stroke_distance(path[:, :-1].reshape(-1, 2), path[:, 1:].reshape(-1, 2))
    ground, front = palette(rng, 2)
    canvas = background(rng, ground)
    return paint(canvas, ink(distance - rng.uniform(0.9, 2.0) * PIXEL), front)


PAINTERS: dict[str, Callable[[RandomState, int], Array]] = {
    "orientation": paint_orientation,
    "frequency": paint_frequency,
    "hue": paint_hue,
    "texture": paint_texture,
    "shape": paint_shape,
    "symmetry": paint_symmetry,
    "count": paint_count,
    "relation": paint_relation,
    "glyph": paint_glyph,
}
