"""The surface to show and export of a reconstruction: the whole object where the model has one, else what it sees."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from recon_toolkit.errors import DataError
from recon_toolkit.structures import Reconstruction

#: Columns at either side of a canonical depth map that may hold a fixed depth, in models after Wu et al.
BORDER = 2


def object_mask(depth: Tensor, *, border: int = BORDER) -> Tensor:
    """What to keep of canonical depth (..., H, W): all but ``border`` columns at either side, bool.

    Those hold a fixed depth in models after Wu et al., and would stand as walls beside the object.
    """
    mask = torch.ones_like(depth, dtype=torch.bool)
    mask[..., :border] = mask[..., depth.shape[-1] - border :] = False
    return mask


class Surface(NamedTuple):
    """The object's surface in its own frame, or in the input view, on the CPU."""

    depth: Tensor  # (H, W)
    mask: Tensor  # (H, W) bool
    outlined: bool  # the mask ends at the object; otherwise a rim of background may be inside


def surface_of(found: Reconstruction) -> Surface:
    """The surface of a reconstruction.

    Args:
        found: a batch of one.

    Raises:
        DataError: there is no depth, or nothing of it inside the mask.
    """
    if found.canonical_depth is not None:
        depth = found.canonical_depth[0].detach().cpu()
        mask = object_mask(depth)
        outlined = found.canonical_mask is not None
        if found.canonical_mask is not None:
            mask &= found.canonical_mask[0].cpu()
    elif found.depth is not None:
        depth = found.depth[0].detach().cpu()
        mask = torch.ones_like(depth, dtype=torch.bool) if found.mask is None else found.mask[0].cpu()
        outlined = False
    else:
        raise DataError("the model predicts no depth, so there is no surface", remedy="use one that does")
    if not mask.any():
        raise DataError("the model sees no object here", remedy="check that it fills the picture")
    return Surface(depth, mask, outlined)
