"""The structure generator, the model and its losses: published sizes, closed forms and perfect answers."""

import math
from dataclasses import replace

import pytest
import torch
from recon_object_views.procedural import ProceduralObjects
from recon_point_cloud.losses import ViewDepth, ViewMask, view_grid
from recon_point_cloud.model import PointCloud, StructureGenerator
from torch import nn

from recon_toolkit import Batch, ReconError
from recon_toolkit.data.packing import DataContext
from recon_toolkit.geometry import Camera
from recon_toolkit.geometry.orthographic import fixed_views, to_picture

SIZE = 32
LITTLE = {
    "output_size": SIZE, "encoder_channels": (4, 4, 4, 4), "hidden": (8, 8), "latent": 8, "decoder_hidden": (8, 8),
    "decoder_start": 4, "decoder_channels": (4,),
}  # fmt: skip


class Says(nn.Module):
    """A network that gives the same maps (B, 32, S, S) for every image of a batch."""

    def __init__(self, maps):
        super().__init__()
        self.maps = maps

    def forward(self, image):
        return self.maps


def model(network=None, **options):
    torch.manual_seed(0)
    network = network or StructureGenerator(3, 32, 32, **LITTLE)
    return PointCloud({"structure": network}, None, Camera(10), 32, **options)


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    data = ProceduralObjects(count=4, validation=1, test=1, images=2, depth_size=SIZE, novel_views=6, points=200)
    return data.open("train", 32, DataContext(cache=tmp_path_factory.mktemp("objects")))


def knowing(depth):
    """The network that knows the fixed views: points at their pixels, true depth, sure of the mask."""
    offset = torch.zeros_like(depth)
    maps = torch.stack(
        (offset, offset, torch.where(depth > 0, depth - 1, 0), torch.where(depth > 0, 20.0, -20.0)), dim=1
    )
    return Says(maps.flatten(1, 2))


