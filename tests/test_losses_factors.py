"""Losses on a model's factors, and on ground truth, by hand and against slow references."""

import math

import pytest
import torch
from recon_losses.factors import (
    AlbedoSmoothness,
    normal_consistency,
    silhouette,
    smoothness_map,
    supervised_depth,
    symmetry,
)
from recon_unsup3d.losses import depth_smoothness

from recon_toolkit import Batch, ModelOutput, ReconError
from recon_toolkit.geometry import Camera, backproject

RANGE = torch.tensor([0.9, 1.1])


def output(**factors):
    return ModelOutput({}, {"depth_range": RANGE, **factors})


def batch(**fields):
    return Batch(image=fields.pop("image", torch.zeros(2, 3, 4, 4)), index=torch.arange(2), **fields)


# -- priors ----------------------------------------------------------------------------------------------------------


def slow_smoothness(albedo, image, depth):
    """LeMul's formula, pixel by pixel."""
    _, height, width = image.shape
    found = torch.zeros(height, width, dtype=torch.float64)
    for y in range(height):
        for x in range(width):
            pull = torch.zeros(3, dtype=torch.float64)
            for v in range(max(y - 1, 0), min(y + 2, height)):
                for u in range(max(x - 1, 0), min(x + 2, width)):
                    colour = ((image[:, y, x] - image[:, v, u]) ** 2).sum()
                    w_c = math.exp(-colour / 0.1) if colour < 0.5 else 0.0
                    w_d = math.exp(-((depth[y, x] - depth[v, u]) ** 2) / 4)
                    pull += w_c * w_d * (albedo[:, y, x] - albedo[:, v, u])
            found[y, x] = (pull**2).sum()
    return found


def test_albedo_smoothness_is_lemuls_formula():
    albedo, image = torch.rand(2, 1, 3, 7, 6, dtype=torch.float64) * 2 - 1
    image = image * 0.5  # so that some neighbours differ by more than the threshold, and some by less
    depth = torch.rand(1, 7, 6, dtype=torch.float64) * 3
    found = smoothness_map(albedo, image, depth)
    torch.testing.assert_close(found[0], slow_smoothness(albedo[0], image[0], depth[0]))
    assert smoothness_map(torch.full_like(albedo, 0.3), image, depth).abs().max() == 0
    assert torch.autograd.gradcheck(smoothness_map, (albedo.requires_grad_(), image, depth.requires_grad_()))


def test_albedo_smoothness_compares_in_the_input_view():
    """In the view of the canonical frame the warp does nothing, and the map is the formula's."""
    albedo, image = torch.rand(2, 2, 3, 16, 16)
    depth = torch.full((2, 16, 16), 1.0)
    mask = torch.zeros(2, 16, 16)
    mask[:, 2:9] = 1
    given = output(canonical_albedo=albedo, depth=depth, view=torch.zeros(2, 6), mask=mask)
    found = AlbedoSmoothness()(given, batch(image=image))
    expected = smoothness_map(albedo * 2 - 1, image * 2 - 1, depth) * mask
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)  # pixel positions pass through the warp in float32
    yawed = torch.zeros(2, 6)
    yawed[:, 1] = 0.3
    turned = AlbedoSmoothness()(output(**{**given.factors, "view": yawed}), batch(image=image))
    assert (turned - expected).abs().mean() > 1e-3
    with pytest.raises(ReconError, match=r"needs the factor 'view', and the model offers: .*depth"):
        AlbedoSmoothness()(output(canonical_albedo=albedo, depth=depth), batch(image=image))


def test_bending_of_planes_spheres_and_folds():
    camera = Camera(10)
    rays = camera.rays(32, 32, dtype=torch.float64)
    normal = torch.tensor([0.3, -0.2, 1.0], dtype=torch.float64)
    plane = (1 / (normal[:, None, None] * rays).sum(0))[None]  # n·P = 1 for every pixel
    assert normal_consistency(output(canonical_depth=plane)) < 1e-12  # rounding of float64
    # A sphere of radius r about (0, 0, c): between pixels s apart on it, normals turn by s / r.
    radius, centre = 0.5, 1.4
    b, c2 = rays[2] * centre / rays.square().sum(0), (centre**2 - radius**2) / rays.square().sum(0)
    sphere = (b - (b * b - c2).sqrt())[None]
    points = backproject(sphere, camera)[0]
    normals = (points - torch.tensor([0, 0, centre], dtype=torch.float64)[:, None, None]) / radius
    inner = normals[:, 1:-1, 1:-1]
    across = (1 - (inner[..., 1:] * inner[..., :-1]).sum(0)).mean()
    down = (1 - (inner[..., 1:, :] * inner[..., :-1, :]).sum(0)).mean()
    found = normal_consistency(output(canonical_depth=sphere))
    torch.testing.assert_close(found, across + down, rtol=1e-3, atol=0)  # central differences against true normals
    rough = sphere + 0.001 * torch.rand_like(sphere)
    assert normal_consistency(output(canonical_depth=rough)) > 30 * found


def test_bending_has_the_gradient_of_finite_differences():
    depth = 1 + 0.01 * torch.rand(1, 6, 6, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda d: normal_consistency(output(canonical_depth=d)), depth.requires_grad_())


