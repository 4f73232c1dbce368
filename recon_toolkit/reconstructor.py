"""The library's front door: a trained model that takes photographs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from recon_toolkit.config.pipeline import resolve_component
from recon_toolkit.detection import Detector, build_detector, found_noun
from recon_toolkit.errors import PluginError, ReconError
from recon_toolkit.inference.batch import reconstructed, stacked
from recon_toolkit.inference.bundled import read_pathways
from recon_toolkit.inference.models import Pathways, TrainedModel, load_models
from recon_toolkit.inference.pictures import Crop, Finder, Source, as_batch, pixels_of
from recon_toolkit.plugins import PluginHost, load_plugins
from recon_toolkit.result import Result
from recon_toolkit.structures import Reconstruction

#: The only detector there is, or the only one that comes with the toolkit.
AUTO = "auto"


def load_detector(name: str, host: PluginHost, settings: Sequence[str] = ()) -> Detector:
    """The detector component ``name``, or :data:`AUTO`; ``settings`` are ``option=value`` each.

    Raises:
        ConfigError: an option is wrong.
        PluginError: there is no such detector, or it cannot be built.
    """
    if name == AUTO:
        found = [entry for entry in host.registry.all() if entry.kind == "detector"]
        chosen = host.default_of(found)
        if chosen is None and found:
            named = [contents.detector for _, contents in read_pathways(host)]
            chosen = next((entry for name in named for entry in found if entry.name == name), None)
        if chosen is None:
            names = ", ".join(entry.name for entry in found)
            raise PluginError(
                "there are several detectors" if found else "no detector is installed",
                remedy=f"name one of {names}" if found else "take the pictures as crops: --no-detect, or detector=None",
            )
        name = chosen.name
    return build_detector(resolve_component("detector", name, settings, host))


def detector_for(trained: TrainedModel, name: str, host: PluginHost, settings: Sequence[str] = ()) -> Detector | None:
    """The detector component ``name``; with :data:`AUTO` the one that suits the model, if that says so.

    A model's attribute ``detector`` is one, the name of one, or None to take each picture as a crop.

    Raises:
        ConfigError, PluginError: as for :func:`load_detector`.
    """
    if name == AUTO:
        suited = trained.network.detector
        if not isinstance(suited, str):
            return suited
        name = suited
    return load_detector(name, host, settings)


@dataclass(frozen=True)
class Reconstructor:
    """Turns photographs into 3D.

    >>> from recon_toolkit import Reconstructor                             # doctest: +SKIP
    >>> result = Reconstructor.load().reconstruct("portrait.jpg")           # doctest: +SKIP
    >>> result.depth.shape, result.save("portrait")                         # doctest: +SKIP

    Attributes:
        trained: the model.
        detector: finds the objects in pictures; None takes each picture as a crop that the object fills.
        pathways: models for some of the detector's labels; ``trained`` reconstructs all others.
    """

    trained: TrainedModel
    detector: Detector | None
    pathways: Pathways | None = None

    @classmethod
    def load(
        cls,
        *,
        run: str | Path | None = None,
        weights: str | Path | None = None,
        model: str | None = None,
        detector: str | Detector | None = AUTO,
        device: torch.device | str = "cpu",
        host: PluginHost | None = None,
        trust: bool = False,
    ) -> Reconstructor:
        """Load a trained model: of a run, of a weights file, or a bundled one.

        By default each object goes to the bundled model for what it is, and crops to the default one.

        Args:
            run: a run folder.
            weights: a safetensors file of a run, or one that ``recon import`` wrote.
            model: the name of a bundled model.
            detector: a detector's name, or one of your own; None for pictures that are crops already.
            device: where the model goes.
            host: the plugins; all installed ones by default.
            trust: let in the plugin files and other files that somebody else's run or weights file names.

        Raises:
            ConfigError: it names such files, and ``trust`` is false.
            CheckpointError: there are no such weights, or they cannot be read.
            PluginError: there is no such model or detector.
        """
        host = load_plugins() if host is None else host
        models = load_models(run=run, weights=weights, model=model, device=device, host=host, trust=trust)
        chosen = detector_for(models.default, detector, host) if isinstance(detector, str) else detector
        return cls(models.default, chosen, models)

    @property
    def noun(self) -> str:
        """What to call an object that it reconstructs: as its detector does, e.g. ``face``."""
        return found_noun(self.detector)

    def reconstruct(self, picture: Any, *, name: str = "photo") -> Result:
        """The most certain object in a picture.

        Args:
            picture: a path, an image file as bytes or as an open file, a Pillow image, an array (H, W), (H, W, 3) or
                (H, W, 4), or a tensor (3, H, W), each uint8 or in [0, 1].
            name: what to call it; a file's own name where ``picture`` is a path.

        Raises:
            DataError: the picture cannot be read, or nothing was found in it.
        """
        return self._results(picture, name, limit=1)[0]

    def reconstruct_all(self, picture: Any, *, name: str = "photo", limit: int = 50) -> list[Result]:
        """All objects in a picture, the most certain first; arguments and errors as for :meth:`reconstruct`."""
        return self._results(picture, name, limit=limit)

    def reconstruct_batch(self, images: Tensor | NDArray[Any]) -> Reconstruction:
        """Crops (B, 3, H, W) as a batch, without detection; H and W are the model's size.

        The result is on the model's device.

        Args:
            images: a tensor or an array, of any floating type in [0, 1], or uint8.

        Raises:
            ValueError: the shape, the type or the range is another.
        """
        return self.trained.reconstruct(as_batch(images, self.trained.image_size))

    def refine(self, pictures: Iterable[Any], steps: int, *, seed: int = 0) -> Reconstructor:
        """A reconstructor whose model was adapted to these pictures by its own unsupervised losses.

        Args:
            pictures: as for :meth:`reconstruct`; of each, the most certain object counts.
            steps: of training.
            seed: of the order of the pictures.

        Raises:
            DataError: a picture cannot be read, or nothing was found in it.
            ReconError: the model's losses need ground truth, or the pictures go to several models.
        """
        from recon_toolkit.inference.refine import refined

        crops = [self._crops(picture, "photo", 1)[0] for picture in pictures]
        models = [model for model, _ in self._models.grouped(crops)] or [self.trained]
        if len(models) > 1:
            names = ", ".join(model.source for model in models)
            raise ReconError(f"the pictures go to several models ({names})", remedy="refine for one kind at a time")
        trained, _ = refined(models[0], stacked(crops), steps, seed=seed)
        return replace(self, trained=trained, pathways=None)

    def _crops(self, picture: Any, name: str, limit: int) -> list[Crop]:
        path = Path(picture) if isinstance(picture, str | Path) else Path(name)
        source = Source(path, path.stem if isinstance(picture, str | Path) else name)
        finder = Finder(self.trained.image_size, self.detector, limit, self._models.size_of)
        return finder.crops(pixels_of(picture), source)

    @property
    def _models(self) -> Pathways:
        return Pathways(self.trained) if self.pathways is None else self.pathways

    def _results(self, picture: Any, name: str, limit: int) -> list[Result]:
        crops = self._crops(picture, name, limit)
        results: dict[int, Result] = {}
        for model, group in self._models.grouped(crops):
            results |= zip(map(id, group), reconstructed(model, group), strict=True)
        return [results[id(crop)].to(self.trained.device) for crop in crops]

    def __repr__(self) -> str:
        size = self.trained.image_size
        return f"<Reconstructor of {self.trained.source}: {size}×{size} crops, on {self.trained.device}>"
