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
from recon_toolkit.export.frames import TOGETHER, Stage
from recon_toolkit.export.outline import trimmed
from recon_toolkit.export.sizes import surface_normals
from recon_toolkit.export.surface import surface_of
from recon_toolkit.geometry.camera import Camera
from recon_toolkit.geometry.shading import lambert
from recon_toolkit.structures import Reconstruction

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
        trim: leave out the background's rim, as meshes do; see :func:`~recon_toolkit.export.outline.foreground`.

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
