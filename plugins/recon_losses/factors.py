"""Priors on what a model believes: they look at its factors, not at images."""

from __future__ import annotations

from torch import Tensor

from recon_toolkit import Camera, ModelOutput, ReconError
from recon_toolkit.geometry import normals_from_depth


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
