"""Neural Renderer in a pipeline: closed forms, the exact renderer, finite differences, and training."""

import math

import pytest
import torch
from recon_neural_renderer.renderer import NeuralRenderer

from recon_toolkit import load_plugins
from recon_toolkit.geometry import Camera
from recon_toolkit.rendering import DepthMeshRenderer

CAMERA = Camera(fov=10.0)
RANGE = (0.9, 1.1)
BACKENDS = ["numba", "torch"]


def face_like(size, batch=1, dtype=torch.float32, noise=0.002):
    generator = torch.Generator().manual_seed(3)
    axis = torch.linspace(-1, 1, size, dtype=dtype)
    bump = (1 - (axis / 0.8).square() - (axis[:, None] / 0.95).square()).clamp(min=0).sqrt()
    depth = 1.06 - 0.11 * bump + noise * torch.rand(batch, size, size, dtype=dtype, generator=generator)
    limits = torch.tensor([0.2, 0.6, 0.1, 0.05, 0.05, 0.0], dtype=dtype)
    return depth, (2 * torch.rand(batch, 6, dtype=dtype, generator=generator) - 1) * limits


def renderer(backend, **options):
    return NeuralRenderer(camera=CAMERA, depth_range=RANGE, raster_backend=backend, **options)


@pytest.fixture(params=BACKENDS)
def backend(request):
    return request.param


@pytest.mark.parametrize("original_offset", [False, True])
def test_a_slanted_plane_has_its_closed_form(backend, original_offset):
    size, normal = 24, torch.tensor([0.6, 0.2, 0.77], dtype=torch.float64)
    plane = normal[2] / (normal[:, None, None] * CAMERA.rays(size, size, dtype=torch.float64)).sum(0)
    view = torch.zeros(1, 6, dtype=torch.float64)
    found = renderer(backend, original_offset=original_offset, near=0.5)
    depth, covered = found.render_depth(plane[None], view)
    # The mean over the four samples of a pixel; 1/z is linear on the screen.
    axis = torch.arange(size, dtype=torch.float64) + (0.5 if original_offset else 0.0)
    gradient = [(1 / plane)[0, 1] - (1 / plane)[0, 0], (1 / plane)[1, 0] - (1 / plane)[0, 0]]
    parts = [
        1 / (1 / plane[0, 0] + gradient[0] * (axis + i) + gradient[1] * (axis[:, None] + j))
        for i in (-0.25, 0.25)
        for j in (-0.25, 0.25)
    ]
    expected = sum(parts) / 4
    # The outermost pixels' outer samples lie beyond the mesh; with the original's offset that is the last ones'.
    inside = torch.zeros(size, size, dtype=torch.bool)
    inside[:-1, :-1] = True
    if not original_offset:
        inside[0] = inside[:, 0] = False
    assert torch.equal(covered[0], inside)
    torch.testing.assert_close(depth[0][inside], expected[inside], rtol=1e-12, atol=0)  # float64 rounding


@pytest.mark.parametrize("options", [{}, {"original_offset": True}, {"anti_aliasing": False}], ids=str)
def test_it_agrees_with_the_exact_renderer(backend, options):
    """Two implementations of one formula: equal but for samples on edges and the order of sums."""
    depth, view = face_like(32, 6)
    image = torch.rand(6, 3, 32, 32)
    exact = DepthMeshRenderer(
        camera=CAMERA,
        depth_range=RANGE,
        supersampling=1 if "anti_aliasing" in options else 2,
        pixel_offset=0.5 if "original_offset" in options else 0.0,
    )
    results = []
    for one in (renderer(backend, **options), exact):
        d, v = depth.clone().requires_grad_(), view.clone().requires_grad_()
        out = one(d, image, v)
        weight = torch.rand(out.depth.shape, generator=torch.Generator().manual_seed(0))
        results.append((out, torch.autograd.grad((out.depth * weight).sum() + out.image.sum(), (d, v))))
    (ours, gradients), (theirs, expected) = results
    assert torch.equal(ours.mask, theirs.mask)
    torch.testing.assert_close(ours.depth, theirs.depth, rtol=1e-6, atol=0)  # a few float32 steps of depth ~ 1
    for one, two in zip(gradients, expected, strict=True):
        assert (one - two).norm() / two.norm() < 1e-4  # float32, thin faces; measured 2e-5


def test_gradcheck(backend):
    depth, view = face_like(6, 1, torch.float64)
    one = renderer(backend)

    def drawn(d, v):
        out, covered = one.render_depth(d, v)
        return torch.where(covered, out, 0)

    # Steps of 1e-7 stay within the faces that the samples see; the second derivative adds about 1e-5.
    assert torch.autograd.gradcheck(
        drawn, (depth.requires_grad_(), view.requires_grad_()), eps=1e-7, atol=1e-5, rtol=1e-4
    )


def test_the_background_and_partly_covered_pixels(backend):
    depth, view = face_like(32, 2)
    one = renderer(backend)
    raw, covered = one.render_depth(depth, view)
    # Any empty sample brings far / 4 into the mean, as the original's mask expects.
    assert torch.equal(covered, raw < 25) and not covered.all() and (raw.max() - 100).abs() < 1e-4
    out = one(depth, torch.rand(2, 3, 32, 32), view)
    assert torch.equal(out.mask, covered) and (out.depth[~out.mask] == one.background).all()


def test_backs_are_drawn_unless_switched_off(backend):
    depth, _ = face_like(16)
    turned = torch.tensor([[0.0, math.pi, 0.0, 0.0, 0.0, 0.0]])
    assert renderer(backend).render_depth(depth, turned)[1].any()
    assert not renderer(backend, fill_back=False).render_depth(depth, turned)[1].any()
    both, front = renderer(backend), renderer(backend, fill_back=False)
    straight = torch.zeros(1, 6)
    torch.testing.assert_close(both.render_depth(depth, straight), front.render_depth(depth, straight), rtol=0, atol=0)


def test_gradients_are_finite_when_the_object_leaves_the_picture_or_is_not_finite(backend):
    depth, view = face_like(16, 4)
    view[0, 3:] = torch.tensor([0.0, 0.0, -1.0])  # around and behind the camera
    view[1, 3:] = torch.tensor([5.0, 0.0, 0.0])  # beside the picture
    depth[2, 4, 4], depth[3, 8, 8] = math.nan, math.inf
    d = depth.clone().requires_grad_()
    out, covered = renderer(backend).render_depth(d, view)
    out[covered].sum().backward()
    # Points that are not finite have no gradient of their own (back-projection multiplies by them); others do.
    assert d.grad[depth.isfinite()].isfinite().all() and out[covered].isfinite().all()


def test_the_same_input_gives_the_same_bits():
    depth, view = face_like(32, 3)
    results = []
    for _ in range(3):
        d = depth.clone().requires_grad_()
        out, covered = renderer("numba").render_depth(d, view)
        (gradient,) = torch.autograd.grad(out[covered].sum(), d)
        results.append((out.detach(), gradient))
    assert all(torch.equal(a, b) for result in results[1:] for a, b in zip(results[0], result, strict=True))


@pytest.mark.parametrize("options", [{"near": 2.0, "far": 1.0}, {"near": 0.0}, {"far": 1.0}], ids=str)
def test_bad_options_are_named(options):
    with pytest.raises(ValueError, match="far"):
        renderer("auto", **options)


def test_the_component_is_listed():
    found = load_plugins().registry.get("renderer", "neural-renderer")
    assert "Neural 3D Mesh Renderer" in found.component.summary and found.load() is NeuralRenderer
