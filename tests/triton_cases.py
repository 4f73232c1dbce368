"""What the Triton backend must do, on CUDA or, with TRITON_INTERPRET=1, on the CPU; test_triton.py runs this file.

The variable counts when Triton is first imported, so these cases have a process of their own. The interpreter takes
milliseconds an operation: meshes and pictures are small.
"""

import os

import pytest
import torch

from recon_toolkit.geometry import Camera
from recon_toolkit.rendering import DepthMeshRenderer, grid_vertices, interpolate, rasterize, rasterize_depth
from recon_toolkit.rendering import raster_triton as backend
from recon_toolkit.rendering.depth_mesh import canonical_grid

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
DTYPES = [torch.float32, torch.float64]
#: Gradients: sums in another order.
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}
QUAD = torch.tensor([[0, 1, 2], [2, 1, 3]])


def soup(dtype, count=10):
    """Two meshes whose faces are small and large, many behind others and partly outside of 11 × 13 pixels."""
    generator = torch.Generator().manual_seed(3)
    vertices = torch.rand(2, 12, 3, dtype=dtype, generator=generator)
    vertices = vertices * torch.tensor([18, 16, 1], dtype=dtype) + torch.tensor([-3, -3, 0.5], dtype=dtype)
    return vertices, torch.randint(0, 12, (count, 3), generator=generator)


def same(one, two):
    return torch.equal(one.cpu(), two.cpu())


def agrees(found, expected):
    error = (found.cpu() - expected.cpu()).norm() / expected.norm()
    return expected.norm() > 0 and error < TOLERANCE[expected.dtype]


def both(picture, *inputs):
    """A picture by Triton and by the reference on the CPU, each with the gradients of an uneven sum of it."""
    results = []
    for name, device in (("triton", DEVICE), ("reference", "cpu")):
        leaves = [i.detach().to(device, copy=True).requires_grad_(i.is_floating_point()) for i in inputs]
        found = picture(*leaves, name)
        weights = torch.sin(torch.arange(found.numel(), dtype=torch.float64)).to(found).reshape(found.shape)
        floating = [leaf for leaf in leaves if leaf.requires_grad]
        results.append((found.detach(), torch.autograd.grad((found * weights).sum(), floating)))
    return results


@pytest.mark.parametrize("dtype", DTYPES)
def test_faces_depths_and_barycentrics_equal_the_reference_to_the_last_bit(dtype):
    vertices, faces = soup(dtype)
    one = rasterize(vertices, faces, 11, 13, backend="reference")
    two = rasterize(vertices.to(DEVICE), faces.to(DEVICE), 11, 13, backend="triton")
    assert same(one.face, two.face) and same(one.depth, two.depth) and same(one.barycentric, two.barycentric)


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_of_fragments_and_interpolation_equal_the_reference(dtype):
    def picture(points, values, faces, name):
        found = rasterize(points, faces, 11, 13, backend=name)
        return torch.cat((interpolate(values, faces, found, backend=name), found.depth[..., None]), dim=-1)

    vertices, faces = soup(dtype)
    two, one = both(picture, vertices, torch.rand(2, 12, 2, dtype=dtype), faces)
    torch.testing.assert_close(two[0].cpu(), one[0])
    assert all(agrees(a, b) for a, b in zip(two[1], one[1], strict=True))


@pytest.mark.parametrize(("dtype", "samples"), [(torch.float32, 1), (torch.float32, 3), (torch.float64, 2)])
def test_supersampled_depth_and_its_gradient_equal_the_reference(dtype, samples):
    vertices, faces = soup(dtype)
    coverage = []

    def picture(points, triangles, name):
        depth, covered = rasterize_depth(points, triangles, 6, 7, samples=samples, backend=name)
        coverage.append(covered)
        return depth

    two, one = both(picture, vertices, faces)
    torch.testing.assert_close(two[0].cpu(), one[0])  # the mean rounds differently
    assert agrees(two[1][0], one[1][0]) and same(*coverage)


@pytest.mark.parametrize("dtype", DTYPES)
def test_faces_of_many_tiles_are_drawn_and_summed_whole(dtype, monkeypatch):
    monkeypatch.setattr(backend, "TILE", 64)
    monkeypatch.setattr(backend, "WIDE_TILE", 64)
    vertices = torch.tensor([[[-5, -4, 0.8], [40, 2, 1.2], [7, 35, 1.0], [1, 1, 0.9], [2, 15, 0.9], [16, 9, 1]]])
    faces = torch.tensor([[0, 1, 2], [3, 4, 5], [3, 5, 1]], dtype=torch.int32)
    two, one = both(
        lambda v, f, name: rasterize_depth(v, f, 17, 19, samples=1, backend=name)[0], vertices.to(dtype), faces
    )
    assert same(two[0], one[0]) and agrees(two[1][0], one[1][0])


