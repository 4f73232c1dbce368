"""Neural Renderer: against the original's numbers, a slow reference from the formulas, and closed forms."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from recon_neural_renderer import Renderer, look, look_at, perspective, points_from_angles, project, rasterize
from recon_neural_renderer.cameras import lambert_light

BACKENDS = ["numba", "torch"]
#: Maps and gradients of the original's kernels, compiled for the CPU in float64, on 70 random two-sided faces at 12²
#: with anti-aliasing and eps 1e-3; gradients are those of Σ map · grad_map.
ORIGINAL = Path(__file__).parent / "data" / "neural_renderer_original.npz"


@pytest.fixture(params=BACKENDS)
def backend(request):
    return request.param


def soup(count=12, dtype=torch.float64, seed=0, spread=0.5, batch=1):
    """Faces of both windings about the picture, some of them partly outside: vertices (B, 3F, 3), faces (F, 3)."""
    generator = torch.Generator().manual_seed(seed)
    centre = torch.rand(batch, count, 1, 2, dtype=dtype, generator=generator) * 1.8 - 0.9
    xy = centre + spread * (torch.rand(batch, count, 3, 2, dtype=dtype, generator=generator) * 2 - 1)
    z = 1 + 2 * torch.rand(batch, count, 3, 1, dtype=dtype, generator=generator)
    return torch.cat((xy, z), -1).flatten(1, 2), torch.arange(3 * count).reshape(count, 3)


# -- the original ------------------------------------------------------------------------------------------------------


def test_maps_and_gradients_equal_the_original(backend):
    truth = {name: torch.from_numpy(array) for name, array in np.load(ORIGINAL).items()}
    count = truth["faces"].shape[1]
    vertices = truth["faces"].flatten(1, 2).requires_grad_()
    textures = truth["textures"].requires_grad_()
    maps = rasterize(
        vertices,
        torch.arange(3 * count).reshape(count, 3),
        textures,
        image_size=12,
        fill_back=True,
        eps=1e-3,
        background_color=truth["background"],
        backend=backend,
    )
    # float64, sums in another order: 1e-13 was measured on soups, spheres and grids.
    for name in ("depth", "alpha", "rgb"):
        torch.testing.assert_close(getattr(maps, name), truth[name], rtol=1e-10, atol=1e-10)
    losses = {name: (getattr(maps, name) * truth[f"grad_{name}"]).sum() for name in ("depth", "alpha", "rgb")}
    losses["both"] = losses["rgb"] + losses["alpha"]
    for name, loss in losses.items():
        (found,) = torch.autograd.grad(loss, vertices, retain_graph=True)
        expected = truth[f"faces_by_{name}"].flatten(1, 2)
        assert (found - expected).norm() < 1e-10 * expected.norm(), name
        assert name == "depth" or (found[..., 2] == 0).all()
    (found,) = torch.autograd.grad(losses["rgb"], textures)
    torch.testing.assert_close(found, truth["textures_by_rgb"], rtol=1e-10, atol=1e-10)


# -- a slow reference --------------------------------------------------------------------------------------------------


def inside_weights(face, x, y):
    """Barycentrics at a sample of an anticlockwise face (3, 3), or None outside. Coordinates are [−1, 1], y up."""
    (ax, ay), (bx, by), (cx, cy) = face[:, :2].tolist()
    e = [
        (cx - bx) * (y - by) - (cy - by) * (x - bx),
        (ax - cx) * (y - cy) - (ay - cy) * (x - cx),
        (bx - ax) * (y - ay) - (by - ay) * (x - ax),
    ]
    return None if min(e) < 0 or sum(e) <= 0 else [v / sum(e) for v in e]


def reference_maps(vertices, faces, n, near=0.1, far=100.0):
    """Every face tested at every sample: winner (−1 for none) and depth (n, n), rows from the top."""
    winner, depth = torch.full((n, n), -1), torch.full((n, n), far, dtype=vertices.dtype)
    for row in range(n):
        for column in range(n):
            x, y = (2 * column + 1 - n) / n, (n - 1 - 2 * row) / n
            for f, corners in enumerate(faces.tolist()):
                face = vertices[corners]
                w = inside_weights(face, x, y)
                if w is None:
                    continue
                d = 1 / sum(v / z for v, z in zip(w, face[:, 2].tolist(), strict=True))
                if near < d < far and d < depth[row, column]:
                    winner[row, column], depth[row, column] = f, d
    return winner, depth


def reference_sweep(vertices, faces, winner, image, grad, eps):
    """Kato's gradient from the formulas, in rows from the bottom as the paper has them; maps are (n, n, C)."""
    n = len(winner)
    winner, image, grad = (t.flip(0).numpy() for t in (winner, image, grad))
    out = np.zeros((len(faces), 3, 2))
    for f, corners in enumerate(faces.tolist()):
        p = ((vertices[corners, :2] * n + n - 1) / 2).numpy()
        if (p[1, 0] - p[0, 0]) * (p[2, 1] - p[0, 1]) <= (p[1, 1] - p[0, 1]) * (p[2, 0] - p[0, 0]):
            continue  # a back
        for a, b, c in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
            for axis in (0, 1):  # lines are columns (0) or rows (1)
                (a0, a1), (b0, b1), (c0, c1) = (p[k, ::-1] if axis else p[k] for k in (a, b, c))
                outward = 1 if (a0 < b0) == (axis == 1) else -1

                def at(array, line, q, axis=axis):
                    return array[line, q] if axis else array[q, line]

                for d0 in range(max(0, math.ceil(min(a0, b0))), min(n - 1, math.floor(max(a0, b0))) + 1):
                    cross = (b1 - a1) / (b0 - a0) * (d0 - a0) + a1
                    q_in = math.floor(cross) if outward > 0 else math.ceil(cross)
                    q_out = q_in + outward
                    if not (0 <= q_in < n and 0 <= q_out < n):
                        continue
                    pulls = []
                    if at(winner, d0, q_in) == f:
                        for q in range(q_out, n) if outward > 0 else range(q_out + 1):
                            pulls.append((q, q_in))
                    if (d0 - a0) * (d0 - c0) < 0:
                        far = (c1 - a1) / (c0 - a0) * (d0 - a0) + a1
                    else:
                        far = (b1 - c1) / (b0 - c0) * (d0 - c0) + c1
                    limit = math.ceil(far) if outward > 0 else math.floor(far)
                    for q in range(max(min(q_in, limit), 0), min(max(q_in, limit), n - 1) + 1):
                        if at(winner, d0, q) == f:
                            pulls.append((q, q_out))
                    for q, other in pulls:
                        delta = ((at(image, d0, q) - at(image, d0, other)) * at(grad, d0, q)).sum()
                        if delta <= 0:
                            continue
                        for corner, opposite in ((a, b0 - d0), (b, d0 - a0)):
                            if opposite != 0:
                                distance = (b0 - a0) / opposite * (q - cross) * 2 / n
                                out[f, corner, 1 - axis] -= delta / (distance + (eps if distance > 0 else -eps))
    return torch.from_numpy(out)


