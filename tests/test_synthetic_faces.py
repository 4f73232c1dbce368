"""Synthetic faces: same bytes for a seed, people apart by split, ground truth that agrees with itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from recon_synthetic_faces.dataset import SyntheticFaces
from recon_synthetic_faces.head import SKIN, template
from recon_synthetic_faces.modes import ANATOMY_MODES, ASYMMETRY_MODES, EXPRESSION_MODES, IDENTITY_MODES, basis
from recon_synthetic_faces.render import Pictures
from recon_synthetic_faces.scene import Ranges, draw_scenes
from torch.nn import functional as F

from recon_toolkit.data.packing import DataContext
from recon_toolkit.errors import DataError
from recon_toolkit.geometry import Camera, backproject, inverse_transform, normals_from_depth, rotation_matrix
from recon_toolkit.io.maps import write_dataset


@pytest.fixture(scope="module")
def faces() -> Pictures:
    return SyntheticFaces(seed=5).generate(np.arange(48), "train", 64)


def eroded(mask: NDArray[np.bool_], side: int = 3) -> NDArray[np.bool_]:
    """Pixels whose whole side × side neighbourhood is in the mask; beyond the edge of the picture nothing is."""
    holes = F.max_pool2d(F.pad(1.0 - torch.from_numpy(mask)[:, None].float(), [side // 2] * 4, value=1.0), side, 1)
    return np.asarray(holes[:, 0].numpy() == 0)


def angles(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float64]:
    """Angle in degrees between fields of unit vectors (N, 3, H, W)."""
    dot = (first.astype(np.float64) * second).sum(1)
    return np.asarray(np.degrees(np.arccos(np.clip(dot, -1, 1))), dtype=np.float64)


def test_pictures_do_not_depend_on_their_neighbours(faces: Pictures) -> None:
    again = SyntheticFaces(seed=5)
    for indices in ([7], [3, 0, 40]):
        alone = again.generate(np.array(indices), "train", 64)
        for name, values in alone.arrays().items():
            assert values.tobytes() == faces.arrays()[name][indices].tobytes(), name


def test_seeds_and_splits_give_other_people() -> None:
    everyone = [
        draw_scenes(np.arange(40), split, seed, Ranges())["coefficients"][:, IDENTITY_MODES]
        for split, seed in (("train", 0), ("val", 0), ("test", 0), ("train", 1))
    ]
    people = np.concatenate(everyone)
    assert len(np.unique(people, axis=0)) == len(people)


def test_pictures_of_one_person_share_the_person_only() -> None:
    scenes = draw_scenes(np.arange(6), "train", 0, Ranges(), images_per_identity=3)
    for name in ("skin", "hair_colour", "seed", "iris"):
        assert (scenes[name][:3] == scenes[name][0]).all() and (scenes[name][3:] == scenes[name][3]).all()
    assert (scenes["coefficients"][:3, IDENTITY_MODES] == scenes["coefficients"][0, IDENTITY_MODES]).all()
    assert (scenes["coefficients"][0, IDENTITY_MODES] != scenes["coefficients"][3, IDENTITY_MODES]).any()
    assert len(np.unique(scenes["pose"][:, :3], axis=0)) == 6


def test_depth_lies_in_range_and_faces_fill_the_picture(faces: Pictures) -> None:
    assert faces.depth[faces.mask].min() >= 0.902 - 1e-6 and faces.depth[faces.mask].max() < 1.1
    assert (faces.depth[~faces.mask] == np.float32(1.1)).all()
    assert faces.mask.mean() > 0.6
    assert faces.mask[:, 24:40, 24:40].mean((1, 2)).min() > 0.9  # a turned head may just leave a corner of the middle


def test_stored_normals_are_those_of_the_depth_map() -> None:
    pictures = SyntheticFaces(seed=5).generate(np.arange(6), "test", 256)
    assert np.allclose(np.linalg.norm(pictures.normals, axis=1), 1, atol=1e-5)  # float32 rounding of unit vectors
    depth = torch.from_numpy(pictures.depth).double()
    from_depth = normals_from_depth(depth, Camera()).float().numpy()
    # Smooth places only: a fold or an occlusion within the differences' reach has no normal there.
    bend = np.abs(angles(np.roll(from_depth, 2, -1), from_depth)) + np.abs(
        angles(np.roll(from_depth, 2, -2), from_depth)
    )
    calm = eroded(pictures.mask, 7) & (bend < 6)
    calm[:, :, :64] = calm[:, :, 192:] = calm[:, :48] = False  # the face; hair is of coarser triangles
    error = angles(from_depth, pictures.normals)[calm]
    assert calm.mean() > 0.1
    # Depth is of flat triangles of 2 to 5 mm, stored normals vary smoothly across them: where the surface curves with a
    # radius of 50 mm, a triangle's own normal is off by up to half its size over that, 3 degrees; lids, lips and
    # nostrils, a tenth of the face, curve with radii of a few millimetres.
    assert np.median(error) < 1.5 and np.quantile(error, 0.9) < 5


def test_shading_the_ground_truth_gives_the_picture() -> None:
    pictures = SyntheticFaces(seed=5, supersampling=1).generate(np.arange(8), "val", 64)
    ambient, diffuse, direction = pictures.light[:, 0], pictures.light[:, 1], pictures.light[:, 2:]
    facing = np.maximum(0, np.einsum("nchw,nc->nhw", pictures.normals, direction))
    shading = ambient[:, None, None] + diffuse[:, None, None] * facing
    expected = np.clip(pictures.albedo * shading[:, None], 0, 1) * 255
    difference = np.abs(expected - pictures.image)[np.broadcast_to(pictures.mask[:, None], expected.shape)]
    assert difference.max() <= 0.501  # a picture is rounded to bytes


def test_light_and_pose_stay_in_their_ranges() -> None:
    ranges = Ranges()
    scenes = draw_scenes(np.arange(600), "train", 3, ranges)
    light = scenes["light"]
    assert np.allclose(np.linalg.norm(light[:, 2:], axis=1), 1)
    assert (np.abs(light[:, 2] / light[:, 4]) <= ranges.light_x).all()
    assert light[:, 0].min() >= ranges.ambient[0] and light[:, 1].max() <= ranges.diffuse[1]
    turned = np.degrees(np.abs(scenes["pose"][:, :3]))
    assert (turned.max(0) <= (ranges.pitch, ranges.yaw, ranges.roll)).all()
    assert turned[:, 1].max() > 40  # as wide as ±45°
    assert 0.75 < (turned[:, 1] < 30).mean() < 0.95  # but most within ±30°


def test_view_says_where_the_head_is(faces: Pictures) -> None:
    """Taken back by its view, the tip of the nose lies in the plane of symmetry, however the head is turned."""
    view = torch.from_numpy(faces.view)
    points = backproject(torch.from_numpy(faces.depth), Camera()).flatten(2)
    canonical = inverse_transform(points, view).reshape(len(view), 3, *faces.depth.shape[1:])
    x, y, z = canonical.unbind(1)
    # Between the eyes and the mouth; hair and chin may lie before the nose.
    region = torch.from_numpy(faces.mask) & (y > -0.01) & (y < 0.03) & (x.abs() < 0.03)
    tip = torch.where(region, z, 9.0).flatten(1).argmin(1)
    across = x.flatten(1)[torch.arange(len(x)), tip].abs()
    # Half a pixel is 1.4 mm, at 45° 2 mm; the bridge may be bent by 1.6 mm and asymmetry adds as much.
    assert across.median() < 0.003 and across.max() < 0.008
    nose = z.flatten(1)[torch.arange(len(x)), tip]
    assert ((nose > 0.9) & (nose < 0.955)).all()


def test_rotation_is_the_pipelines() -> None:
    from recon_synthetic_faces.render import _rotation

    pose = np.array([0.2, -0.7, 0.1, 0.0, 0.0, 0.0])
    expected = rotation_matrix(torch.from_numpy(pose[None, :3]))[0].numpy()
    assert np.allclose(_rotation(pose), expected, atol=1e-12)


def test_sizes_show_the_same_scene() -> None:
    small, large = (SyntheticFaces(seed=5).generate(np.arange(4), "train", size) for size in (64, 128))
    assert (small.view == large.view).all()
    # The corners of both pictures are the same rays: pixel i of 64 is at i · 127 / 63 of 128.
    at = F.interpolate(torch.from_numpy(large.depth)[:, None], size=(64, 64), mode="bilinear", align_corners=True)
    inside = eroded(small.mask, 5) & eroded(F.interpolate(
        torch.from_numpy(large.mask)[:, None].float(), size=(64, 64), mode="nearest")[:, 0].numpy() > 0, 5)  # fmt: skip
    difference = np.abs(at[:, 0].numpy() - small.depth)[inside]
    # Between pixels of 128 the surface is flat to 1e-4 but for folds; a shift by half a pixel would give 1e-3.
    assert np.median(difference) < 5e-5 and np.quantile(difference, 0.9) < 4e-4
    means = [pictures.image.reshape(4, 3, -1).mean(2) for pictures in (small, large)]
    assert np.abs(means[0] - means[1]).max() < 2  # of 255: the same areas, sampled more finely


def test_supersampling_changes_the_picture_not_the_truth() -> None:
    once, thrice = (SyntheticFaces(seed=5, supersampling=s).generate(np.arange(2), "train", 32) for s in (1, 3))
    for name in ("depth", "mask", "normals", "albedo"):
        assert (getattr(once, name) == getattr(thrice, name)).all()
    assert (once.image != thrice.image).any()


def test_heads_are_mildly_asymmetric() -> None:
    head, fields = template(), basis()
    skin = head.part == SKIN
    points, count = head.points[skin], int(skin.sum())
    # Every vertex has a partner across the plane of symmetry (the seam at the back is its own).
    order = np.lexsort(np.round(points * (1, 1, 1), 6).T)
    mirrored = points * (-1, 1, 1)
    partner = np.empty(count, dtype=np.int64)
    partner[np.lexsort(np.round(mirrored, 6).T)] = order
    seam = np.abs(np.abs(head.chart[skin, 2]) - np.pi) < 1e-6
    assert np.allclose(points[partner][~seam], mirrored[~seam], atol=1e-5)
    coefficients = draw_scenes(np.arange(30), "train", 0, Ranges())["coefficients"].astype(np.float64)

    def unevenness(group: slice) -> NDArray[np.float64]:
        moved = np.einsum("nk,kvc->nvc", coefficients[:, group], fields[group][:, skin].astype(np.float64))
        apart = moved[:, partner] - moved * (-1, 1, 1)
        return np.asarray(np.linalg.norm(apart[:, ~seam], axis=-1).mean(1), dtype=np.float64)

    assert unevenness(IDENTITY_MODES).max() < 1e-4  # millimetres: identity is symmetric up to float32
    uneven = unevenness(ASYMMETRY_MODES)
    assert uneven.min() > 0.1 and uneven.max() < 4


def test_constant_depth_scores_badly() -> None:
    """Easy faces do not count: flat normals must be 36° off or more."""
    pictures = SyntheticFaces().generate(np.arange(128), "test", 64)
    truth = normals_from_depth(torch.from_numpy(pictures.depth), Camera()).numpy()
    flat = np.broadcast_to(np.array([0, 0, 1], np.float32)[:, None, None], truth.shape)
    off, inside = angles(truth, flat), eroded(pictures.mask)
    assert np.mean([off[n][inside[n]].mean() for n in range(128)]) >= 36


def test_backgrounds_are_vivid(faces: Pictures) -> None:
    hidden = np.broadcast_to(~faces.mask[:, None], faces.image.shape)
    behind = [image[outside].astype(np.float64) for image, outside in zip(faces.image, hidden, strict=True)]
    assert np.median([values.std() for values in behind if len(values) > 300]) > 35  # of 255


def test_open_generates_once_and_its_bytes_do_not_depend_on_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = SyntheticFaces(count=7, validation=2, test=2, seed=9)
    first = data.open("train", 32, DataContext(cache=tmp_path / "a"))
    assert len(first) == 7 and first.image_size == 32
    assert set(first.fields) == {"image", "depth", "mask", "normals", "albedo", "light", "view"}
    monkeypatch.setattr("recon_synthetic_faces.dataset._GROUP_SAMPLES", 3 * 64 * 64)
    second = data.open("train", 32, DataContext(cache=tmp_path / "b"))
    assert first.fingerprint == second.fingerprint
    before = sorted((tmp_path / "a").rglob("*"))
    assert data.open("train", 32, DataContext(cache=tmp_path / "a")).fingerprint == first.fingerprint
    assert sorted((tmp_path / "a").rglob("*")) == before
    other = SyntheticFaces(count=7, seed=10).open("train", 32, DataContext(cache=tmp_path / "a"))
    assert other.fingerprint != first.fingerprint


def test_original_layout_holds_the_depth(tmp_path: Path) -> None:
    images = SyntheticFaces(test=2).open("test", 32, DataContext(cache=tmp_path))
    write_dataset(tmp_path / "test", images)
    batch = images.batch(np.arange(2))
    assert batch.depth is not None and batch.mask is not None
    stored = np.asarray(Image.open(tmp_path / "test" / "depth" / "depth_000001.png")).astype(np.float64) / 65535
    mask = batch.mask[1].numpy()
    error = np.abs(1.1 - 0.2 * stored - batch.depth[1].numpy())[mask]
    assert error.max() <= 0.2 / 65535  # one step of 16 bits
    assert (stored[~mask] == 0).all()
    picture = np.asarray(Image.open(tmp_path / "test" / "image" / "image_000001.png"))
    assert picture.shape == (32, 32, 3)


def test_photographs_behind_the_heads(tmp_path: Path) -> None:
    for name, colour in (("a", (255, 0, 0)), ("b", (0, 255, 0))):
        Image.new("RGB", (50, 40), colour).save(tmp_path / f"{name}.png")
    data = SyntheticFaces(background=tmp_path, seed=5, supersampling=1)
    pictures = data.generate(np.arange(8), "train", 64, photographs=data.read_background())
    found = {tuple(image[:, ~mask].T[0]) for image, mask in zip(pictures.image, pictures.mask, strict=True)}
    assert found == {(255, 0, 0), (0, 255, 0)}


def test_wrong_options_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="supersampling"):
        SyntheticFaces(supersampling=0)
    with pytest.raises(DataError, match="ambient"):
        SyntheticFaces(ambient=(0.6, 0.3))
    with pytest.raises(DataError, match="nowhere"):
        SyntheticFaces(background=tmp_path / "nowhere").open("train", 32, DataContext(cache=tmp_path))
    with pytest.raises(DataError, match="split 'dev'"):
        SyntheticFaces().open("dev", 32, DataContext(cache=tmp_path))
    with pytest.raises(DataError, match="image size"):
        SyntheticFaces().open("train", 512, DataContext(cache=tmp_path))


def test_anatomy_changes_heads_and_nothing_else() -> None:
    plain = draw_scenes(np.arange(40), "train", 0, Ranges())
    drawn = draw_scenes(np.arange(40), "train", 0, Ranges(), anatomy=0.5)
    others = [name for name in plain.dtype.names if name != "coefficients"]
    assert (plain[others] == drawn[others]).all()
    changed = drawn["coefficients"][:, ANATOMY_MODES.start] == 1
    assert 10 <= changed.sum() <= 30  # 40 draws at a half: four standard deviations are 13
    assert (drawn["coefficients"][~changed] == plain["coefficients"][~changed]).all()
    everybody = draw_scenes(np.arange(40), "train", 0, Ranges(), anatomy=1.0)["coefficients"]
    assert (everybody[:, ANATOMY_MODES.start] == 1).all()
    assert (everybody[:, EXPRESSION_MODES] == plain["coefficients"][:, EXPRESSION_MODES]).all()


def test_anatomical_heads_are_faces() -> None:
    """Landmarks of the chart lie where they lie on a face, and the skin in front does not fold, for 30 people."""
    head = template()
    scenes = draw_scenes(np.arange(30), "train", 3, Ranges(), anatomy=1.0)
    scenes["coefficients"][:, EXPRESSION_MODES] = 0
    heads = head.points + np.einsum("nk,kvc->nvc", scenes["coefficients"], basis())
    skin = head.part == SKIN

    def at(x: float, y: float) -> NDArray[np.float64]:
        away = np.hypot(head.chart[:, 0] - x, head.chart[:, 1] - y)
        place = np.where(skin & (np.abs(head.chart[:, 2]) < 1.2), away, np.inf)
        return np.asarray(heads[:, place.argmin()])

    tip, bridge, eye, mouth, chin = at(0, 44), at(0, 0), at(32, 0), at(0, 73), at(0, 106)
    # Depth grows away from the camera: the tip of the nose is in front of all, the eyes lie behind the bridge.
    assert (tip[:, 2] < np.minimum(bridge, mouth)[:, 2] - 5).all()
    assert (eye[:, 2] > bridge[:, 2]).all()
    assert (tip[:, 1] > bridge[:, 1] + 15).all() and (mouth[:, 1] > tip[:, 1] + 10).all()
    assert (chin[:, 1] > mouth[:, 1] + 10).all()
    # No mode moves the mean face off its middle; people may be uneven by some millimetres.
    assert abs(float(tip[:, 0].mean())) < 1.5
    faces = head.faces[head.face_part == SKIN]
    theta, y = head.chart[faces][..., 2], head.chart[faces][..., 1]
    front = faces[(np.abs(theta) < 0.6).all(1) & (y > -60).all(1) & (y < 45).all(1)]
    a, b, c = (heads[:, front[:, n]] for n in range(3))
    away = np.cross(b - a, c - a)[..., 2]
    # The same winding as the template's: a triangle of these open parts of the face never faces backwards.
    assert (np.sign(away) == np.sign(np.median(away))).mean() > 0.99
