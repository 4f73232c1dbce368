"""Losses that look at a model's factors: priors on them, and their comparison with ground truth."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from recon_toolkit import Batch, Camera, ModelOutput, ReconError
from recon_toolkit.geometry import normals_from_depth
from recon_toolkit.rendering import warp_to_view


def normal_consistency(output: ModelOutput, *, fov: float = 10.0) -> Tensor:
    """Bending of the canonical surface: mean of 1 − n·n' over neighbouring pixels (as pytorch3d does over faces).

    Normals are those of the canonical depth, without the border of one pixel, where there are none. A plane of any
    tilt gives 0, unlike with ``depth-smoothness``.

    Args:
        output: with the factor ``canonical_depth`` (B, H, W), sides of 4 or more.
        fov: the pipeline's ``camera.fov`` in degrees.

    Returns:
        A scalar ≥ 0: the means over horizontal and over vertical neighbours, added.
    """
    depth = output.factor("canonical_depth", "normal-consistency")
    normals = normals_from_depth(depth, Camera(fov))[:, :, 1:-1, 1:-1]
    # Half the squared distance of unit vectors is 1 − n·n' without its cancellation.
    across = (normals[..., 1:] - normals[..., :-1]).square().sum(1).mean() / 2
    down = (normals[..., 1:, :] - normals[..., :-1, :]).square().sum(1).mean() / 2
    return across + down


def symmetry(output: ModelOutput, *, depth_share: float = 1.0, albedo_share: float = 1.0) -> Tensor:
    """Mean absolute difference of canonical maps from their mirror images (cf. Wu et al. 2020, Sec. 3.2).

    Unlike the flipped reconstruction it knows no confidence: asymmetry costs the same everywhere.

    Args:
        output: with the factors ``canonical_depth`` (B, H, W), ``depth_range`` (2,) and ``canonical_albedo``
            (B, 3, H, W); only those whose share is not 0 are needed.
        depth_share: factor of the depth's, in units of the depth range.
        albedo_share: factor of the albedo's.

    Returns:
        A scalar ≥ 0.

    Raises:
        ReconError: both shares are 0.
    """
    terms = []
    if depth_share:
        depth = output.factor("canonical_depth", "symmetry")
        low, high = output.factor("depth_range", "symmetry").unbind(-1)
        terms.append(depth_share * (depth - depth.flip(-1)).abs().mean() / (high - low))
    if albedo_share:
        albedo = output.factor("canonical_albedo", "symmetry")
        terms.append(albedo_share * (albedo - albedo.flip(-1)).abs().mean())
    if not terms:
        raise ReconError("both shares of the loss symmetry are 0", remedy="give losses.NAME.depth_share a value")
    return sum(terms[1:], terms[0])


def smoothness_map(albedo: Tensor, image: Tensor, depth: Tensor) -> Tensor:
    """‖Σₖ w_c w_d (A_p − A_k)‖² over the 3×3 neighbours k of each pixel p inside the image (Ho et al. 2021).

    w_c = [‖ΔI‖² < 0.5] exp(−‖ΔI‖² / 0.1) and w_d = exp(−Δd² / 4), with ‖·‖² summed over channels.

    Args:
        albedo, image: (B, 3, H, W) in [−1, 1], as in the paper's code.
        depth: (B, H, W).

    Returns:
        (B, H, W) ≥ 0.
    """
    batch, _, height, width = image.shape
    # Far away in colour beyond the border: such neighbours have weight 0.
    maps = torch.cat((F.pad(image, (1,) * 4, value=1e3), F.pad(torch.cat((depth[:, None], albedo), 1), (1,) * 4)), 1)
    around = F.unfold(maps, 3).view(batch, 7, 9, height * width)
    difference = around[:, :, 4:5] - around
    colour = difference[:, :3].square().sum(1)
    weight = torch.exp(-colour / 0.1 - difference[:, 3].square() / 4) * (colour < 0.5)
    pull: Tensor = (weight[:, None] * difference[:, 4:]).sum(2)
    return pull.square().sum(1).view(batch, height, width)


class AlbedoSmoothness:
    """Smoothness of the albedo in the input view, where image and depth are smooth (Ho et al. 2021, LeMul).

    Canonical albedo is warped into the input view with the reconstructed depth, and there meets the batch's image, as
    in the paper's code. Its weight is 0.5 in the paper. Three things of that code are left out: its neighbourhood
    counts the pixel itself as −A_p, neighbours beyond the image count as black, and its mask is, by broadcasting, that
    of every image of the batch.

    Args:
        fov: the pipeline's ``camera.fov`` in degrees.
        factors_of: of which reconstruction the factors are, as a model names them: ``swapped`` reads ``swapped_depth``.
    """

    def __init__(self, *, fov: float = 10.0, factors_of: str = "") -> None:
        self.camera, self.prefix = Camera(fov), f"{factors_of}_" if factors_of else ""

    def __call__(self, output: ModelOutput, batch: Batch) -> Tensor:
        """Map (B, H, W) ≥ 0, 0 outside the factor ``mask``, whose mean is over all pixels as in the paper's code.

        Needs the factors ``canonical_albedo`` (B, 3, H, W), ``depth`` (B, H, W) and ``view`` (B, 6); without a factor
        ``mask`` every pixel counts, and without ``image`` (B, 3, H, W) the images are the batch's.
        """
        albedo, depth, view = (
            output.factor(f"{self.prefix}{name}", "albedo-smoothness") for name in ("canonical_albedo", "depth", "view")
        )
        image, mask = (output.factors.get(f"{self.prefix}{name}") for name in ("image", "mask"))
        seen = warp_to_view(albedo, depth, view, self.camera)
        image = (batch.image if image is None else image).to(seen.dtype)
        residual = smoothness_map(seen * 2 - 1, image * 2 - 1, depth)
        return residual if mask is None else residual * mask


def _true(batch: Batch, name: Literal["depth", "mask"], who: str) -> Tensor:
    value = batch.depth if name == "depth" else batch.mask
    if value is None:
        raise ReconError(
            f"the loss {who} needs true {name}, and the data has none", remedy="use data with ground truth"
        )
    return value


def supervised_depth(output: ModelOutput, batch: Batch, *, scale_invariant: bool = False) -> Tensor:
    """Absolute error of depth in the input view, inside the true mask: the supervised baseline of Wu et al. (Table 2).

    Args:
        output: with the factors ``depth`` (B, H, W) and ``depth_range`` (2,); where there is a factor ``mask``
            (B, H, W), pixels outside it do not count either: no depth was drawn there.
        batch: with ``depth`` and ``mask``.
        scale_invariant: compare logarithms less their mean difference in each image (Eigen et al. 2014), so that a
            factor on depth costs nothing.

    Returns:
        A scalar ≥ 0: the mean over pixels of each image, then over images, in units of the depth range (of the range
        of ln depth with ``scale_invariant``). An image without a pixel to compare counts as 0.
    """
    depth, (low, high) = output.factor("depth", "supervised-depth"), output.factor("depth_range", "supervised-depth")
    inside = _true(batch, "mask", "supervised-depth").bool()
    if "mask" in output.factors:
        inside = inside & (output.factors["mask"] > 0.5)
    # The true depth outside its mask may be anything, NaN too.
    true, depth = (torch.where(inside, d, 1) for d in (_true(batch, "depth", "supervised-depth"), depth))
    count = inside.sum((1, 2)).clamp(min=1)
    if not scale_invariant:
        absolute: Tensor = ((depth - true).abs().sum((1, 2)) / count).mean() / (high - low)
        return absolute
    error = depth.log() - true.log()
    error = (error - (error.sum((1, 2)) / count)[:, None, None]) * inside
    relative: Tensor = (error.abs().sum((1, 2)) / count).mean() / (high / low).log()
    return relative


def silhouette(
    output: ModelOutput, batch: Batch, *, measure: Literal["cross-entropy", "iou"] = "cross-entropy"
) -> Tensor:
    """Coverage against the true mask, by binary cross-entropy or 1 − IoU (Liu et al. 2019).

    Args:
        output: with a factor ``coverage`` (B, H, W), a probability in [0, 1] with a gradient.
        batch: with ``mask``.
        measure: ``cross-entropy``, a map per pixel, or ``iou``, one value per image.

    Returns:
        (B, H, W) ≥ 0, or (B,) in [0, 1]; 1 − IoU of nothing against nothing is 0.

    Raises:
        ReconError: the model has no such factor. Its ``mask`` cannot stand in: that has no gradient.
    """
    if "coverage" not in output.factors:
        raise ReconError(
            "the loss silhouette needs differentiable coverage, and the model offers none",
            remedy="use a model with a factor 'coverage' (B, H, W) in [0, 1], or --set losses.NAME=null",
        )
    coverage = output.factors["coverage"].float()
    mask = _true(batch, "mask", "silhouette").to(coverage.dtype)
    if measure == "iou":
        both = (coverage * mask).sum((1, 2))
        either = (coverage + mask - coverage * mask).sum((1, 2))
        return torch.where(either > 0, 1 - both / either.clamp(min=1e-6), 0)
    # Squeezed and not cut off: a wrong answer of exactly 0 or 1 keeps its gradient.
    sure = 1e-6 + (1 - 2e-6) * coverage
    return -(mask * sure.log() + (1 - mask) * (1 - sure).log())


supervised_depth.batch_fields = ("depth", "mask")  # type: ignore[attr-defined]
silhouette.batch_fields = ("mask",)  # type: ignore[attr-defined]
