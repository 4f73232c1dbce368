"""The rasteriser: one body of assertions run over every backend, against closed forms and finite differences."""

import math
import warnings

import pytest
import torch

from recon_toolkit.geometry import Camera, backproject, grid_faces, inverse_transform
from recon_toolkit.rendering import (
    DepthMeshRenderer,
    choose_backend,
    grid_vertices,
    interpolate,
    rasterize,
    rasterize_depth,
)
from recon_toolkit.rendering.depth_mesh import canonical_grid

BACKENDS = ["reference", "numba"]
QUAD = torch.tensor([[0, 1, 2], [2, 1, 3]])


def quad(z=(1.0, 1.0, 1.0, 1.0), dtype=torch.float32):
    """A square over pixels 1..6 of an 8×8 picture."""
    return torch.tensor([[[1, 1, z[0]], [1, 6, z[1]], [6, 1, z[2]], [6, 6, z[3]]]], dtype=dtype)


@pytest.fixture(params=BACKENDS)
def backend(request):
    return request.param


def soup(dtype, seed=0, count=40):
    generator = torch.Generator().manual_seed(seed)
    vertices = torch.rand(2, 60, 3, dtype=dtype, generator=generator)
    vertices = vertices * torch.tensor([30, 30, 1], dtype=dtype) + torch.tensor([-3, -3, 0.5], dtype=dtype)
    return vertices, torch.randint(0, 60, (count, 3), generator=generator)


def test_edges_are_inclusive_and_shared_edges_have_no_holes(backend):
    found = rasterize(quad(), QUAD, 8, 8, backend=backend)
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[1:7, 1:7] = True
    assert ((found.face[0] >= 0) == expected).all()
    assert found.face[0, 1, 6] >= 0 and found.face[0, 0, 0] == -1  # a corner; outside


def test_the_first_face_wins_a_tie(backend):
    faces = torch.cat((QUAD, QUAD))
    found = rasterize(quad(), faces, 8, 8, backend=backend)
    assert int(found.face.max()) <= 1


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0]])
def test_both_windings_are_drawn(backend, order):
    faces = QUAD[:, order]
    assert (rasterize(quad(), faces, 8, 8, backend=backend).face >= 0).sum() == 36


def test_the_nearest_face_wins(backend):
    near, far = quad((0.9,) * 4), quad((1.1,) * 4)
    vertices, faces = torch.cat((far, near), dim=1), torch.cat((QUAD, QUAD + 4))
    found = rasterize(vertices, faces, 8, 8, backend=backend)
    assert set(found.face[found.face >= 0].tolist()) == {2, 3}
    torch.testing.assert_close(found.depth[found.face >= 0], torch.full((36,), 0.9))


def test_depth_is_perspective_correct_on_a_slanted_plane(backend):
    camera = Camera(fov=40)
    normal = torch.tensor([0.6, 0.2, 0.77], dtype=torch.float64)
    rays = camera.rays(9, 9, dtype=torch.float64)
    exact = normal[2] / (normal[:, None, None] * rays).sum(0)
    corners = torch.tensor([[0, 0], [0, 8], [8, 0], [8, 8]])
    vertices = torch.cat((corners, exact[corners[:, 1], corners[:, 0]][:, None]), dim=1)[None]
    found = rasterize(vertices, QUAD, 9, 9, backend=backend)
    torch.testing.assert_close(found.depth[0], exact)
    torch.testing.assert_close(found.barycentric.sum(-1)[0], torch.ones(9, 9, dtype=torch.float64))


@pytest.mark.parametrize(
    "z",
    [
        (-1.0,) * 4,
        (0.0,) * 4,
        (1.0, 1.0, -0.5, 1.0),
        (1e-4,) * 4,
        (200.0,) * 4,
        (math.nan,) * 4,
        (1.0, math.inf, 1.0, 1.0),
    ],
    ids=["behind", "in the camera", "one corner behind", "nearer than near", "farther than far", "nan", "infinite"],
)
def test_what_the_camera_cannot_see_is_not_drawn(backend, z):
    faces = QUAD if z != (1.0, 1.0, -0.5, 1.0) else QUAD[:1]
    found = rasterize(quad(z), faces, 8, 8, backend=backend, check=False)
    assert (found.face == -1).all() and (found.depth == 0).all() and (found.barycentric == 0).all()