def test_symmetry_by_hand():
    depth, albedo = 0.9 + 0.2 * torch.rand(2, 6, 6), torch.rand(2, 3, 6, 6)
    even = output(canonical_depth=(depth + depth.flip(-1)) / 2, canonical_albedo=(albedo + albedo.flip(-1)) / 2)
    assert symmetry(even) == 0
    ramp = torch.tensor([0.9, 1.0, 1.1]).expand(2, 3, 3)  # differs from its mirror by 0.2, 0 and 0.2
    given = output(canonical_depth=ramp, canonical_albedo=torch.tensor([0.0, 0.5, 0.6]).expand(2, 3, 3, 3))
    assert symmetry(given, albedo_share=0).item() == pytest.approx(2 / 3, rel=1e-5)  # float32
    assert symmetry(given, depth_share=0).item() == pytest.approx(0.4, rel=1e-5)
    assert symmetry(given, depth_share=3, albedo_share=0.5).item() == pytest.approx(2.2, rel=1e-5)
    with pytest.raises(ReconError, match="both shares"):
        symmetry(given, depth_share=0, albedo_share=0)


# -- with ground truth -----------------------------------------------------------------------------------------------


def test_supervised_depth_by_hand():
    true = torch.tensor([[[1.0, 1.0], [1.0, math.nan]], [[1.0, 1.0], [1.0, 1.0]]])
    mask = torch.tensor([[[True, True], [True, False]], [[True, True], [False, False]]])
    depth = torch.tensor([[[1.0, 1.1], [0.9, 5.0]], [[1.04, 0.96], [9.0, 9.0]]]).requires_grad_()
    loss = supervised_depth(output(depth=depth), batch(depth=true, mask=mask))
    # (0 + 0.1 + 0.1) / 3 and 0.04 over a range of 0.2, and the mean of the two images.
    assert loss.item() == pytest.approx((0.2 / 3 / 0.2 + 0.04 / 0.2) / 2, rel=1e-5)  # float32
    loss.backward()
    assert depth.grad.isfinite().all() and (depth.grad[~mask] == 0).all()
    covered = torch.ones(2, 2, 2)
    covered[0, 0, 1] = 0
    part = supervised_depth(output(depth=depth, mask=covered), batch(depth=true, mask=mask))
    assert part.item() == pytest.approx((0.1 / 2 / 0.2 + 0.04 / 0.2) / 2, rel=1e-5)
    assert supervised_depth(output(depth=depth), batch(depth=true, mask=mask & False)) == 0
    with pytest.raises(ReconError, match="needs true mask"):
        supervised_depth(output(depth=depth), batch(depth=true))


def test_supervised_depth_without_scale():
    true = 0.9 + 0.2 * torch.rand(2, 5, 5, dtype=torch.float64)
    mask = torch.rand(2, 5, 5) > 0.3
    truth = batch(depth=true, mask=mask)
    scaled = true * torch.tensor([1.3, 0.8], dtype=torch.float64)[:, None, None]
    assert supervised_depth(output(depth=scaled), truth, scale_invariant=True) < 1e-12  # rounding of float64
    depth = 0.9 + 0.2 * torch.rand(2, 5, 5, dtype=torch.float64)
    expected = []
    for n in range(2):
        error = depth[n][mask[n]].log() - true[n][mask[n]].log()
        expected.append((error - error.mean()).abs().mean() / math.log(1.1 / 0.9))
    found = supervised_depth(output(depth=depth), truth, scale_invariant=True)
    torch.testing.assert_close(found, sum(expected) / 2, rtol=1e-6, atol=0)  # the range is float32

    def of(depth):
        return supervised_depth(output(depth=depth), truth, scale_invariant=True)

    assert torch.autograd.gradcheck(of, depth.requires_grad_())


def test_silhouette_by_hand():
    coverage = torch.tensor([[[0.5, 1.0], [0.0, 0.25]]]).expand(2, 2, 2)
    mask = torch.tensor([[[True, True], [False, True]]]).expand(2, 2, 2)
    given, truth = output(coverage=coverage), batch(mask=mask)
    # Certainty ends at 1e-6, which is what right answers cost; 0.25 is squeezed by half of that, which costs 2e-6.
    expected = torch.tensor([[math.log(2), 0], [0, math.log(4)]])
    torch.testing.assert_close(silhouette(given, truth)[1], expected, rtol=0, atol=3e-6)
    # Both: 0.5 + 1 + 0.25; either: 1 + 1 + 0 + 1.
    torch.testing.assert_close(silhouette(given, truth, measure="iou"), torch.full((2,), 1 - 1.75 / 3))
    nothing = torch.zeros(2, 2, 2)
    assert (silhouette(output(coverage=nothing), batch(mask=mask & False), measure="iou") == 0).all()
    assert (silhouette(output(coverage=nothing), truth, measure="iou") == 1).all()
    with pytest.raises(ReconError, match="needs differentiable coverage"):
        silhouette(output(mask=coverage), truth)
    with pytest.raises(ReconError, match="needs true mask"):
        silhouette(given, batch())


@pytest.mark.parametrize("measure", ["cross-entropy", "iou"])
def test_a_silhouette_that_is_certain_and_wrong_has_a_gradient(measure):
    coverage = torch.tensor([[[0.0, 1.0], [0.0, 1.0]]]).expand(2, 2, 2).clone().requires_grad_()
    mask = torch.tensor([[[True, False], [True, True]]]).expand(2, 2, 2)
    silhouette(output(coverage=coverage), batch(mask=mask), measure=measure).sum().backward()
    assert coverage.grad.isfinite().all()
    assert (coverage.grad[:, :, 0] < 0).all() and (coverage.grad[:, 0, 1] > 0).all()


def test_depth_smoothness_says_which_factor_it_lacks():
    with pytest.raises(ReconError, match=r"depth-smoothness needs the factor 'canonical_depth'.* offers: depth"):
        depth_smoothness(output(depth=torch.ones(2, 4, 4)))
