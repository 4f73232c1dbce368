"""The height-field renderer against closed forms, a dense march of single rays, finite differences and the mesh."""

import math

import numpy as np
import pytest
import torch
from recon_heightfield.renderer import HeightfieldRenderer, intersect

from recon_toolkit.geometry import Camera, inverse_transform, view_matrix
from recon_toolkit.rendering import DepthMeshRenderer

CAMERA = Camera()


def renderer(**options):
    return HeightfieldRenderer(camera=CAMERA, depth_range=(0.9, 1.1), **options)


def view_of(*degrees, shift=(0.0, 0.0, 0.0), dtype=torch.float64):
    return torch.tensor([[*map(math.radians, degrees), *shift]], dtype=dtype)


def rough(batch=2, size=8, amount=0.01, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (1 + amount * torch.randn(batch, size, size, generator=generator, dtype=torch.float64)).to(dtype)


def bump(size, dtype=torch.float64):
    axis = torch.linspace(-1, 1, size, dtype=dtype)
    return (1.02 - 0.03 * torch.exp(-3 * (axis.square() + axis[:, None].square())))[None]


def plane(size, normal, distance):
    """Canonical depth of the plane normal · P = distance."""
    rays = CAMERA.rays(size, size, dtype=torch.float64)
    return (distance / (normal[:, None, None] * rays).sum(0))[None]


def sphere(size, radius):
    """Depth of a sphere about the centre of rotation (1 beside it), and where it is."""
    rays = CAMERA.rays(size, size, dtype=torch.float64)
    norm, along = rays.square().sum(0), rays[2]
    root = along.square() - norm * (1 - radius**2)
    return torch.where(root > 0, (along - root.clamp(min=0).sqrt()) / norm, 1.0)[None], root > 0


def dense_march(depth, view, x, y, count=6000):
    """Where the ray of one pixel passes behind the surface, to the step of a dense march.

    Depths up to the first after which it stays behind for a pixel of the map or more; a renderer that takes steps
    of one pixel may miss those before. None last if there is none of that kind.
    """
    size = depth.shape[0]
    focal, centre = CAMERA.focal_length(size), (size - 1) / 2
    z = np.linspace(0.85, 1.15, count)
    ray = torch.tensor([(x - centre) / focal, (y - centre) / focal, 1], dtype=torch.float64)
    px, py, pz = inverse_transform(ray[None, :, None] * torch.from_numpy(z), view)[0].numpy()
    u, v = px / pz * focal + centre, py / pz * focal + centre
    inside = (u >= 0) & (u <= size - 1) & (v >= 0) & (v <= size - 1)
    i, j = (np.clip(p.astype(int), 0, size - 2) for p in (u, v))
    a, b, w = u - i, v - j, 1 / depth
    surface = (1 - b) * ((1 - a) * w[j, i] + a * w[j, i + 1]) + b * ((1 - a) * w[j + 1, i] + a * w[j + 1, i + 1])
    before, behind = inside & (1 / pz > surface), inside & (1 / pz <= surface)
    found = []
    for k in (before[:-1] & behind[1:]).nonzero()[0] + 1:
        found.append(z[k])
        end = k + int(np.argmin(behind[k:])) if not behind[k:].all() else count - 1
        if max(abs(u[end] - u[k]), abs(v[end] - v[k])) >= 1 or not before[end]:
            return found
    return [*found, None]


VIEWS = [
    view_of(*degrees, shift=(0.004, -0.002, 0.01)) for degrees in [(0, 5, 0), (3, 20, 2), (-30, 30, 40), (0, 60, 0)]
]


@pytest.mark.parametrize("view", VIEWS)
def test_a_slanted_plane_is_exact(view):
    normal = torch.tensor([0.2, -0.3, 0.81], dtype=torch.float64)
    rotation, offset = view_matrix(view)
    turned = rotation[0] @ normal
    rays = CAMERA.rays(32, 32, dtype=torch.float64)
    exact = (0.81 + turned @ offset[0, :, 0]) / (turned[:, None, None] * rays).sum(0)
    found, covered = renderer(supersampling=1).render_depth(plane(32, normal, 0.81), view)
    assert covered.float().mean() > 0.1
    assert (found[0] - exact)[covered[0]].abs().max() < 1e-13  # rounding only


def test_a_turned_sphere_has_the_closed_form_depth():
    size, radius = 128, 0.07
    depth, _ = sphere(size, radius)
    found, covered = renderer(supersampling=1).render_depth(depth, view_of(6, 17, 11))
    inner = torch.zeros(size, size, dtype=torch.bool)
    inner[44:84, 44:84] = True
    assert covered[0][inner].all()
    # At up to 0.9 rad from the canonical axis, a pixel of 1.4e-3 is h = 1.4e-3 / cos 0.9 = 2.2e-3 long on the sphere.
    # Bilinear interpolation is off by h²/(8 r) along either direction: 1.8e-5 together at most.
    assert (found - depth)[0][inner].abs().max() < 1.8e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_at_identity_the_depth_comes_back(dtype):
    depth = rough(dtype=dtype, size=16, amount=0.02)
    found, covered = renderer(supersampling=1).render_depth(depth, torch.zeros(2, 6, dtype=dtype))
    assert covered.all()
    # A pixel's position rounds to 16 eps of a pixel, the depth changes by 0.1 within one: 2 eps; and its own rounding.
    assert (found - depth).abs().max() < 8 * torch.finfo(dtype).eps


@pytest.mark.parametrize("view", VIEWS[1:])
@pytest.mark.parametrize("kind", ["rough", "step", "wall"])
def test_the_first_crossing_wins(kind, view):
    """Against single rays marched in steps of 5e-5, on maps full of occlusion."""
    depth = rough(1, 8, 0.004)
    if kind == "step":
        depth[:, :, 4:] -= 0.05
    if kind == "wall":
        depth[:, :, 4] -= 0.05
    found, covered = renderer(supersampling=1).render_depth(depth, view)
    numbers, passed_over = depth[0].numpy(), 0
    for y in range(8):
        for x in range(8):
            allowed = dense_march(numbers, view, x, y)
            value = float(found[0, y, x]) if covered[0, y, x] else None
            near = [p is value if None in (p, value) else abs(value - p) <= 5.1e-5 for p in allowed]
            assert any(near), (x, y)
            passed_over += not near[0]
    assert passed_over <= 3  # of 64: crests that a ray cuts by less than a pixel


def test_what_leaves_the_map_is_not_covered():
    found, covered = renderer().render_depth(bump(16), view_of(0, 0, 0, shift=(0.5, 0, 0)))
    assert not covered.any() and (found == 0).all()
    # From behind there is no front to meet.
    assert not renderer().render_depth(bump(16), view_of(0, 180, 0))[1].any()


def test_samples_of_a_pixel_are_averaged_and_all_needed():
    depth, view = rough(1, 12, 0.003), view_of(5, 25, 3)
    for pattern, places in (
        ("diagonal", [(-0.25, -0.25), (0.25, 0.25)]),
        ("grid", [(-0.25, -0.25), (0.25, -0.25), (-0.25, 0.25), (0.25, 0.25)]),
    ):
        found, covered = renderer(pattern=pattern).render_depth(depth, view)
        focal, (rotation, offset) = CAMERA.focal_length(12), view_matrix(view)
        values, hits = [], []
        for x, y in places:
            rays = CAMERA.rays(12, 12, dtype=torch.float64)
            rays = rays + torch.tensor([x / focal, y / focal, 0], dtype=torch.float64)[:, None, None]
            z, hit = intersect(
                depth, rotation, offset[:, :, 0], rays.reshape(3, -1), focal, max_steps=64, refinements=32
            )
            values.append(z.reshape(1, 12, 12))
            hits.append(hit.reshape(1, 12, 12))
        assert torch.equal(covered, torch.stack(hits).all(0))
        expected = torch.where(covered, torch.stack(values).mean(0), 0)
        torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)  # sums in another order


