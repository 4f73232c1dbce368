"""The surface of a reconstruction, at any size: smooth stays smooth, planes stay planes, edges stay sharp."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from recon_toolkit.errors import DataError
from recon_toolkit.geometry.camera import Camera, normals_from_depth
from recon_toolkit.structures import Reconstruction

#: Columns at either side of a canonical depth map that may hold a fixed depth, in models after Wu et al.
BORDER = 2


def object_mask(depth: Tensor, *, border: int = BORDER) -> Tensor:
    """What to keep of canonical depth (..., H, W): all but ``border`` columns at either side, bool.

    Those hold a fixed depth in models after Wu et al., and would stand as walls beside the object.
    """
    mask = torch.ones_like(depth, dtype=torch.bool)
    mask[..., :border] = mask[..., depth.shape[-1] - border :] = False
    return mask


class Surface(NamedTuple):
    """The object's surface in its own frame, or in the input view, on the CPU."""

    depth: Tensor  # (H, W)
    mask: Tensor  # (H, W) bool
    outlined: bool  # the mask ends at the object; otherwise a rim of background may be inside


def surface_of(found: Reconstruction) -> Surface:
    """The surface of a reconstruction.

    Args:
        found: a batch of one.

    Raises:
        DataError: there is no depth, or nothing of it inside the mask.
    """
    if found.canonical_depth is not None:
        depth = found.canonical_depth[0].detach().cpu()
        mask = object_mask(depth)
        outlined = found.canonical_mask is not None
        if found.canonical_mask is not None:
            mask &= found.canonical_mask[0].cpu()
    elif found.depth is not None:
        depth = found.depth[0].detach().cpu()
        mask = torch.ones_like(depth, dtype=torch.bool) if found.mask is None else found.mask[0].cpu()
        outlined = False
    else:
        raise DataError("the model predicts no depth, so there is no surface", remedy="use one that does")
    if not mask.any():
        raise DataError("the model sees no object here", remedy="check that it fills the picture")
    return Surface(depth, mask, outlined)


REACH = 3  # pixels beyond the object's edge to which its surface is continued
SPREAD = 1.5  # pixels; how fast the weight of what is continued falls with distance


def resized_maps(found: Reconstruction, size: int, *, camera: Camera | None = None) -> Reconstruction:
    """Every map of a reconstruction at ``size`` × ``size`` pixels, with corners on corners (``align_corners=True``).

    Enlarging interpolates bicubically, reducing averages. Depth is interpolated as 1/z, in which a plane is linear,
    and neither side of the mask's edge takes part in the other. Colours stay in [0, 1], shading at 0 or above,
    confidence within its own range. Light and view are as they were.

    Args:
        found: any number of images.
        size: the new height and width, 2 or more.
        camera: of the depth maps; normals are then made anew from depth, which gives the outermost pixels and both
            sides of the mask's edge their own. Without it they are interpolated.

    Raises:
        ValueError: ``size`` is below 2.
    """
    mask = found.mask
    inside = None if mask is None else resized_mask(mask, size)
    nearest = None if mask is None else (nearest_known(mask), nearest_known(~mask))

    def split(values: Tensor | None, low: float, high: float) -> Tensor | None:
        """A map (B, C, H, W) of the input view; what lies outside the mask means nothing and stays outside."""
        if values is None or inside is None or nearest is None:
            return _within(values, size, low, high)
        own, behind = (resized(_taken(values, index), size).clamp(low, high) for index in nearest)
        return torch.where(inside[:, None], own, behind)

    normals, canonical_normals = found.normals, found.canonical_normals
    if normals is not None:
        if camera is not None and found.depth is not None:
            outline = torch.ones_like(found.depth, dtype=torch.bool) if mask is None else mask
            normals = surface_normals(found.depth, outline, size, camera)
        else:
            normals = _unit(split(normals, -1.0, 1.0))
    if canonical_normals is not None:
        if camera is not None and found.canonical_depth is not None:
            outline = inner_columns(found.canonical_depth)
            canonical_normals = surface_normals(found.canonical_depth, outline, size, camera)
        else:
            canonical_normals = _unit(_within(canonical_normals, size, -1.0, 1.0))
    depth, canonical_depth = found.depth, found.canonical_depth
    if depth is not None:
        depth = resized_depth(depth, size, mask=mask)
    if canonical_depth is not None:
        canonical_depth = resized_depth(canonical_depth, size, mask=inner_columns(canonical_depth))
    spread = found.confidence
    if spread is not None:
        spread = _within(spread, size, float(spread.min()), float(spread.max()))
    return replace(
        found,
        image=resized(found.image, size).clamp(0, 1),
        depth=depth,
        mask=inside,
        normals=normals,
        albedo=split(found.albedo, 0.0, 1.0),
        shading=split(found.shading, 0.0, torch.inf),
        reconstruction=split(found.reconstruction, 0.0, 1.0),
        canonical_depth=canonical_depth,
        canonical_albedo=_within(found.canonical_albedo, size, 0.0, 1.0),
        canonical_normals=canonical_normals,
        canonical_shading=_within(found.canonical_shading, size, 0.0, torch.inf),
        canonical_image=_within(found.canonical_image, size, 0.0, 1.0),
        confidence=spread,
    )