@pytest.mark.parametrize("seed", range(3))
def test_forward_equals_testing_every_face_at_every_sample(backend, seed):
    vertices, faces = soup(seed=seed)
    winner, depth = reference_maps(vertices[0], faces, 20)
    maps = rasterize(vertices, faces, image_size=20, anti_aliasing=False, backend=backend)
    assert torch.equal(maps.alpha[0], (winner >= 0).double())
    torch.testing.assert_close(maps.depth[0], depth, rtol=1e-12, atol=0)  # float64 rounding


@pytest.mark.parametrize("kind", ["silhouettes", "colours", "both"])
def test_the_approximate_gradient_equals_the_formulas(backend, kind):
    vertices, faces = soup(count=14)
    vertices.requires_grad_()
    textures = torch.rand(1, 14, 2, 2, 2, 3, dtype=torch.float64)
    maps = rasterize(vertices, faces, textures, image_size=20, anti_aliasing=False, eps=1e-3, backend=backend)
    ga = torch.randn(1, 20, 20, dtype=torch.float64) * (kind != "colours")
    gc = torch.randn(1, 3, 20, 20, dtype=torch.float64) * (kind != "silhouettes")
    (found,) = torch.autograd.grad((maps.alpha * ga).sum() + (maps.rgb * gc).sum(), vertices)
    winner, _ = reference_maps(vertices[0].detach(), faces, 20)
    image = torch.cat((maps.alpha[0, ..., None], maps.rgb[0].permute(1, 2, 0)), -1).detach()
    grad = torch.cat((ga[0, ..., None], gc[0].permute(1, 2, 0)), -1)
    expected = reference_sweep(vertices[0].detach(), faces, winner, image, grad, 1e-3)
    # float64 rounding, magnified by 1 / eps.
    torch.testing.assert_close(found[0].reshape(-1, 3, 3)[..., :2], expected, rtol=1e-9, atol=1e-8)
    assert expected.abs().max() > 1  # something was compared