def test_the_published_half_pixel_offset():
    ramp = torch.linspace(1.0, 1.02, 16, dtype=torch.float64).expand(1, 16, 16)
    found, covered = renderer(supersampling=1, pixel_offset=0.5).render_depth(ramp, view_of(0, 0, 0))
    assert covered[0, :-1, :-1].all() and not covered[0, -1].any() and not covered[0, :, -1].any()
    halfway = 2 / (1 / ramp[:, :-1, :-1] + 1 / ramp[:, :-1, 1:])
    torch.testing.assert_close(found[:, :-1, :-1], halfway)


def test_it_agrees_with_the_mesh_to_second_order():
    """On a smooth map both are off by the square of a pixel: halving the pixels divides their difference by 4."""
    errors = []
    for size in (33, 65, 129):
        view = view_of(3, 20, 2)
        one, seen = renderer(supersampling=1).render_depth(bump(size), view)
        mesh = DepthMeshRenderer(camera=CAMERA, depth_range=(0.9, 1.1), supersampling=1)
        two, drawn = mesh.render_depth(bump(size), view)
        both = seen & drawn
        assert both.float().mean() > 0.8 and (seen ^ drawn).sum() <= size  # at most a column of the border differs
        errors.append(float((one - two)[both].abs().mean()))
    # Means over pixels that lie elsewhere in their cells at each size: near 4, not 4.
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.15) and errors[1] / errors[2] == pytest.approx(4, rel=0.15)
    assert errors[1] < 1e-5