def resized(values: Tensor, size: int) -> Tensor:
    """Maps (..., H, W) at (..., size, size): bicubic (Catmull-Rom) to enlarge, averaged to reduce; not clamped.

    A map that is linear in the pixels stays so, up to its borders. ``align_corners=True``.

    Raises:
        ValueError: ``size`` is below 2.
    """
    height, width = values.shape[-2:]
    rows, columns = (resizing_matrix(side, size).to(values) for side in (height, width))
    # Each product by one matrix on the right, which is one large product rather than many small ones.
    return ((values @ columns.T).mT @ rows.T).mT


@lru_cache(maxsize=32)
def resizing_matrix(count: int, size: int) -> Tensor:
    """The matrix (size, count), float64, that takes a row of ``count`` pixels to ``size``; shared, not to be written.

    Its rows sum to 1 and keep linear functions. Enlarging, they are Catmull-Rom weights, with the row continued
    smoothly beyond its ends; reducing, local linear regressions under a triangle that spans two new pixels.

    Raises:
        ValueError: ``size`` is below 2, or ``count`` below 1.
    """
    if size < 2 or count < 1:
        raise ValueError(f"a map has 2 or more pixels a side, not {size} (from {count})")
    if count == 1:
        return torch.ones(size, 1, dtype=torch.float64)
    places = torch.linspace(0, count - 1, size, dtype=torch.float64)
    if size < count:
        offsets = torch.arange(count, dtype=torch.float64) - places[:, None]
        weights = (1 - offsets.abs() * (size - 1) / (count - 1)).clamp(min=0)
        total, first, second = (weights.mul(offsets**power).sum(1, keepdim=True) for power in range(3))
        return weights * (second - first * offsets) / (total * second - first**2)
    start = places.floor().clamp(max=count - 2)
    t = places - start
    taps = (
        ((-t + 2) * t - 1) * t / 2,
        ((3 * t - 5) * t * t + 2) / 2,
        ((-3 * t + 4) * t + 1) * t / 2,
        (t - 1) * t * t / 2,
    )
    matrix = torch.zeros(size, count + 2, dtype=torch.float64)  # with one pixel more at either end
    for shift, weight in enumerate(taps):
        matrix.scatter_(1, (start.long() + shift)[:, None], weight[:, None])
    inner = matrix[:, 1:-1].clone()
    beyond = (3.0, -3.0, 1.0) if count > 2 else (2.0, -1.0)  # of the last pixels: a parabola (Keys 1981), or a line
    for step, factor in enumerate(beyond):
        inner[:, step] += factor * matrix[:, 0]
        inner[:, -1 - step] += factor * matrix[:, -1]
    return inner


def resized_depth(depth: Tensor, size: int, *, mask: Tensor | None = None) -> Tensor:
    """Depth (B, H, W) at (B, size, size), positive; with a mask (B, H, W), either side of its edge for itself.

    Planes stay planes. Depths that are not finite or not positive are filled in from around.
    """
    known = torch.ones_like(depth, dtype=torch.bool) if mask is None else mask.bool()
    surface = continued_surface(depth, known, size)
    if bool(known.all()):
        return surface
    return torch.where(resized_mask(known, size), surface, continued_surface(depth, ~known, size))


def continued_surface(depth: Tensor, mask: Tensor, size: int) -> Tensor:
    """The depth (B, H, W) of what lies in a mask (B, H, W) at (B, size, size), and continued smoothly beyond it."""
    return 1 / resized(_continued_disparity(depth, mask.bool()), size)


def resized_mask(mask: Tensor, size: int) -> Tensor:
    """A mask (B, H, W) bool at (B, size, size): enlarged, its steps are rounded off."""
    return mask.bool() if size == mask.shape[-1] == mask.shape[-2] else soft_mask(mask, size) >= 0.5


def soft_mask(mask: Tensor, size: int) -> Tensor:
    """A mask (B, H, W) as numbers (B, size, size) about [0, 1]; the outline is where they are 0.5."""
    soft = mask.float()
    if size > max(mask.shape[-2:]):
        kernel = soft.new_tensor([0.25, 0.5, 0.25])
        around = F.pad(soft[:, None], (1, 1, 1, 1), mode="replicate")
        soft = F.conv2d(around, kernel.outer(kernel)[None, None])[:, 0]
    return resized(soft, size)