def test_edge_on_and_collapsed_faces_are_not_drawn(backend):
    vertices = torch.tensor([[[1, 1, 1.0], [3, 3, 1.2], [5, 5, 0.9], [2, 2, 1.0]]])
    faces = torch.tensor([[0, 1, 2], [3, 3, 3], [0, 0, 1]])
    assert (rasterize(vertices, faces, 8, 8, backend=backend).face == -1).all()


def test_gradients_are_finite_whatever_the_mesh(backend):
    bad = torch.tensor([math.nan, math.inf, -math.inf, 0.0, -1.0, 1e30])
    vertices, faces = soup(torch.float32)
    vertices = vertices.index_put(
        (torch.zeros(6, dtype=torch.long), torch.arange(6), torch.tensor([0, 1, 2, 2, 2, 0])), bad
    ).requires_grad_()
    found = rasterize(vertices, faces, 16, 16, backend=backend, check=False)
    (found.barycentric.square().sum() + found.depth.sum()).backward()
    assert vertices.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("seed", range(4))
def test_numba_equals_the_reference_to_the_last_bit(dtype, seed):
    vertices, faces = soup(dtype, seed)
    one = rasterize(vertices, faces, 24, 31, backend="reference")
    two = rasterize(vertices, faces, 24, 31, backend="numba")
    assert torch.equal(one.face, two.face)
    assert torch.equal(one.depth, two.depth)
    assert torch.equal(one.barycentric, two.barycentric)


@pytest.mark.parametrize("batch", [1, 3])
def test_numba_gradients_equal_the_reference(batch):
    vertices, faces = soup(torch.float32)
    vertices = vertices[:1].repeat(batch, 1, 1) + torch.arange(batch)[:, None, None] * 0.01
    gradients = []
    for backend in BACKENDS:
        points = vertices.clone().requires_grad_()
        found = rasterize(points, faces, 20, 20, backend=backend)
        values = interpolate(torch.sin(points * 3), faces, found, backend=backend)
        (values.square().sum() + found.depth.square().sum()).backward()
        gradients.append(points.grad)
    difference = (gradients[0] - gradients[1]).norm() / gradients[0].norm()
    assert difference < 1e-5  # float32 sums in another order; measured 4e-7


def test_gradcheck(backend):
    vertices, faces = soup(torch.float64)
    vertices.requires_grad_()
    attributes = torch.rand(2, 60, 2, dtype=torch.float64, requires_grad=True)

    def pictures(points, values):
        found = rasterize(points, faces, 8, 8, backend=backend)
        return found.barycentric, found.depth, interpolate(values, faces, found, backend=backend)

    assert torch.autograd.gradcheck(pictures, (vertices, attributes))


@pytest.mark.parametrize("samples", [1, 2, 3])
def test_gradcheck_of_supersampled_depth(backend, samples):
    vertices, faces = soup(torch.float64)
    vertices.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda v: rasterize_depth(v, faces, 6, 6, samples=samples, backend=backend)[0], vertices
    )


@pytest.mark.parametrize("samples", [1, 2, 3])
def test_supersampled_depth_is_the_mean_of_samples(backend, samples):
    vertices, faces = soup(torch.float64)
    depth, covered = rasterize_depth(vertices, faces, 10, 12, samples=samples, backend=backend)
    for n, y, x in [(0, 3, 4), (1, 5, 5), (0, 7, 9), (1, 2, 8), (0, 5, 2)]:
        places = [(s + 0.5) / samples - 0.5 for s in range(samples)]
        values = []
        for dy in places:
            for dx in places:  # one sample at a time: shift the mesh so that it falls on pixel 0, 0
                shifted = vertices[n : n + 1] - torch.tensor([x + dx, y + dy, 0], dtype=torch.float64)
                found = rasterize(shifted, faces, 1, 1, backend="reference")
                values.append(found.depth.item() if found.face.item() >= 0 else None)
        assert bool(covered[n, y, x]) == (None not in values)
        expected = sum(values) / len(values) if None not in values else 0.0
        # Shifting and scaling the mesh round differently.
        assert depth[n, y, x].item() == pytest.approx(expected, rel=1e-9)