def test_a_vertical_edge_has_the_closed_form(backend):
    """A right edge at raster column 5.25 and one pulling pixel at 9: by how much would each end have to move?"""
    n, eps = 16, 1e-3
    x, y = (2 * 5.25 + 1 - n) / n, 0.9
    vertices = torch.tensor([[[-0.9, -y, 1.0], [x, -y, 1.0], [x, y, 1.0]]], dtype=torch.float64, requires_grad=True)
    maps = rasterize(vertices, torch.tensor([[0, 1, 2]]), image_size=n, anti_aliasing=False, eps=eps, backend=backend)
    row = 8  # from the top; rows from the bottom number 7
    (grad,) = torch.autograd.grad(-maps.alpha[0, row, 9], vertices)
    low, high = ((s * y * n + n - 1) / 2 for s in (-1, 1))
    step = (9 - 5.25) * 2 / n
    lower, upper = (high - low) / (high - 7), (high - low) / (7 - low)
    # The hypotenuse faces left and lies left of the pixel: it has no part in this. Exact to float64 rounding.
    assert grad[0, 1, 0].item() == pytest.approx(-1 / (lower * step + eps), rel=1e-12)
    assert grad[0, 2, 0].item() == pytest.approx(-1 / (upper * step + eps), rel=1e-12)
    assert grad[0, 0, 0] == 0


# -- depth, texture and light ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("anti_aliasing", [False, True])
def test_gradcheck_of_depth(backend, anti_aliasing):
    vertices, faces = soup(count=6, spread=0.7)

    def drawn(points):
        maps = rasterize(
            points, faces, image_size=8, anti_aliasing=anti_aliasing, fill_back=True, alpha=False, backend=backend
        )
        return torch.where(maps.depth < 20, maps.depth, 0)  # without the background

    assert torch.autograd.gradcheck(drawn, vertices.requires_grad_(), eps=1e-7, atol=1e-5)


def test_gradcheck_of_textures_and_light(backend):
    vertices, faces = soup(count=3, spread=0.8)
    textures = torch.rand(1, 3, 2, 2, 2, 3, dtype=torch.float64, requires_grad=True)
    light = torch.rand(1, 6, 3, dtype=torch.float64, requires_grad=True)

    def drawn(cubes, factors):
        return rasterize(
            vertices,
            faces,
            cubes,
            light=factors,
            image_size=6,
            fill_back=True,
            background_color=(1, 0, 0),
            backend=backend,
        ).rgb

    assert torch.autograd.gradcheck(drawn, (textures, light))


def test_colours_are_perspective_correct(backend):
    """A cube that holds c_0 + 2 c_1 + 3 c_2 is linear, so trilinear lookup returns it exactly."""
    t = 5
    axis = torch.arange(t, dtype=torch.float64)
    cube = axis[:, None, None] + 2 * axis[:, None] + 3 * axis
    vertices = torch.tensor([[[-0.9, -0.8, 1.0], [0.9, -0.7, 2.0], [0.1, 0.9, 4.0]]], dtype=torch.float64)
    maps = rasterize(
        vertices,
        torch.tensor([[0, 1, 2]]),
        cube[None, None, ..., None].expand(1, 1, t, t, t, 3),
        image_size=20,
        anti_aliasing=False,
        backend=backend,
        eps=1e-9,
    )
    count = 0
    for row in range(20):
        for column in range(20):
            w = inside_weights(vertices[0], (2 * column - 19) / 20, (19 - 2 * row) / 20)
            if w is not None:
                q = [a / z for a, z in zip(w, (1, 2, 4), strict=True)]
                expected = sum(k * v for k, v in zip((1, 2, 3), q, strict=True)) / sum(q) * (t - 1)
                assert maps.rgb[0, 1, row, column].item() == pytest.approx(expected, abs=1e-7)  # eps of the clamp
                count += 1
    assert count > 100


