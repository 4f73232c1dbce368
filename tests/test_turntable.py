"""Turntables and relighting against the renderer, closed forms and symmetry."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from recon_toolkit.errors import DataError
from recon_toolkit.geometry import Camera, normals_from_depth, shade
from recon_toolkit.rendering import DepthMeshRenderer
from recon_toolkit.structures import Reconstruction
from recon_toolkit.viewer.turntable import Stage, backdrop, circling_lights, draw, relighting, turning_views, turntable

CAMERA = Camera(10.0)
SIZE = 32
GREY = torch.full((3,), 0.5)
VIEWS = torch.tensor([[0.0, 0.0, 0, 0, 0, 0], [0.1, 0.4, 0, 0.005, 0, 0], [-0.1, -0.5, 0.2, 0, 0, 0]])


def hill(size: int = SIZE, *, middle: float = 0.0) -> Tensor:
    """Depth (size, size): a hill towards the camera, symmetric where its ``middle`` is 0."""
    v, u = torch.meshgrid(torch.linspace(-1, 1, size), torch.linspace(-1, 1, size), indexing="ij")
    return 1.04 - 0.08 * torch.exp(-2 * ((u - middle) ** 2 + v**2))


def smooth_texture(size: int = SIZE) -> Tensor:
    """(3, size, size), waves of a whole picture's width, symmetric from left to right."""
    v, u = torch.meshgrid(torch.linspace(-1, 1, size), torch.linspace(-1, 1, size), indexing="ij")
    return torch.stack((0.5 + 0.3 * torch.cos(3 * u), 0.5 + 0.3 * torch.sin(3 * v), 0.5 + 0.2 * u * u))


def reconstruction(**changes: Tensor | None) -> Reconstruction:
    depth, albedo = hill()[None], smooth_texture()[None]
    light = torch.tensor([[0.3, 0.7, 0.0, 0.0, 1.0]])
    found = Reconstruction(
        image=albedo,
        canonical_depth=depth,
        canonical_albedo=albedo,
        canonical_image=shade(albedo, normals_from_depth(depth, CAMERA), light)[0].clamp(0, 1),
        light=light,
        view=torch.zeros(1, 6),
    )
    return replace(found, **changes)


