"""The soft renderer: expected depth of the mesh under SoftRas' weights, colours by warp or by the same weights."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from recon_soft.op import SoftBackend, SoftFragments, check_options, soft_rasterize
from recon_toolkit import Camera, Rendering
from recon_toolkit.geometry import grid_faces
from recon_toolkit.rendering import NEAR, DepthRenderer, grid_vertices, pool_samples


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
