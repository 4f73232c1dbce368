"""Patches on synthetic faces: they change the colour of the face where they lie, and nothing else at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from recon_synthetic_faces.colours import Patches
from recon_synthetic_faces.dataset import SyntheticFaces
from recon_synthetic_faces.render import Pictures
from recon_synthetic_faces.scene import SCENE, Ranges, draw_scenes

from recon_toolkit.data.packing import DataContext
from recon_toolkit.errors import DataError

INDICES = np.arange(6)
OPAQUE: dict[str, Any] = {"patches": 2, "patch_opacity": (1.0, 1.0)}


@pytest.fixture(scope="module")
def plain() -> Pictures:
    return SyntheticFaces(seed=5).generate(INDICES, "train", 64)


@pytest.fixture(scope="module")
def patched() -> Pictures:
    return SyntheticFaces(seed=5, **OPAQUE).generate(INDICES, "train", 64)


def covered(plain: Pictures, patched: Pictures) -> NDArray[np.bool_]:
    """Pixels (N, H, W) whose centre lies on a patch."""
    return np.asarray((plain.albedo != patched.albedo).any(1))


def test_without_patches_the_pictures_are_those_of_before_there_were_any(plain: Pictures) -> None:
    # Means made by the generator before it knew patches. Machines differ in a pixel's last bits; any other random
    # draw changes a mean by many grey levels.
    assert np.allclose(plain.image.mean((1, 2, 3)), [130.294, 150.857, 88.699, 104.564, 133.232, 106.747], atol=0.05)
    assert np.allclose(plain.albedo.mean((1, 2, 3)), [0.53882, 0.49809, 0.36769, 0.2872, 0.57387, 0.39501], atol=2e-4)


def test_without_patches_the_cache_is_that_of_before_there_were_any(cache: Path, tmp_path: Path) -> None:
    small: dict[str, Any] = {"count": 2, "validation": 1, "test": 1, "seed": 5}
    folder = tmp_path / "synthetic-faces"
    for options in ({}, {"patch_size": (0.3, 0.4)}, {"patches": 1}, {"patches": 1, "patch_size": (0.3, 0.4)}):
        SyntheticFaces(**small, **options).open("train", 32, DataContext(cache=tmp_path))
    names = {path.name for path in folder.iterdir() if path.is_dir()}
    assert "train-32px-2-d3a55c8da2615a6f" in names and len(names) == 3  # the size matters only where there are some


def test_patches_change_colours_on_them_and_nothing_else(plain: Pictures, patched: Pictures) -> None:
    for name in ("depth", "mask", "normals", "light", "view"):
        assert plain.arrays()[name].tobytes() == patched.arrays()[name].tobytes(), name
    on = covered(plain, patched)
    share = on.sum((1, 2)) / plain.mask.sum((1, 2))
    assert not (on & ~plain.mask).any()
    assert (share > 0.01).all() and (share < 0.6).all()  # two of at most half the face's width each way
    # A pixel of the picture averages samples within half a pixel: off patches and their neighbours it is the same.
    near = on.copy()
    for shift in (-1, 1):
        near |= np.roll(on, shift, 1) | np.roll(on, shift, 2)
    for shift in (-1, 1):
        near |= np.roll(near, shift, 1) | np.roll(near, shift, 2)
    difference = (plain.image != patched.image).any(1)
    assert (difference & ~near).sum() <= 0.002 * near.size  # a corner of a patch may lie between all pixels' centres
    assert (difference & on).sum() > 0.95 * on.sum()


def test_opaque_patches_have_one_colour_and_are_lit_like_skin(patched: Pictures) -> None:
    scenes = draw_scenes(INDICES, "train", 5, Ranges(), patches=Patches(2, (0.2, 0.5), (1.0, 1.0)))
    for scene, albedo in zip(scenes, patched.albedo, strict=True):
        top = scene["patch_colour"][1]  # the last one lies above all
        exact = np.abs(albedo - top[:, None, None]).max(0) < 1e-6  # float32
        assert exact.sum() > 15
    single = SyntheticFaces(seed=5, supersampling=1, **OPAQUE).generate(INDICES, "train", 64)
    facing = np.maximum(0, np.einsum("nchw,nc->nhw", single.normals, single.light[:, 2:]))
    shading = single.light[:, 0, None, None] + single.light[:, 1, None, None] * facing
    expected = np.clip(single.albedo * shading[:, None], 0, 1) * 255
    difference = np.abs(expected - single.image)[np.broadcast_to(single.mask[:, None], expected.shape)]
    assert difference.max() <= 0.501  # a picture is rounded to bytes


def test_patches_lie_on_the_head_wherever_it_turns() -> None:
    """The same patch on one head in three poses: shifted it keeps its area, turned away it narrows."""
    from recon_synthetic_faces.render import render

    scenes = draw_scenes(np.array([3, 3, 3]), "train", 5, Ranges(), patches=Patches(1, (0.4, 0.4), (1.0, 1.0)))
    scenes["patch"][:, 0] = (0, 20, 20, 20, 0)  # a square of 40 mm on the nose
    scenes["patch_colour"][:, 0] = (0, 1, 0)
    scenes["pose"] = 0
    scenes["pose"][1, 3] = 0.02  # to the right
    scenes["pose"][2, 1] = np.radians(30)
    drawn = render(scenes, 64)
    green = (drawn.albedo[:, 1] > 0.99) & (drawn.albedo[:, 0] < 0.01)
    columns = np.arange(64)
    middle = (green.sum(1) * columns).sum(1) / green.sum((1, 2))
    # A pixel shows 2·tan 5° / 63 = 2.8 mm at distance 1; the nose lies about 0.07 before that.
    assert abs(middle[0] - 31.5) < 1.0
    assert middle[1] - middle[0] == pytest.approx(0.02 / (2 * np.tan(np.radians(5)) / 63 * 0.93), abs=0.7)
    # Its edges fall between other pixels' centres, 60 pixels around it: a few change sides.
    areas = green.sum((1, 2))
    assert areas[1] == pytest.approx(areas[0], rel=0.05)
    # Seen 30° from the side a flat patch has 0.87 of its area; on a nose it is not flat. Its height stays.
    assert 0.75 < areas[2] / areas[0] < 0.95
    rows = green.any(2).sum(1)
    assert (np.abs(rows - rows[0]) <= 1).all()
    # Turned by 30°, a patch 0.05 to 0.08 before the axis goes sideways by half of that, and narrows by its cosine.
    moved = abs(middle[2] - middle[0])
    assert 0.02 < moved * 2 * np.tan(np.radians(5)) / 63 < 0.06


def test_patches_are_not_symmetric() -> None:
    scenes = draw_scenes(np.arange(200), "train", 0, Ranges(), patches=Patches(3, (0.2, 0.5), (0.5, 1.0)))
    across = scenes["patch"][:, :3, 0]
    # Uniform within ±60 mm: the mean of 600 has a spread of 1.4 mm, and one in six has a middle within 10 mm of the
    # plane of symmetry.
    assert abs(across.mean()) < 6 and (np.abs(across) > 10).mean() > 0.75
    colours = scenes["patch_colour"][:, :3].reshape(-1, 3)
    assert len(np.unique(colours, axis=0)) == len(colours)
    sides, opacity = scenes["patch"][:, :3, 2:4] * 2 / 140, scenes["patch_opacity"][:, :3]
    assert sides.min() >= 0.2 and sides.max() <= 0.5 and opacity.min() >= 0.5 and opacity.max() <= 1
    assert (scenes["patch_opacity"][:, 3:] == 0).all()


def test_patches_are_drawn_apart_from_everything_else() -> None:
    without = draw_scenes(np.arange(40), "val", 2, Ranges(), images_per_identity=2)
    few, many = (
        draw_scenes(np.arange(40), "val", 2, Ranges(), images_per_identity=2, patches=Patches(n, (0.2, 0.5), (0.5, 1)))
        for n in (1, 4)
    )
    for name in SCENE.names or ():
        if not name.startswith("patch"):
            assert without[name].tobytes() == few[name].tobytes(), name
    assert few["patch"][:, 0].tobytes() == many["patch"][:, 0].tobytes()  # further patches leave the first alone
    assert (few["patch"][::2, 0] != few["patch"][1::2, 0]).any(1).all()  # of the picture, not of the person


def test_the_same_options_give_the_same_patches(patched: Pictures) -> None:
    alone = SyntheticFaces(seed=5, **OPAQUE).generate(INDICES[[4, 1]], "train", 64)
    for name, values in alone.arrays().items():
        assert values.tobytes() == patched.arrays()[name][[4, 1]].tobytes(), name


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"patches": 9}, "patches"),
        ({"patch_size": (0.5, 0.2)}, "patch_size"),
        ({"patch_opacity": (0, 2)}, "patch_opac"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], name: str) -> None:
    with pytest.raises(DataError, match=name):
        SyntheticFaces(**options)
