"""The renderer ``learned``: pictures from factors by a network, with weights from a run that trained it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from recon_learned_renderer.network import PATCH, RendererNetwork
from recon_toolkit import CheckpointError, Rendering
from recon_toolkit.geometry import Camera
from recon_toolkit.training.checkpoint import inference_checkpoint

WIDTH, LAYERS = 32, 2
_REMEDY = (
    "train one with `recon run --pipeline learned-renderer --out RUN` and name its folder: --set renderer.weights=RUN"
)


@dataclass(frozen=True)
class Prediction:
    """What the network says of every pixel, covered or not."""

    image: Tensor  # (B, 3, H, W) in [0, 1]
    depth: Tensor  # (B, H, W), half the depth range beyond either end of it at most
    coverage: Tensor  # (B, H, W) logit: above 0 the pixel is covered


class LearnedRenderer(nn.Module):
    """A network from canonical depth, albedo, view and light to the picture, with no geometry of its own.

    Nothing in it warps, projects or rasterises. Image, depth and coverage are all predicted, and mean what the exact
    renderer that taught the network means by them: it was trained on that renderer's picture where this covers a
    pixel, on its depth there, and on its mask everywhere. The image therefore lies in [0, 1], where the exact one may
    be brighter. Gradients flow from image and depth to every factor and to the weights; the mask has none.

    Called as other renderers are, with an image in the place of albedo and light, it takes that for an albedo in
    ambient light of strength 1.

    Args:
        camera, depth_range: of the pipeline; they must be those that the weights were trained for.
        width: channels, a multiple of 8; that of the weights, or 32 without weights.
        layers: how often the picture looks at the canonical map; that of the weights, or 2 without.
        weights: a run folder of the pipeline ``learned-renderer``, or of one that fine-tuned a learned renderer, or
            a safetensors file from either. None: new weights, which only make sense where they are trained.
        trainable: train the weights with the rest of the model; False keeps them as they are.

    Raises:
        CheckpointError: there are no such weights, or they are not a learned renderer's.
        ValueError: the options contradict the weights, or new weights were not to be trained.
    """

    setting: Tensor

    def __init__(
        self,
        *,
        camera: Camera,
        depth_range: tuple[float, float],
        width: int | None = None,
        layers: int | None = None,
        weights: Path | None = None,
        trainable: bool = True,
    ) -> None:
        super().__init__()
        if weights is None and not trainable:
            raise ValueError(f"new weights that are not trained render nothing; {_REMEDY}, or set trainable: true")
        stored = {} if weights is None else read_weights(Path(weights))
        width, layers = _shape(stored, width, layers)
        near, far = depth_range
        margin = (far - near) / 2
        self.middle, self.reach = (near + far) / 2, margin
        self.nearest, self.background = near - margin, far + margin
        self.network = RendererNetwork(width, layers)
        #: Nearest and farthest canonical depth, field of view, and image size (0 before there is one): what weights
        #: are good for.
        self.register_buffer("setting", torch.tensor([near, far, camera.fov, 0.0]))
        if stored:
            self._load(stored, str(weights))
        self.requires_grad_(trainable)

    def _load(self, stored: Mapping[str, Tensor], source: str) -> None:
        theirs, ours = stored["setting"], self.setting
        if not torch.allclose(theirs[:3], ours[:3], rtol=0, atol=1e-4):
            said = "depths {:.3g} to {:.3g} and a field of view of {:.3g}°"
            raise ValueError(
                f"the weights in {source} were trained for {said.format(*theirs[:3].tolist())}, "
                f"the pipeline has {said.format(*ours[:3].tolist())}"
            )
        try:
            self.load_state_dict(dict(stored))
        except RuntimeError as error:
            raise CheckpointError(
                f"these are not the weights of a learned renderer: {error}", where=source, remedy=_REMEDY
            ) from error
        self._image_size = int(theirs[3])

    _image_size = 0

    def set_image_size(self, size: int) -> None:
        """Say which size of image the weights are trained at; another one is warned of when they are used."""
        self._image_size = size
        self.setting[3] = size

    def predict(self, depth: Tensor, albedo: Tensor, light: Tensor, view: Tensor) -> Prediction:
        """Image, depth and coverage of every pixel.

        Args:
            depth: canonical depth (B, H, W); H and W multiples of 4, as all powers of two from 4 on are.
            albedo: canonical albedo (B, 3, H, W) in [0, 1].
            light: (B, 5) ambient, diffuse, unit direction.
            view: (B, 6) rotation x, y, z in radians, translation x, y, z.

        Raises:
            ValueError: a side of the image is not a multiple of 4.
        """
        if depth.shape[-2] % PATCH or depth.shape[-1] % PATCH:
            raise ValueError(f"image sides must be multiples of {PATCH}, got {tuple(depth.shape[-2:])}")
        if self._image_size and depth.shape[-1] != self._image_size:
            warnings.warn(
                f"the learned renderer was trained at {self._image_size} pixels and is used at {depth.shape[-1]}",
                stacklevel=2,
            )
        raw = self.network((depth - self.middle) / self.reach, albedo, light, view).float()
        return Prediction(
            image=raw[:, :3].sigmoid(),
            depth=self.nearest + (self.background - self.nearest) * raw[:, 3].sigmoid(),
            coverage=raw[:, 4],
        )

    def render_factors(
        self, canonical_depth: Tensor, canonical_albedo: Tensor, light: Tensor, view: Tensor
    ) -> Rendering:
        """The object in the input view and light; arguments as for :meth:`predict`."""
        found = self.predict(canonical_depth, canonical_albedo, light, view)
        mask = found.coverage > 0
        return Rendering(image=found.image, depth=torch.where(mask, found.depth, self.background), mask=mask)

    def forward(self, canonical_depth: Tensor, canonical_image: Tensor, view: Tensor) -> Rendering:
        """The object in the input view, its image (B, 3, H, W) being lit already."""
        light = view.new_tensor([1.0, 0, 0, 0, 1]).expand(len(view), 5)
        return self.render_factors(canonical_depth, canonical_image, light, view)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The state of a learned renderer in a run folder or a safetensors file of one.

    Raises:
        CheckpointError: there is nothing there, it cannot be read, or there is no learned renderer in it.
    """
    if not path.exists():
        raise CheckpointError("there are no weights of a learned renderer here", where=str(path), remedy=_REMEDY)
    saved, file = inference_checkpoint(path)
    tensors = saved.weights
    for prefix in ("student.", "renderer."):
        found = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        if "setting" in found and "network.enter.weight" in found:
            return found
    raise CheckpointError("there is no learned renderer in this run", where=str(file), remedy=_REMEDY)


def _shape(stored: Mapping[str, Tensor], width: int | None, layers: int | None) -> tuple[int, int]:
    """Width and layers, as the weights have them where there are any."""
    if not stored:
        return WIDTH if width is None else width, LAYERS if layers is None else layers
    found = len(stored["network.enter.weight"]), len({k.split(".")[2] for k in stored if k.startswith("network.looks")})
    for name, given, own in zip(("width", "layers"), (width, layers), found, strict=True):
        if given is not None and given != own:
            raise ValueError(f"{name} is {given}, but the weights were trained with {own}; leave it out")
    return found