@pytest.mark.parametrize("degrees", [(6, 17, 2), (-10, -35, 20), (0, 60, 0)])
@pytest.mark.parametrize("options", [{"supersampling": 1}, {}, {"pattern": "grid"}])
def test_gradcheck(options, degrees):
    # Slopes of 0.05 per unit: nothing is hidden, so no finite difference steps over an edge.
    depth = rough(2, 8, 0.001).requires_grad_()
    view = torch.cat((view_of(*degrees, shift=(0.003, 0.001, 0.02)), view_of(*degrees))).requires_grad_()
    draw = renderer(**options)
    assert torch.autograd.gradcheck(lambda d, v: draw.render_depth(d, v)[0], (depth, view), fast_mode=True)


def test_gradcheck_where_the_surface_hides_itself():
    depth = rough(1, 8, 0.004)
    depth[:, :, 4:] -= 0.05
    depth.requires_grad_()
    view = view_of(6, 27, 2).requires_grad_()
    draw = renderer(supersampling=1)
    assert torch.autograd.gradcheck(lambda d, v: draw.render_depth(d, v)[0], (depth, view), fast_mode=True)


def test_gradients_of_the_whole_rendering():
    depth, view = rough(1, 8, 0.001).requires_grad_(), view_of(6, 17, 2).requires_grad_()
    image = torch.rand(1, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    draw = renderer()
    assert torch.autograd.gradcheck(lambda d, i, v: draw(d, i, v).image, (depth, image, view), fast_mode=True)


@pytest.mark.parametrize("degrees", [(0, 85, 0), (60, 60, 60), (-80, 10, 0)])
def test_grazing_gradients_are_bounded(degrees):
    """|∂z/∂D| of a sample is at most |P|/Z / 0.02, as |n| ≥ 1/|P|; |P|/Z ≤ 1.01 here, and D varies by 10 %."""
    depth, view = rough(1, 8, 0.02), view_of(*degrees)
    jacobian = torch.autograd.functional.jacobian(lambda d: renderer(supersampling=1).render_depth(d, view)[0], depth)
    assert jacobian.isfinite().all() and jacobian.abs().max() <= 50 * 1.3
    assert jacobian.abs().max() > 0


@pytest.mark.parametrize(
    ("degrees", "even"), [((0, 5, 0), 0.02), ((3, 20, 2), 0.09), ((0, 40, 0), 0.1), ((0, 60, 0), 0.5)]
)
def test_the_default_spreads_gradients_evenly(degrees, even):
    """Per-vertex gradients under a uniform upstream gradient, of mean 1. Measured: .007, .037, .059, .43."""
    depth = bump(64).requires_grad_()
    found, _ = renderer().render_depth(depth, view_of(*degrees))
    (gradient,) = torch.autograd.grad(found.sum(), depth)
    inner = gradient[0, 8:-8, 8:-8]
    assert inner.mean().item() == pytest.approx(1, abs=0.05)  # the silhouette takes part of the outermost rows
    assert inner.std() < even


def test_each_map_is_rendered_alone():
    depth = torch.cat((rough(1, 16, 0.01, seed=1), bump(16), rough(1, 16, 0.03, seed=2)))
    view = torch.cat((view_of(0, 50, 0), view_of(3, 20, 2), view_of(-30, 0, 9)))
    whole, covered = renderer().render_depth(depth, view)
    for n in range(3):
        alone, seen = renderer().render_depth(depth[n : n + 1], view[n : n + 1])
        assert torch.equal(seen[0], covered[n])
        torch.testing.assert_close(alone[0], whole[n], atol=1e-14, rtol=0)  # the matrix product rounds by its size


def test_it_is_deterministic():
    results = []
    for _ in range(2):
        depth, view = rough(2, 24, 0.01, torch.float32).requires_grad_(), view_of(3, 40, 2).float().repeat(2, 1)
        view.requires_grad_()
        found, _ = renderer().render_depth(depth, view)
        found.square().sum().backward()
        results.append((found, depth.grad, view.grad))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_single_precision_follows_double():
    depth, view = bump(64).repeat(2, 1, 1), torch.cat((view_of(3, 20, 2), view_of(20, -50, 10)))
    one, seen = renderer().render_depth(depth.float(), view.float())
    two, drawn = renderer().render_depth(depth, view)
    both = seen & drawn
    assert (seen ^ drawn).sum() <= 4  # samples on the very border
    # A pixel's place rounds to 64 eps / 2 of a pixel, that is 1e-8 in space; depth 1 to 6e-8; slopes of up to 2 here.
    assert (one - two)[both].abs().max() < 1e-6
    gradients = []
    for dtype in (torch.float32, torch.float64):
        leaf = depth.to(dtype).requires_grad_()
        found, _ = renderer().render_depth(leaf, view.to(dtype))
        gradients.append(torch.autograd.grad(torch.where(both, found, 0).sum(), leaf)[0].double())
    assert (gradients[0] - gradients[1]).norm() < 1e-4 * gradients[1].norm()  # slopes of cells: eps / 5e-4 a pixel


def test_holes_are_not_covered_and_leave_gradients_finite():
    depth = bump(16)
    depth[0, 5, 6], depth[0, 9, 9], depth[0, 12, 3], depth[0, 2, 2] = math.nan, -1.0, 1e-4, 1e4
    depth.requires_grad_()
    view = view_of(3, 20, 2).requires_grad_()
    found, covered = renderer(supersampling=1).render_depth(depth, view)
    found.sum().backward()
    assert found.isfinite().all() and depth.grad.isfinite().all() and view.grad.isfinite().all()
    whole, seen = renderer(supersampling=1).render_depth(bump(16), view_of(3, 20, 2))
    assert 4 <= (seen & ~covered).sum() <= 30  # four holes, of four cells each
    torch.testing.assert_close(found[covered], whole[covered])
    empty = torch.full((1, 16, 16), math.nan, dtype=torch.float64)
    assert not renderer().render_depth(empty, view_of(3, 20, 2))[1].any()


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e30, -1e30])
def test_a_useless_view_covers_nothing(value):
    view = torch.zeros(2, 6)
    view[0, 3] = value
    view.requires_grad_()
    depth = bump(16).float().repeat(2, 1, 1).requires_grad_()
    found, covered = renderer().render_depth(depth, view)
    found.sum().backward()
    assert not covered[0].any() and covered[1, 1:-1, 1:-1].all()
    assert depth.grad.isfinite().all() and view.grad.isfinite().all()


