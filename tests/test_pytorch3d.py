"""The PyTorch3D adapter: against the exact renderer where PyTorch3D is installed, else its one clear sentence."""

import importlib.util

import pytest
import torch
from recon_pytorch3d.renderer import PyTorch3DRenderer

from recon_toolkit import Camera, PluginError
from recon_toolkit.rendering import DepthMeshRenderer

INSTALLED = importlib.util.find_spec("pytorch3d") is not None
needs_pytorch3d = pytest.mark.skipif(not INSTALLED, reason="pytorch3d is not installed")
SIZE = 24


def renderer(**options):
    return PyTorch3DRenderer(camera=Camera(), depth_range=(0.9, 1.1), **options)


def exact(**options):
    return DepthMeshRenderer(camera=Camera(), depth_range=(0.9, 1.1), **options)


def scene():
    axis = torch.linspace(-1, 1, SIZE)
    bump = (1 - (axis / 0.8).square() - (axis[:, None] / 0.95).square()).clamp(min=0).sqrt()
    depth = (1.06 - 0.11 * bump).repeat(2, 1, 1)
    view = torch.tensor([[0.0, 0, 0, 0, 0, 0], [0.05, 0.35, 0.03, 0, 0.01, 0]])
    return depth, torch.rand(2, 3, SIZE, SIZE), view


@pytest.mark.skipif(INSTALLED, reason="pytorch3d is installed")
def test_without_pytorch3d_one_sentence_says_what_to_do():
    with pytest.raises(PluginError, match=r"pytorch3d is not installed.*use depth-mesh"):
        renderer()


@pytest.mark.parametrize("option", [{"supersampling": 0}, {"sigma": 0.0}, {"gamma": -1.0}, {"faces_per_pixel": 0}])
def test_options_out_of_range_are_named(option):
    with pytest.raises(ValueError, match=f"{next(iter(option))} is"):
        renderer(**option)


@needs_pytorch3d
@pytest.mark.parametrize("samples", [1, 2])
def test_hard_agrees_with_the_exact_renderer(samples):
    depth, image, view = scene()
    outcomes = []
    for draw in (renderer(supersampling=samples), exact(supersampling=samples)):
        leaf = depth.clone().requires_grad_()
        found = draw(leaf, image, view)
        (gradient,) = torch.autograd.grad((found.depth * found.mask).sum(), leaf)
        outcomes.append((found, gradient))
    (mine, my_gradient), (truth, true_gradient) = outcomes
    # Samples on the outline fall to one side or the other as they round: at most one pixel in 576.
    assert (mine.mask != truth.mask).float().mean() < 2 / SIZE**2
    both = mine.mask & truth.mask
    assert (mine.depth - truth.depth)[both].abs().max() < 1e-5  # float32, and PyTorch3D adds 1e-8 to areas
    # On shared edges either face may win, which moves weight between neighbouring vertices; measured 0.004.
    assert (my_gradient - true_gradient).norm() < 0.02 * true_gradient.norm()


@needs_pytorch3d
def test_edge_exact_samples_are_covered_and_nothing_else_is():
    depth = torch.full((1, SIZE, SIZE), 1.0)
    away = torch.tensor([[0.0, 0, 0, 0.05, 0, 0]])
    found = renderer(supersampling=1)(depth, torch.zeros(1, 3, SIZE, SIZE), torch.zeros(1, 6))
    assert found.mask[:, 1:-1, 1:-1].all()
    moved = renderer(supersampling=1)(depth, torch.zeros(1, 3, SIZE, SIZE), away)
    # The plane moves to the right by 0.05 of its width of 2 tan 5° = 0.175: the left 29 % are background, not depth −1.
    assert not moved.mask[:, :, :6].any() and moved.mask[:, 1:-1, 8:-1].all()
    assert moved.depth[0, :, 0].min() == pytest.approx(1.2)


@needs_pytorch3d
def test_soft_approaches_hard_as_it_sharpens_and_keeps_the_outline():
    depth, image, view = scene()
    hard = renderer()(depth, image, view)
    errors = []
    for sigma, gamma in ((1e-4, 1e-1), (1e-5, 1e-2), (1e-7, 1e-4)):
        soft = renderer(mode="soft", sigma=sigma, gamma=gamma, faces_per_pixel=64)(depth, image, view)
        assert (soft.mask == hard.mask).float().mean() > 0.99
        errors.append(float((soft.depth - hard.depth)[soft.mask & hard.mask].abs().mean()))
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-3  # half a hundredth of the depth range; blur across folds remains


@needs_pytorch3d
@pytest.mark.parametrize("mode", ["hard", "soft"])
def test_gradients_are_finite_for_faces_that_cannot_be_drawn(mode):
    depth, image, view = scene()
    view[1, 5] = -1.0  # into the camera
    leaf = depth.requires_grad_()
    found = renderer(mode=mode, supersampling=1)(leaf, image, view)
    found.depth.sum().backward()
    assert leaf.grad.isfinite().all() and found.depth.isfinite().all()


@needs_pytorch3d
def test_other_precisions_are_refused():
    with pytest.raises(ValueError, match="canonical_depth must be float32"):
        renderer()(torch.ones(1, 8, 8).double(), torch.zeros(1, 3, 8, 8).double(), torch.zeros(1, 6).double())