def test_each_mesh_of_a_batch_is_drawn_alone(backend):
    vertices, faces = soup(torch.float32)
    whole = rasterize(vertices, faces, 16, 16, backend=backend)
    single = rasterize(vertices[1:], faces, 16, 16, backend=backend)
    assert torch.equal(whole.face[1:], single.face) and torch.equal(whole.barycentric[1:], single.barycentric)


def test_interpolation_reproduces_a_function_linear_in_space(backend):
    camera = Camera(fov=40)
    vertices, faces = soup(torch.float64)
    points = torch.stack(
        (
            (vertices[..., 0] - 7.5) / camera.focal_length(16) * vertices[..., 2],
            (vertices[..., 1] - 7.5) / camera.focal_length(16) * vertices[..., 2],
            vertices[..., 2],
        ),
        dim=-1,
    )
    found = rasterize(vertices, faces, 16, 16, backend=backend)
    got = interpolate(points, faces, found, backend=backend)
    exact = backproject(found.depth, camera).permute(0, 2, 3, 1)
    torch.testing.assert_close(got, exact)


def test_no_samples_no_faces_no_meshes(backend):
    faces = torch.zeros(0, 3, dtype=torch.int64)
    assert (rasterize(quad(), faces, 4, 4, backend=backend, check=False).face == -1).all()
    assert rasterize(quad()[:0], QUAD, 4, 4, backend=backend).face.shape == (0, 4, 4)


def mixed(value, count=3):
    """Four meshes, the third with ``count`` vertices that hold ``value``."""
    vertices = quad().repeat(4, 1, 1)
    vertices[2, :count, 0] = value
    return vertices


@pytest.mark.parametrize("draw", [rasterize, rasterize_depth])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(4, 3), QUAD, 4, 4), r"vertices must be \(B, V, 3\), not \(4, 3\)"),
        (
            (torch.zeros(1, 4, 3, dtype=torch.float16), QUAD, 4, 4),
            "vertices must be float32 or float64, not torch.float16",
        ),
        ((quad(), QUAD.float(), 4, 4), "faces must be .* int32 or int64, not .* torch.float32"),
        ((quad(), QUAD[0], 4, 4), r"faces must be \(F, 3\)"),
        ((quad(), QUAD + 1, 4, 4), "faces must lie in 0..3, the indices of vertices, but one is 4"),
        ((quad(), QUAD - 1, 4, 4), "faces must lie in 0..3, the indices of vertices, but one is -1"),
        ((quad(), QUAD[:0], 4, 4), "faces is empty"),
        ((quad(), QUAD.to("meta"), 4, 4), "faces is on meta, but vertices on cpu"),
        ((quad(), QUAD, 0, 4), "height must be 1 or more, not 0"),
        ((quad(), QUAD, 4, -2), "width must be 1 or more, not -2"),
        ((mixed(math.nan), QUAD, 4, 4), "3 of 4 vertices of mesh 2 are NaN or infinite"),
        ((mixed(-math.inf, 1), QUAD, 4, 4), "1 of 4 vertices of mesh 2 are NaN or infinite"),
        ((torch.cat((quad(), quad((-1.0, 0.0, -0.5, 0.0)))), QUAD, 4, 4), "mesh 1 lies wholly behind the camera"),
    ],
)
def test_wrong_arguments_are_named(draw, arguments, message, backend):
    with pytest.raises(ValueError, match=message):
        draw(*arguments, backend=backend)


def test_wrong_samples_and_backends_are_named():
    with pytest.raises(ValueError, match="samples must be 1 or more, not 0"):
        rasterize_depth(quad(), QUAD, 4, 4, samples=0)
    with pytest.raises(ValueError, match="backend must be one of auto, reference, numba, triton, not 'cuda'"):
        rasterize(quad(), QUAD, 4, 4, backend="cuda")


