"""Outlines taken from photographs: against true masks of synthetic faces, and through known views."""

from __future__ import annotations

import numpy as np
import torch
from recon_synthetic_faces.dataset import SyntheticFaces
from torch import Tensor

from recon_toolkit import Reconstruction
from recon_toolkit.geometry import Camera
from recon_toolkit.rendering import render_object
from recon_toolkit.rendering.depth_mesh import DepthMeshRenderer
from recon_toolkit.result import Result
from recon_toolkit.shapes.texture import SIDE, canonical_silhouette, photo_silhouette

CAMERA = Camera()


def axis(size: int) -> Tensor:
    return torch.linspace(-1, 1, size)


def disc(size: int, radius: float) -> Tensor:
    return axis(size).square() + axis(size)[:, None].square() < radius**2


def overlap(first: Tensor, second: Tensor) -> float:
    return float((first & second).sum() / (first | second).sum())


def dome(size: int = 64) -> Tensor:
    """Half an ellipsoid before a plane, (1, H, W)."""
    return (1.02 - 0.09 * (1 - axis(size).square() - axis(size)[:, None].square()).clamp(min=0).sqrt())[None]


def photo_of(mask: Tensor) -> Tensor:
    """An orange object on a blue ground, both noisy, (3, S, S)."""
    noise = torch.rand((3, *mask.shape), generator=torch.Generator().manual_seed(0)) * 0.2
    inside, outside = torch.tensor([0.7, 0.4, 0.2]), torch.tensor([0.1, 0.3, 0.6])
    return torch.where(mask, inside[:, None, None], outside[:, None, None]) + noise


def test_outlines_of_heads_are_near_the_true_ones() -> None:
    made = SyntheticFaces(anatomy=0.5, photographic=0.2).generate(np.arange(30), "test", SIDE)
    found = [photo_silhouette(torch.from_numpy(image).float() / 255) for image in made.image]
    scores = [overlap(o, torch.from_numpy(m)) for o, m in zip(found, made.mask, strict=True) if o is not None]
    # Measured: 0.86 in the mean; the ellipse that the search starts from alone has 0.74.
    assert len(scores) >= 27 and np.mean(scores) > 0.8


def test_an_outline_is_the_same_again_and_none_where_nothing_tells() -> None:
    photo = photo_of(disc(128, 0.7))
    first, second = photo_silhouette(photo), photo_silhouette(photo)
    assert first is not None and second is not None and bool((first == second).all())
    assert overlap(first, disc(SIDE, 0.7)) > 0.95  # a pixel along the outline is 3 % of this disc
    assert photo_silhouette(torch.full((3, 128, 128), 0.5)) is None


def test_an_outline_comes_back_from_a_turned_view() -> None:
    depth, view = dome(), torch.tensor([[0.05, 0.35, 0.0, 0.01, 0.0, 0.0]])
    true = disc(64, 0.8)
    white = true.float().expand(1, 3, -1, -1).contiguous()
    seen = render_object(DepthMeshRenderer(camera=CAMERA, depth_range=(0.9, 1.1)), depth, white, white, None, view)
    found = Reconstruction(image=seen.image, canonical_depth=depth, view=view)
    back = canonical_silhouette(found, CAMERA, seen.image[0, 0] > 0.5)[0]
    assert overlap(back, true) > 0.93  # two pixels along the outline are 8 % of this disc
    assert bool((back == back.flip(-1)).all())


def test_a_mesh_ends_where_the_photograph_shows_the_object_to_end() -> None:
    depth = dome()
    found = Reconstruction(image=torch.zeros(1, 3, 64, 64), canonical_depth=depth, view=torch.zeros(1, 6))
    result = Result(found, CAMERA, photo_of(disc(128, 0.7)), "dome")
    reach = np.hypot(*result.mesh().vertices[:, :2].T)
    # 0.7 of the frame lies at 0.7 of half the width; the outline is smoothed by 2 pixels, of 0.03 each.
    assert 0.64 < reach.max() < 0.76
    unknown = Result(found, CAMERA, torch.full((3, 128, 128), 0.5), "dome")
    assert unknown.outlined.canonical_mask is None and np.hypot(*unknown.mesh().vertices[:, :2].T).max() > 0.8