def surface_normals(depth: Tensor, mask: Tensor, size: int, camera: Camera) -> Tensor:
    """Normals (B, 3, size, size) of the depth (B, H, W) of what lies in a mask (B, H, W), continued beyond it.

    Those of the depth map's own pixels, between which they are interpolated: a finer grid of differences would show
    the noise between pixels. Unlike :func:`~recon_toolkit.geometry.normals_from_depth` the outermost pixels have
    normals of their own.
    """
    disparity = _continued_disparity(depth, mask.bool())
    for side in (1, 2):  # one pixel more around, by a parabola
        disparity = disparity.movedim(side, 0)
        ends = (disparity[0], *disparity[1:3]), (disparity[-1], *disparity[-3:-1].flip(0))
        before, after = (3 * end - 3 * next_one + third for end, next_one, third in ends)
        disparity = torch.cat((before[None], disparity, after[None])).movedim(0, side)
    width = depth.shape[-1]
    wider = math.degrees(2 * math.atan((width + 1) / 2 / camera.focal_length(width)))
    normals = normals_from_depth(1 / disparity.clamp(min=1e-6), Camera(wider))[:, :, 1:-1, 1:-1]
    return F.normalize(resized(normals, size), dim=1)


def inner_columns(depth: Tensor) -> Tensor:
    """(B, H, W) bool: all but the :data:`BORDER` outermost columns of canonical depth at either side.

    Those may hold a fixed depth, which must not bend the object's own surface.
    """
    wide = depth.shape[-1] > 2 * BORDER + 2  # or nothing would be left to go by
    return object_mask(depth) if wide else torch.ones_like(depth, dtype=torch.bool)


def nearest_known(known: Tensor) -> Tensor:
    """For each pixel the nearest that is known (B, H, W): (B, H · W) int64, row by row; itself where none is."""
    from scipy.ndimage import distance_transform_edt

    height, width = known.shape[1:]
    index = torch.arange(height * width).repeat(len(known), 1)
    for image, unknown in enumerate((~known).cpu().numpy()):
        if unknown.any() and not unknown.all():
            rows, columns = distance_transform_edt(unknown, return_distances=False, return_indices=True)
            index[image] = torch.from_numpy(rows.astype("int64") * width + columns).flatten()
    return index.to(known.device)


def _taken(values: Tensor, index: Tensor) -> Tensor:
    """Maps (B, C, H, W) with the values of other pixels, by their numbers (B, H · W)."""
    flat = values.flatten(2)
    return flat.gather(2, index[:, None].expand_as(flat)).reshape(values.shape)


def _continued_disparity(depth: Tensor, known: Tensor) -> Tensor:
    """1/z (B, H, W), continued beyond what is known: by planes near its edge, by the nearest value further out."""
    known = known & depth.isfinite() & (depth > 0)
    disparity = torch.where(known, 1 / torch.where(known, depth, 1), 1)
    if bool(known.all()):
        return disparity
    low, high = disparity.amin((1, 2)) / 2, disparity.amax((1, 2)) * 2
    continued = _taken(disparity[:, None], nearest_known(known))[:, 0]
    reached = F.max_pool2d(known[:, None].float(), 2 * REACH + 1, stride=1, padding=REACH)[:, 0] > 0
    image, row, column = (reached & ~known).nonzero(as_tuple=True)
    planes = _fitted_planes(disparity, known, image, row, column)
    continued[image, row, column] = planes.clamp(low[image], high[image])
    return continued


def _fitted_planes(values: Tensor, known: Tensor, image: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """At N pixels, the value (N,) of the plane that fits what is known around each best, by least squares."""
    axis = torch.arange(-REACH, REACH + 1, device=values.device)
    y, x = (grid.flatten() for grid in torch.meshgrid(axis, axis, indexing="ij"))
    # Windows (N, 49) about the pixels, from maps with an unknown frame as wide as they reach.
    place = (image[:, None], (row + REACH)[:, None] + y, (column + REACH)[:, None] + x)
    around, shown = (F.pad(maps.double(), (REACH,) * 4)[place] for maps in (values, known))
    weight = shown * torch.exp(-(x**2 + y**2) / (2 * SPREAD**2))
    plane = torch.stack((torch.ones_like(x), x, y), dim=1).double()
    products = (plane[:, :, None] * plane[:, None, :]).flatten(1)
    systems = (weight @ products).reshape(-1, 3, 3)
    # A trace of stiffness against slopes: what is known may lie on one line, which leaves a slope open.
    systems[:, (1, 2), (1, 2)] += 1e-7 * systems[:, :1, 0]
    found: Tensor = torch.linalg.solve(systems, (weight * around) @ plane)
    return found[:, 0].to(values)


def _within(values: Tensor | None, size: int, low: float, high: float) -> Tensor | None:
    return None if values is None else resized(values, size).clamp(low, high)


def _unit(normals: Tensor | None) -> Tensor | None:
    return None if normals is None else F.normalize(normals, dim=1)