def test_numbers_that_are_large_but_finite_pass_the_checks(backend):
    vertices = torch.cat((quad(), quad() * 5e37))  # their sum is infinite
    assert (rasterize(vertices, QUAD, 8, 8, backend=backend).face[0] >= 0).sum() == 36


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attributes": torch.zeros(4, 2)}, r"attributes must be \(B, V, C\), not \(4, 2\)"),
        ({"attributes": torch.zeros(1, 4, 2, dtype=torch.int64)}, "attributes must be float32 or float64"),
        ({"attributes": torch.zeros(1, 4, 2, dtype=torch.float64)}, "attributes are torch.float64, but"),
        ({"attributes": torch.zeros(1, 3, 2)}, "faces must lie in 0..2, the indices of attributes, but one is 3"),
        ({"attributes": torch.zeros(2, 4, 2)}, r"fragments.face must be \(2, H, W\)"),
        ({"faces": QUAD[:0]}, "faces is empty"),
        ({"faces": QUAD[:1]}, "fragments.face names face 1, but there are 1 faces"),
        ({"faces": QUAD.to("meta")}, "faces is on meta, but attributes on cpu"),
    ],
)
def test_wrong_arguments_of_interpolate_are_named(change, message, backend):
    arguments = {"attributes": torch.zeros(1, 4, 2), "faces": QUAD} | change
    with pytest.raises(ValueError, match=message):
        interpolate(**arguments, fragments=rasterize(quad(), QUAD, 8, 8), backend=backend)


def test_unchecked_values_are_not_looked_at(backend):
    """What cannot be drawn is not, and everything else is as ever."""
    depth, covered = rasterize_depth(mixed(math.nan), QUAD, 8, 8, backend=backend, check=False)
    alone, _ = rasterize_depth(quad(), QUAD, 8, 8, backend=backend)
    assert not covered[2].any() and torch.equal(depth[[0, 1, 3]], alone.expand(3, 8, 8))


def test_devices_without_fast_kernels_say_so_once():
    stranger = torch.empty(1, 4, 3, device="meta")
    with pytest.warns(RuntimeWarning, match="no fast rasteriser for meta devices"):
        assert choose_backend(stranger) == "reference"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert choose_backend(stranger) == "reference"
    with pytest.raises(ValueError, match="'numba' draws on the CPU"):
        choose_backend(stranger, "numba")
    with pytest.raises(ValueError, match="'triton' draws on CUDA"):
        choose_backend(stranger, "triton")


def test_the_triton_backend_is_refused_off_cuda(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ValueError, match="backend 'triton' draws on CUDA, but the tensor is on cpu: use 'auto'"):
        rasterize(quad(), QUAD, 8, 8, backend="triton")


# -- the depth-mesh renderer -----------------------------------------------------------------------------------------

CAMERA = Camera()


def renderer(**options):
    return DepthMeshRenderer(camera=CAMERA, depth_range=(0.9, 1.1), **options)


def test_at_identity_the_depth_comes_back():
    depth = torch.rand(2, 16, 16, dtype=torch.float64) * 0.02 + 1
    found, covered = renderer(supersampling=1).render_depth(depth, torch.zeros(2, 6, dtype=torch.float64))
    # Vertices at the border may round to just outside the picture; everything within is exact.
    assert covered[:, 1:-1, 1:-1].all()
    torch.testing.assert_close(found[:, 1:-1, 1:-1], depth[:, 1:-1, 1:-1])


