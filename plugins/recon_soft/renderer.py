"""The soft rasteriser op, and the renderer on top of it: expected depth under SoftRas' weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from recon_soft.reference import Settings, Sums, soft_sums
from recon_toolkit import Camera, Rendering
from recon_toolkit.geometry import grid_faces
from recon_toolkit.rendering import NEAR, DepthRenderer, check_mesh, grid_vertices, pool_samples

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


class SoftRenderer(DepthRenderer):
    """SoftRas (Liu et al., ICCV 2019) on the depth map's mesh: neighbouring and hidden faces take part, with weights.

    A pixel's depth is the expectation under the faces' weights, without the background, so it does not drift towards
    the background's depth at the outline. The mask is coverage in the hard sense: all of a pixel's samples lie in a
    face. Such pixels have a silhouette of 1/2 or more whatever ``sigma``, and the mask does not grow with it; the
    threshold on the silhouette alone would dilate the object, as blurred depth does.

    zhat, in which ``gamma`` and ``epsilon`` are measured, falls from 1 at the nearest to 0 at the farthest depth that
    is rendered: those of ``depth_range`` and half of the range beyond on either side, 0.4 for depths in [0.9, 1.1].

    Which numbers to take. At 64 pixels a quad is about a pixel wide. ``sigma`` decides over how many neighbours a
    pixel's gradient is spread: one sample a pixel then suffices, where the exact renderer needs 2 × 2. ``gamma``
    decides what hides what: a layer that lies Δz behind keeps exp(−Δz / (0.4 gamma)) of its weight. It must be well
    below the object's folds (nose above cheek: zhat 0.05), and well above the difference between neighbours on a
    slope (0.006 at 40°), or the nearer neighbour takes all. Measured, bump of 0.03 at 64², one sample a pixel, interior
    without the outermost 8 pixels: standard deviation of the gradient with respect to the canonical depth under a
    uniform upstream gradient (its mean is 1), and the median error of depth in 1e-5 of the object's distance, by
    rotation about x, y and z.

    ==========  =====  ============  ============  ============  ============
    sigma       gamma  0, 5, 0°      3, 20, 2°     0, 40, 0°     0, 60, 0°
    ==========  =====  ============  ============  ============  ============
    depth-mesh, 1 × 1  .008   0      .063   0      .305   0      1.01   0
    depth-mesh, 2 × 2  .008   0.4    .038   0.2    .061   0.4    .439   0.6
    0.01        0.01   .007   0.7    .065   1.0    .337   2.3    .739   4.2
    0.03        0.01   .008   1.2    .059   2.1    .281   5.3    .579   9.5
    0.1         0.003  .012   2.0    .064   4.8    .354  15.1    1.00  47.2
    0.1         0.01   .010   2.1    .043   4.4    .113   8.9    .561  16.8
    0.1         0.03   .009   2.1    .040   4.3    .099   7.7    .281   9.8
    0.3         0.01   .009   1.3    .031   3.8    .096  14.0    .505  47.4
    1.0         0.01   .028   7.4    .044  16.9    .098  53.1    .452  171
    ==========  =====  ============  ============  ============  ============

    With 2 × 2 samples, ``sigma`` 0.1 and ``gamma`` 0.01: .007, .030, .059, .267, at 3.5 times the time.

    Args:
        camera: the camera of both views.
        depth_range: nearest and farthest canonical depth.
        sigma: softness of edges in pixels².
        gamma: softness of occlusion in units of zhat.
        epsilon: zhat of the background, for ``colour: soft``.
        cut_off: probability below which a face that does not contain the sample is left out, in (0, 1/2). The radius
            is √(sigma · ln(1 / cut_off − 1)) pixels, 0.83 with the defaults; time grows with its square.
            Gradients do not see the step there, half a per cent of the derivative; with 1e-4, SoftRas' own, 4e-6.
        supersampling: samples along a pixel's side.
        pixel_offset: shift of the sample positions in pixels.
        colour: ``warp`` looks each pixel's point up in the canonical image, as the exact renderer does; ``soft``
            blends the colours of the canonical pixels as vertices of the mesh, over mid-grey.
        backend: ``auto``, ``reference`` (PyTorch, any device) or ``numba`` (CPU).

    Raises:
        ValueError: an option is out of range.
    """

    def __init__(
        self,
        *,
        camera: Camera,
        depth_range: tuple[float, float],
        sigma: float = 0.1,
        gamma: float = 0.01,
        epsilon: float = 1e-3,
        cut_off: float = 1e-3,
        supersampling: int = 1,
        pixel_offset: float = 0.0,
        colour: Literal["warp", "soft"] = "warp",
        backend: SoftBackend = "auto",
    ) -> None:
        super().__init__(camera=camera, depth_range=depth_range)
        check_options(sigma, gamma, max(self.nearest, NEAR), self.background, epsilon, cut_off, backend)
        if supersampling < 1:
            raise ValueError(f"supersampling is 1 or more, not {supersampling}")
        if colour not in ("warp", "soft"):
            raise ValueError(f"colour must be warp or soft, not {colour!r}")
        self.soft_backend: SoftBackend = backend
        self.sigma, self.gamma, self.epsilon, self.cut_off = sigma, gamma, epsilon, cut_off
        self.supersampling, self.pixel_offset = supersampling, pixel_offset
        self.colour, self.backend = colour, backend

    def render(self, canonical_depth: Tensor, canonical_image: Tensor, view: Tensor) -> Rendering:
        """Colour by the warp, or blended with the depth's weights."""
        if self.colour == "warp":
            return super().render(canonical_depth, canonical_image, view)
        found = self._draw(canonical_depth, canonical_image - 0.5, view)
        depth, mask = self.limited(*pool_samples(found.depth, found.covered, self.supersampling))
        image = F.avg_pool2d(found.image.permute(0, 3, 1, 2), self.supersampling) + 0.5
        return Rendering(image=image, depth=depth, mask=mask)

    def render_depth(self, canonical_depth: Tensor, view: Tensor) -> tuple[Tensor, Tensor]:
        """Expected depth (B, H, W), 0 where not covered, and coverage (B, H, W) bool."""
        found = self._draw(canonical_depth, canonical_depth[:, None][:, :0], view)
        return pool_samples(found.depth, found.covered, self.supersampling)

    def _draw(self, canonical_depth: Tensor, attributes: Tensor, view: Tensor) -> SoftFragments:
        samples = self.supersampling
        height, width = canonical_depth.shape[-2:]
        vertices = grid_vertices(
            canonical_depth, view, self.camera, samples=samples, pixel_offset=self.pixel_offset, backend=self.backend
        )
        return soft_rasterize(
            vertices,
            grid_faces(height, width, vertices.device),
            attributes.flatten(2).transpose(1, 2),
            height * samples,
            width * samples,
            sigma=self.sigma * samples**2,
            gamma=self.gamma,
            near=max(self.nearest, NEAR),
            far=self.background,
            epsilon=self.epsilon,
            cut_off=self.cut_off,
            silhouette=False,
            backend=self.soft_backend,
        )
