"""A scene as text: JSON for the page's script, 16-bit grids and coordinates, and images as data URIs."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator, Philox
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from recon_toolkit.errors import DataError
from recon_toolkit.io.maps import to_bytes
from recon_toolkit.shapes.surface import resizing_matrix
from recon_toolkit.viewer.scene import ShapeScene, ViewerScene

#: Depth maps up to this size get a vertex between every two pixels, so that curves look like curves.
REFINED_UP_TO = 96
#: Longest side of the grid: more would make slow pages of more than a megabyte.
LARGEST = 384
STEPS = 65535


@dataclass(frozen=True)
class DepthGrid:
    """A grid of vertices: depths in steps between the nearest and the furthest, and where the surface ends."""

    near: float
    far: float
    steps: NDArray[np.uint16]  # (H, W): depth = near + (far − near) · steps / STEPS
    levels: NDArray[np.int8] | None  # (H, W), above 0 inside the outline, which passes between; None: all inside
    step: int  # vertices from one pixel of the model's depth map to the next

    @property
    def drawn(self) -> NDArray[np.bool_]:
        """The vertices inside the outline, (H, W)."""
        return np.ones(self.steps.shape, dtype=bool) if self.levels is None else self.levels > 0

    def depths(self) -> NDArray[np.float64]:
        """The depths that the page sees, (H, W). Beyond the outline they are the surface continued, or nothing."""
        return self.near + (self.far - self.near) * self.steps / STEPS


def depth_grid(depth: Tensor, mask: Tensor) -> DepthGrid:
    """What is drawn of a depth map, within half of a step, (far − near) / 65535 / 2.

    Args:
        depth: (H, W); what is not finite or not positive is not drawn. Both sides need at least three pixels.
        mask: (H, W) bool, what to draw, to the outer edge of its outermost pixels, with its steps smoothed: a hole of
            one pixel closes, filled with the nearest depth. Depths beyond it mean nothing. Or floats in [0, 1],
            where the outline runs at 0.5 through depths that are all the object's, but for those not finite.

    Raises:
        DataError: nothing is left to draw.
        ValueError: the shapes are wrong.
    """
    from scipy.ndimage import maximum_filter

    from recon_toolkit.shapes.mesh import extended, outline

    if depth.ndim != 2 or depth.shape != mask.shape or min(depth.shape) < 3:
        raise ValueError(
            f"expected depth and mask of one shape (H, W) from 3 × 3, got {tuple(depth.shape)}, {tuple(mask.shape)}"
        )
    # NumPy, because small tensors would wait for each other's threads on a busy machine.
    values, soft = (tensor.detach().double().cpu().numpy() for tensor in (depth, mask))
    good = np.isfinite(values) & (values > 0)
    inside = good & (soft > 0.5)
    if not inside.any():
        raise DataError("the mask leaves nothing of the surface to show", remedy="use a larger mask")
    longest = max(values.shape)
    step = 2 if longest <= REFINED_UP_TO else 1
    scale = min(step, (LARGEST - 1) / (longest - 1))
    size = (round((values.shape[0] - 1) * scale) + 1, round((values.shape[1] - 1) * scale) + 1)
    smooth = mask.is_floating_point()
    fine = 1 / _resized(1 / extended(values, good if smooth else inside), size)  # in 1/z, a plane is linear
    levels = None
    used = np.ones(size, dtype=bool)
    if not inside.all():
        field = _resized(np.where(good, soft - 0.5, -0.5) if smooth else outline(inside), size)
        levels = np.clip(np.rint(field * 254), -127, 127).astype(np.int8)
        used = maximum_filter(levels, 3) > 0  # with the outer corners of cut triangles
    near, far = float(fine[used].min()), float(fine[used].max())
    steps = np.rint((np.clip(fine, near, far) - near) / max(far - near, 1e-12) * STEPS).astype(np.uint16)
    return DepthGrid(near, far, steps, levels, step)


def _resized(values: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
    """A map (H, W) at another size, corner on corner."""
    rows, columns = (resizing_matrix(count, wanted).numpy() for count, wanted in zip(values.shape, size, strict=True))
    # A plain loop: a product this small is sooner done than shared among threads.
    fine: NDArray[np.float64] = np.einsum("vj,uj->vu", np.einsum("vi,ij->vj", rows, values), columns)
    return fine


JPEG_QUALITY = 92


def scene_json(scene: ViewerScene) -> str:
    """What the page's script needs of a scene, safe inside a ``script`` element.

    Raises:
        DataError: the mask leaves nothing to show.
        ValueError: a tensor has the wrong shape.
    """
    grid = depth_grid(scene.depth, scene.mask)
    height, width = grid.steps.shape
    content: dict[str, Any] = {
        "name": scene.name,
        "width": width,
        "height": height,
        "step": grid.step,
        "fov": scene.camera.fov,
        "depth": {"near": grid.near, "far": grid.far, "data": base64_text(grid.steps.astype("<u2").tobytes())},
        "levels": None if grid.levels is None else base64_text(grid.levels.tobytes()),
        "light": _numbers(scene.light),
        "view": _numbers(scene.view),
    }
    content |= {name: image_uri(image) for name, image in scene.pictures.items()}
    return script_text(json.dumps(content, allow_nan=False, separators=(",", ":")))


def script_text(text: str) -> str:
    """JSON made safe inside a ``script`` element: "</script>" or "<!--" in a name would end it or hide its end."""
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def image_uri(image: Tensor) -> str:
    """A picture (3 | 1, H, W) in [0, 1] as a data URI: PNG, or JPEG of high quality where that is smaller."""
    pixels = to_bytes(image)
    picture = Image.fromarray(pixels[..., 0] if image.shape[0] == 1 else pixels)
    png, jpeg = io.BytesIO(), io.BytesIO()
    picture.save(png, format="PNG")
    picture.save(jpeg, format="JPEG", quality=JPEG_QUALITY, subsampling=0)
    if len(png.getvalue()) <= len(jpeg.getvalue()):
        return data_uri(png.getvalue(), "image/png")
    return data_uri(jpeg.getvalue(), "image/jpeg")


def data_uri(content: bytes, kind: str) -> str:
    """Bytes of a MIME type as a ``data:`` URI."""
    return f"data:{kind};base64,{base64_text(content)}"


def base64_text(content: bytes) -> str:
    """Bytes as text."""
    return base64.b64encode(content).decode("ascii")


def _numbers(values: Tensor | None) -> list[float] | None:
    return None if values is None else [float(value) for value in values.detach().cpu()]


#: Points of one shape. With as many vertices, and so twice the faces, they are about 2.2 MB of the page.
MOST = 60_000
#: Points of all shapes of a page together, and what a shape gets however many there are.
MOST_OF_PAGE, LEAST = 120_000, 6_000
#: A closed mesh has about two faces for each vertex.
FACES = 2
#: Vertices are joined in this many cells along the longest side at first, where a mesh has too many faces.
CELLS = 512


@dataclass(frozen=True)
class ShownShape:
    """A shape thinned out to what the page draws, in float64, and in which frame."""

    points: NDArray[np.float64]  # (N, 3)
    normals: NDArray[np.float64] | None  # (N, 3) of length 1, or 0 where there is none
    vertices: NDArray[np.float64]  # (V, 3)
    faces: NDArray[np.int64]  # (F, 3)
    centre: NDArray[np.float64]  # (3,) what the page turns it about
    radius: float  # of what the page shows at first, about the centre
    facts: list[tuple[str, str]]  # what was left out


def share(shapes: int) -> int:
    """How many points each of a page's shapes may have, by their number."""
    return max(LEAST, min(MOST, MOST_OF_PAGE // max(1, shapes)))


def shown_shape(scene: ShapeScene, most: int = MOST) -> ShownShape:
    """What is drawn of a shape: at most ``most`` points (:func:`chosen`) and twice the faces (:func:`coarser`)."""
    index = chosen(len(scene.points), most)
    points, normals = np.asarray(scene.points, dtype=np.float64)[index], None
    facts = [] if len(index) == len(scene.points) else [_shown("Points", len(index), len(scene.points))]
    if scene.normals is not None:
        normals = np.asarray(scene.normals, dtype=np.float64)[index]
        length = np.linalg.norm(normals, axis=1, keepdims=True)
        normals = normals / np.where(length > 0, length, 1)
    vertices, faces = np.zeros((0, 3)), np.zeros((0, 3), dtype=np.int64)
    if scene.vertices is not None and scene.faces is not None and len(scene.faces):
        given = np.asarray(scene.faces, dtype=np.int64)
        used, flat = np.unique(given, return_inverse=True)
        vertices, faces = coarser(np.asarray(scene.vertices, dtype=np.float64)[used], flat.reshape(-1, 3), FACES * most)
        if len(faces) < len(given):
            facts.append(_shown("Faces", len(faces), len(given)))
    centre, radius = framing(np.concatenate((points, vertices)))
    return ShownShape(points, normals, vertices, faces, centre, radius, facts)


def chosen(count: int, most: int) -> NDArray[np.int64]:
    """Which of ``count`` points are shown: all, or ``most`` of them, in their order, the same at every call.

    Those with the smallest of the numbers that Philox with key 0 gives them in turn. Every k-th point would be
    rows or columns where the points come from a grid.
    """
    if count <= most:
        return np.arange(count)
    drawn = Generator(Philox(key=0)).random(count)
    return np.sort(np.argsort(drawn, kind="stable")[:most])


def coarser(
    vertices: NDArray[np.float64], faces: NDArray[np.int64], most: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """A mesh with at most ``most`` faces: itself, or with all vertices in a cell of a grid joined at their mean.

    Rossignac and Borrel 1993, *Multi-resolution 3D approximations for rendering complex scenes*. The grid's cells are
    as small as they can be, within a tenth.
    """
    cells, low = CELLS, vertices.min(0)
    size = max(float((vertices.max(0) - low).max()), 1e-12)
    joined, kept = vertices, faces
    while len(kept) > most:
        cell = np.minimum(((vertices - low) / size * cells).astype(np.int64), cells - 1)
        _, of, count = np.unique(cell @ (1, cells, cells**2), return_inverse=True, return_counts=True)
        of = of.reshape(-1)
        joined = np.stack([np.bincount(of, weights=axis) for axis in vertices.T], axis=1) / count[:, None]
        kept = of[faces]
        kept = kept[(kept != np.roll(kept, 1, axis=1)).all(axis=1)]
        first = kept.argmin(axis=1)[:, None]  # faces that have become one begin with the same corner
        kept = np.unique(np.take_along_axis(kept, (first + np.arange(3)) % 3, axis=1), axis=0)
        cells = int(cells * min(0.9, max(0.5, (most / max(1, len(kept))) ** 0.5)))
    return joined, kept


def framing(places: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Middle (3,) and radius of what to look at: all of the places (N, 3) but for a few that lie far out.

    The middle is that of a box that a fifth of a percent lies beyond on each side; the radius reaches the furthest,
    but not beyond 5/4 of what holds 99 %. Models leave single points anywhere, which would make the object small.
    """
    low, high = np.quantile(places, (0.002, 0.998), axis=0)
    centre = (low + high) / 2
    away = np.linalg.norm(places - centre, axis=1)
    return centre, max(1e-6, min(float(away.max()), 1.25 * float(np.quantile(away, 0.99))))


def shape_json(name: str, shown: ShownShape) -> str:
    """What the page's script needs of a shape, safe inside a ``script`` element.

    Coordinates are steps of the common bounding box, ``low + (high − low) · steps / 65535``, unsigned 16 bits; corners
    of faces are unsigned 16 bits, or 32 where there are more vertices; normals are signed bytes, ``127 n``. All are
    little-endian, in rows of three, in base64.
    """
    together = np.concatenate((shown.points, shown.vertices))
    low, high = together.min(0), together.max(0)

    def steps(places: NDArray[np.float64]) -> str:
        scaled = (places - low) / np.where(high > low, high - low, 1) * STEPS
        return base64_text(np.rint(scaled).astype("<u2").tobytes())

    content: dict[str, Any] = {
        "kind": "shape",
        "name": name,
        "low": low.tolist(),
        "high": high.tolist(),
        "centre": shown.centre.tolist(),
        "radius": shown.radius,
        "points": None,
        "surface": None,
    }
    if len(shown.points):
        signed = None if shown.normals is None else np.rint(shown.normals * 127).astype(np.int8)
        normals = None if signed is None else base64_text(signed.tobytes())
        content["points"] = {"data": steps(shown.points), "normals": normals}
    if len(shown.faces):
        bits = 16 if len(shown.vertices) <= 65536 else 32
        corners = shown.faces.astype("<u2" if bits == 16 else "<u4")
        content["surface"] = {
            "data": steps(shown.vertices),
            "bits": bits,
            "faces": base64_text(corners.tobytes()),
        }
    return script_text(json.dumps(content, allow_nan=False, separators=(",", ":")))


def _shown(label: str, count: int, of: int) -> tuple[str, str]:
    return f"{label} on this page", f"{count:,} of {of:,}"