def test_the_whole_renderer_equals_the_reference():
    depth = 1 + 0.05 * torch.rand(2, 7, 6)
    view = torch.tensor([[0.1, 0.4, 0.02, 0.01, 0, 0.02], [0.1, -0.5, 0.1, 0, 0.01, -0.02]])

    def picture(d, v, name):
        draw = DepthMeshRenderer(camera=Camera(), depth_range=(0.9, 1.1), backend=name)
        return draw(d, torch.stack((d, d * d), dim=1), v).image

    two, one = both(picture, depth, view)
    # Colours amplify the rounding of places, some 1e-6 of a pixel, by their differences between pixels of up to 0.1.
    torch.testing.assert_close(two[0].cpu(), one[0], atol=1e-5, rtol=0)
    for found, expected in zip(two[1], one[1], strict=True):
        assert (found.cpu() - expected).norm() < 1e-3 * expected.norm()  # differences of neighbouring colours, float32


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("place", [grid_vertices, canonical_grid])
def test_places_and_their_gradients_equal_the_reference(place, dtype):
    depth, view = 1 + 0.1 * torch.rand(2, 5, 7, dtype=dtype), 0.3 * torch.rand(2, 6, dtype=dtype)
    options = {"samples": 2, "pixel_offset": 0.5} if place is grid_vertices else {}
    two, one = both(lambda d, v, name: place(d, v, Camera(), backend=name, **options), depth, view)
    torch.testing.assert_close(two[0].cpu(), one[0], rtol=1e-5 if dtype == torch.float32 else 1e-12, atol=1e-6)
    assert all(agrees(a, b) for a, b in zip(two[1], one[1], strict=True))


def quad(z=(1.0, 1.0, 1.0, 1.0)):
    return torch.tensor([[[1, 1, z[0]], [1, 6, z[1]], [6, 1, z[2]], [6, 6, z[3]]]], device=DEVICE)


@pytest.mark.parametrize("dtype", DTYPES)
def test_edges_are_inclusive_both_windings_are_drawn_and_the_first_face_wins_a_tie(dtype):
    faces = torch.cat((QUAD, QUAD, QUAD[:, [2, 1, 0]])).to(DEVICE)
    face = rasterize(quad().to(dtype), faces, 8, 8, backend="triton").face[0]
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[1:7, 1:7] = True
    assert same(face >= 0, expected) and int(face.max()) == 1
    turned = rasterize(quad().to(dtype), faces[4:], 8, 8, backend="triton").face[0]
    assert same(turned >= 0, expected)


def test_what_cannot_be_drawn_is_not_and_has_no_gradient():
    nan, inf = float("nan"), float("inf")
    corners = torch.cat([quad((z, 1.0, 1.0, 1.0)) for z in (nan, inf, -inf, 0.0, -1.0, 1e-12)])
    odd = quad()
    odd[0, 0, 1] = nan
    far = quad()
    far[0, 0, 0] = 1e30
    vertices = torch.cat((corners, odd, far)).requires_grad_()
    faces = torch.tensor([[0, 1, 2], [0, 0, 1], [0, 3, 0], [0, 2, 900], [-1, 2, 1]], device=DEVICE)
    found = rasterize(vertices, faces, 8, 8, backend="triton", check=False)
    kept = [0, 1, 2, 3, 4, 6, 7]  # the sixth has a corner just before the camera: part of it is drawn
    assert (found.face[kept] == -1).all() and (found.depth[kept] == 0).all() and (found.barycentric[kept] == 0).all()
    depth, covered = rasterize_depth(vertices, faces, 4, 4, backend="triton", check=False)
    assert not covered[kept].any()
    (found.barycentric.square().sum() + found.depth.sum() + depth.sum()).backward()
    assert vertices.grad.isfinite().all()


def test_nothing_to_draw():
    faces = QUAD.to(DEVICE)
    for vertices, few in ((quad()[:0], faces), (quad(), faces[:0])):
        leaf = vertices.clone().requires_grad_()
        found = rasterize(leaf, few, 4, 4, backend="triton", check=False)
        depth, covered = rasterize_depth(leaf, few, 4, 4, backend="triton", check=False)
        values = interpolate(leaf, few, found, backend="triton", check=False)
        assert (found.face == -1).all() and not covered.any() and (values == 0).all()
        (found.depth.sum() + depth.sum() + values.sum()).backward()
        assert (leaf.grad == 0).all()


def test_corners_at_a_vertex_are_kept_until_the_faces_change():
    faces = QUAD.to(DEVICE).clone()
    order, offsets = backend.incidence(faces, 5)
    assert order.tolist() == [0, 1, 4, 2, 3, 5] and offsets.tolist() == [0, 1, 3, 5, 6, 6]
    assert backend.incidence(faces, 5)[0] is order
    faces[0, 0] = 3
    assert backend.incidence(faces, 5)[0].tolist() == [1, 4, 2, 3, 0, 5]


@pytest.mark.skipif(INTERPRETED, reason="needs CUDA")
def test_gradients_are_the_same_every_time_and_a_cuda_graph_can_hold_them():
    depth = 1 + 0.02 * torch.rand(8, 32, 32, device=DEVICE)
    view = 0.3 * torch.randn(8, 6, device=DEVICE)
    draw = DepthMeshRenderer(camera=Camera(), depth_range=(0.9, 1.1))

    def step():
        leaf = depth.detach().requires_grad_()
        found, _ = draw.render_depth(leaf, view)
        return found, torch.autograd.grad(found.square().sum(), leaf)[0]

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        expected = step()
        assert all(torch.equal(a, b) for a, b in zip(expected, step(), strict=True))
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    graph.replay()
    torch.cuda.synchronize()
    assert all(torch.equal(a, b) for a, b in zip(expected, captured, strict=True))