def test_the_network_has_the_published_layers():
    """Weights of convolutions and fully connected layers for 64 → 128 pixels and eight views (Lin et al.)."""
    network = StructureGenerator(3, 32, 64)
    weights = [m.weight.numel() for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    convolutions = [9 * a * b for a, b in ((3, 96), (96, 128), (128, 192), (192, 256))]
    dense = [4096 * 2048, 2048 * 1024, 1024 * 512, 512 * 1024, 1024 * 2048, 2048 * 4096]
    upwards = [9 * a * b for a, b in ((256, 192), (192, 128), (128, 96), (96, 64), (64, 48))]
    assert weights == [*convolutions, *dense, *upwards, 48 * 32]
    assert network(torch.rand(2, 3, 64, 64)).shape == (2, 32, 128, 128)


@pytest.mark.parametrize("output", [16, 32, 64, 128])
def test_pictures_of_any_size_come_out(output):
    network = StructureGenerator(3, 8, 32, **LITTLE | {"output_size": output})
    assert network(torch.rand(2, 3, 32, 32)).shape == (2, 8, output, output)


@pytest.mark.parametrize(("image", "output"), [(32, 48), (40, 32), (32, 4)])
def test_sizes_that_do_not_fit_are_refused(image, output):
    with pytest.raises(ValueError, match=r"output_size is 4 times|image_size is a multiple of 16"):
        StructureGenerator(3, 8, image, **LITTLE | {"output_size": output})


def test_a_network_that_says_nothing_makes_eight_flat_sheets():
    """Offsets of zero: each view's points are its pixel grid at the object's distance, through the object's middle."""
    found = model(Says(torch.zeros(1, 32, SIZE, SIZE))).structure(torch.zeros(1, 3, 32, 32))
    points = found.points.view(8, SIZE, SIZE, 3)
    torch.testing.assert_close(points.mean((1, 2)), torch.zeros(8, 3), atol=1e-6, rtol=0)
    spacing = (points[:, 1:] - points[:, :-1]).norm(dim=-1)
    torch.testing.assert_close(spacing, torch.full_like(spacing, 1 / SIZE))


def test_points_seen_from_their_own_view_are_where_the_network_put_them(objects):
    batch = objects.batch([0, 2])
    found = model(knowing(batch.extra["fixed_depth"])).structure(batch.image)
    back = to_picture(found.points, fixed_views()[None].expand(2, -1, -1), SIZE)
    own = torch.stack([back[:, v].unflatten(1, (8, -1))[:, v] for v in range(8)], dim=1)
    torch.testing.assert_close(own, found.pixels.flatten(2, 3), atol=1e-4, rtol=0)


def test_who_knows_all_loses_nothing_in_fixed_views_and_little_in_others(objects):
    batch = objects.batch([0, 2, 4])
    output = model(knowing(batch.extra["fixed_depth"]), novel_views=6)(batch)
    assert float(ViewMask()(output, batch)) < 1e-6
    # 16 bits over 2 units: half a step.
    assert float(ViewDepth()(output, batch)) < 2e-5
    assert float(view_grid(output)) == 0
    # From a new side, points of eight pictures lie up to a pixel beside the true ones: its depth, 1/32, on slopes.
    assert float(ViewDepth(views="novel")(output, batch)) < 1 / SIZE
    seen, true = output.factors["novel_visible"], batch.extra["novel_depth"] > 0
    assert float((seen & true).sum() / (seen | true).sum()) > 0.6  # thin legs between pixels stay unseen


def test_losses_are_what_their_formulas_say():
    depth = torch.tensor([[[[1.0, 0.0], [0.8, 1.2]]]])
    pixels = torch.zeros(1, 1, 2, 2, 3)
    pixels[..., 0], pixels[..., 1] = torch.tensor([0.0, 1.5]), torch.tensor([[0.0], [1.0]])
    pixels[..., 2] = torch.tensor([[1.1, 9.0], [0.8, 1.5]])
    logits = torch.tensor([[[[2.0, -1.0], [0.0, 3.0]]]])
    factors = {"coordinates": pixels, "fixed_logits": logits}
    batch = Batch(image=torch.zeros(1, 3, 4, 4), index=torch.zeros(1), extra={"fixed_depth": depth})
    output = replace(model()(Batch(image=torch.zeros(2, 3, 32, 32), index=torch.zeros(2))), factors=factors)
    sure = [math.log1p(math.exp(-x)) for x in (2.0, 1.0, 0.0, 3.0)]  # −log of the probability given to the truth
    assert float(ViewMask()(output, batch)) == pytest.approx(sum(sure) / 4)
    assert float(ViewDepth()(output, batch)) == pytest.approx((0.1 + 0.0 + 0.3) / 3)
    assert float(view_grid(output)) == pytest.approx(0.25)  # half the points lie half a pixel to the right


def test_views_are_chosen_by_the_draw_and_without_it_in_order(objects):
    net = model(novel_views=3)
    net.eval()
    batch = objects.batch([0, 1, 2, 3])
    assert net(batch).factors["novel_chosen"].tolist() == [[0, 1, 2]] * 4
    draws = [replace(batch, draw=torch.tensor([number, 7, 7, 7])) for number in (5, 5, 6)]
    one, same, other = (net(drawn).factors["novel_chosen"] for drawn in draws)
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert all(len(set(row)) == 3 for row in one.tolist())


def test_gradients_reach_the_network_from_every_loss(objects):
    batch = replace(objects.batch([0, 1, 2, 3]), draw=torch.arange(4))
    for loss in (ViewMask(), ViewDepth(), ViewMask(views="novel"), ViewDepth(views="novel")):
        net = model(novel_views=3)
        loss(net(batch), batch).backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
        assert sum(float(p.grad.abs().sum()) for p in net.parameters()) > 0


def test_what_is_missing_is_named(objects):
    plain = Batch(image=torch.zeros(2, 3, 32, 32), index=torch.zeros(2))
    with pytest.raises(ReconError, match="'point-cloud' needs 'novel_view' of every image"):
        model(novel_views=2)(plain)
    with pytest.raises(ReconError, match="view-mask needs 'fixed_depth'"):
        ViewMask()(model()(plain), plain)
    big = model(StructureGenerator(3, 32, 32, **LITTLE | {"output_size": 64}))
    batch = objects.batch([0, 1])
    with pytest.raises(ReconError, match="compares views of 64 pixels with depth maps of 32"):
        ViewDepth()(big(batch), batch)
