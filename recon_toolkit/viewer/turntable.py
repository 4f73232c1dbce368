"""Moving pictures of a reconstruction: the object turns, or the light goes around it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from recon_toolkit.errors import DataError
from recon_toolkit.geometry.camera import Camera, grid_faces, lambert
from recon_toolkit.rendering.depth_mesh import grid_vertices
from recon_toolkit.rendering.rasterize import interpolate, rasterize
from recon_toolkit.shapes.mesh import trimmed
from recon_toolkit.shapes.surface import continued_surface, resized, soft_mask, surface_normals, surface_of
from recon_toolkit.structures import Reconstruction

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


#: A light for models that predict none: ambient, diffuse, and a direction straight from the camera.
FRONTAL = (0.45, 0.6, 0.0, 0.0, 1.0)
MARGIN = 0.06  # of the picture's side that stays free around the object, as seen from the front


@dataclass(frozen=True)
class Sight:
    """What there is to draw of one reconstruction: canonical maps, or those of the input view without such."""

    depth: Tensor  # (H, W)
    mask: Tensor  # (H, W) in [0, 1]; the object's outline is at 0.5
    albedo: Tensor  # (3, S, S) in [0, 1]; the lit colours of a model that knows no albedo
    lit: Tensor  # (3, S, S) in [0, 1]


def sight(found: Reconstruction, camera: Camera, *, trim: bool = True) -> Sight:
    """The maps of a reconstruction of one image to draw.

    Args:
        found: one reconstruction.
        camera: of its depth map.
        trim: leave out the background's rim, as meshes do; see :func:`~recon_toolkit.shapes.mesh.foreground`.

    Raises:
        DataError: there is no depth, or no pixel of it belongs to the object.
        ValueError: it holds more than one image.
    """
    if len(found) != 1:
        raise ValueError(f"one reconstruction is drawn at a time, not {len(found)}")
    depth, mask, outlined = surface_of(found)
    kept = mask & depth.isfinite() & (depth > 0)
    if not bool(kept.any()):
        raise DataError("no pixel belongs to the object", remedy="check that it fills the picture")
    soft = kept.float()
    if trim:
        smooth = torch.from_numpy(trimmed(depth.double().numpy(), camera, kept.numpy(), rim=not outlined)).float()
        soft = smooth if bool((smooth >= 0.5).any()) else soft
    if found.canonical_depth is not None:
        albedo, lit = found.canonical_albedo, found.canonical_image
    else:
        albedo, lit = found.albedo, found.reconstruction
    pictures = [picture for picture in (albedo, lit, found.image) if picture is not None]
    return Sight(
        depth=depth.float(),
        mask=soft,
        albedo=pictures[0][0].detach().float().cpu(),
        lit=(pictures[0] if lit is None else lit)[0].detach().float().cpu(),
    )


def turntable(
    found: Reconstruction,
    camera: Camera,
    texture: Tensor | None = None,
    *,
    frames: int = 90,
    size: int = 256,
    yaw: float = 50.0,
    pitch: float = 8.0,
    supersampling: int = 2,
    background: Tensor | None = None,
    margin: float = MARGIN,
    trim: bool = True,
) -> Iterator[NDArray[np.uint8]]:
    """The object turns to either side and back, nodding a little: a loop that starts and ends at the front.

    Args:
        found: one reconstruction.
        camera: of its depth map.
        texture: (3, S, S) in [0, 1] over the depth map's field; by default the lit canonical picture.
        frames: pictures in the loop; the one after the last is the first again.
        size: side of the pictures in pixels.
        yaw, pitch: how far it turns to either side, and nods, in degrees.
        supersampling: samples along a pixel's side.
        background: a colour (3,) or a picture (3, size, size) in [0, 1].
        margin: free part of the picture's side around the depth map seen from the front.
        trim: leave out the background around the object.

    Returns:
        An iterator of (size, size, 3) uint8.

    Raises:
        DataError: there is no depth to draw.
        ValueError: ``found`` holds more than one image, or a number makes no sense.
    """
    subject = sight(found, camera, trim=trim)
    stage = _stage(subject, camera, frames, size, supersampling, background, margin)
    return stage.frames(subject.lit if texture is None else texture, turning_views(frames, yaw=yaw, pitch=pitch))


def turning_views(frames: int, *, yaw: float = 50.0, pitch: float = 8.0) -> Tensor:
    """The views (frames, 6) of a turntable; angles in degrees. The first is the front, all zeros."""
    phase = torch.arange(frames, dtype=torch.float64) * (2 * math.pi / max(frames, 1))
    views = torch.zeros(frames, 6, dtype=torch.float64)
    views[:, 0] = math.radians(pitch) * torch.sin(2 * phase)
    views[:, 1] = math.radians(yaw) * torch.sin(phase)
    return views.float()


def relighting(
    found: Reconstruction,
    camera: Camera,
    albedo: Tensor | None = None,
    *,
    frames: int = 90,
    size: int = 256,
    tilt: float = 48.0,
    view: Tensor | None = None,
    supersampling: int = 2,
    background: Tensor | None = None,
    margin: float = MARGIN,
    trim: bool = True,
) -> Iterator[NDArray[np.uint8]]:
    """The light goes once around the object, starting and ending at the predicted light.

    Shading is albedo · (ambient + diffuse · max(0, n·l)) with the normals of the surface (Wu et al. 2020, Eq. 5).

    Args:
        found: one reconstruction.
        camera: of its depth map.
        albedo: (3, S, S) in [0, 1] over the depth map's field; by default the predicted one.
        frames: pictures in the loop; the one after the last is the first again.
        size: side of the pictures in pixels.
        tilt: angle in degrees between the light and the line of sight on the far side of the loop.
        view: (6,) from where to look; the front by default. ``found.view[0]`` looks as the photograph does.
        supersampling, background, margin, trim: as for :func:`turntable`.

    Returns:
        An iterator of (size, size, 3) uint8.

    Raises:
        DataError, ValueError: as for :func:`turntable`.
    """
    subject = sight(found, camera, trim=trim)
    stage = _stage(subject, camera, frames, size, supersampling, background, margin)
    colours = stage.fitted(subject.albedo if albedo is None else albedo)
    normals = surface_normals(subject.depth.float()[None], subject.mask[None] >= 0.5, colours.shape[-1], camera)
    lights = circling_lights(_light(found), frames, tilt=tilt).to(colours)
    seen = stage.seen(torch.zeros(1, 6) if view is None else view[None])

    def pictures() -> Iterator[NDArray[np.uint8]]:
        for start in range(0, frames, TOGETHER):
            part = lights[start : start + TOGETHER]
            shading = part[:, 0, None, None, None] + part[:, 1, None, None, None] * lambert(
                normals.expand(len(part), -1, -1, -1), part[:, 2:]
            )
            yield from stage.painted(seen, (colours * shading).clamp(0, 1))

    return pictures()


def circling_lights(light: Tensor, frames: int, *, tilt: float = 48.0) -> Tensor:
    """Lights (frames, 5) that start at a light (5,), go once around the line of sight, and come back to it.

    Args:
        light: ambient, diffuse, direction; it keeps its strengths.
        frames: how many.
        tilt: the angle between direction and line of sight that is reached half way, in degrees.
    """
    phase = torch.arange(frames, dtype=torch.float64) * (2 * math.pi / max(frames, 1))
    x, y, z = F.normalize(light[2:].detach().cpu().double(), dim=0).tolist()
    first, azimuth = math.acos(min(max(z, -1.0), 1.0)), math.atan2(y, x)
    # Out within the first eighth of the way and back within the last, so that the circle between is a circle.
    way = (torch.minimum(phase, 2 * math.pi - phase) / (math.pi / 4)).clamp(0, 1)
    angle = first + (math.radians(tilt) - first) * (way * way * (3 - 2 * way))
    around = azimuth + phase
    direction = torch.stack((angle.sin() * around.cos(), angle.sin() * around.sin(), angle.cos()), dim=1)
    strengths = light[:2].detach().cpu().double().expand(frames, 2)
    return torch.cat((strengths, direction), dim=1).float()


def _light(found: Reconstruction) -> Tensor:
    return torch.tensor(FRONTAL) if found.light is None else found.light[0]


def _stage(
    subject: Sight,
    camera: Camera,
    frames: int,
    size: int,
    supersampling: int,
    background: Tensor | None,
    margin: float,
) -> Stage:
    if frames < 1 or not 0 <= margin < 0.5:
        raise ValueError(f"frames {frames} must be 1 or more, and margin {margin} in [0, 0.5)")
    return Stage(
        subject.depth,
        camera,
        size=size,
        supersampling=supersampling,
        mask=subject.mask,
        background=background,
        zoom=1 - 2 * margin,
    )
