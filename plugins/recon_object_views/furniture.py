"""Chairs, tables and mugs: parametric, each a choice of kinds of parts with sizes and materials of their own."""

from __future__ import annotations

import colorsys
import math
from itertools import pairwise

import numpy as np
from numpy.random import Generator

from recon_object_views.solids import Colour, ColouredMesh, box, hexahedron, mesh, oval, prism, revolved, rod, tube

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
