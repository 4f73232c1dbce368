"""The model ``supervised-depth``: one network from the image to its depth, to be trained with true depth."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from recon_toolkit import Batch, Model, ModelOutput, Reconstruction, Rendering
from recon_toolkit.geometry import Camera, normals_from_depth


class SupervisedDepth(Model):
    """Depth in the input view, straight from the image.

    The baseline of Wu et al. 2020 (Table 2, "supervised"): a network of the architecture that Unsup3D has for depth,
    which a loss such as ``supervised-depth`` compares with true depth. It has no canonical view, no symmetry, no
    light and no renderer, and predicts a depth for every pixel, the background's too.

    Args:
        encoders: the network by its role, ``depth``.
        renderer: ignored; a pipeline needs none.
        camera: the camera of all views, for normals.
        image_size: ignored; the network has it.
        depth_min, depth_max: range of the depth, in units of the object's distance. The default holds all of
            ``synthetic-faces``, whose heads lie between 0.902 and 1.1.

    Raises:
        ValueError: the range is empty, or begins behind the camera.
    """

    #: What training reads of a data set; the loss adds the truth that it needs.
    batch_fields = ("image",)
    _depth_limits: Tensor

    def __init__(
        self,
        encoders: Mapping[str, nn.Module],
        renderer: Callable[[Tensor, Tensor, Tensor], Rendering] | None,
        camera: Camera,
        image_size: int,
        *,
        depth_min: float = 0.9,
        depth_max: float = 1.1,
    ) -> None:
        super().__init__()
        if not 0 < depth_min < depth_max:
            raise ValueError(f"depth_min {depth_min} must be above 0 and below depth_max {depth_max}")
        self.encoders = nn.ModuleDict(dict(encoders))
        self.camera = camera
        self.depth_range = (depth_min, depth_max)
        # Made once: a tensor made of numbers in every step would be a copy to the device that waits for it.
        self.register_buffer("_depth_limits", torch.tensor(self.depth_range), persistent=False)

    @classmethod
    def encoder_channels(cls, **_options: Any) -> dict[str, tuple[int, int]]:
        """Channels in and out of the one network."""
        return {"depth": (3, 1)}

    def depth(self, images: Tensor) -> Tensor:
        """Depth (B, H, W) of images (B, 3, H, W) in [0, 1]."""
        low, high = self.depth_range
        raw = self.encoders["depth"](images * 2 - 1).float()[:, 0]
        return (low + high) / 2 + (high - low) / 2 * torch.tanh(raw)

    def forward(self, batch: Batch) -> ModelOutput:
        """The factors ``depth`` (B, H, W) in the input view and ``depth_range`` (2,); there are no image pairs."""
        depth = self.depth(batch.image)
        return ModelOutput(pairs={}, factors={"depth": depth, "depth_range": self._depth_limits})

    @torch.no_grad()
    def reconstruct(self, images: Tensor) -> Reconstruction:
        """Depth and normals of images (B, 3, H, W) in [0, 1]; no mask, for every pixel has a depth."""
        depth = self.depth(images)
        # Geometry needs full precision.
        with torch.autocast(images.device.type, enabled=False):
            return Reconstruction(image=images, depth=depth, normals=normals_from_depth(depth, self.camera))