def as_float(frames: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(frames).permute(0, 3, 1, 2) / 255


def test_pictures_are_those_of_the_renderer() -> None:
    depth, texture = hill(), smooth_texture()
    renderer = DepthMeshRenderer(camera=CAMERA, depth_range=(0.9, 1.1), backend="reference")
    expected = renderer(depth.expand(3, -1, -1), texture.expand(3, -1, -1, -1), VIEWS)
    found = as_float(draw(depth, texture, CAMERA, VIEWS, size=SIZE, background=GREY))
    # The renderer colours a pixel once, at its samples' mean depth; drawing takes the mean of its samples' colours,
    # and rounds it to 1/255. Where a pixel's samples lie on two sheets of the surface, the mean depth is on neither.
    inside = torch.nn.functional.max_pool2d((~expected.mask)[:, None].float(), 3, stride=1, padding=1)[:, 0] == 0
    error = (found - expected.image).abs().amax(1)
    assert inside.float().mean() > 0.6
    assert error[inside].quantile(0.98) < 0.01 and error[0][inside[0]].max() < 0.01
    # Where nothing is seen there is the background.
    nothing = torch.nn.functional.max_pool2d(expected.mask[:, None].float(), 3, stride=1, padding=1)[:, 0] == 0
    assert nothing[1:].any()
    assert (found - GREY[:, None, None])[:, 0][nothing].abs().max() <= 0.5 / 255 + 1e-6


def test_the_first_picture_of_a_turntable_is_the_front() -> None:
    found = reconstruction()
    assert found.canonical_depth is not None and found.canonical_image is not None
    first = next(turntable(found, CAMERA, size=SIZE, margin=0, trim=False, background=GREY))
    renderer = DepthMeshRenderer(camera=CAMERA, depth_range=(0.9, 1.1), backend="reference")
    expected = renderer(found.canonical_depth, found.canonical_image, torch.zeros(1, 6)).image[0]
    columns = slice(3, -3)  # the border's two columns are left out
    # Rounding to 1/255, and the mean of four samples of a smooth picture.
    assert (as_float(first[None])[0] - expected)[:, 1:-1, columns].abs().max() < 0.015
    assert (as_float(first[None])[0, :, :, 0] - 0.5).abs().max() < 0.5 / 255 + 1e-6


def test_enlarging_keeps_the_view() -> None:
    small = as_float(draw(hill(), smooth_texture(), CAMERA, VIEWS, size=SIZE, background=GREY))
    large = as_float(draw(hill(), smooth_texture(), CAMERA, VIEWS, size=3 * SIZE - 2, background=GREY))
    # Pixel centres of the small pictures are every third of the large one's: the field of view ends at centres.
    error = (large[..., ::3, ::3] - small).abs().amax(1)
    assert error.mean() < 0.01 and error[:, 8:24, 8:24].max() < 0.05
    zoomed = as_float(draw(hill(), smooth_texture(), CAMERA, VIEWS[:1], size=65, background=GREY, zoom=0.5))
    assert (zoomed[0, :, :15] == zoomed[0, 0, 0, 0]).all()  # free above the object, which is half as large
    whole = as_float(draw(hill(), smooth_texture(), CAMERA, VIEWS[:1], size=65, background=GREY))
    assert (zoomed[0, :, 20:45, 20:45] - whole[0, :, 8:57:2, 8:57:2]).abs().max() < 0.03


def test_a_symmetric_object_turned_either_way_is_a_mirror_image() -> None:
    views = torch.zeros(2, 6)
    views[:, 1] = torch.tensor([0.6, -0.6])
    left, right = draw(hill(), smooth_texture(), CAMERA, views, size=96).astype(int)
    error = np.abs(left - right[:, ::-1])
    # Only the faces' diagonals are not symmetric: a mean of less than one step, and single pixels at the outline.
    assert error.mean() < 1 and np.quantile(error, 0.99) < 10
    assert np.abs(left - right).mean() > 5  # and they do differ


def test_a_positive_yaw_looks_to_the_left() -> None:
    # By the conventions the tip, nearer than the centre of rotation by d, moves by −d sin(yaw).
    depth = hill(65)
    texture = torch.zeros(3, 65, 65)
    texture[0, 30:35, 30:35] = 1
    view = torch.tensor([[0, 0.5, 0, 0, 0, 0]])
    frame = draw(depth, texture, CAMERA, view, size=65, background=torch.zeros(3))[0].astype(float)
    found = (frame[..., 0] * np.arange(65)).sum() / frame[..., 0].sum()
    before = 1 - float(depth[32, 32])
    point = (-before * math.sin(0.5), 0.0, 1 - before * math.cos(0.5))
    expected = float(CAMERA.project(torch.tensor(point)[None, :, None], 65, 65)[0, 0, 0])
    assert found == pytest.approx(expected, abs=0.5)  # half a pixel: the spot's own curvature
    assert expected < 30


def test_a_turntable_is_a_loop() -> None:
    views = turning_views(24, yaw=50, pitch=8)
    assert torch.equal(views[0], torch.zeros(6))
    assert float(views[:, 1].max()) == pytest.approx(math.radians(50))
    assert float(views[:, 1].min()) == pytest.approx(math.radians(-50))
    steps = (views - views.roll(1, 0)).norm(dim=1)  # from the last to the first as well
    # Along a sine the largest step is 2π/24 of the amplitude: nowhere a jump.
    assert steps.max() < 1.05 * 2 * math.pi / 24 * math.radians(math.hypot(50, 16))
    frames = list(turntable(reconstruction(), CAMERA, frames=6, size=48))
    assert len(frames) == 6 and all(frame.shape == (48, 48, 3) and frame.dtype == np.uint8 for frame in frames)


def test_a_mask_leaves_its_outline_and_nothing_beyond() -> None:
    axis = torch.linspace(-1, 1, SIZE)
    disc = axis**2 + axis[:, None] ** 2 < 0.6**2
    white = torch.ones(3, SIZE, SIZE)
    flat = torch.ones(SIZE, SIZE)
    frame = draw(flat, white, CAMERA, torch.zeros(1, 6), size=128, mask=disc, background=torch.zeros(3))[0, ..., 0]
    fine = torch.linspace(-1, 1, 128)
    radius = (fine**2 + fine[:, None] ** 2).sqrt().numpy()
    # The outline of a disc of pixels lies within a pixel (1/16) of the circle, and is soft.
    assert (frame[radius < 0.6 - 1 / 16] == 255).all() and (frame[radius > 0.6 + 1 / 16] == 0).all()
    assert ((frame > 0) & (frame < 255)).sum() > 50
    soft = torch.sigmoid((0.6 - (axis**2 + axis[:, None] ** 2).sqrt()) * 20)  # 0.5 on the circle itself
    smooth = draw(flat, white, CAMERA, torch.zeros(1, 6), size=128, mask=soft, background=torch.zeros(3))[0, ..., 0]
    assert (smooth[radius < 0.6 - 1 / 64] == 255).all() and (smooth[radius > 0.6 + 1 / 64] == 0).all()
    # The depth outside means nothing, not even as a number.
    holed = torch.where(disc, flat, torch.nan)
    again = draw(holed, white, CAMERA, torch.zeros(1, 6), size=128, mask=disc, background=torch.zeros(3))[0, ..., 0]
    assert np.array_equal(frame, again)


def test_the_background_is_the_one_asked_for() -> None:
    away = torch.tensor([[0.0, 0, 0, 1.0, 0, 0]])
    frame = draw(hill(), smooth_texture(), CAMERA, away, size=40)[0]
    assert np.array_equal(frame, (backdrop(40) * 255).round().byte().permute(1, 2, 0).numpy())
    picture = torch.rand(3, 40, 40, generator=torch.Generator().manual_seed(0))
    frame = draw(hill(), smooth_texture(), CAMERA, away, size=40, background=picture)[0]
    assert np.array_equal(frame, (picture * 255).round().byte().permute(1, 2, 0).numpy())


@pytest.mark.parametrize(("direction", "side"), [((0.7, 0.0), "left"), ((-0.7, 0.0), "right"), ((0.0, 0.7), "upper")])
def test_light_from_one_side_brightens_that_side(direction: tuple[float, float], side: str) -> None:
    # The direction is the way the light travels: to the right from the left, and down (y) from above.
    x, y = direction
    light = torch.tensor([[0.2, 0.8, x, y, math.sqrt(1 - x * x - y * y)]])
    plain = torch.full((1, 3, SIZE, SIZE), 0.8)
    found = reconstruction(light=light, canonical_albedo=plain, image=plain)
    frame = next(relighting(found, CAMERA, size=64, trim=False)).astype(float)[..., 0]
    halves = {"left": frame[:, 8:32], "right": frame[:, 32:56], "upper": frame[8:32], "lower": frame[32:56]}
    opposite = {"left": "right", "right": "left", "upper": "lower"}[side]
    assert halves[side].mean() > 1.2 * halves[opposite].mean()


def test_relighting_starts_with_the_predicted_light() -> None:
    light = torch.tensor([[0.3, 0.6, 0.3, -0.2, math.sqrt(1 - 0.13)]])
    found = reconstruction(light=light)
    assert found.canonical_depth is not None and found.canonical_albedo is not None
    first = next(relighting(found, CAMERA, size=SIZE, margin=0, trim=False, background=GREY))
    lit, _ = shade(found.canonical_albedo, normals_from_depth(found.canonical_depth, CAMERA), light)
    renderer = DepthMeshRenderer(camera=CAMERA, depth_range=(0.9, 1.1), backend="reference")
    expected = renderer(found.canonical_depth, lit, torch.zeros(1, 6)).image[0]
    # As above; the normals within three columns of the border's step are not those of the renderer's picture.
    assert (as_float(first[None])[0] - expected)[:, 2:-2, 5:-5].abs().max() < 0.02


def test_the_light_goes_once_around_and_comes_back() -> None:
    light = torch.tensor([0.4, 0.5, 0.1, 0.2, math.sqrt(1 - 0.05)])
    lights = circling_lights(light, 48, tilt=50)
    torch.testing.assert_close(lights[0], light)
    torch.testing.assert_close(lights[:, 2:].norm(dim=1), torch.ones(48))
    assert torch.equal(lights[:, :2], light[:2].expand(48, 2))
    azimuth = np.unwrap(torch.atan2(lights[:, 3], lights[:, 2]).numpy())
    assert azimuth[-1] - azimuth[0] == pytest.approx(2 * math.pi * 47 / 48, abs=1e-4)
    assert float(lights[24, 4]) == pytest.approx(math.cos(math.radians(50)), abs=1e-6)
    steps = (lights - lights.roll(1, 0)).norm(dim=1)
    assert steps.max() < 0.25  # a circle of radius sin 50° in 48 steps is 0.1 each; no jump at the seam
    frontal = circling_lights(torch.tensor([0.4, 0.5, 0.0, 0.0, 1.0]), 8)
    assert frontal.isfinite().all()


def test_without_canonical_maps_the_input_view_turns() -> None:
    mask = torch.ones(1, SIZE, SIZE, dtype=torch.bool)
    mask[:, :, :10] = False
    depth = torch.where(mask, hill()[None], 1.2)
    found = Reconstruction(image=smooth_texture()[None], depth=depth, mask=mask)
    frames = list(turntable(found, CAMERA, frames=4, size=48, trim=False, background=GREY))
    assert (np.abs(frames[0][:, :14].astype(int) - 128) <= 1).all()  # masked out
    assert np.abs(frames[0][10:38, 20:40].astype(int) - 128).max() > 30
    assert len(list(relighting(found, CAMERA, frames=3, size=48))) == 3


def test_a_single_pixel_is_an_object_too() -> None:
    mask = torch.zeros(1, SIZE, SIZE, dtype=torch.bool)
    mask[0, 16, 16] = True
    found = Reconstruction(image=torch.ones(1, 3, SIZE, SIZE), depth=torch.ones(1, SIZE, SIZE), mask=mask)
    for frame in turntable(found, CAMERA, frames=2, size=128, background=torch.zeros(3)):
        assert 4 <= (frame[..., 0] > 128).sum() <= 64  # a pixel of 4 by 4, as far as it can have an outline


def test_what_cannot_be_drawn_is_said() -> None:
    image = torch.zeros(1, 3, SIZE, SIZE)
    with pytest.raises(DataError, match="no depth"):
        turntable(Reconstruction(image=image), CAMERA)
    with pytest.raises(DataError, match="object"):
        relighting(Reconstruction(image=image, depth=hill()[None], mask=torch.zeros(1, SIZE, SIZE) > 0), CAMERA)
    two = Reconstruction(image=image.expand(2, -1, -1, -1), depth=hill().expand(2, -1, -1))
    with pytest.raises(ValueError, match="one reconstruction"):
        turntable(two, CAMERA)
    with pytest.raises(ValueError, match="frames"):
        turntable(reconstruction(), CAMERA, frames=0)
    with pytest.raises(ValueError, match="views"):
        draw(hill(), smooth_texture(), CAMERA, torch.zeros(6))
    with pytest.raises(ValueError, match="background"):
        Stage(hill(), CAMERA, size=8, background=torch.zeros(3, 4, 4))
    with pytest.raises(ValueError, match="canonical_depth"):
        Stage(hill()[None], CAMERA)
