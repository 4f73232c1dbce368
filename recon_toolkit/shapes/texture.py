"""A texture of the object seen from the front, made of the photograph; and where the object ends in it."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from recon_toolkit.geometry import grid_faces, normals_from_depth, view_matrix
from recon_toolkit.geometry.camera import Camera
from recon_toolkit.rendering import grid_vertices, rasterize_depth
from recon_toolkit.shapes.mesh import extended
from recon_toolkit.shapes.surface import inner_columns, resized
from recon_toolkit.structures import Reconstruction

#: Cosines between surface and line of sight: below the first the photograph is not trusted, above the second fully.
GRAZING = (0.15, 0.45)
#: How far behind what the view sees, in parts of the object's depth, a point is thought seen, and hidden.
BEHIND = (0.02, 0.06)
#: Parts of half the picture's width from the photograph's edge inwards, over which it fades.
EDGE = 0.08
#: How much brighter or darker the light may make a side than its mirrored one; beyond, the shading is mistaken.
SIDES = (0.5, 2.0)
#: How far the model's colours are moved to the photograph's around them, and over which part of the picture.
TINT, TINT_REACH, TINT_CELLS = (0.6, 1.6), 0.2, 32
#: Least shading that a photograph is divided by: in the dark, there is little but noise to brighten.
LEAST_SHADING = 0.3


@torch.no_grad()
def photo_texture(
    found: Reconstruction, camera: Camera, photo: Tensor, *, size: int = 256, mirror: bool = True
) -> Tensor:
    """The photograph laid on the canonical object, in the canonical frame.

    Each texel of the canonical depth is moved into the input view, and the photograph sampled there. What the view
    does not see (hidden by the object itself, outside of the picture, at a grazing angle) is filled from the mirrored
    texel, made as bright as the model's shading says; what neither side shows is the model's own canonical image.
    The three are blended softly. A model that knows the input view only has the photograph itself as its texture.

    Args:
        found: one reconstruction (B = 1).
        camera: the model's camera.
        photo: (3, S, S) in [0, 1], framed as ``found.image``: the same crop at any resolution. Pixels are areas, as
            resizing has it, so the *corners* of the two pictures coincide, and not their outermost centres.
        size: side of the texture.
        mirror: the object is symmetric. Otherwise, the model's image fills everything unseen.

    Returns:
        (3, size, size) in [0, 1], a canonical map like any other, ``align_corners=True``: its outermost centres are
        those of the canonical depth.

    Raises:
        ValueError: ``found`` holds several items, or ``photo`` is not (3, S, S).
    """
    if len(found) != 1:
        raise ValueError(f"a texture is made of one reconstruction, not of {len(found)}")
    if photo.ndim != 3 or photo.shape[0] != 3:
        raise ValueError(f"a photograph is (3, S, S), not {tuple(photo.shape)}")
    photo = photo.to(found.image)[None]
    native = found.image.shape[-1]
    if found.canonical_depth is None or found.view is None:
        axis = torch.linspace(-1, 1, size).to(photo)
        grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=-1)[None]
        return _sampled(photo, grid, native)[0].clamp(0, 1)

    colours, weight = seen_from_front(found, camera, photo[0], size=size)
    model = found.image if found.canonical_image is None else found.canonical_image
    model = resized(model, size)
    known, share = colours * weight, weight
    if mirror:
        other = (1 - weight) * weight.flip(-1)
        known, share = known + _mirrored(colours, found.canonical_shading) * other, share + other
    return (known + model * _tint(known, share, model) * (1 - share))[0].clamp(0, 1)


def seen_from_front(
    found: Reconstruction, camera: Camera, photo: Tensor, *, size: int | None = None
) -> tuple[Tensor, Tensor]:
    """A photograph laid on the canonical object, and how well it shows each place.

    Args:
        found: one reconstruction (B = 1) with canonical depth and view.
        camera: the model's camera.
        photo: (3, S, S), framed as ``found.image``.
        size: side of the maps; the canonical depth's if not given.

    Returns:
        Colours (1, 3, size, size), and weights (1, 1, size, size) in [0, 1]: 0 where the view does not see a place.
    """
    assert found.canonical_depth is not None and found.view is not None
    native = found.image.shape[-1]
    size = native if size is None else size
    disparity = _continued(1 / found.canonical_depth)  # in which a plane is linear
    grid = _places(1 / resized(disparity, size), found.view, camera)[..., :2]
    colours = _sampled(photo.to(found.image)[None], grid, native)
    # Weights change slowly: a grid twice as fine as the model's will do.
    coarse = min(2 * native - 1, size)
    trust = _soft(_trust(1 / resized(disparity, coarse), found.view, camera))
    return colours, F.interpolate(trust, (size, size), mode="bilinear", align_corners=True)


@torch.no_grad()
def albedo_from_photo(texture: Tensor, found: Reconstruction) -> Tensor:
    """The texture without the light it was taken in: divided by the model's shading.

    Args:
        texture: (3, S, S) in [0, 1], from :func:`photo_texture`.
        found: the reconstruction (B = 1) it was made of.

    Returns:
        (3, S, S) in [0, 1]; the texture as it is where the model knows no shading.
    """
    shading = found.canonical_shading if found.canonical_depth is not None else found.shading
    if shading is None:
        return texture
    size = texture.shape[-2:]
    fine = F.interpolate(shading.to(texture), size, mode="bilinear", align_corners=True)[0]
    return (texture / fine.clamp(min=LEAST_SHADING)).clamp(0, 1)


def _continued(disparity: Tensor) -> Tensor:
    """1/depth (1, H, W) with its outermost columns, which may be fixed, continued from within: they hide nothing."""
    kept = inner_columns(disparity[0]).cpu().numpy()
    return torch.from_numpy(extended(disparity[0].cpu().numpy(), kept)).to(disparity)[None]


def _places(depth: Tensor, view: Tensor, camera: Camera) -> Tensor:
    """Where the input view sees each point of canonical depth (1, H, W): x and y in [−1, 1], and z: (1, H, W, 3)."""
    height, width = depth.shape[-2:]
    places = grid_vertices(depth, view, camera).reshape(1, height, width, 3)
    scale = places.new_tensor((2 / (width - 1), 2 / (height - 1), 1))
    return places * scale - places.new_tensor((1, 1, 0))


def _sampled(photo: Tensor, grid: Tensor, native: int) -> Tensor:
    """The photograph (1, 3, S, S) at places (1, H, W, 2) of the model's picture, whose outermost centres are ±1."""
    side = photo.shape[-1]
    # The corners of both frames coincide: (native − 1) / native of the frame lies between the model's outermost
    # centres, and (side − 1) / side between the photograph's.
    between = (native - 1) / native * side / max(side - 1, 1)
    return F.grid_sample(photo, grid * between, mode="bilinear", padding_mode="border", align_corners=True)