def test_one_texel_is_the_colour_of_its_face(backend):
    vertices, faces = soup(count=3)
    textures = torch.rand(1, 3, 1, 1, 1, 3, dtype=torch.float64)
    maps = rasterize(vertices, faces, textures, image_size=16, anti_aliasing=False, backend=backend)
    winner, _ = reference_maps(vertices[0], faces, 16)
    expected = torch.where(winner[..., None] >= 0, textures[0, winner.clamp(min=0), 0, 0, 0], 0)
    torch.testing.assert_close(maps.rgb[0].permute(1, 2, 0), expected)


def test_backs_equal_appended_reversed_faces(backend):
    vertices, faces = soup(count=8)
    vertices.requires_grad_()
    textures = torch.rand(1, 8, 3, 3, 3, 3, dtype=torch.float64)
    light = torch.rand(1, 16, 3, dtype=torch.float64)
    both = torch.cat((faces, faces.flip(1)))
    permuted = torch.cat((textures, textures.permute(0, 1, 4, 3, 2, 5)), dim=1)
    options = {"image_size": 16, "backend": backend, "light": light}
    gradients = []
    for maps in (
        rasterize(vertices, faces, textures, fill_back=True, **options),
        rasterize(vertices, both, permuted, **options),
    ):
        loss = maps.depth.sum() + (maps.rgb * torch.linspace(-1, 1, 16, dtype=torch.float64)).sum() - maps.alpha.sum()
        gradients.append((torch.autograd.grad(loss, vertices)[0], maps))
    (one, first), (two, second) = gradients
    torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-9)
    torch.testing.assert_close((first.depth, first.alpha, first.rgb), (second.depth, second.alpha, second.rgb))


