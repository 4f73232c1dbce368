"""Synthetic faces like photographs: each effect does what it says, and no truth is touched."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from recon_synthetic_faces.dataset import SyntheticFaces
from recon_synthetic_faces.photographic import develop
from recon_synthetic_faces.render import Pictures, render
from recon_synthetic_faces.scene import Ranges, draw_scenes

from recon_toolkit.data.packing import DataContext
from recon_toolkit.errors import DataError

INDICES = np.arange(8)
GREY = np.full((1, 3, 64, 64), 128, np.uint8)


def scene(**values: object) -> NDArray[np.void]:
    """A scene whose camera does nothing but what is asked for."""
    drawn = draw_scenes(np.arange(1), "train", 3, Ranges())
    for name in ("gain", "gamma", "contrast", "saturation"):
        drawn[name] = 1
    for name, value in values.items():
        drawn[name] = value
    return drawn


def lit(**values: object) -> Pictures:
    return render(scene(**values), 64)


def test_people_and_poses_stay_and_the_truth_is_that_of_the_picture() -> None:
    plain = SyntheticFaces(seed=5).generate(INDICES, "train", 64)
    shot = SyntheticFaces(seed=5, photographic=1.0).generate(INDICES, "train", 64)
    assert (plain.view[:, :3] == shot.view[:, :3]).all()
    assert (plain.image != shot.image).any((1, 2, 3)).all()
    # Depth and normals still belong together: the truth is drawn from the scene as it was photographed.
    again = SyntheticFaces(seed=5, photographic=1.0).generate(INDICES, "train", 64)
    assert all(a.tobytes() == again.arrays()[name].tobytes() for name, a in shot.arrays().items())
    assert ((shot.depth > 0.9) & (shot.depth < 1.1) | ~shot.mask).all()
    assert (shot.light[:, 0] + shot.light[:, 1] < 1.5).all() and (shot.light[:, :2] > 0).all()


def test_a_camera_that_does_nothing_keeps_every_byte() -> None:
    picture = lit().image
    assert (develop(picture, scene()) == picture).all()


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("gain", (0.5, 1.0, 1.5), (64, 128, 192)),
        ("gamma", 2.0, (64, 64, 64)),  # (128/255)² · 255 = 64.25
        ("contrast", 2.0, (129, 129, 129)),  # (128/255 − ½) · 2 + ½
        ("saturation", 0.0, (128, 128, 128)),
    ],
)
def test_colours_follow_their_formulas(name: str, value: object, expected: tuple[int, ...]) -> None:
    developed = develop(GREY, scene(**{name: value}))[0]
    assert np.abs(developed.astype(int) - np.array(expected)[:, None, None]).max() <= 1  # a step of 8 bits


def test_black_and_white_has_one_colour_and_keeps_the_brightness() -> None:
    picture = lit().image
    grey = develop(picture, scene(saturation=0.0))[0].astype(float)
    assert np.ptp(grey, axis=0).max() <= 1
    luma = (picture[0] * np.array((0.299, 0.587, 0.114))[:, None, None]).sum(0)
    assert np.abs(grey[0] - luma).max() <= 1  # a step of 8 bits


def test_blur_spreads_a_point_as_a_gaussian_does() -> None:
    point = np.zeros((1, 3, 64, 64), np.uint8)
    point[:, :, 32, 32] = 255
    blurred = develop(point, scene(blur=1.0))[0, 0].astype(float) / 255
    axis = np.arange(64) - 32.0
    variance = (blurred.sum(0) * axis**2).sum() / blurred.sum()
    # σ = 1 pixel at 64 pixels. Values below half a grey level are lost, and with them some of the tails.
    assert 0.75 < variance < 1.05
    assert blurred[32, 32] == pytest.approx(1 / (2 * np.pi), abs=0.01)


def test_the_vignette_darkens_corners_and_not_the_middle() -> None:
    dark = develop(GREY, scene(vignette=0.5))[0, 0]
    assert dark[0, 0] == 64 and dark[31, 31] == 128


def test_grain_has_its_strength_and_its_seed() -> None:
    first, second, other = (develop(GREY, scene(grain=0.04, grain_seed=seed))[0].astype(float) for seed in (1, 1, 2))
    assert (first == second).all() and (first != other).any()
    assert first.std() / 255 == pytest.approx(0.04, rel=0.05)  # 12,288 samples: the spread is known to 0.6 %


def test_jpeg_leaves_its_blocks() -> None:
    picture = lit().image
    coarse, fine = (develop(picture, scene(jpeg=quality)).astype(int) for quality in (30, 95))
    assert np.abs(coarse - picture).mean() > 2 * np.abs(fine - picture).mean() > 0


def test_a_cast_shadow_takes_directed_light_and_leaves_the_ambient() -> None:
    plain = lit()
    # Everything right of the middle (u > 0) loses all of its directed light.
    shadow = lit(cast=(1.0, 0.0, 0.0, 0.02, 0.0), grain_seed=1)
    inside = plain.mask[0] & np.roll(plain.mask[0], 1, 0) & np.roll(plain.mask[0], -1, 0)
    right, left = inside.copy(), inside.copy()
    right[:, :34], left[:, 30:] = False, False
    assert (plain.image[0][:, left] == shadow.image[0][:, left]).all()
    ambient = plain.light[0, 0]
    expected = plain.albedo[0][:, right] * ambient * 255
    # Pictures average four samples of a pixel, albedo is that of its centre: they differ where colours have edges.
    assert np.median(np.abs(shadow.image[0][:, right] - expected)) < 2
    assert (plain.albedo == shadow.albedo).all()


def test_shine_lies_where_the_mirrored_light_meets_the_eye() -> None:
    values = {"light": (0.4, 0.6, 0.0, 0.0, 1.0)}
    dull, shiny = lit(**values), lit(specular=0.3, gloss=16.0, **values)
    added = (shiny.image[0].astype(int) - dull.image[0]).mean(0)
    facing = dull.normals[0, 2]
    saturated = (shiny.image[0] == 255).any(0)
    bright = dull.mask[0] & (facing > 0.97) & ~saturated
    # With the light behind the eye, its mirror image is at 2 n_z² − 1, so shine is 0.3 (2 n_z² − 1)^16.
    expected = 0.3 * (2 * facing**2 - 1) ** 16 * 255
    assert np.abs(added - expected)[bright].mean() < 3  # normals vary within a pixel
    assert added[dull.mask[0] & (facing < 0.6)].mean() < 0.1  # a pixel at an edge may hold a sample that shines


def test_more_of_it_shows_in_more_pictures() -> None:
    def share(amount: float) -> float:
        scenes = draw_scenes(np.arange(300), "train", 0, Ranges(), photographic=amount)
        return float((scenes["jpeg"] > 0).mean())

    # 300 draws at 0.3 and at 0.6: two standard deviations are 0.06.
    assert share(0.5) == pytest.approx(0.3, abs=0.08) and share(1.0) == pytest.approx(0.6, abs=0.08)


def test_the_option_is_checked_and_makes_a_cache_of_its_own(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"photographic = 1\.5 is outside 0 to 1"):
        SyntheticFaces(photographic=1.5)
    for amount in (0.0, 0.5):
        faces = SyntheticFaces(count=2, validation=1, test=1, seed=5, photographic=amount)
        faces.open("train", 32, DataContext(cache=tmp_path))
    folders = [path.name for path in (tmp_path / "synthetic-faces").iterdir() if path.is_dir()]
    assert "train-32px-2-d3a55c8da2615a6f" in folders and len(folders) == 2  # without, that of before there was any
