"""The settings that published models were trained with: by preset, or from the original's own configuration file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from recon_toolkit import CheckpointError, ConfigError
from recon_toolkit.config.document import read

#: What the original programs write beside their checkpoints.
CONFIG_FILE = "configs.yml"
Unsup3DPreset = Literal["celeba", "synface", "cat", "car"]
LeMulPreset = Literal["celeba", "synface", "cat", "casia", "multipie"]

#: The original's name of each number that matters here, and what its code takes where a configuration has none.
_DEFAULTS: dict[str, float] = {
    "min_depth": 0.9,
    "max_depth": 1.1,
    "min_amb_light": 0.0,
    "max_amb_light": 1.0,
    "min_diff_light": 0.0,
    "max_diff_light": 1.0,
    "xyz_rotation_range": 60.0,
    "xy_translation_range": 0.1,
    "z_translation_range": 0.1,
    "fov": 10.0,
}
_FACES = {"z_translation_range": 0.0}
_UNSUP3D: dict[str, dict[str, float]] = {
    "celeba": _FACES,
    "synface": _FACES,
    "cat": {"z_translation_range": 0.1},
    "car": {**_FACES, "border_depth": 1.08, "min_diff_light": 0.5},
}
_LEMUL: dict[str, dict[str, float]] = {
    "celeba": _FACES,
    "synface": {**_FACES, "xyz_rotation_range": 90.0},
    "cat": {"z_translation_range": 0.1},
    "casia": {"z_translation_range": 0.1, "xyz_rotation_range": 90.0},
    "multipie": _FACES,
}
#: The pipeline of ours for cars, which has no confidence.
CARS = "unsup3d-car"
#: The pipeline of ours whose data and training are those of a preset.
_PIPELINES = {"synface": "unsup3d-synface", "cat": "unsup3d-cat", "car": CARS}
_OTHER_PIPELINE = "unsup3d-celeba"


@dataclass(frozen=True)
class Settings:
    """The original's settings, and how they were found.

    Attributes:
        numbers: by the original's names.
        source: for people, e.g. ``preset cat``.
        pipeline: the pipeline of ours to build on.
        image_size: what a configuration says; None if it does not.
        alternatives: the other presets, where this one was guessed.
    """

    numbers: Mapping[str, float]
    source: str
    pipeline: str = _OTHER_PIPELINE
    image_size: int | None = None
    alternatives: str = ""

    def model(self) -> dict[str, Any]:
        """Options of our model ``unsup3d``."""
        n = self.numbers
        return {
            "depth_min": n["min_depth"],
            "depth_max": n["max_depth"],
            "border_depth": n.get("border_depth", 0.7 * n["max_depth"] + 0.3 * n["min_depth"]),
            "rotation_range": n["xyz_rotation_range"],
            "translation_range": n["xy_translation_range"],
            "translation_z_range": n["z_translation_range"],
            "ambient_range": [n["min_amb_light"], n["max_amb_light"]],
            "diffuse_range": [n["min_diff_light"], n["max_diff_light"]],
        }

    def text(self) -> str:
        """The settings in one line."""
        m = self.model()
        ambient, diffuse = (f"{low:g} to {high:g}" for low, high in (m["ambient_range"], m["diffuse_range"]))
        guess = f" (ASSUMED, as nothing says otherwise; --preset has {self.alternatives} too)"
        source = self.source + (guess if self.alternatives else "")
        return (
            f"settings of {source}: depth {m['depth_min']:g} to {m['depth_max']:g}, border {m['border_depth']:g}, "
            f"rotation ±{m['rotation_range']:g}°, translation ±{m['translation_range']:g}, along the axis "
            f"±{m['translation_z_range']:g}, ambient light {ambient}, diffuse light {diffuse}, field of view "
            f"{self.numbers['fov']:g}°"
        )


def find_settings(
    tensors: Mapping[str, Any], path: Path, preset: str | None, config: Path | None, *, lemul: bool, guess: str
) -> Settings:
    """The settings of a checkpoint.

    In this order: what ``config`` or ``preset`` says, a configuration in the checkpoint, one beside it, the preset
    ``guess``.

    Args:
        tensors: the checkpoint.
        path: its file.
        preset, config: what the user says; not both.
        lemul: LeMul's presets and defaults rather than Unsup3D's.
        guess: the preset to take where nothing is known.

    Raises:
        CheckpointError: both are given, a configuration holds something other than numbers, or settings that our
            model does not have.
        ConfigError: ``config`` cannot be read.
    """
    if preset is not None and config is not None:
        raise CheckpointError("a preset and a configuration are given", where=str(path), remedy="give one of them")
    if config is not None:
        return _configured(_read(config), f"the configuration {config.name}", config, lemul)
    if preset is None:
        for name in ("cfgs", "configs", "config"):
            if isinstance(tensors.get(name), Mapping):
                return _configured(tensors[name], "the configuration in the checkpoint", path, lemul)
        beside = path.with_name(CONFIG_FILE)
        if beside.is_file():
            return _configured(_read(beside), f"{CONFIG_FILE} beside the checkpoint", beside, lemul)
    name = preset or guess
    known = _LEMUL if lemul else _UNSUP3D
    numbers, pipeline = {**_DEFAULTS, **known[name]}, _PIPELINES.get(name, _OTHER_PIPELINE)
    alternatives = "" if preset else _others(name, lemul)
    return Settings(numbers, f"preset {name}", pipeline, alternatives=alternatives)


def _others(name: str, lemul: bool) -> str:
    presets: tuple[str, ...] = get_args(LeMulPreset if lemul else Unsup3DPreset)
    return ", ".join(preset for preset in presets if preset != name)


def _read(path: Path) -> Mapping[str, Any]:
    """A configuration of the original, flat YAML; what is odd about keys that play no part here does not matter."""
    tree, _ = read(path)
    found = tree.plain()
    if not isinstance(found, Mapping):
        raise ConfigError([CheckpointError("holds no settings", where=str(path), remedy="use --preset")])
    return found


def _configured(found: Mapping[str, Any], source: str, path: Path, lemul: bool) -> Settings:
    numbers = {**_DEFAULTS, "xyz_rotation_range": 90.0} if lemul else dict(_DEFAULTS)
    for name in (*_DEFAULTS, "border_depth", "image_size", "rot_center_depth"):
        value = found.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not -1e9 < value < 1e9:
            raise CheckpointError(f"its '{name}' is no number", where=str(path), remedy="fix it, or use --preset")
        numbers[name] = float(value)
    size = numbers.pop("image_size", None)
    centre = numbers.pop("rot_center_depth", (numbers["min_depth"] + numbers["max_depth"]) / 2)
    if not math.isclose(centre, 1.0, abs_tol=1e-6):
        raise CheckpointError(
            f"its object turns about depth {centre:g}, and our models turn about 1",
            where=str(path),
            remedy="there is no setting for that",
        )
    return Settings(numbers, source, _OTHER_PIPELINE, None if size is None else int(size))
