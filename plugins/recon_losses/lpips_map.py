"""The learned perceptual distance as a map."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from recon_toolkit import ReconError

#: The files that torchvision stores the networks' ImageNet weights under.
WEIGHTS_FILES = {"alex": "alexnet-owt-7be5be79.pth", "vgg": "vgg16-397923af.pth"}


def backbone_weights(net: str, path: Path | None) -> Path:
    """The file of a network's ImageNet weights: the given one, or the one in torch's cache.

    Raises:
        ReconError: there is no such file; says where to put which.
    """
    cached = Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS_FILES[net]
    found = cached if path is None else path.expanduser()
    if not found.is_file():
        raise ReconError(
            f"the loss lpips needs the ImageNet weights of '{net}', and there is no file {found}",
            remedy=f"put torchvision's {WEIGHTS_FILES[net]} at {cached}, or name a file with --set "
            "losses.NAME.weights=FILE, or train without: --set losses.NAME=null",
        )
    return found


def read_weights(file: Path, net: str) -> dict[str, Tensor]:
    """A state dict from a file.

    Raises:
        ReconError: it holds none.
    """
    try:
        state: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise _unusable(file, net, error) from error
    return state


def _unusable(file: Path | None, net: str, error: Exception) -> ReconError:
    return ReconError(f"{file} does not hold the weights of '{net}': {error}", remedy="fetch the file again")


class LpipsMap(nn.Module):
    """The LPIPS map (Zhang et al. 2018, version 0.1): normalised features compared, weighed by the heads of `lpips`.

    Args:
        net: ``alex`` (the authors' choice for measuring) or ``vgg`` (their choice for training).
        weights: file of torchvision's weights of that network (a state dict); torch's cache if not given; ``random``:
            torchvision's initialisation, the same in every run, under the same heads.

    Raises:
        ReconError: the weights are not on this machine, or the file is not that network's.
    """

    def __init__(
        self, *, net: Literal["alex", "vgg"] = "alex", weights: Path | Literal["random"] | None = None
    ) -> None:
        super().__init__()
        file = None if weights == "random" else backbone_weights(net, None if weights is None else Path(weights))
        state = None if file is None else read_weights(file, net)
        import lpips

        # The network is drawn at random before it is loaded, with arguments that torchvision warns of.
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            torch.manual_seed(0)
            self.network = lpips.LPIPS(net=net, pnet_rand=True, spatial=True, verbose=False)
        if state is not None:
            try:
                for part in self.network.net.children():  # slice1 … slice5, layers named as torchvision's
                    part.load_state_dict({key: state[f"features.{key}"] for key in part.state_dict()})
            except Exception as error:
                raise _unusable(file, net, error) from error
        self.requires_grad_(False).eval()

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [0, 1], sides of 32 or more → (B, 1, H, W) ≥ 0."""
        return self.network(prediction, target, normalize=True)  # type: ignore[no-any-return]
