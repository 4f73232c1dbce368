"""Where an object ends in its photograph, for models that do not say it: what meshes and pages are cut to."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from recon_toolkit.export.texture import seen_from_front
from recon_toolkit.geometry.camera import Camera
from recon_toolkit.structures import Reconstruction

#: Side of the picture in which the outline is looked for, and rounds of the search.
SIDE, ROUNDS = 96, 2
#: Ellipses about the middle of a crop, half widths and heights in halves of its side, and how far below the middle:
#: inside the first there is the object, outside the second probably not.
SURE, LIKELY = (0.45, 0.6, 0.1), (0.8, 0.97, 0.05)
#: An outline that keeps less of the picture than this is not believed.
LEAST = 0.3


def photo_silhouette(photo: Tensor) -> Tensor | None:
    """The object that fills the middle of a crop, by its colours (GrabCut, Rother et al. 2004).

    Args:
        photo: (3, S, S) in [0, 1].

    Returns:
        (96, 96) bool: one piece without holes; None where nothing tells the object from what is around it.
    """
    import cv2

    small = F.interpolate(photo[None].cpu().float(), (SIDE, SIDE), mode="area")[0].clamp(0, 1)
    pixels = np.ascontiguousarray((small * 255).round().byte().numpy().transpose(1, 2, 0)[..., ::-1])
    labels = np.where(_ellipse(LIKELY), cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    labels[_ellipse(SURE)] = cv2.GC_FGD
    cv2.setRNGSeed(0)  # its mixtures of colours start at random
    if float(np.ptp(pixels.reshape(-1, 3), axis=0).max()) < 8:
        return None
    cv2.grabCut(pixels, labels, None, np.zeros((1, 65)), np.zeros((1, 65)), ROUNDS, cv2.GC_INIT_WITH_MASK)  # type: ignore[call-overload]
    kept = _one_piece((labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD))
    return torch.from_numpy(kept) if kept.mean() >= LEAST else None


def _ellipse(shape: tuple[float, float, float]) -> NDArray[np.bool_]:
    width, height, down = shape
    axis = np.linspace(-1, 1, SIDE)
    return np.asarray((axis / width) ** 2 + ((axis[:, None] - down) / height) ** 2 < 1)


def _one_piece(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """What is connected with the middle, without whiskers, gaps and holes."""
    from scipy import ndimage

    mask = ndimage.gaussian_filter(mask.astype(np.float32), 1.0, mode="nearest") > 0.5
    labels, _ = ndimage.label(mask)
    return np.asarray(ndimage.binary_fill_holes(labels == labels[SIDE // 2, SIDE // 2]))


def canonical_silhouette(found: Reconstruction, camera: Camera, silhouette: Tensor) -> Tensor:
    """The outline from the front, symmetric: a place is the object's where it or its mirrored one is seen to be.

    Args:
        found: one reconstruction (B = 1) with canonical depth and view.
        camera: the model's camera.
        silhouette: (S, S) bool, framed as ``found.image``.

    Returns:
        (1, H, W) bool, of the canonical depth's size.
    """
    values, weight = seen_from_front(found, camera, silhouette.to(found.image).expand(3, -1, -1))
    own = values[:, :1]
    # Both sides speak, by how well they are seen: one alone may have taken hair or shadow for the background.
    weight = weight + 1e-3
    kept, share = own * weight + (own * weight).flip(-1), weight + weight.flip(-1)
    return torch.from_numpy(_without_spikes((kept >= 0.4 * share)[0, 0].numpy()))[None]


def _without_spikes(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """What a disc of a sixteenth of the side can reach from within, as if the mask went on beyond its border."""
    from scipy import ndimage

    radius = max(1, mask.shape[0] // 16)
    axis = np.arange(-radius, radius + 1)
    disc = axis**2 + axis[:, None] ** 2 <= radius**2
    wide = np.pad(mask, radius, mode="edge")
    return np.asarray(ndimage.binary_opening(wide, disc)[radius:-radius, radius:-radius])
