"""The depth map as the page gets it: a grid of 16-bit depths, finer than the model's own where that is coarse."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from recon_toolkit.errors import DataError
from recon_toolkit.export.sizes import resizing_matrix

#: Depth maps up to this size get a vertex between every two pixels, so that curves look like curves.
REFINED_UP_TO = 96
#: Longest side of the grid: more would make slow pages of more than a megabyte.
LARGEST = 384
STEPS = 65535


@dataclass(frozen=True)
class DepthGrid:
    """A grid of vertices: depths in steps between the nearest and the furthest, and where the surface ends."""

    near: float
    far: float
    steps: NDArray[np.uint16]  # (H, W): depth = near + (far − near) · steps / STEPS
    levels: NDArray[np.int8] | None  # (H, W), above 0 inside the outline, which passes between; None: all inside
    step: int  # vertices from one pixel of the model's depth map to the next

    @property
    def drawn(self) -> NDArray[np.bool_]:
        """The vertices inside the outline, (H, W)."""
        return np.ones(self.steps.shape, dtype=bool) if self.levels is None else self.levels > 0

    def depths(self) -> NDArray[np.float64]:
        """The depths that the page sees, (H, W). Beyond the outline they are the surface continued, or nothing."""
        return self.near + (self.far - self.near) * self.steps / STEPS


def depth_grid(depth: Tensor, mask: Tensor) -> DepthGrid:
    """What is drawn of a depth map, within half of a step, (far − near) / 65535 / 2.

    Args:
        depth: (H, W); what is not finite or not positive is not drawn. Both sides need at least three pixels.
        mask: (H, W) bool, what to draw, to the outer edge of its outermost pixels, with its steps smoothed: a hole of
            one pixel closes, filled with the nearest depth. Depths beyond it mean nothing. Or floats in [0, 1],
            where the outline runs at 0.5 through depths that are all the object's, but for those not finite.

    Raises:
        DataError: nothing is left to draw.
        ValueError: the shapes are wrong.
    """
    from scipy.ndimage import maximum_filter

    from recon_toolkit.export.outline import extended, outline

    if depth.ndim != 2 or depth.shape != mask.shape or min(depth.shape) < 3:
        raise ValueError(
            f"expected depth and mask of one shape (H, W) from 3 × 3, got {tuple(depth.shape)}, {tuple(mask.shape)}"
        )
    # NumPy, because small tensors would wait for each other's threads on a busy machine.
    values, soft = (tensor.detach().double().cpu().numpy() for tensor in (depth, mask))
    good = np.isfinite(values) & (values > 0)
    inside = good & (soft > 0.5)
    if not inside.any():
        raise DataError("the mask leaves nothing of the surface to show", remedy="use a larger mask")
    longest = max(values.shape)
    step = 2 if longest <= REFINED_UP_TO else 1
    scale = min(step, (LARGEST - 1) / (longest - 1))
    size = (round((values.shape[0] - 1) * scale) + 1, round((values.shape[1] - 1) * scale) + 1)
    smooth = mask.is_floating_point()
    fine = 1 / _resized(1 / extended(values, good if smooth else inside), size)  # in 1/z, a plane is linear
    levels = None
    used = np.ones(size, dtype=bool)
    if not inside.all():
        field = _resized(np.where(good, soft - 0.5, -0.5) if smooth else outline(inside), size)
        levels = np.clip(np.rint(field * 254), -127, 127).astype(np.int8)
        used = maximum_filter(levels, 3) > 0  # with the outer corners of cut triangles
    near, far = float(fine[used].min()), float(fine[used].max())
    steps = np.rint((np.clip(fine, near, far) - near) / max(far - near, 1e-12) * STEPS).astype(np.uint16)
    return DepthGrid(near, far, steps, levels, step)


def _resized(values: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
    """A map (H, W) at another size, corner on corner."""
    rows, columns = (resizing_matrix(count, wanted).numpy() for count, wanted in zip(values.shape, size, strict=True))
    # A plain loop: a product this small is sooner done than shared among threads.
    fine: NDArray[np.float64] = np.einsum("vj,uj->vu", np.einsum("vi,ij->vj", rows, values), columns)
    return fine
