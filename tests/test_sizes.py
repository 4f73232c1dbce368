"""Maps at other sizes against closed forms: planes, spheres, discs, and edges with something far behind them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from recon_toolkit.geometry import Camera, normals_from_depth
from recon_toolkit.shapes.surface import resized, resized_depth, resized_maps, resized_mask, resizing_matrix
from recon_toolkit.structures import Reconstruction

CAMERA = Camera(10.0)
SIZES = (17, 40, 150)  # smaller, the same, larger


def plane(size: int) -> Tensor:
    """Depth (1, size, size), float64, of the plane 0.3 x + 0.2 y + z = 1: z · (0.3 rx + 0.2 ry + 1) = 1."""
    x, y, _ = CAMERA.rays(size, size, dtype=torch.float64)
    return (1 / (0.3 * x + 0.2 * y + 1))[None]


def sphere(size: int) -> tuple[Tensor, Tensor]:
    """Depth (1, size, size) and normals (1, 3, size, size) of a ball of radius 0.2 about (0, 0, 1.1), float64.

    It fills the picture: half its width at depth 1 is tan 5° = 0.087.
    """
    rays = CAMERA.rays(size, size, dtype=torch.float64)
    along = 1.1 * rays[2]
    square = (rays**2).sum(0)
    depth = (along - (along**2 - square * (1.1**2 - 0.2**2)).sqrt()) / square
    inward = rays * depth - torch.tensor([0, 0, 1.1], dtype=torch.float64)[:, None, None]
    return depth[None], -(inward / 0.2)[None]


def disc(size: int, radius: float = 0.7) -> Tensor:
    """(1, size, size) bool: a disc about the middle, its radius in halves of the picture."""
    axis = torch.linspace(-1, 1, size)
    return (axis**2 + axis[:, None] ** 2 < radius**2)[None]


@pytest.mark.parametrize("size", SIZES)
def test_a_plane_stays_a_plane(size: int) -> None:
    # 1/z is linear in the pixels, and the weights keep linear functions up to the borders: only rounding is left.
    assert (resized_depth(plane(40), size) - plane(size)).abs().max() < 1e-12
    # Single precision: some roundings of 6e-8 each.
    assert (resized_depth(plane(40).float(), size) - plane(size)).abs().max() < 1e-6


@pytest.mark.parametrize("size", SIZES)
def test_a_plane_before_something_else_stays_a_plane_up_to_its_edge(size: int) -> None:
    mask = disc(40)
    behind = plane(40) + 0.5
    found = resized_depth(torch.where(mask, plane(40), behind), size, mask=mask)
    inside = resized_mask(mask, size)
    # Beyond the edge the plane is continued by fits, whose stiffness against slopes is one part in 10⁷.
    assert (found - plane(size))[inside].abs().max() < 1e-6
    # Behind, all that is far from the edge is the other surface, smooth but no plane: within its cubic error.
    far = ~disc(size, 0.85)
    assert (found - plane(size) - 0.5)[far].abs().max() < 1e-4
    # Nothing lies between the two surfaces.
    gap = (found - plane(size)).abs()
    assert ((gap < 1e-6) | (gap > 0.49)).all()


@pytest.mark.parametrize(("size", "bound"), [(32, 1.0), (128, 0.1), (256, 0.1)])
def test_a_sphere_keeps_its_normals(size: int, bound: float) -> None:
    depth, _ = sphere(64)
    _, expected = sphere(size)
    found = Reconstruction(image=torch.zeros(1, 3, 64, 64), depth=depth, normals=normals_from_depth(depth, CAMERA))
    recomputed = resized_maps(found, size, camera=CAMERA).normals
    assert recomputed is not None
    angle = torch.rad2deg(torch.acos((recomputed * expected).sum(1).clamp(-1, 1)))[:, 2:-2, 2:-2]
    # Degrees, two pixels within the border: central differences of a cubic at a quarter of the original's pixel.
    # Reduced to half, the pixels themselves are larger, and so is the difference's own error.
    assert angle.max() < bound
    interpolated = resized_maps(found, size).normals
    assert interpolated is not None
    torch.testing.assert_close(interpolated.norm(dim=1), torch.ones(1, size, size, dtype=torch.float64))


def test_weights_sum_to_one_and_keep_lines() -> None:
    for count, size in ((2, 9), (5, 5), (64, 256), (64, 63), (100, 7), (3, 2)):
        matrix = resizing_matrix(count, size)
        line = torch.arange(count, dtype=torch.float64)
        expected = torch.linspace(0, count - 1, size, dtype=torch.float64)
        assert (matrix.sum(1) - 1).abs().max() < 1e-12  # rounding of at most a hundred terms
        assert (matrix @ line - expected).abs().max() < 1e-10
    assert torch.equal(resizing_matrix(1, 4), torch.ones(4, 1, dtype=torch.float64))
    with pytest.raises(ValueError, match="2 or more"):
        resizing_matrix(8, 1)


def test_the_same_size_changes_nothing() -> None:
    random = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.equal(resized(random, 12), random)


def test_reducing_averages() -> None:
    stripes = (torch.arange(128) % 2).double().expand(1, 128, 128)
    # Sampled, they would be black or white; a triangle over some eight pixels leaves little of them.
    assert (resized(stripes, 32) - 0.5).abs()[..., 1:-1].max() < 0.02


def test_an_enlarged_outline_is_where_it_was_and_smooth() -> None:
    found = resized_mask(disc(33), 257)
    assert found.dtype == torch.bool
    expected = disc(257)
    # A disc of 11.2 pixels' radius: the outline is nowhere off by a pixel of the original, nor the area by 2 %.
    assert not (found & ~disc(257, 0.7 + 1 / 16)).any() and not (~found & disc(257, 0.7 - 1 / 16)).any()
    assert float(found.sum()) == pytest.approx(float(expected.sum()), rel=0.02)
    assert resized_mask(torch.ones(1, 9, 9, dtype=torch.bool), 100).all()
    assert not resized_mask(torch.zeros(1, 9, 9, dtype=torch.bool), 5).any()
    half = torch.arange(9).expand(1, 9, 9) >= 4
    found = resized_mask(half, 81)  # the edge is half way from 3 to 4, at 35, which may fall to either side
    assert found[..., 36:].all() and not found[..., :35].any()


def test_what_is_behind_an_object_does_not_colour_its_edge() -> None:
    mask = disc(24)
    white = mask[:, None].float().expand(-1, 3, -1, -1)
    found = resized_maps(Reconstruction(image=white, mask=mask, albedo=white, reconstruction=white), 96)
    assert found.albedo is not None and found.mask is not None
    # Weights sum to 1 within a few roundings of 6e-8.
    assert (found.albedo - found.mask[:, None].float()).abs().max() < 1e-6


@pytest.mark.parametrize("size", [12, 50])
def test_every_map_has_the_new_size_and_its_range(size: int) -> None:
    draw = torch.Generator().manual_seed(0)

    def noise(channels: int) -> Tensor:
        return (torch.rand(2, channels, 20, 20, generator=draw) > 0.5).float()  # all edges, the worst for cubics

    depth = 1 + noise(1)[:, 0] / 10
    depth[0, 3, 3] = math.nan
    mask = noise(1)[:, 0] > 0
    mask[1] = False
    normals = torch.nn.functional.normalize(noise(3) - 0.4, dim=1)
    found = resized_maps(
        Reconstruction(
            image=noise(3),
            depth=depth,
            mask=mask,
            normals=normals,
            albedo=noise(3),
            shading=noise(1) * 2,
            canonical_depth=depth,
            canonical_albedo=noise(3),
            canonical_normals=normals,
            canonical_shading=noise(1),
            canonical_image=noise(3),
            light=torch.rand(2, 5),
            confidence=noise(1) + 0.1,
        ),
        size,
    )
    for name in ("image", "albedo", "canonical_albedo", "canonical_image"):
        values = getattr(found, name)
        assert values.shape == (2, 3, size, size) and values.min() >= 0 and values.max() <= 1
    for values in (found.depth, found.canonical_depth):
        assert values is not None and values.shape == (2, size, size)
        assert values.isfinite().all() and values.min() > 0.3 and values.max() < 3
    assert found.shading is not None and found.shading.min() >= 0
    assert found.confidence is not None and found.confidence.min() >= 0.1 and found.confidence.max() <= 1.1
    assert found.light is not None and found.light.shape == (2, 5)
    assert found.reconstruction is None