def test_no_maps_and_pictures_that_are_not_square():
    assert renderer().render_depth(torch.ones(0, 8, 8), torch.zeros(0, 6))[0].shape == (0, 8, 8)
    depth = bump(24)[:, :10].float()
    found, covered = renderer(supersampling=1).render_depth(depth, torch.zeros(1, 6))
    assert covered.all()
    torch.testing.assert_close(found, depth)


@pytest.mark.parametrize(
    ("depth", "view", "message"),
    [
        (torch.ones(8, 8), torch.zeros(1, 6), "canonical_depth must be"),
        (torch.ones(1, 1, 8), torch.zeros(1, 6), "canonical_depth must be"),
        (torch.ones(1, 8, 8, dtype=torch.float16), torch.zeros(1, 6), "float32 or float64"),
        (torch.ones(1, 8, 8), torch.zeros(1, 5), "view must be"),
        (torch.ones(2, 8, 8), torch.zeros(1, 6), "view must be"),
        (torch.ones(1, 8, 8), torch.zeros(1, 6, dtype=torch.float64), "view must be torch.float32"),
    ],
)
def test_wrong_arguments_are_named(depth, view, message):
    with pytest.raises(ValueError, match=message):
        renderer().render_depth(depth, view)


@pytest.mark.parametrize(
    ("option", "value"),
    [("supersampling", 0), ("max_steps", 0), ("refinements", 0), ("pattern", "rings"), ("pixel_offset", math.inf)],
)
def test_wrong_options_are_named(option, value):
    with pytest.raises(ValueError, match=option):
        renderer(**{option: value})


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_follows_the_cpu_and_is_deterministic():
    results = []
    for device in ("cpu", "cuda", "cuda"):
        depth, view = rough(4, 32, 0.003).to(device).requires_grad_(), view_of(3, 40, 2).repeat(4, 1).to(device)
        view.requires_grad_()
        found, _ = renderer().render_depth(depth, view)
        found.square().sum().backward()
        results.append([t.detach().cpu() for t in (found, depth.grad, view.grad)])
    for one, two in zip(results[0], results[1], strict=True):
        torch.testing.assert_close(one, two)
    assert all(np.array_equal(a, b) for a, b in zip(results[1], results[2], strict=True))
