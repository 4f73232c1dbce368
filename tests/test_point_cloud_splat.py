"""The pseudo-renderer against a loop over points, finite differences and closed forms."""

import math

import pytest
import torch
from recon_point_cloud.splat import pseudo_render

from recon_toolkit.geometry.orthographic import camera_rotation, fixed_views, random_views, to_object, to_picture

SIZE = 8
BACKENDS = ["reference", "numba"]


def cloud(count=60, batch=2, views=3, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    points = (torch.rand(batch, count, 3, generator=generator, dtype=torch.float64) - 0.5) * 1.2  # some lie outside
    logits = torch.randn(batch, count, generator=generator, dtype=torch.float64)
    return points.to(dtype), logits.to(dtype), random_views(batch * views, generator).view(batch, views, 4).to(dtype)


def slowly(points, logits, quaternion, size, upsampling, last):
    """One view of one cloud, point by point, with a picture of cells as Lin et al. have it."""
    a, b, c, d = (quaternion / quaternion.norm()).tolist()
    cells, hidden = {}, {}
    for number, ((x, y, z), logit) in enumerate(zip(points.tolist(), logits.tolist(), strict=True)):
        # q p q*, the turned point; then the camera that looks along −z, with y up.
        t = [2 * (c * z - d * y), 2 * (d * x - b * z), 2 * (b * y - c * x)]
        right = x + a * t[0] + c * t[2] - d * t[1]
        up = y + a * t[1] + d * t[0] - b * t[2]
        back = z + a * t[2] + b * t[1] - c * t[0]
        depth = 1 - back
        u, v = math.floor((right + 0.5) * size * upsampling), math.floor((0.5 - up) * size * upsampling)
        if not (0 <= u < size * upsampling and 0 <= v < size * upsampling and depth > 1e-3):
            continue
        if logit > 0:
            if last or (v, u) not in cells or depth < cells[v, u][0]:
                cells[v, u] = (depth, logit, number)
        else:
            hidden.setdefault((v // upsampling, u // upsampling), []).append(logit)
    depths, masks = torch.zeros(size, size, dtype=torch.float64), -torch.ones(size, size, dtype=torch.float64)
    for (v, u), values in hidden.items():
        masks[v, u] = sum(values) / len(values)
    for (v, u), (depth, logit, _) in sorted(cells.items(), key=lambda item: -item[1][0]):  # nearest last
        depths[v // upsampling, u // upsampling], masks[v // upsampling, u // upsampling] = depth, logit
    return depths, masks


@pytest.mark.parametrize("collisions", ["nearest", "last"])
@pytest.mark.parametrize("upsampling", [1, 3])
@pytest.mark.parametrize("backend", BACKENDS)
def test_equals_a_loop_over_points(backend, upsampling, collisions):
    points, logits, views = cloud(count=400)
    found = pseudo_render(points, logits, views, SIZE, upsampling=upsampling, collisions=collisions, backend=backend)
    for b in range(2):
        for v in range(3):
            depth, mask = slowly(points[b], logits[b], views[b, v], SIZE, upsampling, collisions == "last")
            torch.testing.assert_close(found.depth[b, v], depth)
            torch.testing.assert_close(found.logits[b, v], mask)
            assert torch.equal(found.visible[b, v], depth > 0)


@pytest.mark.parametrize("collisions", ["nearest", "last"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_backends_agree_to_the_last_bit(dtype, collisions):
    points, logits, views = cloud(count=5000, dtype=dtype)
    found = {}
    for backend in BACKENDS:
        leaves = points.clone().requires_grad_(), logits.clone().requires_grad_()
        splats = pseudo_render(*leaves, views, 16, collisions=collisions, backend=backend)
        weights = torch.randn(2, *splats.depth.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
        total = (weights[0] * splats.depth).sum() + (weights[1] * splats.logits).sum()
        found[backend] = (splats.depth, splats.logits, splats.visible, *torch.autograd.grad(total, leaves))
    for one, other in zip(found["reference"][:3], found["numba"][:3], strict=True):
        assert torch.equal(one, other)
    for one, other in zip(found["reference"][3:], found["numba"][3:], strict=True):  # sums in another order
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_are_those_of_finite_differences(backend):
    points, logits, views = cloud(count=60)

    def drawn(p, m):
        splats = pseudo_render(p, m, views, SIZE, upsampling=2, backend=backend)
        return splats.depth, splats.logits

    assert torch.autograd.gradcheck(drawn, (points.requires_grad_(), logits.requires_grad_()))


@pytest.mark.parametrize("backend", BACKENDS)
def test_upsampling_changes_nothing_where_the_nearest_stays(backend):
    points, logits, views = cloud(count=2000, dtype=torch.float32)
    one, other = (pseudo_render(points, logits, views, SIZE, upsampling=n, backend=backend) for n in (1, 8))
    assert torch.equal(one.depth, other.depth) and torch.equal(one.logits, other.logits)


def test_upsampling_lets_fewer_points_be_overwritten():
    points, logits, views = cloud(count=4000)
    best = pseudo_render(points, logits, views, SIZE).depth
    wrong = [
        int((pseudo_render(points, logits, views, SIZE, upsampling=n, collisions="last").depth != best).sum())
        for n in (1, 2, 5, 8)
    ]
    assert wrong == sorted(wrong, reverse=True) and wrong[-1] < wrong[0] / 2


def test_the_order_of_points_does_not_matter():
    points, logits, views = cloud(count=1000)
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(0))
    one = pseudo_render(points, logits, views, SIZE)
    other = pseudo_render(points[:, order], logits[:, order], views, SIZE)
    assert torch.equal(one.depth, other.depth)
    torch.testing.assert_close(one.logits, other.logits)  # means of the same numbers in another order


@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_to_see_is_empty(backend):
    _, _, views = cloud()
    nowhere = torch.full((2, 3, 3), math.nan, dtype=torch.float64)
    for points in (nowhere, nowhere[:, :0], torch.full_like(nowhere, 9.0)):
        found = pseudo_render(points, torch.ones(points.shape[:2], dtype=torch.float64), views, SIZE, backend=backend)
        assert not found.visible.any() and not found.depth.any() and (found.logits == -1).all()


def test_the_fixed_views_are_the_corners_of_a_cube():
    rotation = camera_rotation(fixed_views().double())
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3, dtype=torch.float64).expand(8, 3, 3))
    to_camera = -rotation[:, 2] * math.sqrt(3)
    torch.testing.assert_close(to_camera.abs(), torch.ones_like(to_camera), atol=1e-3, rtol=0)  # five published digits
    assert len({tuple(corner) for corner in to_camera.round().tolist()}) == 8
    assert (rotation[:, 1, 2] < -0.8).all()  # in every view, the object's z points up


def test_pictures_and_objects_are_inverse():
    points, _, views = cloud()
    back = to_object(to_picture(points, views, SIZE), views, SIZE)
    torch.testing.assert_close(back, points[:, None].expand_as(back))
    middle = to_picture(torch.zeros(1, 1, 3), fixed_views()[None], SIZE)
    torch.testing.assert_close(middle, torch.tensor([3.5, 3.5, 1.0]).expand_as(middle))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"points": torch.zeros(2, 5, 2)}, r"points must be \(B, N, 3\)"),
        ({"logits": torch.zeros(2, 4)}, r"logits must be \(2, 5\)"),
        ({"views": torch.zeros(1, 1, 4)}, r"views must be \(2, V, 4\)"),
        ({"size": 0}, "size and upsampling must be 1 or more"),
        ({"collisions": "first"}, "collisions must be nearest or last"),
        ({"backend": "cuda"}, "backend must be auto, reference or numba"),
    ],
)
def test_wrong_arguments_are_named(change, message):
    values = {"points": torch.zeros(2, 5, 3), "logits": torch.zeros(2, 5), "views": torch.zeros(2, 1, 4), "size": 4}
    with pytest.raises(ValueError, match=message):
        pseudo_render(**values | change)
