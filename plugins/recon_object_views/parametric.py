"""Parametric chairs, tables, mugs, cars and planes: one instance of each by its number."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
from numpy.random import Generator, Philox, SeedSequence

from recon_object_views.procedural import NAMES, SPLITS
from recon_object_views.solids import (
    Colour,
    ColouredMesh,
    Floats,
    box,
    hexahedron,
    mesh,
    oval,
    prism,
    revolved,
    rod,
    tube,
)

_WOOD = ((0.36, 0.22, 0.12), (0.55, 0.37, 0.20), (0.72, 0.54, 0.34), (0.25, 0.15, 0.09), (0.80, 0.68, 0.50))
_METAL = ((0.75, 0.76, 0.78), (0.15, 0.15, 0.16), (0.45, 0.46, 0.48))


def material(rng: Generator, *, wood: float = 0.4, metal: float = 0.2) -> Colour:
    """A colour of wood, of metal, or any."""
    kind = rng.random()
    if kind < wood:
        base = np.array(_WOOD[rng.integers(len(_WOOD))]) * rng.uniform(0.8, 1.15)
    elif kind < wood + metal:
        base = np.array(_METAL[rng.integers(len(_METAL))]) * rng.uniform(0.85, 1.1)
    else:
        base = np.array(colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.1, 0.9), rng.uniform(0.25, 0.95)))
    red, green, blue = np.clip(base, 0.02, 1.0).tolist()
    return red, green, blue


def chair(rng: Generator) -> ColouredMesh:
    """A chair, stool or armchair that looks along −y: seat, legs, back and arms are drawn apart."""
    width, depth = rng.uniform(0.40, 0.62), rng.uniform(0.38, 0.56)
    height, thick = rng.uniform(0.36, 0.50), rng.uniform(0.02, 0.10)
    frame, cover = material(rng), material(rng, metal=0.0)
    if rng.random() < 0.3:
        cover = frame
    shape = rng.choice(("square", "rounded", "round"), p=(0.55, 0.3, 0.15))
    if shape == "square":
        seat = box((-width / 2, -depth / 2, height - thick), (width / 2, depth / 2, height), cover)
    else:
        seat = prism(oval(width, depth, power=2.0 if shape == "round" else 5.0), height - thick, height, cover)
    parts = [seat, *_chair_legs(rng, width, depth, height - thick, frame)]
    top = rng.uniform(0.75, 1.15)
    back = rng.random() > 0.08
    if back:
        parts += _chair_back(rng, width, depth, height, top, frame, cover)
    if rng.random() < (0.4 if back else 0.0):
        parts += _arms(rng, width, depth, height, frame)
    return ColouredMesh.joined(parts)


def _chair_legs(rng: Generator, width: float, depth: float, top: float, colour: Colour) -> list[ColouredMesh]:
    kind = rng.choice(("four", "pedestal", "sled", "panels"), p=(0.62, 0.16, 0.12, 0.10))
    x, y = width / 2 * rng.uniform(0.78, 0.95), depth / 2 * rng.uniform(0.78, 0.95)
    radius = rng.uniform(0.012, 0.032)
    if kind == "four":
        splay, thin = rng.uniform(1.0, 1.25), rng.uniform(0.5, 1.0)
        legs = _four_legs(rng, x, y, top, radius, splay, thin, colour)
        if rng.random() < 0.35:  # bars between the legs
            low = top * rng.uniform(0.2, 0.5)
            out = 1 + (splay - 1) * (1 - low / top)
            for side in (-1, 1):
                legs.append(rod((side * x * out, -y * out, low), (side * x * out, y * out, low), radius * 0.7, colour))
            legs.append(rod((-x * out, 0, low), (x * out, 0, low), radius * 0.7, colour))
        return legs
    if kind == "pedestal":
        reach, feet = rng.uniform(0.22, 0.32), int(rng.integers(4, 6))
        post = rod((0, 0, 0.03), (0, 0, top), rng.uniform(0.02, 0.05), colour)
        if rng.random() < 0.35:
            return [post, revolved(((0, 0), (reach, 0), (reach, 0.02), (0, 0.05)), colour)]
        turn = np.arange(feet) / feet * 2 * math.pi + rng.uniform(0, math.pi)
        return [
            post,
            *(rod((0, 0, 0.07), (reach * math.cos(a), reach * math.sin(a), 0.02), 0.022, colour) for a in turn),
        ]
    if kind == "sled":
        bars, closed = [], rng.random() < 0.6
        for side in (-1, 1):
            line = [(side * x, -y, top), (side * x, -y, 0.02), (side * x, y, 0.02)]
            if closed:
                line.append((side * x, y, top))
            bars += [rod(a, b, radius, colour) for a, b in pairwise(line)]
        bars.append(rod((-x, y, 0.02), (x, y, 0.02), radius, colour))
        return bars
    plate = rng.uniform(0.02, 0.05)
    return [box((side * x - plate / 2, -y, 0), (side * x + plate / 2, y, top), colour) for side in (-1, 1)]


def _four_legs(
    rng: Generator, x: float, y: float, top: float, radius: float, splay: float, thin: float, colour: Colour
) -> list[ColouredMesh]:
    square = rng.random() < 0.5
    legs = []
    for right in (-1, 1):
        for back in (-1, 1):
            foot, head = (right * x * splay, back * y * splay, 0.0), (right * x, back * y, top)
            if square:
                lower, upper = radius * thin, radius
                corners = [
                    (cx + sx * r, cy + sy * r, cz)
                    for (cx, cy, cz), r in ((foot, lower), (head, upper))
                    for sy in (-1, 1)
                    for sx in (-1, 1)
                ]
                legs.append(hexahedron(corners, colour))
            else:
                legs.append(rod(head, foot, radius, colour, thin=thin))
    return legs


def _chair_back(
    rng: Generator, width: float, depth: float, seat: float, top: float, frame: Colour, cover: Colour
) -> list[ColouredMesh]:
    """Upright at y = depth / 2, then leant back and, at times, bent around the sitter."""
    kind = rng.choice(("panel", "bars", "ladder", "frame"), p=(0.4, 0.25, 0.2, 0.15))
    half, thick = width / 2 * rng.uniform(0.8, 1.0), rng.uniform(0.015, 0.06)
    low = seat if rng.random() < 0.5 else seat + rng.uniform(0.05, 0.18)
    radius = rng.uniform(0.012, 0.028)
    parts: list[ColouredMesh] = []
    if kind == "panel":
        across = np.linspace(-half, half, 9)
        rounding = rng.uniform(0, 0.12) * (rng.random() < 0.5)
        edge = top - rounding * (across / half) ** 2
        upper = np.column_stack((across, np.zeros(9), edge))
        lower = np.column_stack((across, np.zeros(9), np.full(9, low)))
        parts.append(_sheet(lower, upper, thick, cover))
    else:
        rails = [(-half, half, top)]
        if low > seat:
            rails.append((-half, half, low))
        parts += [rod((a, 0, z), (b, 0, z), radius, frame) for a, b, z in rails]
        if kind == "bars":
            count = int(rng.integers(3, 8))
            parts += [
                rod((x, 0, low), (x, 0, top), radius * 0.6, frame) for x in np.linspace(-half, half, count + 2)[1:-1]
            ]
        elif kind == "ladder":
            rungs = int(rng.integers(2, 5))
            deep = (top - low) / (2.5 * rungs)
            for z in np.linspace(low, top, rungs + 1)[1:]:
                parts.append(box((-half, -thick / 3, z - deep), (half, thick / 3, z), cover))
        else:
            inset = rng.uniform(0.1, 0.25)
            z0, z1 = low + inset * (top - low), top - inset * (top - low)
            parts.append(box((-half * 0.85, -thick / 2, z0), (half * 0.85, thick / 2, z1), cover))
    if kind != "panel" or low > seat:
        parts += [rod((side * half, 0, seat - 0.02), (side * half, 0, top), radius, frame) for side in (-1, 1)]
    lean, bend = math.tan(rng.uniform(0.0, 0.35)), rng.uniform(0, 0.25) * (rng.random() < 0.4)
    leant = []
    for part in parts:
        points = part.vertices.copy()
        points[:, 1] += depth / 2 * 0.94 + lean * (points[:, 2] - seat) - bend * points[:, 0] ** 2 / half
        leant.append(ColouredMesh(points, part.faces, part.colours))
    return leant


def _sheet(lower: np.ndarray, upper: np.ndarray, thick: float, colour: Colour) -> ColouredMesh:
    """A plate between two lines (K, 3) of points, ``thick`` along y."""
    count = len(lower)
    back = np.array((0, thick / 2, 0))
    vertices = np.concatenate((lower - back, upper - back, lower + back, upper + back))
    a = np.arange(count - 1)
    faces = []
    for p, q, r, s in (
        (a, a + 1, a + count, a + 1 + count),  # front
        (a + 1 + 2 * count, a + 2 * count, a + 1 + 3 * count, a + 3 * count),  # back
        (a + count, a + 1 + count, a + 3 * count, a + 1 + 3 * count),  # above
        (a + 1, a, a + 1 + 2 * count, a + 2 * count),  # below
    ):
        faces += [np.column_stack((p, q, r)), np.column_stack((q, s, r))]
    end = count - 1
    ends = ((2 * count, 0, 3 * count), (0, count, 3 * count), (end, end + 2 * count, end + count),
            (end + 2 * count, end + 3 * count, end + count))  # fmt: skip
    return mesh(vertices, np.concatenate((*faces, np.array(ends))), colour)


def _arms(rng: Generator, width: float, depth: float, seat: float, colour: Colour) -> list[ColouredMesh]:
    high, radius = seat + rng.uniform(0.15, 0.28), rng.uniform(0.012, 0.03)
    front, x = -depth / 2 * rng.uniform(0.3, 0.9), width / 2
    parts = []
    solid = rng.random() < 0.25
    for side in (-1, 1):
        if solid:
            inner, outer = sorted((side * x, side * (x + 0.08)))
            parts.append(box((inner, front, seat - 0.1), (outer, depth / 2, high), colour))
            continue
        parts.append(rod((side * x, front, seat - 0.02), (side * x, front, high), radius, colour))
        parts.append(
            box(
                (side * x - 1.6 * radius, front - 0.03, high), (side * x + 1.6 * radius, depth / 2, high + 0.02), colour
            )
        )
    return parts


def table(rng: Generator) -> ColouredMesh:
    """A table: a top, and legs, a pedestal, trestles or panels below it; at times a shelf or drawers."""
    width, depth = rng.uniform(0.7, 1.6), rng.uniform(0.5, 0.95)
    height, thick = rng.uniform(0.35, 0.80), rng.uniform(0.02, 0.07)
    frame = material(rng)
    surface = frame if rng.random() < 0.4 else material(rng)
    shape = rng.choice(("square", "rounded", "oval", "round"), p=(0.5, 0.15, 0.15, 0.2))
    if shape == "round":
        width = depth = rng.uniform(0.6, 1.1)
    if shape == "square":
        top = box((-width / 2, -depth / 2, height - thick), (width / 2, depth / 2, height), surface)
    else:
        top = prism(oval(width, depth, power=5.0 if shape == "rounded" else 2.0), height - thick, height, surface)
    under = height - thick
    reach = 0.68 if shape in ("oval", "round") else rng.uniform(0.82, 0.95)
    x, y = width / 2 * reach, depth / 2 * reach
    parts = [top]
    kind = rng.choice(("four", "pedestal", "trestle", "panels"), p=(0.55, 0.2, 0.13, 0.12))
    if kind == "pedestal":
        base = min(width, depth) / 2 * rng.uniform(0.5, 0.8)
        column = rng.uniform(0.03, 0.09)
        flare = rng.uniform(1.0, 2.0)
        profile = (
            (0, 0),
            (base, 0),
            (base, 0.02),
            (column * flare, 0.06),
            (column, under * 0.5),
            (column * flare, under),
            (0, under),
        )
        parts.append(revolved(profile, frame))
    elif kind == "trestle":
        for side in (-1, 1):
            parts.append(box((side * x - 0.03, -y, 0), (side * x + 0.03, y, 0.05), frame))
            parts.append(box((side * x - 0.03, -0.06, 0.05), (side * x + 0.03, 0.06, under), frame))
        parts.append(box((-x, -0.02, under * 0.3), (x, 0.02, under * 0.45), frame))
    elif kind == "panels":
        plate = rng.uniform(0.02, 0.06)
        parts += [box((side * x - plate / 2, -y, 0), (side * x + plate / 2, y, under), frame) for side in (-1, 1)]
    else:
        radius = rng.uniform(0.018, 0.05)
        parts += _four_legs(rng, x, y, under, radius, rng.uniform(0.9, 1.15), rng.uniform(0.5, 1.0), frame)
        if rng.random() < 0.4:
            rim = rng.uniform(0.04, 0.12)
            parts.append(box((-x, -y, under - rim), (x, y, under), frame))
    if kind in ("four", "panels") and rng.random() < 0.25:
        level = under * rng.uniform(0.15, 0.45)
        parts.append(box((-x, -y, level), (x, y, level + 0.02), surface))
    return ColouredMesh.joined(parts)


def mug(rng: Generator) -> ColouredMesh:
    """A mug with its handle at +x: wall, floor and handle have thickness."""
    height, radius = rng.uniform(0.7, 1.5), 0.5
    wall = rng.uniform(0.03, 0.07)
    foot, belly = rng.uniform(0.65, 1.05), rng.uniform(-0.12, 0.16)
    outside, inside = material(rng, wood=0.05, metal=0.1), material(rng, wood=0.0, metal=0.05)
    if rng.random() < 0.5:
        inside = outside
    z = np.linspace(0, 1, 13)
    outer = radius * (foot + (1 - foot) * z + belly * np.sin(np.pi * z))
    shell = [(0.0, 0.0), *zip(outer, z * height, strict=True)]
    hollow = [(r - wall, max(h, wall)) for r, h in zip(outer[::-1], z[::-1] * height, strict=True)]
    parts = [revolved(shell, outside, sides=48), revolved([shell[-1], *hollow, (0.0, wall)], inside, sides=48)]
    if rng.random() < 0.5:  # a band of another colour
        low, high = sorted(rng.uniform(0.1, 0.9, 2))
        band = [(np.interp(t, z, outer) + 0.006, t * height) for t in np.linspace(low, high, 6)]
        parts.append(revolved(band, material(rng, wood=0.0, metal=0.0), sides=48))
    if rng.random() < 0.93:
        reach, thick = rng.uniform(0.2, 0.42), rng.uniform(0.035, 0.075)
        top, bottom = rng.uniform(0.75, 0.92) * height, rng.uniform(0.12, 0.35) * height
        power = rng.uniform(1.4, 4.0)
        angle = np.linspace(-np.pi / 2, np.pi / 2, 17)
        out = np.abs(np.cos(angle)) ** (2 / power) * reach
        up = np.sign(np.sin(angle)) * np.abs(np.sin(angle)) ** (2 / power)
        level = (top + bottom) / 2 + up * (top - bottom) / 2
        path = np.column_stack((np.interp(level / height, z, outer) - wall / 2 + out, np.zeros(17), level))
        parts.append(
            tube(path, np.column_stack((np.full(17, thick * rng.uniform(0.8, 1.6)), np.full(17, thick))), outside)
        )
    return ColouredMesh.joined(parts)


_GLASS, _RUBBER = (0.10, 0.13, 0.17), (0.06, 0.06, 0.07)
#: Of each kind of car: length, height of the body, of the roof, and where bonnet, windscreen, roof and rear window end,
#: as shares of the length from the front.
_CARS = {
    "saloon": (4.5, 0.75, 1.42, 0.27, 0.42, 0.68, 0.84),
    "hatchback": (3.9, 0.78, 1.46, 0.24, 0.40, 0.84, 0.97),
    "estate": (4.6, 0.76, 1.48, 0.26, 0.40, 0.90, 0.98),
    "van": (4.8, 0.90, 1.95, 0.10, 0.24, 0.95, 0.99),
    "sports": (4.3, 0.64, 1.18, 0.36, 0.52, 0.66, 0.92),
    "jeep": (4.2, 0.95, 1.75, 0.28, 0.36, 0.94, 0.98),
    "pickup": (5.0, 0.85, 1.65, 0.26, 0.37, 0.55, 0.60),
}


def car(rng: Generator) -> ColouredMesh:
    """A car of one of seven kinds: a body, a cabin with windows, four wheels, lights, at times a wing or a rack."""
    kind = str(rng.choice(tuple(_CARS)))
    length, belt, roof, bonnet, screen, top_end, rear = (v * rng.uniform(0.94, 1.06) for v in _CARS[kind])
    rear, top_end = min(rear, 0.99), min(top_end, rear - 0.01, 0.97)
    width = rng.uniform(1.65, 1.95)
    paint = material(rng, wood=0.0, metal=0.35)
    wheel = rng.uniform(0.29, 0.36) * (1.18 if kind in ("jeep", "pickup") else 1.0)
    floor = wheel * rng.uniform(0.55, 0.85)

    def y(share: float) -> float:
        return (share - 0.5) * length

    nose, boot = belt * rng.uniform(0.80, 0.95), belt * rng.uniform(0.92, 1.02)
    stations = np.array((0.0, 0.03, bonnet, screen, rear, 0.97, 1.0))
    upper = np.array((nose * 0.7, nose, belt * 0.97, belt, boot, boot, boot * 0.85))
    half = width / 2 * np.array((0.82, 0.92, 0.98, 1.0, 1.0, 0.93, 0.85))
    parts = [_hull([y(s) for s in stations], half, np.full(7, floor), upper, paint)]
    if kind == "pickup":
        parts.append(_bed(y(rear + 0.03), y(0.96), width, belt))
    parts += _cabin(rng, y(bonnet), y(screen), y(top_end), y(rear), width, belt * 0.97, roof, paint)
    track = width / 2 - 0.05
    axles = (y(rng.uniform(0.15, 0.20)), y(rng.uniform(0.78, 0.84)))
    rim = material(rng, wood=0.0, metal=0.9)
    for side in (-1, 1):
        for at in axles:
            parts.append(_wheel((side * track, at, wheel), wheel, 0.11, rim))
    for side in (-1, 1):  # lights
        x = side * width * 0.33
        low = nose * 0.75
        parts.append(box((x - 0.14, y(0.0) - 0.01, low), (x + 0.14, y(0.02), low + 0.12), (0.95, 0.93, 0.80)))
        parts.append(box((x - 0.12, y(0.98), boot * 0.68), (x + 0.12, y(1.0) + 0.01, boot * 0.82), (0.75, 0.06, 0.05)))
    if kind == "sports" and rng.random() < 0.6:
        parts.append(box((-width * 0.42, y(0.93), boot + 0.14), (width * 0.42, y(0.99), boot + 0.18), paint))
        parts += [
            rod((s * width * 0.3, y(0.96), boot - 0.05), (s * width * 0.3, y(0.96), boot + 0.15), 0.03, paint)
            for s in (-1, 1)
        ]
    if kind in ("estate", "jeep", "van") and rng.random() < 0.4:
        parts += [
            rod(
                (s * width * 0.3, y(screen + 0.1), roof + 0.06),
                (s * width * 0.3, y(top_end - 0.05), roof + 0.06),
                0.03,
                _RUBBER,
            )
            for s in (-1, 1)
        ]
    return ColouredMesh.joined(parts)


def _hull(ys: list[float], half: Floats, low: Floats, high: Floats, colour: Colour) -> ColouredMesh:
    """A body through rectangles at the stations ``ys``, with bevelled upper edges."""
    rows = []
    for at, w, z0, z1 in zip(ys, half, low, high, strict=True):
        bevel = 0.22 * (z1 - z0)
        outline = ((-w, z0), (w, z0), (w * 1.0, z1 - bevel), (w * 0.90, z1), (-w * 0.90, z1), (-w * 1.0, z1 - bevel))
        rows.append([(x, at, z) for x, z in outline])
    sides = len(rows[0])
    a = np.arange(sides)
    b = (a + 1) % sides
    faces = []
    for row in range(len(rows) - 1):
        here, there = row * sides, (row + 1) * sides
        faces += [np.column_stack((a + here, a + there, b + here)), np.column_stack((b + here, a + there, b + there))]
    fan = np.column_stack((np.zeros(sides - 2, int), np.arange(1, sides - 1), np.arange(2, sides)))
    end = (len(rows) - 1) * sides
    return mesh(np.array(rows).reshape(-1, 3), np.concatenate((*faces, fan, fan[:, ::-1] + end)), colour)


def _cabin(
    rng: Generator, front: float, screen: float, end: float, rear: float, width: float, low: float, roof: float,
    paint: Colour,
) -> list[ColouredMesh]:  # fmt: skip
    """A frustum of glass, pillars at its edges, and a painted roof on it."""
    wide, narrow = width / 2 * 0.90, width / 2 * rng.uniform(0.66, 0.80)
    thick = 0.07

    def frustum(z0: float, z1: float, grow: float, colour: Colour) -> ColouredMesh:
        at0, at1 = (z0 - low) / (roof - low), (z1 - low) / (roof - low)
        corners = []
        for share, z in ((at0, z0), (at1, z1)):
            x = wide + (narrow - wide) * share + grow
            y0, y1 = front + (screen - front) * share - grow, rear + (end - rear) * share + grow
            corners += [(sx * x, yy, z) for yy in (y0, y1) for sx in (-1, 1)]
        return hexahedron(corners, colour)

    parts = [frustum(low, roof - thick / 2, 0.0, _GLASS), frustum(roof - thick, roof, 0.012, paint)]
    for share in (0.0, 0.5, 1.0):  # pillars
        for side in (-1, 1):
            lower = (side * wide, front + (rear - front) * share, low)
            upper = (side * narrow, screen + (end - screen) * share, roof - thick)
            parts.append(rod(lower, upper, 0.045, paint, sides=6))
    return parts


def _bed(front: float, back: float, width: float, high: float) -> ColouredMesh:
    return box((-width * 0.40, front, high - 0.02), (width * 0.40, back, high + 0.03), _RUBBER)


def _wheel(middle: tuple[float, float, float], radius: float, half: float, rim: Colour) -> ColouredMesh:
    tyre = revolved(
        (
            (0, -half),
            (radius * 0.9, -half),
            (radius, -half * 0.6),
            (radius, half * 0.6),
            (radius * 0.9, half),
            (0, half),
        ),
        _RUBBER,
        sides=24,
    )
    disc = revolved(
        ((0, -half * 1.1), (radius * 0.58, -half * 1.1), (radius * 0.58, half * 1.1), (0, half * 1.1)), rim, sides=16
    )
    lying = np.array(((0.0, 0, 1), (0, 1, 0), (-1, 0, 0)))  # the axle along x
    return ColouredMesh.joined((tyre, disc)).moved(lying, middle)


def plane(rng: Generator) -> ColouredMesh:
    """A plane: a fuselage, two wings, a tail, and engines below the wings, at the tail, in the nose or none."""
    length = 1.0
    girth = rng.uniform(0.045, 0.085)
    kind = str(rng.choice(("airliner", "jet", "propeller", "glider"), p=(0.45, 0.25, 0.22, 0.08)))
    if kind in ("propeller", "glider"):
        girth = rng.uniform(0.05, 0.08)
    hull = material(rng, wood=0.0, metal=0.6)
    accent = material(rng, wood=0.0, metal=0.0)
    share = np.linspace(0, 1, 17)
    nose, tail = rng.uniform(0.08, 0.22), rng.uniform(0.3, 0.5)
    radius = girth * np.minimum(np.minimum((share / nose + 0.02) ** 0.55, 1), ((1 - share) / tail + 0.06) ** 0.8)
    rise = girth * 0.7 * np.clip((share - (1 - tail)) / tail, 0, 1) ** 1.5
    path = np.column_stack((np.zeros(17), (share - 0.5) * length, rise))
    parts = [tube(path, np.column_stack((radius, radius * rng.uniform(0.95, 1.2))), hull, sides=20)]

    span = {"airliner": 1.0, "jet": 0.62, "propeller": 1.05, "glider": 1.5}[kind] * rng.uniform(0.85, 1.15)
    sweep = math.tan(
        math.radians({"airliner": 30, "jet": 45, "propeller": 3, "glider": 2}[kind] * rng.uniform(0.7, 1.2))
    )
    chord = {"airliner": 0.17, "jet": 0.30, "propeller": 0.16, "glider": 0.08}[kind] * rng.uniform(0.85, 1.2)
    thin = {"airliner": 0.35, "jet": 0.25, "propeller": 0.8, "glider": 0.6}[kind] * rng.uniform(0.8, 1.2)
    high = rng.random() < (0.7 if kind == "propeller" else 0.15)
    root = (rng.uniform(0.30, 0.42) - 0.5) * length
    level = girth * (0.75 if high else -0.55)
    dihedral = math.tan(math.radians(rng.uniform(-2, 8)))
    wing_colour = hull if rng.random() < 0.6 else accent
    for side in (-1, 1):
        parts.append(_wing(side, 0.0, root, level, span / 2, chord, chord * thin, sweep, dihedral, wing_colour))
    parts += _tail(rng, length, girth, chord, sweep, accent if rng.random() < 0.6 else hull, hull)
    parts += _engines(rng, kind, length, girth, span, root, chord, sweep, level, dihedral, accent)
    parts.append(_cockpit(kind, girth, nose))
    return ColouredMesh.joined(parts)


def _wing(
    side: int, start: float, front: float, level: float, reach: float, chord: float, tip: float, sweep: float,
    dihedral: float, colour: Colour,
) -> ColouredMesh:  # fmt: skip
    """A flat wing from x = start outwards, with its leading edge at y = front where it begins."""
    corners = []
    for z in (-0.5, 0.5):
        for back in (0.0, 1.0):
            for out in (0.0, 1.0):
                width = chord + (tip - chord) * out
                x = side * (start + reach * out)
                y = front + sweep * reach * out + width * back
                thick = 0.11 * width * (0.35 if back else 1.0)
                corners.append((x, y, level + dihedral * reach * out + z * thick))
    wing = hexahedron(corners, colour)
    return wing if side > 0 else ColouredMesh(wing.vertices, wing.faces[:, ::-1], wing.colours)


def _tail(
    rng: Generator, length: float, girth: float, chord: float, sweep: float, fin_colour: Colour, colour: Colour
) -> list[ColouredMesh]:
    height, base = rng.uniform(0.12, 0.22), rng.uniform(0.10, 0.16)
    front = length / 2 - base * rng.uniform(1.0, 1.3)
    lean = max(sweep, 0.3) * rng.uniform(0.8, 1.2)
    tip = base * rng.uniform(0.4, 0.7)
    low, thick = girth * 0.5, 0.008
    corners = [
        (x * thick, front + lean * height * up + (base + (tip - base) * up) * back, low + height * up)
        for up in (0.0, 1.0)
        for back in (0.0, 1.0)
        for x in (-1, 1)
    ]
    raised = rng.random() < 0.3
    level = low + height * (0.95 if raised else 0.1)
    at = front + (lean * height * 0.9 if raised else base * 0.3)
    span, width = rng.uniform(0.14, 0.22), base * rng.uniform(0.6, 0.8)
    return [
        hexahedron(corners, fin_colour),
        *(_wing(s, 0.0, at, level, span, width, width * 0.6, sweep, 0.03, colour) for s in (-1, 1)),
    ]


def _engines(
    rng: Generator, kind: str, length: float, girth: float, span: float, root: float, chord: float, sweep: float,
    level: float, dihedral: float, accent: Colour,
) -> list[ColouredMesh]:  # fmt: skip
    grey = (0.55, 0.56, 0.58)
    parts: list[ColouredMesh] = []
    if kind == "propeller":
        spin, blade = rng.uniform(0, math.pi), rng.uniform(0.10, 0.15)
        for turn in np.arange(int(rng.integers(2, 4))) * 2 * math.pi / 3 + spin:
            tip = (blade * math.cos(turn), -length / 2 - 0.012, blade * math.sin(turn))
            parts.append(rod((0, -length / 2 - 0.012, 0), tip, 0.012, _RUBBER, thin=0.6))
        parts.append(rod((0, -length / 2 - 0.03, 0), (0, -length / 2 + 0.02, 0), 0.018, accent))
    elif kind == "airliner":
        size = rng.uniform(0.020, 0.032)
        rear = rng.random() < 0.25
        places = [(girth + size, 0.22 * length, girth * 0.6)] if rear else []
        for share in () if rear else ((0.33,) if rng.random() < 0.7 else (0.28, 0.55)):
            out = span / 2 * share
            places.append((out, root + sweep * out - 0.02, level + dihedral * out - size * 1.3))
        for x, y, z in places:
            for side in (-1, 1):
                line = np.array(((side * x, y - 0.05, z), (side * x, y, z), (side * x, y + 0.07, z)))
                parts.append(tube(line, np.array((size * 0.9, size, size * 0.6)), grey, sides=14))
    elif kind == "jet":
        line = np.array(((0.0, 0.42 * length, 0), (0.0, 0.53 * length, 0)))
        parts.append(tube(line, np.array((girth * 0.7, girth * 0.5)), grey, sides=14))
    return parts


def _cockpit(kind: str, girth: float, nose: float) -> ColouredMesh:
    """A dark canopy, or the windows of an airliner's cockpit."""
    at = -0.5 + nose * (0.55 if kind == "airliner" else 1.3)
    long = 0.05 if kind == "airliner" else 0.16
    line = np.array(((0, at, girth * 0.45), (0, at + long * 0.4, girth * 0.7), (0, at + long, girth * 0.6)))
    return tube(line, np.array((0.3, 0.62, 0.3)) * girth, _GLASS, sides=12)


#: How each category is made.
CATEGORIES: dict[str, Callable[[Generator], ColouredMesh]] = dict(
    zip(NAMES, (chair, table, car, plane, mug), strict=True)
)


def instance(category: str, split: str, number: int, seed: int = 0) -> ColouredMesh:
    """Object ``number`` of a category in a split, normalised: bounding box about the origin, its diagonal 1, z up.

    It depends on the seed, the split, the category and its number only.

    Raises:
        KeyError: there is no such category.
        ValueError: there is no such split.
    """
    make = CATEGORIES[category]
    made = make(Generator(Philox(SeedSequence((seed, SPLITS.index(split), NAMES.index(category), number)))))
    if not np.isfinite(made.vertices).all():
        raise AssertionError(f"{category} {number} of {split} has vertices that are not finite")
    return made.normalised()
