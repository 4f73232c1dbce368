"""Pictures of an object from other sides: its depth map as a smooth surface, its texture, a plain background."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from recon_toolkit.export.sizes import continued_surface, resized, soft_mask
from recon_toolkit.geometry.camera import Camera
from recon_toolkit.geometry.depth import grid_faces
from recon_toolkit.rendering.grid_vertices import grid_vertices
from recon_toolkit.rendering.rasterize import interpolate, rasterize

#: Views that are drawn at once: enough for every core, few enough to stay in its cache.
TOGETHER = 4
FINEST = 512  # vertices along the side of the drawn surface
#: The background's grey above and below.
LIGHTEST, DARKEST = 0.96, 0.82


def draw(
    canonical_depth: Tensor,
    texture: Tensor,
    camera: Camera,
    views: Tensor,
    *,
    size: int = 256,
    supersampling: int = 2,
    mask: Tensor | None = None,
    background: Tensor | None = None,
    zoom: float = 1.0,
) -> NDArray[np.uint8]:
    """Draw a canonical object in many views.

    Args:
        canonical_depth: (H, W); drawn as a smooth surface, finer than its pixels.
        texture: (3, S, S) in [0, 1] over the same field, its corners on the depth map's corners.
        camera: the depth map's camera.
        views: (N, 6): rotation x, y, z in radians, translation x, y, z.
        size: side of the pictures in pixels; the field of view stays.
        supersampling: samples along a pixel's side.
        mask: (H, W), what belongs to the object: bool, or in [0, 1] with the outline at 0.5; everything by default.
        background: a colour (3,) or a picture (3, size, size) in [0, 1]; :func:`backdrop` by default.
        zoom: enlargement about the picture's middle.

    Returns:
        (N, size, size, 3) uint8.

    Raises:
        ValueError: a shape is wrong.
    """
    if views.ndim != 2 or views.shape[1] != 6:
        raise ValueError(f"views must be (N, 6), not {tuple(views.shape)}")
    stage = Stage(
        canonical_depth,
        camera,
        size=size,
        supersampling=supersampling,
        mask=mask,
        background=background,
        zoom=zoom,
    )
    frames = np.empty((len(views), size, size, 3), dtype=np.uint8)
    for index, frame in enumerate(stage.frames(texture, views)):
        frames[index] = frame
    return frames


def backdrop(size: int) -> Tensor:
    """A light grey background (3, size, size) in [0, 1], a little darker below."""
    return torch.linspace(LIGHTEST, DARKEST, size)[:, None].expand(3, size, size)


@dataclass(frozen=True)
class Seen:
    """What the samples of N pictures see of an object; h and w count samples."""

    places: Tensor  # (N, h, w, 2): x and y in the canonical picture, −1 and 1 at its outermost pixels
    shown: Tensor  # (N, h, w) bool: the sample sees the object


class Stage:
    """An object that is drawn many times: its surface, refined once, before a camera and a background.

    Args: as for :func:`draw`.

    Raises:
        ValueError: a shape is wrong, or nothing is left of the object.
    """

    def __init__(
        self,
        canonical_depth: Tensor,
        camera: Camera,
        *,
        size: int = 256,
        supersampling: int = 2,
        mask: Tensor | None = None,
        background: Tensor | None = None,
        zoom: float = 1.0,
    ) -> None:
        if canonical_depth.ndim != 2 or len(set(canonical_depth.shape)) != 1 or len(canonical_depth) < 2:
            raise ValueError(f"canonical_depth must be (H, H), 2 pixels or more, not {tuple(canonical_depth.shape)}")
        if mask is not None and mask.shape != canonical_depth.shape:
            raise ValueError(f"mask must be {tuple(canonical_depth.shape)} as the depth, not {tuple(mask.shape)}")
        if size < 2 or supersampling < 1:
            raise ValueError(f"size {size} must be 2 or more, and supersampling {supersampling} 1 or more")
        depth = canonical_depth.detach().float()[None]
        inside = depth.isfinite() & (depth > 0)
        soft = mask is not None and mask.is_floating_point()
        if mask is not None:
            inside &= (mask >= 0.5) if soft else mask.bool()
        if not bool(inside.any()):
            raise ValueError("the mask leaves nothing of the object to draw")
        self.size, self.samples, self.camera, self.zoom = size, supersampling, camera, zoom
        self.background = _background(background, size).to(depth)
        detail = max(depth.shape[-1], min(size // 2, FINEST))  # no facet of two pixels' width is seen
        self.depth = continued_surface(depth, inside, detail)
        outline = resized(mask.to(depth), detail) if mask is not None and soft else soft_mask(inside, detail)[0]
        if not bool((outline >= 0.5).any()):  # a few pixels only, smoothed away
            outline = resized(inside.to(depth), detail)[0]
        ends = torch.linspace(-1, 1, detail, device=depth.device)
        places = torch.stack((ends.expand(detail, detail), ends[:, None].expand(detail, detail), outline), dim=-1)
        self.attributes = places.reshape(1, -1, 3)  # x and y in the canonical picture, and how far inside
        faces = grid_faces(detail, detail, depth.device)
        self.faces = faces[(outline >= 0.5).flatten()[faces.long()].any(1)].contiguous()

    def frames(self, texture: Tensor, views: Tensor) -> Iterator[NDArray[np.uint8]]:
        """One picture (size, size, 3) a view (N, 6), all with one texture (3, S, S)."""
        fitted = self.fitted(texture)
        for start in range(0, len(views), TOGETHER):
            yield from self.painted(self.seen(views[start : start + TOGETHER]), fitted[None])

    def fitted(self, texture: Tensor) -> Tensor:
        """A texture (..., S, S), resized to about the pictures' detail: bilinear sampling then shows no squares."""
        texture, side = texture.detach().to(self.depth), texture.shape[-1]
        wanted = min(max(side, self.size), self.size * self.samples)
        return texture if side == wanted else resized(texture, wanted).clamp(0, 1)

    @torch.no_grad()
    def seen(self, views: Tensor) -> Seen:
        """What the samples of pictures of views (N, 6) see."""
        count, detail, side = len(views), self.depth.shape[-1], self.size * self.samples
        views = views.to(self.depth)
        vertices = grid_vertices(self.depth.expand(count, -1, -1), views, self.camera)
        # From the grid's pixels to samples: both fields of view end at the centres of the outermost pixels.
        middle = (detail - 1) / 2
        scale = (self.size - 1) / (detail - 1) * self.zoom * self.samples
        vertices[..., :2] = (vertices[..., :2] - middle) * scale + (side - 1) / 2
        fragments = rasterize(vertices, self.faces, side, side, check=False)
        found = interpolate(self.attributes.expand(count, -1, -1), self.faces, fragments, check=False)
        return Seen(found[..., :2], found[..., 2] >= 0.5)

    @torch.no_grad()
    def painted(self, seen: Seen, textures: Tensor) -> NDArray[np.uint8]:
        """Pictures (N, size, size, 3) of what is seen, with textures (N or 1, 3, S, S) as :meth:`fitted` returns them.

        One :class:`Seen` of one view may be painted with many textures.
        """
        count = max(len(seen.places), len(textures))
        colours = F.grid_sample(
            textures.to(seen.places).expand(count, -1, -1, -1),
            seen.places.expand(count, -1, -1, -1),
            mode="bilinear",
            padding_mode="border",
            align_corners=True,
        )
        shown = seen.shown[:, None].to(colours.dtype)
        cover = F.avg_pool2d(shown, self.samples)
        pictures = F.avg_pool2d(colours * shown, self.samples) + (1 - cover) * self.background
        return (pictures * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def _background(background: Tensor | None, size: int) -> Tensor:
    """(3, 1, 1) or (3, size, size)."""
    if background is None:
        return backdrop(size)
    if background.shape not in ((3,), (3, size, size)):
        raise ValueError(f"background must be (3,) or (3, {size}, {size}), not {tuple(background.shape)}")
    return background.reshape(3, 1, 1) if background.ndim == 1 else background
