"""The soft rasteriser op: every face near a pixel takes part in it, with a weight by distance and depth.

SoftRas: Liu, Li, Chen and Li, "Soft Rasterizer: A Differentiable Renderer for Image-based 3D Reasoning", ICCV 2019.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from recon_soft.reference import Settings, Sums, soft_sums
from recon_toolkit.rendering import check_mesh

SoftBackend = Literal["auto", "reference", "numba"]


@dataclass(frozen=True)
class SoftFragments:
    """What every pixel sees, softly.

    Attributes:
        depth: (B, H, W). Expected z under the faces' weights, without the background; 0 where no face is near.
        image: (B, H, W, C). The attributes under the weights of faces and background (Eq. 2 of the paper).
        silhouette: (B, H, W) in [0, 1]. 1 − Π (1 − D) (Eq. 5 of the paper); None if it was not asked for.
        covered: (B, H, W) bool. A face contains the pixel's centre, edges included: coverage in the hard sense, which
            does not grow with sigma. A covered pixel has a silhouette of 1/2 or more.
    """

    depth: Tensor
    image: Tensor
    silhouette: Tensor | None
    covered: Tensor


def cut_off_radius(sigma: float, cut_off: float) -> float:
    """Distance in pixels at which D = sigmoid(−d² / sigma) has fallen to ``cut_off`` in (0, 1/2)."""
    return math.sqrt(sigma * math.log(1 / cut_off - 1))


def soft_rasterize(
    vertices: Tensor,  # [B, V, 3]
    faces: Tensor,  # [F, 3]
    attributes: Tensor,  # [B, V, C]
    height: int,
    width: int,
    *,
    sigma: float,
    gamma: float,
    near: float,
    far: float,
    epsilon: float = 1e-3,
    cut_off: float = 1e-3,
    background: tuple[float, ...] | None = None,
    silhouette: bool = True,
    backend: SoftBackend = "auto",
) -> SoftFragments:
    """Draw a batch of meshes that share their faces, probabilistically.

    For face i and pixel j at squared distance d² from the face's boundary, positive inside,

        D_i = sigmoid(d² / sigma),  zhat_i = (far − z_i) / (far − near),
        w_i = D_i exp(zhat_i / gamma) / (Σ_k D_k exp(zhat_k / gamma) + exp(epsilon / gamma)).

    z_i and the attributes are taken perspective-correctly at the pixel's barycentrics, clamped to [0, 1] and
    renormalised as in SoftRas. zhat is 1 at ``near`` and 0 at ``far``, and goes on linearly beyond. Both windings are
    drawn; faces that are edge-on, wider than 1e6 pixels, not finite or with a corner nearer than 1e-3 or farther than
    100 are not. Gradients flow to the vertices (through distances, barycentrics and depths) and to the attributes.

    Args:
        vertices: (B, V, 3) float32 or float64: pixel coordinates u, v (integers are pixel centres) and depth z.
        faces: (F, 3) int32 or int64, shared by the batch.
        attributes: (B, V, C), C may be 0.
        height, width: size of the picture in pixels.
        sigma: softness of edges in pixels².
        gamma: softness of occlusion in units of zhat, that is of far − near.
        near, far: depths at which zhat is 1 and 0.
        epsilon: zhat of the background.
        cut_off: a face that does not contain the pixel takes part only while D is above this, in (0, 1/2).
        background: C attributes of the background, 0 if not given.
        silhouette: also find the silhouette, which costs a logarithm for every pair of face and pixel.
        backend: ``auto``, ``reference`` (PyTorch, any device) or ``numba`` (CPU).

    Raises:
        ValueError: a shape, type, device, size, index or option is wrong.
    """
    check_options(sigma, gamma, near, far, epsilon, cut_off, backend)
    _check_tensors(vertices, faces, attributes, height, width)
    channels = attributes.shape[2]
    if background is not None and len(background) != channels:
        raise ValueError(f"background has {len(background)} values, but the attributes have {channels} channels")
    settings = Settings(sigma, cut_off_radius(sigma, cut_off), gamma, near, far)
    if _use_numba(vertices, backend):
        depth, means, log_weight, log_clear, covered = _NumbaSums.apply(
            vertices, faces, attributes, height, width, settings, silhouette
        )
        depth = torch.where(log_weight > -math.inf, depth + settings.middle, 0)
        sums = Sums(depth, means, log_weight + 0.5 / gamma, log_clear, covered)
    else:
        sums = soft_sums(vertices, faces, attributes, height, width, settings)
    # The faces' share against the background, without either exponential, which may overflow.
    share = torch.sigmoid(sums.log_weight - epsilon / gamma)[..., None]
    beyond = vertices.new_tensor(background if background is not None else (0.0,) * channels)
    image = share * sums.attributes + (1 - share) * beyond
    outline = -torch.expm1(sums.log_clear) if silhouette else None
    return SoftFragments(sums.depth, image, outline, sums.covered)


def _use_numba(tensor: Tensor, backend: SoftBackend) -> bool:
    if backend == "numba" and tensor.device.type != "cpu":
        raise ValueError(f"backend numba draws on the CPU, but vertices are on {tensor.device}")
    return backend == "numba" or (backend == "auto" and tensor.device.type == "cpu")


def check_options(
    sigma: float, gamma: float, near: float, far: float, epsilon: float, cut_off: float, backend: str
) -> None:
    """Raise ValueError unless these may be options of :func:`soft_rasterize`."""
    for name, value, unit in (("sigma", sigma, "pixels²"), ("gamma", gamma, "units of far − near")):
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be above 0 and finite ({unit}), not {value}")
    if not 0 < near < far < math.inf:
        raise ValueError(f"near and far must be two rising depths above 0, not {near} and {far}")
    if not 0 < cut_off < 0.5:
        raise ValueError(f"cut_off must be a probability above 0 and below 1/2, not {cut_off}")
    if not math.isfinite(epsilon):
        raise ValueError(f"epsilon must be finite, not {epsilon}")
    if backend not in ("auto", "reference", "numba"):
        raise ValueError(f"backend must be auto, reference or numba, not {backend!r}")


def _check_tensors(vertices: Tensor, faces: Tensor, attributes: Tensor, height: int, width: int) -> None:
    for name, tensor in (("faces", faces), ("attributes", attributes)):
        if tensor.device != vertices.device:
            raise ValueError(f"{name} are on {tensor.device}, but vertices are on {vertices.device}")
    check_mesh(vertices, faces, values=False)
    if attributes.ndim != 3 or attributes.shape[:2] != vertices.shape[:2]:
        expected = f"({vertices.shape[0]}, {vertices.shape[1]}, C) as vertices are"
        raise ValueError(f"attributes must be {expected}, not {tuple(attributes.shape)}")
    if attributes.dtype != vertices.dtype:
        raise ValueError(f"attributes are {attributes.dtype}, but vertices are {vertices.dtype}")
    if height < 1 or width < 1:
        raise ValueError(f"height and width must be 1 or more, not {height} and {width}")
    if faces.numel() and not 0 <= int(faces.min()) <= int(faces.max()) < vertices.shape[1]:
        raise ValueError(f"faces name vertices outside 0..{vertices.shape[1] - 1}")


def _array(tensor: Tensor) -> Any:
    return tensor.detach().contiguous().numpy()


class _NumbaSums(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        vertices: Tensor,
        faces: Tensor,
        attributes: Tensor,
        height: int,
        width: int,
        settings: Settings,
        clear: bool,
    ) -> tuple[Tensor, ...]:
        from recon_soft import kernels

        batch, channels = len(vertices), attributes.shape[2]
        depth, log_weight, log_clear = (vertices.new_empty(batch, height, width) for _ in range(3))
        means = vertices.new_empty(batch, height, width, channels)
        covered = torch.empty(batch, height, width, dtype=torch.bool)
        kernels.forward(
            batch * kernels.row_bands(batch, height),
            *kernels.inputs(_array(vertices), _array(faces.int()), _array(attributes), height, width, settings),
            clear, depth.numpy(), means.numpy(), log_weight.numpy(), log_clear.numpy(), covered.numpy(),
        )  # fmt: skip
        ctx.save_for_backward(vertices, faces, attributes, depth, means, log_weight)
        ctx.settings = settings
        ctx.mark_non_differentiable(covered)
        return depth, means, log_weight, log_clear, covered

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        from recon_soft import kernels

        vertices, faces, attributes, depth, means, log_weight = ctx.saved_tensors
        batch, height, width = depth.shape
        bands = kernels.row_bands(batch, height)
        gradient = vertices.new_zeros(batch, bands, *vertices.shape[1:])
        gradient_attributes = attributes.new_zeros(batch, bands, *attributes.shape[1:])
        kernels.backward(
            batch * bands,
            *kernels.inputs(_array(vertices), _array(faces.int()), _array(attributes), height, width, ctx.settings),
            *map(_array, (depth, means, log_weight, *grads[:4])),
            gradient.numpy(), gradient_attributes.numpy(),
        )  # fmt: skip
        return gradient.sum(1), None, gradient_attributes.sum(1), None, None, None, None