def test_a_turned_sphere_has_the_closed_form_depth():
    """A sphere about the centre of rotation looks the same from everywhere, where it is seen."""
    size, radius = 128, 0.07
    rays = CAMERA.rays(size, size, dtype=torch.float64)
    norm, along = rays.square().sum(0), rays[2]
    root = along.square() - norm * (1 - radius**2)
    depth = torch.where(root > 0, (along - root.clamp(min=0).sqrt()) / norm, 1.0)[None]
    view = torch.tensor([[0.1, 0.3, 0.2, 0, 0, 0]], dtype=torch.float64)
    found, covered = renderer().render_depth(depth, view)
    inner = torch.zeros(size, size, dtype=torch.bool)
    inner[44:84, 44:84] = True
    assert covered[0][inner].all()
    # Up to 0.9 rad from the canonical axis, a quad's diagonal of 1.4e-3 · √2 / cos 0.9 = 3.2e-3 on the sphere has its
    # chord (3.2e-3)² / (8 · 0.07) = 1.8e-5 behind it. Measured: 1.4e-5.
    assert (found - depth)[0][inner].abs().max() < 1.8e-5


def test_the_published_half_pixel_offset():
    """With offset 1/2, pixel i shows the surface at i + 1/2, and the last row and column are empty at identity."""
    ramp = torch.linspace(1.0, 1.02, 16, dtype=torch.float64).expand(1, 16, 16)
    found, covered = renderer(pixel_offset=0.5).render_depth(ramp, torch.zeros(1, 6, dtype=torch.float64))
    assert covered[0, :-1, :-1].all() and not covered[0, -1].any() and not covered[0, :, -1].any()
    halfway = (ramp[:, :-1, :-1] + ramp[:, :-1, 1:]) / 2
    # Perspective-correct depth between two vertices is not quite their mean: off by (Δz)²/(4z) = 4e-7.
    torch.testing.assert_close(found[:, :-1, :-1], halfway, atol=1e-6, rtol=0)


def test_rendering_at_identity_keeps_colours_and_says_what_is_covered():
    image = torch.rand(1, 3, 16, 16)
    found = renderer()(torch.full((1, 16, 16), 1.0), image, torch.zeros(1, 6))
    assert found.mask[:, 1:-1, 1:-1].all() and not found.mask[:, 0].any()
    assert (found.depth[~found.mask] - 1.2).abs().max() < 1e-6  # max + half the range
    torch.testing.assert_close(found.image[..., 1:-1, 1:-1], image[..., 1:-1, 1:-1], atol=1e-4, rtol=0)  # float32 grid


