"""Cars and planes: parametric, each a kind of body with sizes, details and colours of its own; both look along −y."""

from __future__ import annotations

import math

import numpy as np
from numpy.random import Generator

from recon_object_views.furniture import material
from recon_object_views.solids import Colour, ColouredMesh, Floats, box, hexahedron, mesh, revolved, rod, tube

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