def _trust(depth: Tensor, view: Tensor, camera: Camera) -> Tensor:
    """How well the input view sees each point of canonical depth (1, H, W): (1, 1, H, W) in [0, 1]."""
    height, width = depth.shape[-2:]
    vertices = grid_vertices(depth, view, camera)
    seen, covered = rasterize_depth(
        vertices, grid_faces(height, width, depth.device), height, width, samples=1, check=False
    )
    places = vertices.reshape(1, height, width, 3)
    scale = places.new_tensor((2 / (width - 1), 2 / (height - 1)))
    grid = places[..., :2] * scale - 1
    nearest = torch.where(covered, seen, places[..., 2].amax())[:, None]  # nothing hides what lies before nothing
    nearest = F.grid_sample(nearest, grid, mode="bilinear", padding_mode="border", align_corners=True)[:, 0]
    near, far = torch.aminmax(depth)
    behind = (places[..., 2] - nearest) / (far - near).clamp(min=1e-6)
    normals = view_matrix(view)[0] @ normals_from_depth(depth, camera).flatten(2)
    # The line of sight of a place is (x, y, 1) in units of the focal length.
    tangent = (width - 1) / 2 / camera.focal_length(width)
    sight = torch.cat((grid * tangent, torch.ones_like(grid[..., :1])), dim=-1).reshape(1, -1, 3)
    cosine = (normals.transpose(1, 2) * sight).sum(-1) / sight.norm(dim=-1)
    inside = (1 - grid.abs().amax(-1)) / EDGE
    facing = _rising(cosine.reshape(1, height, width), *GRAZING)
    return (facing * (1 - _rising(behind, *BEHIND)) * inside.clamp(0, 1))[:, None]


