"""Albedo that is smooth where neither colour nor depth jumps."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from recon_toolkit import Batch, Camera, ModelOutput
from recon_toolkit.rendering import warp_to_view


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
    """

    def __init__(self, *, fov: float = 10.0) -> None:
        self.camera = Camera(fov)

    def __call__(self, output: ModelOutput, batch: Batch) -> Tensor:
        """Map (B, H, W) ≥ 0, 0 outside the factor ``mask``, whose mean is over all pixels as in the paper's code.

        Needs the factors ``canonical_albedo`` (B, 3, H, W), ``depth`` (B, H, W) and ``view`` (B, 6); without a factor
        ``mask`` every pixel counts.
        """
        albedo, depth, view = (
            output.factor(name, "albedo-smoothness") for name in ("canonical_albedo", "depth", "view")
        )
        seen = warp_to_view(albedo, depth, view, self.camera)
        residual = smoothness_map(seen * 2 - 1, batch.image.to(seen.dtype) * 2 - 1, depth)
        return residual * output.factors["mask"] if "mask" in output.factors else residual
