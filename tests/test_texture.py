"""Textures made of the photograph, against closed forms: a sphere that turns, painted by a formula."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from recon_toolkit.geometry.camera import Camera, rotation_matrix
from recon_toolkit.shapes.texture import albedo_from_photo, photo_texture
from recon_toolkit.structures import Reconstruction

CAMERA = Camera(10.0)
NATIVE, SIZE = 64, 256
HALF = math.tan(math.radians(5))  # half the picture's width at depth 1
RADIUS = 0.075  # of a sphere about the centre of rotation (0, 0, 1): turning it changes its colours only


def rays(size: int, reach: float = 1.0) -> tuple[Tensor, Tensor]:
    """x/z and y/z, (size, size) each, up to ``reach`` times those of the model's outermost pixels."""
    axis = torch.linspace(-HALF, HALF, size, dtype=torch.float64) * reach
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return x, y


def area_reach(size: int) -> float:
    """A photograph's outermost centres, with its frame on that of the model's picture: both are areas of pixels."""
    return (NATIVE / (NATIVE - 1)) * (size - 1) / size


def hit(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Where rays meet the sphere, about its centre: (3, H, W); and whether they do (H, W)."""
    a = x**2 + y**2 + 1
    root = 1 - a * (1 - RADIUS**2)
    z = (1 - root.clamp(min=0).sqrt()) / a
    return torch.stack((x * z, y * z, z - 1)), root > 0


def paint(points: Tensor) -> Tensor:
    """Colours (3, H, W) at points of the sphere, smooth, and the same on the left and on the right."""
    x, y, z = points / RADIUS
    return torch.stack((0.5 + 0.3 * (3 * x).cos(), 0.5 + 0.3 * (4 * y + 1).sin(), 0.5 + 0.3 * (3 * y + 2 * z).cos()))


def light(points: Tensor) -> Tensor:
    """Shading (1, H, W): the right side is up to 1.9 times as bright as the left one."""
    return 0.8 + 0.25 * points[:1] / RADIUS


def turned(yaw: float = 0.0, pitch: float = 0.0, lit: bool = False) -> tuple[Reconstruction, Tensor]:
    """The sphere as a model finds it whose input view is turned by degrees, and the photograph."""
    view = torch.tensor([[math.radians(pitch), math.radians(yaw), 0, 0, 0, 0]])
    x, y = rays(NATIVE)
    points, sees = hit(x, y)
    depth = (points[2] + 1).where(sees, 1.0)
    shading = light(points)
    x, y = rays(SIZE, area_reach(SIZE))
    seen, shows = hit(x, y)
    own = torch.einsum("ji,jhw->ihw", rotation_matrix(view[:, :3].double())[0], seen)  # Rᵀ: back to the canonical frame
    photo = (paint(own) * (light(own) if lit else 1)).where(shows, 0.2)
    found = Reconstruction(
        image=torch.nn.functional.interpolate(photo[None].float(), (NATIVE, NATIVE), mode="area"),
        canonical_depth=depth[None].float(),
        canonical_image=(paint(points) * (shading if lit else 1)).where(sees, 0.2)[None].float(),
        canonical_shading=shading[None].float() if lit else None,
        view=view,
    )
    return found, photo.float()


def facing(yaw: float, pitch: float) -> tuple[Tensor, Tensor, Tensor]:
    """The canonical points of texels; the cosine at which the input view sees them; and whether they are inside."""
    points, _ = hit(*rays(SIZE))
    view = torch.tensor([[math.radians(pitch), math.radians(yaw), 0.0]], dtype=torch.float64)
    moved = torch.einsum("ij,jhw->ihw", rotation_matrix(view)[0], points)
    place = moved + torch.tensor([0.0, 0.0, 1.0])[:, None, None]
    cosine = -(moved * place).sum(0) / RADIUS / place.norm(dim=0)
    x, y = rays(SIZE)
    return points, cosine, (x**2 + y**2).sqrt() < 0.85 * RADIUS


#: A cubic through 64 pixels is off by up to 1 % of the radius at 0.85 of it, where its slope has doubled, and the
#: paint changes by 1.2 per radius; bilinear sampling of 256 pixels adds 0.001.
CLOSE = 0.012


def test_without_turning_the_texture_is_the_photograph() -> None:
    found, _ = turned()
    photo = torch.rand(3, NATIVE, NATIVE, generator=torch.Generator().manual_seed(0))
    texture = photo_texture(found, CAMERA, photo, size=NATIVE)
    inner = hit(*rays(NATIVE))[0][:2].norm(dim=0) < 0.7 * RADIUS
    # Sampling at pixel centres; float32 places are off by 1e-5 of a pixel.
    assert (texture - photo)[:, inner].abs().max() < 1e-4


def test_a_finer_photograph_lies_in_the_same_frame() -> None:
    for side in (64, 200, 256):
        # Linear across the frame, so that bilinear sampling is exact: 0.1 and 0.9 at the frame's own edges.
        ramp = 0.5 + 0.4 * (2 * (torch.arange(side) + 0.5) / side - 1)
        photo = ramp.expand(3, side, side)
        expected = 0.5 + 0.4 * torch.linspace(-1, 1, SIZE) * (NATIVE - 1) / NATIVE  # between the model's centres
        depth_only = Reconstruction(image=torch.zeros(1, 3, NATIVE, NATIVE), depth=torch.ones(1, NATIVE, NATIVE))
        assert (photo_texture(depth_only, CAMERA, photo)[0] - expected).abs().max() < 1e-5
        texture = photo_texture(turned()[0], CAMERA, photo)
        inner = hit(*rays(SIZE))[0][:2].norm(dim=0) < 0.7 * RADIUS
        assert (texture[0] - expected)[inner].abs().max() < 1e-4


@pytest.mark.parametrize("yaw, pitch", [(20, 0), (-45, 0), (30, 25)])
def test_what_the_photograph_shows_is_found_again(yaw: float, pitch: float) -> None:
    found, photo = turned(yaw, pitch)
    blank = replace(found, canonical_image=torch.zeros_like(found.image))
    points, cosine, inner = facing(yaw, pitch)
    error = (photo_texture(blank, CAMERA, photo, mirror=False) - paint(points)).abs()
    shown = inner & (cosine > 0.6)
    assert shown.sum() > 0.15 * SIZE**2
    assert error[:, shown].max() < CLOSE


@pytest.mark.parametrize("lit", [False, True])
@pytest.mark.parametrize("yaw", [40, -50])
def test_the_hidden_side_is_the_mirrored_one_in_its_own_light(yaw: float, lit: bool) -> None:
    found, photo = turned(yaw, lit=lit)
    blank = replace(found, canonical_image=torch.zeros_like(found.image))
    points, cosine, inner = facing(yaw, 0)
    expected = paint(points) * (light(points) if lit else 1)
    hidden = inner & (cosine < 0.1) & (cosine.flip(-1) > 0.6)
    assert hidden.sum() > 0.02 * SIZE**2
    texture = photo_texture(blank, CAMERA, photo)
    # The ratio of shadings is known at 64 pixels, between which it is interpolated.
    assert (texture - expected)[:, hidden].abs().max() < CLOSE + 0.01
    assert photo_texture(blank, CAMERA, photo, mirror=False)[:, hidden].abs().max() < 0.02  # the model's black


def test_a_mistaken_shading_does_no_great_harm() -> None:
    found, photo = turned(40)
    dark = torch.ones(1, 1, NATIVE, NATIVE)
    dark[..., NATIVE // 2 :] = 0
    texture = photo_texture(replace(found, canonical_shading=dark), CAMERA, photo)
    assert texture.isfinite().all() and texture.max() <= 1
    points, _, inner = facing(40, 0)
    assert (texture / paint(points))[:, inner].max() < 2.1  # no more than twice as bright


def test_what_no_side_shows_is_the_models_in_the_photographs_tone() -> None:
    points, cosine, inner = facing(0, 60)
    hidden = inner & (cosine < 0.1)
    assert hidden.sum() > 0.02 * SIZE**2
    found, photo = turned(pitch=60)
    # The model's picture has 64 pixels; where the paint changes from place to place, so does the tone, by a little.
    assert (photo_texture(found, CAMERA, photo) - paint(points))[:, hidden].abs().max() < 0.06
    plain = torch.full_like(photo, 0.6)
    grey = replace(found, canonical_image=torch.full_like(found.image, 0.5))
    assert (photo_texture(grey, CAMERA, plain) - 0.6).abs()[:, inner].max() < 0.01
    far = replace(found, canonical_image=torch.full_like(found.image, 0.1))
    assert photo_texture(far, CAMERA, plain)[:, hidden].max() < 0.17  # moved by a factor of 1.6 at most


def test_a_nose_hides_the_cheek_behind_it() -> None:
    x, y = (values / HALF for values in rays(NATIVE))
    depth = 1.05 - 0.1 * torch.exp(-80 * (x**2 + (y / 3) ** 2))  # a ridge upright in the middle of a plane
    found = Reconstruction(
        image=torch.zeros(1, 3, NATIVE, NATIVE),
        canonical_depth=depth[None].float(),
        canonical_image=torch.zeros(1, 3, NATIVE, NATIVE),
        view=torch.tensor([[0, math.radians(40), 0, 0, 0, 0]]),
    )
    texture = photo_texture(found, CAMERA, torch.ones(3, SIZE, SIZE), mirror=False)[0]
    middle = texture[SIZE // 2]
    # A positive yaw looks to the left, so the ridge's top, 0.1 before the plane, covers it for 0.1 · tan 40° = 0.084 to
    # the left: 0.96 of half the picture's width.
    left, right = (int((1 + place) / 2 * (SIZE - 1)) for place in (-0.4, 0.4))
    assert middle[left] < 0.05 and middle[right] > 0.9


def test_the_albedo_is_the_texture_without_its_light() -> None:
    found, _ = turned(lit=True)
    points, _, _ = facing(0, 0)
    colours, shading = paint(points).float(), light(points).float()
    lit = (colours * shading).clamp(0, 1)
    _, sees = hit(*rays(SIZE))
    inner = sees & (lit < 1).all(0)
    # Shading at 64 pixels, interpolated.
    assert (albedo_from_photo(lit, found) - colours)[:, inner].abs().max() < 0.03
    dark = replace(found, canonical_shading=torch.zeros(1, 1, NATIVE, NATIVE))
    assert albedo_from_photo(torch.full_like(lit, 0.1), dark).max() < 0.4  # divided by 0.3 at least
    assert albedo_from_photo(lit, replace(found, canonical_shading=None)) is lit


def test_a_texture_is_made_of_one_photograph() -> None:
    found, photo = turned()
    with pytest.raises(ValueError, match="not of 0"):
        photo_texture(Reconstruction(image=found.image[:0]), CAMERA, photo)
    with pytest.raises(ValueError, match="photograph is"):
        photo_texture(found, CAMERA, photo[None])