def _soft(trust: Tensor) -> Tensor:
    """Trust (1, 1, H, W) that falls to 0 gradually, within where it was above 0, rather than beyond."""
    radius = max(1, trust.shape[-1] // 40)
    padded = F.pad(trust, (radius,) * 4, mode="replicate")
    return trust * _rising(F.avg_pool2d(padded, 2 * radius + 1, stride=1), 0.5, 1.0)


def _mirrored(colours: Tensor, shading: Tensor | None) -> Tensor:
    """Colours (1, 3, H, W) of the mirrored texels, in this side's light."""
    mirrored = colours.flip(-1)
    if shading is None:
        return mirrored
    # Where both sides are as bright, the ratio is 1 whatever the shading is.
    ratio = (shading / shading.flip(-1).clamp(min=1e-3)).clamp(*SIDES)
    return mirrored * F.interpolate(ratio, colours.shape[-2:], mode="bilinear", align_corners=True)


def _tint(known: Tensor, share: Tensor, model: Tensor) -> Tensor:
    """What takes the model's colours to the photograph's around each place: a smooth factor (1, 3, H, W).

    Args:
        known: colours (1, 3, H, W) of the photograph, times
        share: how much of the texture they are (1, 1, H, W).
        model: the model's colours (1, 3, H, W).
    """
    side = min(TINT_CELLS, known.shape[-1])
    offsets = torch.arange(-side, side + 1, device=known.device, dtype=known.dtype)
    kernel = torch.exp(-((offsets / (TINT_REACH * side)) ** 2) / 2)
    kernel = (kernel / kernel.sum()).expand(3, 1, 1, -1)

    def around(values: Tensor) -> Tensor:
        means = F.adaptive_avg_pool2d(values, side)
        across = F.conv2d(means, kernel, padding=(0, side), groups=3)
        return F.conv2d(across, kernel.transpose(2, 3), padding=(side, 0), groups=3)

    few = 1e-3 * F.adaptive_avg_pool2d(model, side) + 1e-6  # far from all that is known, the factor is 1
    factor = ((around(known) + few) / (around(model * share) + few)).clamp(*TINT)
    return F.interpolate(factor, known.shape[-2:], mode="bilinear", align_corners=False)


def _rising(values: Tensor, start: float, end: float) -> Tensor:
    """0 up to ``start``, 1 from ``end``, smooth between."""
    t = ((values - start) / (end - start)).clamp(0, 1)
    return t * t * (3 - 2 * t)


#: Side of the picture in which the outline is looked for, and rounds of the search.
SIDE, ROUNDS = 96, 2
#: Ellipses about the middle of a crop, half widths and heights in halves of its side, and how far below the middle:
#: inside the first there is the object, outside the second probably not.
SURE, LIKELY = (0.45, 0.6, 0.1), (0.8, 0.97, 0.05)
#: An outline that keeps less of the picture than this is not believed.
LEAST = 0.3


def photo_silhouette(photo: Tensor) -> Tensor | None:
    """The object that fills the middle of a crop, by its colours (GrabCut, Rother et al. 2004).

    Args:
        photo: (3, S, S) in [0, 1].

    Returns:
        (96, 96) bool: one piece without holes; None where nothing tells the object from what is around it.
    """
    import cv2

    small = F.interpolate(photo[None].cpu().float(), (SIDE, SIDE), mode="area")[0].clamp(0, 1)
    pixels = np.ascontiguousarray((small * 255).round().byte().numpy().transpose(1, 2, 0)[..., ::-1])
    labels = np.where(_ellipse(LIKELY), cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    labels[_ellipse(SURE)] = cv2.GC_FGD
    cv2.setRNGSeed(0)  # its mixtures of colours start at random
    if float(np.ptp(pixels.reshape(-1, 3), axis=0).max()) < 8:
        return None
    cv2.grabCut(pixels, labels, None, np.zeros((1, 65)), np.zeros((1, 65)), ROUNDS, cv2.GC_INIT_WITH_MASK)  # type: ignore[call-overload]
    kept = _one_piece((labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD))
    return torch.from_numpy(kept) if kept.mean() >= LEAST else None


def _ellipse(shape: tuple[float, float, float]) -> NDArray[np.bool_]:
    width, height, down = shape
    axis = np.linspace(-1, 1, SIDE)
    return np.asarray((axis / width) ** 2 + ((axis[:, None] - down) / height) ** 2 < 1)


def _one_piece(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """What is connected with the middle, without whiskers, gaps and holes."""
    from scipy import ndimage

    mask = ndimage.gaussian_filter(mask.astype(np.float32), 1.0, mode="nearest") > 0.5
    labels, _ = ndimage.label(mask)
    return np.asarray(ndimage.binary_fill_holes(labels == labels[SIDE // 2, SIDE // 2]))


def canonical_silhouette(found: Reconstruction, camera: Camera, silhouette: Tensor) -> Tensor:
    """The outline from the front, symmetric: a place is the object's where it or its mirrored one is seen to be.

    Args:
        found: one reconstruction (B = 1) with canonical depth and view.
        camera: the model's camera.
        silhouette: (S, S) bool, framed as ``found.image``.

    Returns:
        (1, H, W) bool, of the canonical depth's size.
    """
    values, weight = seen_from_front(found, camera, silhouette.to(found.image).expand(3, -1, -1))
    own = values[:, :1]
    # Both sides speak, by how well they are seen: one alone may have taken hair or shadow for the background.
    weight = weight + 1e-3
    kept, share = own * weight + (own * weight).flip(-1), weight + weight.flip(-1)
    return torch.from_numpy(_without_spikes((kept >= 0.4 * share)[0, 0].numpy()))[None]


def _without_spikes(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """What a disc of a sixteenth of the side can reach from within, as if the mask went on beyond its border."""
    from scipy import ndimage

    radius = max(1, mask.shape[0] // 16)
    axis = np.arange(-radius, radius + 1)
    disc = axis**2 + axis[:, None] ** 2 <= radius**2
    wide = np.pad(mask, radius, mode="edge")
    return np.asarray(ndimage.binary_opening(wide, disc)[radius:-radius, radius:-radius])
