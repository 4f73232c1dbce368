"""Scores of clouds beside their baselines, against slow references and cases where the answer is known."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from recon_object_views.procedural import ProceduralObjects
from recon_point_cloud.framing import PlainBackground
from recon_point_cloud.model import SHEET
from recon_point_cloud.scores import Baselines, CloudScorer, fused, mean_shape

from recon_toolkit.data.packing import DataContext
from recon_toolkit.detection import crop_box, framing_of
from recon_toolkit.errors import DataError
from recon_toolkit.geometry.orthographic import camera_rotation, fixed_views, to_object, to_picture
from recon_toolkit.inference.pictures import Finder, Source
from recon_toolkit.metrics.clouds import cloud_metrics

FIELDS = ("image", *SHEET.fields)


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    data = ProceduralObjects(
        categories=("chair", "mug"), count=3, validation=1, test=2, images=2, depth_size=32, novel_views=6, points=300
    )
    context = DataContext(cache=tmp_path_factory.mktemp("objects"))
    return {split: data.open(split, 32, context) for split in ("train", "test")}


def test_fused_depth_maps_lie_where_the_maps_say(objects):
    depth = objects["train"].batch([0]).extra["fixed_depth"]
    cloud = fused(depth)[0]
    assert len(cloud) == int((depth > 0).sum())
    seen = to_picture(cloud[None], fixed_views(8)[None], 32)[0]  # (8, N, 3)
    start = 0
    for view in range(8):
        rows, columns = (depth[0, view] > 0).nonzero(as_tuple=True)
        own = seen[view, start : start + len(rows)]
        expected = torch.stack((columns.float(), rows.float(), depth[0, view][rows, columns]), dim=1)
        torch.testing.assert_close(own, expected, atol=2e-5, rtol=0)  # pixels up to 32 in float32
        start += len(rows)


def test_the_mean_shape_is_the_majority_and_the_median():
    """Three maps of two pixels: one pixel that two objects cover, and one that a single object covers."""
    depth = torch.zeros(3, 1, 8, 8)
    depth[:, 0, 2, 5] = torch.tensor([0.9, 0.0, 1.1])
    depth[0, 0, 6, 1] = 1.0
    cloud = mean_shape(depth)
    assert len(cloud) == 1
    seen = to_picture(cloud[None], fixed_views(1)[None], 8)[0, 0, 0]
    # torch's median of two is the lower one; 8 pixels in float32
    torch.testing.assert_close(seen, torch.tensor([5.0, 2.0, 0.9]), atol=1e-5, rtol=0)


def test_where_no_majority_agrees_the_commonest_pixels_are_taken():
    depth = torch.zeros(3, 1, 8, 8)
    depth[0, 0, 1, 1] = depth[1, 0, 4, 4] = 1.0
    assert len(mean_shape(depth)) == 2


def test_categories_have_mean_shapes_of_their_own(objects):
    found = Baselines(objects["train"])
    assert sorted(found.mean_shapes) == [0, 1] and found.categories.tolist() == [0, 1, 0, 1, 0, 1]
    chairs = objects["train"].batch([0, 4, 8]).extra["fixed_depth"]
    torch.testing.assert_close(found.mean_shapes[0], mean_shape(chairs), atol=0, rtol=0)


def test_a_training_image_retrieves_its_own_object_and_others_the_nearest(objects):
    train, found = objects["train"], Baselines(objects["train"])
    images = train.batch(np.arange(len(train))).image
    assert found.retrieved(images).tolist() == [n // 2 * 2 for n in range(len(train))]
    others = objects["test"].batch(np.arange(4)).image
    slow = [int(np.argmin([float((image - own).square().sum()) for own in images])) // 2 * 2 for image in others]
    assert found.retrieved(others).tolist() == slow


def test_scores_are_those_of_each_cloud_alone(objects):
    batch = objects["test"].batch(np.arange(8), FIELDS)
    truth = batch.extra["cloud"]
    answers = [truth[0], truth[1] + 0.01, truth[2][:100], *truth[3:7], truth[7][:0]]
    scored = CloudScorer(lambda images: answers, objects["train"])(batch)
    assert scored.groups == ["chair", "chair", "mug", "mug"] * 2
    for n in range(7):
        alone = cloud_metrics(answers[n], truth[n])
        assert scored.values["to_truth"][n] == alone.to_truth and scored.values["from_truth"][n] == alone.from_truth
        assert scored.values["f_1"][n] == alone.f_scores[0] and scored.values["f_2"][n] == alone.f_scores[1]
    assert scored.values["chamfer"][0] == 0 and scored.values["f_1"][0] == 1
    empty = {name: float(values[7]) for name, values in scored.values.items()}
    assert all(np.isnan(empty[name]) for name in ("to_truth", "from_truth", "chamfer", "novel_depth"))
    assert empty["f_1"] == empty["f_2"] == empty["novel_iou"] == 0
    own = Baselines(objects["train"])
    mean = cloud_metrics(own.mean_shapes[1], truth[2])
    assert scored.baselines["mean-shape"]["chamfer"][2] == mean.chamfer
    place = int(own.retrieved(batch.image)[5])
    nearest = cloud_metrics(own.cloud(place), truth[5])
    assert scored.baselines["retrieval"]["chamfer"][5] == nearest.chamfer


def test_a_depth_maps_own_points_are_right_in_its_view_and_off_by_what_they_are_moved(objects):
    whole = objects["test"].batch(np.array([0, 2]), FIELDS)
    one = {name: whole.extra[name][:, :1] for name in ("novel_depth", "novel_view")}
    batch = replace(whole, extra={**whole.extra, **one})
    clouds, moved = [], []
    for depth, view in zip(batch.extra["novel_depth"][:, 0], batch.extra["novel_view"], strict=True):
        rows, columns = (depth > 0).nonzero(as_tuple=True)
        pixels = torch.stack((columns.float(), rows.float(), depth[rows, columns]), dim=1)[None]
        clouds.append(to_object(pixels, view, 32)[0])
        away = torch.tensor([0.0, 0.0, 0.04]) @ camera_rotation(view[0])
        moved.append(clouds[-1] + away)
    right, off = (CloudScorer(lambda images, found=found: found, objects["train"])(batch) for found in (clouds, moved))
    assert right.values["novel_iou"].tolist() == off.values["novel_iou"].tolist() == [1, 1]
    # × 100, of depths about 1 in float32
    torch.testing.assert_close(right.values["novel_depth"], torch.zeros(2).double(), atol=1e-4, rtol=0)
    torch.testing.assert_close(off.values["novel_depth"], torch.full((2,), 4.0).double(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("colour", [(255, 255, 255), (200, 210, 205), (20, 20, 20)])
def test_an_object_on_a_plain_background_is_found_and_framed(colour):
    picture = np.full((300, 400, 3), colour, dtype=np.uint8)
    picture[90:230, 120:220] = (150, 80, 30)
    noise = np.random.default_rng(0).integers(-8, 9, picture.shape)
    (found,) = PlainBackground()(np.clip(picture.astype(int) + noise, 0, 255).astype(np.uint8))
    assert (found.x, found.y, found.width, found.height) == (120, 90, 100, 140)
    box = crop_box(found, **framing_of(PlainBackground()))
    assert box.width == box.height == pytest.approx(1.446 * 120)
    assert box.x + box.width / 2 == pytest.approx(170) and box.y + box.height / 2 == pytest.approx(160 - 0.033 * 86.76)


def test_nothing_is_found_where_there_is_no_object_or_no_plain_background():
    for picture, said in (
        (np.full((64, 64, 3), 255), "nothing stands before"),
        (np.random.default_rng(0).integers(0, 256, (64, 64, 3)), "the background is not plain"),
        (np.zeros((1, 1, 3)), "only 1 × 1 pixels"),
    ):
        with pytest.raises(DataError, match=said):
            PlainBackground()(picture.astype(np.uint8))


@pytest.mark.parametrize("corner", [(90, 120), (160, 150)])
def test_an_object_is_put_before_white_wherever_it_is(corner):
    """On blue, also where the crop reaches beyond the picture: what the model sees is the object and white."""
    picture = np.full((300, 400, 3), (40, 60, 200), dtype=np.uint8)
    top, left = corner
    picture[top : top + 140, left : left + 100] = (150, 80, 30)
    (crop,) = Finder(64, PlainBackground()).crops(picture, Source(Path("a.png"), "a"))
    side = 1.446 * 120
    rows, columns = 140 / side * 64, 100 / side * 64
    white = (crop.pixels == 255).all(axis=2)
    brown = (np.abs(crop.pixels.astype(int) - (150, 80, 30)) <= 2).all(axis=2)
    # The outermost pixels of the object are mixed with white.
    assert (rows - 2) * (columns - 2) <= brown.sum() <= rows * columns
    assert white.sum() >= 64 * 64 - (rows + 4) * (columns + 4)
    assert not (crop.pixels[..., 2].astype(int) > crop.pixels[..., 0].astype(int) + 2).any()  # no blue is left


def test_the_framing_is_that_of_the_pictures_to_learn_from(objects):
    """Training pictures, framed again, are framed as they were: within the spread that the docstring gives."""
    images = (objects["train"].batch(np.arange(12)).image.permute(0, 2, 3, 1) * 255).byte().numpy()
    boxes = [crop_box(PlainBackground()(image)[0], **framing_of(PlainBackground())) for image in images[::4]]
    assert all(abs(box.width / 32 - 1) < 0.25 for box in boxes)