def test_lambert_light_is_flat_and_one_sided():
    corners = torch.tensor([[[[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]]])
    # n = (p0 − p1) × (p2 − p1) = (0, 0, −1): what one sees clockwise from −z.
    lit = lambert_light(corners, ambient=0.2, directional=0.5, direction=(0, 0, -1), directional_colour=(1, 0.5, 0))
    torch.testing.assert_close(lit, torch.tensor([[[0.7, 0.45, 0.2]]]))
    torch.testing.assert_close(lambert_light(corners, direction=(0, 0, 1)), torch.full((1, 1, 3), 0.5))


# -- cameras -----------------------------------------------------------------------------------------------------------


def test_cameras_have_their_closed_forms():
    points = torch.tensor([[[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]], dtype=torch.float64)
    seen = look_at(points, (0.0, 0.0, -3.0))
    torch.testing.assert_close(seen, points + torch.tensor([0.0, 0.0, 3.0], dtype=torch.float64))
    from_right = look_at(points, torch.tensor([[3.0, 0.0, 0.0]]))  # looks along −x, z of the world to the right
    torch.testing.assert_close(from_right[0, 1], torch.tensor([0.0, 0.0, 2.0], dtype=torch.float64))
    torch.testing.assert_close(look(points, (0, 0, -3), (0, 0, 1)), seen)
    flat = perspective(seen, 45.0)
    torch.testing.assert_close(flat[0, 1], torch.tensor([1 / 3, 0.0, 3.0], dtype=torch.float64))
    at = points_from_angles(2.0, 30.0, 90.0)
    torch.testing.assert_close(at, torch.tensor([math.sqrt(3), 1.0, 0.0]), atol=1e-6, rtol=0)


def test_projection_is_that_of_a_calibrated_camera():
    K = torch.tensor([[100.0, 0, 50], [0, 120, 40], [0, 0, 1]], dtype=torch.float64)[None]
    R, t = torch.eye(3, dtype=torch.float64)[None], torch.tensor([[[0.1, 0.2, 0.0]]], dtype=torch.float64)
    point = torch.tensor([[[0.3, -0.1, 2.0]]], dtype=torch.float64)
    x, y = 0.4 / 2, 0.1 / 2
    u, v = 100 * x + 50, 120 * y + 40
    expected = torch.tensor([2 * u / 100 - 1, 1 - 2 * v / 100, 2.0], dtype=torch.float64)
    torch.testing.assert_close(project(point, K, R, t, None, 100)[0, 0], expected, rtol=1e-8, atol=1e-8)  # 1e-9 in z
    k1, k2, p1, p2, k3 = 0.1, 0.02, 0.01, -0.02, 0.003
    r2 = x * x + y * y
    radial = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3
    u = 100 * (x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)) + 50
    v = 120 * (y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y) + 40
    bent = project(point, K, R, t, torch.tensor([[k1, k2, p1, p2, k3]], dtype=torch.float64), 100)
    torch.testing.assert_close(
        bent[0, 0, :2], torch.tensor([2 * u / 100 - 1, 1 - 2 * v / 100]).double(), rtol=1e-6, atol=1e-6
    )


def test_rows_count_from_the_top(backend):
    """A face in the upper left of the view is in the upper left of the picture."""
    vertices = torch.tensor([[[-1.0, 0.2, 0.0], [-0.2, 0.2, 0.0], [-0.5, 1.0, 0.0]]])
    renderer = Renderer(32, camera_mode="look_at", viewing_angle=30, eye=(0, 0, -2.732), backend=backend)
    drawn = renderer.render_silhouettes(vertices, torch.tensor([[0, 1, 2]]))[0]
    assert drawn[:16, :16].sum() > 20 and drawn[16:].sum() == 0 and drawn[:, 16:].sum() == 0


def test_all_at_once_equals_one_by_one(backend):
    vertices, faces = soup(count=10, dtype=torch.float32, batch=2)
    vertices = vertices * torch.tensor([1, 1, 0.3])
    textures = torch.rand(1, 10, 2, 2, 2, 3)
    renderer = Renderer(24, camera_mode="look", eye=(0, 0, -2), backend=backend, background_color=(0.2, 0.3, 0.4))
    images = renderer(vertices, faces, textures)
    assert torch.equal(images.depth, renderer.render_depth(vertices, faces))
    assert torch.equal(images.silhouettes, renderer.render_silhouettes(vertices, faces))
    assert torch.equal(images.rgb, renderer.render_rgb(vertices, faces, textures))
    assert renderer(vertices, faces).rgb is None
    per_mesh = renderer(vertices, faces.expand(2, -1, -1), textures.expand(2, -1, -1, -1, -1, -1))
    assert torch.equal(per_mesh.rgb, images.rgb)


def test_gradients_reach_the_camera(backend):
    vertices, faces = soup(count=10, batch=1)
    eye = torch.tensor([0.3, 0.2, -3.0], dtype=torch.float64, requires_grad=True)
    renderer = Renderer(24, camera_mode="look_at", backend=backend)
    renderer.render_silhouettes(vertices, faces, eye=eye).square().sum().backward()
    assert eye.grad.isfinite().all() and eye.grad.abs().sum() > 0


# -- backends, degenerate input, errors --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_backends_agree(dtype):
    vertices, faces = soup(count=60, dtype=dtype, batch=2, spread=0.3)
    per_mesh = torch.stack((faces, faces.flip(0)))
    textures = torch.rand(2, 60, 3, 3, 3, 3, dtype=dtype)
    results = []
    for backend in BACKENDS:
        points, cubes = vertices.clone().requires_grad_(), textures.clone().requires_grad_()
        maps = rasterize(points, per_mesh, cubes, image_size=20, fill_back=True, backend=backend)
        weights = torch.linspace(-1, 1, 20, dtype=dtype)
        loss = (maps.rgb * weights).sum() + (maps.alpha * weights[:, None]).sum() + maps.depth.square().sum()
        results.append((maps, torch.autograd.grad(loss, (points, cubes))))
    (one, first), (two, second) = results
    assert torch.equal(one.alpha, two.alpha)
    torch.testing.assert_close((one.depth, one.rgb), (two.depth, two.rgb))
    tolerance = 1e-4 if dtype == torch.float32 else 1e-12  # sums in another order, magnified by thin faces
    for a, b in zip(first, second, strict=True):
        assert (a - b).norm() <= tolerance * b.norm()


def test_the_same_input_gives_the_same_bits(backend):
    vertices, faces = soup(count=80, dtype=torch.float32, batch=2, spread=0.3)
    textures = torch.rand(2, 80, 2, 2, 2, 3)
    runs = []
    for _ in range(3):
        points, cubes = vertices.clone().requires_grad_(), textures.clone().requires_grad_()
        maps = rasterize(points, faces, cubes, image_size=32, fill_back=True, backend=backend)
        loss = maps.rgb.square().sum() - maps.alpha.sum() + maps.depth.sum()
        runs.append((maps.rgb.detach(), *torch.autograd.grad(loss, (points, cubes))))
    assert all(torch.equal(a, b) for run in runs[1:] for a, b in zip(runs[0], run, strict=True))


def test_degenerate_faces_are_not_drawn_and_gradients_are_finite(backend):
    vertices, _ = soup(count=4, dtype=torch.float32)
    vertices = vertices.index_put(
        (torch.zeros(4).long(), torch.arange(4), torch.tensor([0, 1, 2, 2])), torch.tensor([1e30, -1e30, 0.0, -1.0])
    )
    faces = torch.tensor([[0, 1, 4], [5, 5, 6], [2, 6, 7], [3, 6, 7], [6, 7, 8], [9, 9, 9], [0, 10, 11]])
    points = vertices.requires_grad_()
    textures = torch.rand(1, 7, 2, 2, 2, 3)
    maps = rasterize(points, faces, textures, image_size=16, fill_back=True, backend=backend)
    (maps.rgb.square().sum() - maps.alpha.sum() + maps.depth.sum()).backward()
    assert points.grad.isfinite().all() and maps.depth.isfinite().all() and maps.rgb.isfinite().all()
    line = torch.tensor([[[-0.5, -0.5, 1.0], [0.5, 0.5, 1.0], [0.1, 0.1, 1.0]]])
    assert rasterize(line, torch.tensor([[0, 1, 2]]), image_size=8, fill_back=True, backend=backend).alpha.sum() == 0


def test_near_and_far_cut(backend):
    vertices = torch.tensor([[[-0.9, -0.9, 2.0], [0.9, -0.9, 2.0], [0.0, 0.9, 2.0]]])
    faces = torch.tensor([[0, 1, 2]])
    for near, far, shown in ((0.1, 100, True), (2.0, 100, False), (0.1, 2.0, False)):
        maps = rasterize(vertices, faces, image_size=8, near=near, far=far, backend=backend)
        assert bool(maps.alpha.any()) == shown
        assert maps.depth.max() == far


VERTICES = torch.tensor([[[-0.5, -0.5, 0.0], [0.5, -0.5, 0.0], [0.0, 0.5, 0.0]]])
FACES = torch.tensor([[0, 1, 2]])
TEXTURES = torch.rand(1, 1, 2, 2, 2, 3)


@pytest.mark.parametrize(
    ("vertices", "faces", "textures", "named"),
    [
        (VERTICES[0], FACES, None, r"vertices must be .*\(B, V, 3\)"),
        (VERTICES.half(), FACES, None, "vertices must be float32 or float64"),
        (VERTICES * math.nan, FACES, None, "vertices must be finite"),
        (VERTICES[:, :0], FACES, None, "vertices must be"),
        (VERTICES[:0], FACES, None, "vertices must be"),
        (VERTICES, FACES[:, :2], None, r"faces must be .*\(F, 3\)"),
        (VERTICES, FACES.float(), None, "faces must be int32 or int64"),
        (VERTICES, FACES[:0], None, "at least one face"),
        (VERTICES, FACES + 1, None, r"faces must name vertices in 0\.\.2"),
        (VERTICES, FACES - 1, None, r"faces must name vertices in 0\.\.2"),
        (VERTICES, FACES.expand(2, 1, 3), None, "faces are for 2 meshes"),
        (VERTICES, FACES, TEXTURES[0], "textures must be"),
        (VERTICES, FACES, TEXTURES.expand(1, 3, -1, -1, -1, -1), "F = 1"),
        (VERTICES, FACES, TEXTURES[..., :2], "textures must be"),
        (VERTICES, FACES, TEXTURES.double(), "textures must be torch.float32"),
        (VERTICES, FACES, TEXTURES * math.inf, "textures must be finite"),
        (VERTICES - torch.tensor([0, 0, 9.0]), FACES, None, "wholly behind the camera"),
        (VERTICES.to("meta"), FACES, None, "faces are on cpu"),
    ],
)
def test_bad_meshes_are_named(vertices, faces, textures, named):
    with pytest.raises(ValueError, match=named):
        if vertices.is_meta:
            from recon_neural_renderer import cameras as checks

            checks.check_faces(faces, vertices)
        Renderer(8, camera_mode="look_at")(vertices, faces, textures)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"image_size": 0}, "image_size"),
        ({"image_size": 2.5}, "image_size"),
        ({"camera_mode": "orbit"}, "camera_mode"),
        ({"near": 3.0, "far": 1.0}, "near and far"),
        ({"far": math.inf}, "near and far"),
        ({"eps": 0.0}, "eps"),
        ({"viewing_angle": 90}, "viewing_angle"),
        ({"camera_mode": "look_at", "eye": (0, 0)}, "eye must be"),
        ({"camera_mode": "look_at", "eye": (0, math.nan, 1)}, "eye must be finite"),
        ({"camera_mode": "look_at", "eye": (0, -3, 0)}, "parallel to up"),
        ({"camera_mode": "look_at", "eye": (0, 0, 0)}, "must not be 0"),
        ({"camera_mode": "look", "camera_direction": (0, 0, 0)}, "must not be 0"),
        ({"camera_mode": "look_at", "backend": "cuda"}, "backend is"),
        ({"camera_mode": "look_at", "background_color": (0, 0)}, "background_color"),
        ({"camera_mode": "look_at", "light_direction": (0, 0)}, "light_direction"),
        ({}, "K must be given"),
        ({"K": torch.eye(2), "R": torch.eye(3), "t": torch.zeros(1, 3)}, "K must be"),
        ({"K": torch.eye(3), "R": torch.eye(3), "t": torch.zeros(3)}, "t must be"),
        ({"K": torch.eye(3), "R": torch.eye(3), "t": torch.ones(1, 3), "orig_size": 0}, "orig_size"),
        ({"K": torch.eye(3), "R": torch.eye(3), "t": torch.ones(1, 3), "dist_coeffs": torch.ones(4)}, "dist_coeffs"),
    ],
    ids=str,
)
def test_bad_options_are_named(options, named):
    with pytest.raises(ValueError, match=named):
        Renderer(**{"image_size": 8, **options})(VERTICES, FACES, TEXTURES)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_draws_the_same():
    vertices, faces = soup(count=200, batch=2, spread=0.2)
    textures = torch.rand(2, 200, 3, 3, 3, 3, dtype=torch.float64)
    results = []
    for device in ("cpu", "cuda", "cuda"):
        points, cubes = (t.detach().to(device).requires_grad_() for t in (vertices, textures))
        maps = rasterize(points, faces.to(device), cubes, image_size=64, fill_back=True)
        loss = maps.rgb.square().sum() - maps.alpha.sum() + maps.depth.sum()
        results.append([t.cpu() for t in (maps.rgb.detach(), *torch.autograd.grad(loss, (points, cubes)))])
    assert all(torch.equal(a, b) for a, b in zip(results[1], results[2], strict=True))
    for a, b in zip(results[0], results[1], strict=True):
        assert (a - b).norm() < 1e-10 * b.norm()  # float64, sums in another order
