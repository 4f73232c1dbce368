"""Trained models that plugins bring along, and which of them takes what. Listed without torch, so quickly."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict

from recon_toolkit.errors import PluginError
from recon_toolkit.plugins import PluginHost

#: Beside a plugin's bundled models: which of them takes what.
PATHWAYS = "pathways.yaml"


@dataclass(frozen=True)
class BundledModel:
    """Weights that a plugin brings along, and the page that says what they are."""

    name: str
    provider: str
    path: Path

    @property
    def card(self) -> Path:
        """The model card, beside the weights."""
        return self.path.with_suffix(".md")

    @property
    def summary(self) -> str:
        """The first sentence of the card below its title."""
        if not self.card.is_file():
            return ""
        lines = (line.strip() for line in self.card.read_text(encoding="utf-8").splitlines())
        return next((line for line in lines if line and not line.startswith("#")), "")


def bundled_models(host: PluginHost) -> list[BundledModel]:
    """Every model that a plugin brings along, by name."""
    found = [
        BundledModel(path.stem, provider, path)
        for provider, folder in host.model_folders()
        for path in sorted(folder.glob("*.safetensors"))
    ]
    return sorted(found, key=lambda model: (model.name, model.provider))


class PathwaysFile(BaseModel):
    """What a plugin says of its bundled models.

    Attributes:
        default: the model that is used where nothing is named.
        detector: the detector that is, and that gives the labels.
        labels: label of a detection → name of the model that reconstructs it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    default: str | None = None
    detector: str | None = None
    labels: dict[str, str] = {}


def read_pathways(host: PluginHost) -> list[tuple[str, PathwaysFile]]:
    """(provider, contents) of every plugin's pathways, those of the toolkit's own plugins first.

    Raises:
        PluginError: a file cannot be read, or names a model that its plugin does not bring along.
    """
    own = {plugin.name for plugin in host.plugins if plugin.own}
    found = []
    for provider, folder in sorted(host.model_folders(), key=lambda pair: pair[0] not in own):
        path = folder / PATHWAYS
        if not path.is_file():
            continue
        try:
            contents = PathwaysFile.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise PluginError(
                f"the pathways of the plugin {provider} cannot be read: {error}", where=str(path)
            ) from error
        names = [contents.default, *contents.labels.values()]
        missing = [name for name in names if name is not None and not (folder / f"{name}.safetensors").is_file()]
        if missing:
            raise PluginError(
                f"the plugin {provider} names the model '{missing[0]}', and does not bring it along", where=str(path)
            )
        found.append((provider, contents))
    return found