def test_gradcheck_of_the_whole_renderer(backend):
    depth = (1 + 0.05 * torch.rand(2, 8, 8, dtype=torch.float64)).requires_grad_()
    view = torch.tensor(
        [[0.1, 0.3, 0.02, 0.01, 0, 0.02], [0.1, -0.3, 0.02, 0, 0.01, 0.02]], dtype=torch.float64, requires_grad=True
    )
    image = torch.rand(2, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    draw = renderer(backend=backend)
    assert torch.autograd.gradcheck(
        lambda d, v, i: draw(d, i, v).depth, (depth, view, image), check_undefined_grad=False
    )
    assert torch.autograd.gradcheck(lambda d, v, i: draw(d, i, v).image, (depth, view, image))


@pytest.mark.parametrize(("degrees", "factor"), [(40, 3), (60, 2)])
def test_supersampling_evens_the_gradient(degrees, factor):
    """Per-vertex gradients under a uniform upstream gradient have mean 1; more samples bring each closer to it.

    Measured: std 0.30 at one sample and 0.06 at 2×2 for 40°, 0.99 and 0.43 for 60°.
    """
    axis = torch.linspace(-1, 1, 64)
    bump = 1.02 - 0.03 * torch.exp(-3 * (axis.square() + axis[:, None].square()))
    view = torch.tensor([[0, math.radians(degrees), 0, 0, 0, 0]])
    spread = []
    for samples in (1, 2):
        depth = bump[None].clone().requires_grad_()
        found, _ = renderer(supersampling=samples).render_depth(depth, view)
        (gradient,) = torch.autograd.grad(found.sum(), depth)
        inner = gradient[0, 8:-8, 8:-8]
        assert inner.mean().item() == pytest.approx(1, abs=0.05)  # the silhouette takes part of the outermost rows
        spread.append(float(inner.std()))
    assert spread[0] > factor * spread[1]


def test_faces_cover_the_grid_without_gaps_from_any_side():
    depth = torch.ones(1, 32, 32)
    for angle in range(-60, 61, 10):
        view = torch.tensor([[0, math.radians(angle), math.radians(angle / 3), 0, 0, 0]])
        face = rasterize(CAMERA.project(_moved(depth, view), 32, 32).transpose(1, 2), grid_faces(32, 32), 32, 32).face[
            0
        ]
        middle = face[12:20, 12:20]
        assert (middle >= 0).all()


def _moved(depth, view):
    from recon_toolkit.geometry import transform

    return transform(backproject(depth, CAMERA).flatten(2), view)


@pytest.mark.parametrize("offset", [0.0, 0.5])
@pytest.mark.parametrize("samples", [1, 2])
def test_grid_vertices_equal_the_chain_of_geometry_functions(samples, offset):
    depth = 1 + 0.1 * torch.rand(2, 6, 7, dtype=torch.float64)
    view = torch.rand(2, 6, dtype=torch.float64) * 0.5
    options = {"samples": samples, "pixel_offset": offset}
    one = grid_vertices(depth, view, CAMERA, backend="reference", **options)
    two = grid_vertices(depth, view, CAMERA, backend="numba", **options)
    torch.testing.assert_close(one, two)
    pixels = CAMERA.project(_moved(depth, view), 6, 7).transpose(1, 2)
    expected = (pixels[..., :2] - offset + 0.5) * samples - 0.5
    torch.testing.assert_close(two[..., :2], expected)
    torch.testing.assert_close(two[..., 2], pixels[..., 2])


def test_gradients_of_grid_vertices(backend):
    depth = (1 + 0.1 * torch.rand(2, 3, 4, dtype=torch.float64)).requires_grad_()
    view = (torch.rand(2, 6, dtype=torch.float64) * 0.5).requires_grad_()
    assert torch.autograd.gradcheck(lambda d, v: grid_vertices(d, v, CAMERA, samples=2, backend=backend), (depth, view))


def test_points_at_and_behind_the_camera_give_finite_gradients(backend):
    depth = torch.tensor([[[0.0, 1.0], [-1.0, 1.0]]], requires_grad=True)
    view = torch.zeros(1, 6, requires_grad=True)
    vertices = grid_vertices(depth, view, CAMERA, backend=backend)
    vertices.sum().backward()
    assert vertices.isfinite().all() and depth.grad.isfinite().all() and view.grad.isfinite().all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_reference_draws_the_same_on_a_gpu():
    vertices, faces = soup(torch.float32)
    cpu = rasterize(vertices, faces, 24, 24, backend="reference")
    gpu = rasterize(vertices.cuda(), faces.cuda(), 24, 24)
    assert torch.equal(cpu.face, gpu.face.cpu())
    torch.testing.assert_close(cpu.barycentric, gpu.barycentric.cpu())


def test_the_canonical_grid_undoes_the_view(backend):
    """Each pixel's point, moved back to the canonical frame and projected there, in units of half the picture."""
    depth = 1 + 0.05 * torch.rand(2, 6, 7, dtype=torch.float64)
    view = torch.rand(2, 6, dtype=torch.float64) * 0.3
    rays = CAMERA.rays(6, 7, dtype=torch.float64)
    grid = canonical_grid(depth, view, CAMERA, backend=backend)
    points = inverse_transform((depth[:, None] * rays).flatten(2), view)
    pixels = CAMERA.project(points, 6, 7)
    expected = torch.stack((pixels[:, 0] / 3 - 1, pixels[:, 1] / 2.5 - 1), dim=-1).reshape(2, 6, 7, 2)
    torch.testing.assert_close(grid, expected)


def test_gradients_of_the_canonical_grid(backend):
    depth = (1 + 0.1 * torch.rand(2, 3, 4, dtype=torch.float64)).requires_grad_()
    view = (torch.rand(2, 6, dtype=torch.float64) * 0.5).requires_grad_()
    assert torch.autograd.gradcheck(lambda d, v: canonical_grid(d, v, CAMERA, backend=backend), (depth, view))
