"""Published checkpoints of Unsup3D (Wu et al. 2020) and LeMul (Ho et al. 2021) as weights of our models of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from recon_toolkit import CheckpointError, ConfigError, Imported
from recon_toolkit.config.document import read
from recon_toolkit.io.torch_files import OpaqueObject
from recon_unsup3d.networks import SIZES, ConvAutoencoder, ConvConfidence, ConvRegressor


@dataclass(frozen=True)
class Slot:
    """A network of a published checkpoint.

    Attributes:
        key: its name there.
        role: its role in our model.
        component: our encoder's name.
        outputs: channels that it puts out.
        inputs: channels that it takes.
    """

    key: str
    role: str
    component: str
    outputs: int
    inputs: int = 3


SLOTS = (
    Slot("netD", "depth", "conv-autoencoder", 1),
    Slot("netA", "albedo", "conv-autoencoder", 3),
    Slot("netL", "light", "conv-regressor", 4),
    Slot("netV", "view", "conv-regressor", 6),
    Slot("netC", "confidence", "conv-confidence", 2),
)
#: LeMul's confidence for pairs of images.
SECOND_CONFIDENCE = "netC2"
LEMUL_SLOTS = (
    *SLOTS[:-1],
    Slot("netC", "confidence", "conv-confidence", 1),
    Slot(SECOND_CONFIDENCE, "pair_confidence", "conv-confidence", 1, 6),
)
_CLASSES: dict[str, Callable[..., nn.Module]] = {
    "conv-autoencoder": ConvAutoencoder,
    "conv-regressor": ConvRegressor,
    "conv-confidence": ConvConfidence,
}
#: Parts of the published confidence network, and ours; the others are called ``network`` in both.
_PARTS = {"out_net1": "fine", "out_net2": "coarse"}


@dataclass(frozen=True)
class FoundNetwork:
    """A network that was recognised.

    Attributes:
        slot: which one.
        image_size: side of its pictures in pixels.
        options: of our encoder: ``width`` and, where it has one, ``latent``.
        weights: by our encoder's names.
    """

    slot: Slot
    image_size: int
    options: dict[str, int]
    weights: dict[str, Tensor]

    def text(self) -> str:
        """The network in a few words."""
        options = ", ".join(f"{name} {value}" for name, value in self.options.items())
        return f"{self.slot.role} ({self.slot.key}, {options})"


def find_network(slot: Slot, state: Any, where: str) -> FoundNetwork:
    """Recognise a published network by the shapes of its layers.

    Args:
        slot: which one it is to be.
        state: its state dict.
        where: the file, for messages.

    Raises:
        CheckpointError: it is no state dict, has other layers than ours at every image size, or values that are not
            finite.
    """
    tensors = _tensors(slot, state, where)
    # Shapes come before values: only tensors of the size that they should have are gone through or copied.
    first = tensors.get("network.0.weight")
    width = len(first) if first is not None and first.ndim == 4 else 0
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    for size in SIZES:
        options = _options(slot, size, width, shapes)
        if options is not None and _shapes(slot, size, options) == shapes:
            _check_values(slot, tensors, where)
            return FoundNetwork(slot, size, options, {k: v.float() for k, v in tensors.items()})
    sizes = ", ".join(map(str, SIZES))
    raise CheckpointError(
        f"the layers of {slot.key} ({slot.role}) are not those of the published network for any of {sizes} pixels",
        where=where,
        remedy="only networks with the published layers can be imported",
    )


def _tensors(slot: Slot, state: Any, where: str) -> dict[str, Tensor]:
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(
            f"{slot.key} holds a {type(state).__name__}, not weights by name",
            where=where,
            remedy="name the file that the training wrote",
        )
    found: dict[str, Tensor] = {}
    for name, tensor in state.items():
        part, dot, rest = str(name).partition(".")
        found[_PARTS.get(part, part) + dot + rest] = tensor
    return found


def _check_values(slot: Slot, tensors: Mapping[str, Tensor], where: str) -> None:
    for name, tensor in tensors.items():
        # The extremes are not finite if any number is not, and finding them takes no copy.
        if not tensor.is_floating_point() or not all(bool(extreme.isfinite()) for extreme in tensor.aminmax()):
            raise CheckpointError(
                f"{slot.key}.{_theirs(name)} has values that are not finite numbers",
                where=where,
                remedy="the training that wrote it had failed; use an earlier checkpoint",
            )


def _theirs(name: str) -> str:
    """The published name of a tensor of ours."""
    part, dot, rest = name.partition(".")
    return {ours: theirs for theirs, ours in _PARTS.items()}.get(part, part) + dot + rest


def _options(slot: Slot, size: int, width: int, shapes: Mapping[str, torch.Size]) -> dict[str, int] | None:
    """Options of our encoder if the network is one for pictures of this size, or None where it cannot be."""
    if slot.component == "conv-regressor":
        return {"width": width} if 0 < width <= 1024 else None
    stages = size.bit_length() - 3
    # Every stage but the last has a convolution, a normalisation and an activation; the last has no normalisation.
    bottleneck = shapes.get(f"network.{3 * (stages - 1) + 2}.weight", torch.Size())
    if not 0 < width <= 1024 or width % 4 or len(bottleneck) != 4 or not 0 < bottleneck[0] <= 4096:
        return None
    return {"width": width, "latent": bottleneck[0]}


def _shapes(slot: Slot, size: int, options: Mapping[str, int]) -> dict[str, torch.Size]:
    with torch.device("meta"):  # shapes without memory
        network = _CLASSES[slot.component](slot.inputs, slot.outputs, size, **options)
    return {name: tensor.shape for name, tensor in network.state_dict().items()}


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
_LEMUL_PIPELINES = {"synface": "lemul-synface", "cat": "lemul-cat", "casia": "lemul-casia"}
_OTHER_LEMUL = "lemul-celeba"
#: Presets of LeMul whose data have several images of each person.
_COLLECTIONS = ("casia", "multipie")


@dataclass(frozen=True)
class Settings:
    """The original's settings, and how they were found.

    Attributes:
        numbers: by the original's names.
        source: for people, e.g. ``preset cat``.
        pipeline: the pipeline of ours to build on.
        image_size: what a configuration says; None if it does not.
        alternatives: the other presets, where this one was guessed.
        pairs: of a LeMul, whom its images are drawn with.
    """

    numbers: Mapping[str, float]
    source: str
    pipeline: str = _OTHER_PIPELINE
    image_size: int | None = None
    alternatives: str = ""
    pairs: Mapping[str, Any] = field(default_factory=dict)

    def model(self) -> dict[str, Any]:
        """Options of our models that both have."""
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
    numbers = {**_DEFAULTS, **known[name]}
    pipeline = _LEMUL_PIPELINES.get(name, _OTHER_LEMUL) if lemul else _PIPELINES.get(name, _OTHER_PIPELINE)
    alternatives = "" if preset else _others(name, lemul)
    pairs = {"pairs": "group" if name in _COLLECTIONS else "flip"} if lemul else {}
    return Settings(numbers, f"preset {name}", pipeline, alternatives=alternatives, pairs=pairs)


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
    pipeline, pairs = (_OTHER_LEMUL, {"pairs": "flip"}) if lemul else (_OTHER_PIPELINE, {})
    return Settings(numbers, source, pipeline, None if size is None else int(size), pairs=pairs)


#: The original's renderer: 2 × 2 samples, of which pixel i shows the surface at u = i + 0.5, while colours are sampled
#: with integer u at pixel centres.
RENDERER = {"name": "depth-mesh", "supersampling": 2, "pixel_offset": 0.5}
#: Losses of a model that weigh by the confidence of a role.
_WEIGHED: dict[str, dict[str, tuple[str, ...]]] = {
    "unsup3d": {"confidence": ("photometric", "perceptual", "flipped", "flipped-perceptual")},
    "lemul": {
        "confidence": ("photometric", "perceptual"),
        "pair_confidence": ("swapped", "swapped-perceptual"),
    },
}
#: How long the published models of faces were trained.
FACE_EPOCHS = 30


def import_unsup3d(
    tensors: Mapping[str, Any], path: Path, *, preset: Unsup3DPreset | None = None, config: Path | None = None
) -> Imported:
    """A checkpoint of Unsup3D: its depth, albedo, light, view and, if it has one, confidence network.

    Args:
        tensors: the file's dictionary: ``netD``, ``netA``, ``netL``, ``netV`` and ``netC`` hold state dicts.
        path: the file.
        preset: what it was trained on; from a configuration if there is one, else guessed and said.
        config: the configuration that it was trained with, a YAML file of the original.

    Raises:
        CheckpointError: it is a checkpoint of something else, or of networks with other layers.
    """
    _check_keys(tensors, SLOTS, str(path))
    if _is_lemul(tensors):
        raise CheckpointError(
            "this is a checkpoint of LeMul, whose model has no mirror symmetry",
            where=str(path),
            remedy="use recon import lemul",
        )
    networks = _networks(tensors, SLOTS, str(path))
    # Of the published models only that of cars has no confidence.
    guess = "celeba" if "netC" in tensors else "car"
    settings = find_settings(tensors, path, preset, config, lemul=False, guess=guess)
    epoch, notes = tensors.get("epoch"), []
    if guess == "celeba" and settings.alternatives and isinstance(epoch, int) and epoch > FACE_EPOCHS:
        notes = [f"it is of epoch {epoch}: published faces have {FACE_EPOCHS}, cats 200 (--preset cat)"]
    return _imported(tensors, networks, settings, path, "unsup3d", notes)


def import_lemul(
    tensors: Mapping[str, Any], path: Path, *, preset: LeMulPreset | None = None, config: Path | None = None
) -> Imported:
    """A checkpoint of LeMul, of which training can go on, on its textures for example.

    Args:
        tensors: the file's dictionary: ``netD``, ``netA``, ``netL``, ``netV``, ``netC`` and ``netC2`` hold state dicts.
        path: the file.
        preset: what it was trained on; from a configuration if there is one, else guessed and said.
        config: the configuration that it was trained with, a YAML file of the original.

    Raises:
        CheckpointError: it is a checkpoint of something else, or of networks with other layers.
    """
    _check_keys(tensors, LEMUL_SLOTS, str(path))
    if not _is_lemul(tensors) and "netC" in tensors:
        raise CheckpointError(
            "this is a checkpoint of Unsup3D, not of LeMul", where=str(path), remedy="use recon import unsup3d"
        )
    networks = _networks(tensors, LEMUL_SLOTS, str(path))
    settings = find_settings(tensors, path, preset, config, lemul=True, guess="celeba")
    notes = []
    if settings.numbers["xyz_rotation_range"] != 60:
        notes.append("LeMul's test settings turn by ±60° instead: --set model.rotation_range=60")
    return _imported(tensors, networks, settings, path, "lemul", notes)


def _is_lemul(tensors: Mapping[str, Any]) -> bool:
    heads = tensors.get("netC")
    head = heads.get("out_net2.0.weight") if isinstance(heads, Mapping) else None
    return SECOND_CONFIDENCE in tensors or (isinstance(head, Tensor) and head.shape[:1] == (1,))


def _check_keys(tensors: Mapping[str, Any], slots: Sequence[Slot], where: str) -> None:
    missing = [slot.key for slot in slots if slot.key not in tensors and slot.component != "conv-confidence"]
    if missing:
        flat = bool(tensors) and all(isinstance(value, Tensor) for value in tensors.values())
        held = "a state dict of one network" if flat else _some(tensors)
        raise CheckpointError(
            f"no checkpoint of Unsup3D or LeMul: it lacks {', '.join(missing)}; it holds {held}",
            where=where,
            remedy="name the checkpoint*.pth that the training wrote",
        )


def _networks(tensors: Mapping[str, Any], slots: Sequence[Slot], where: str) -> list[FoundNetwork]:
    found = [find_network(slot, tensors[slot.key], where) for slot in slots if slot.key in tensors]
    sizes = {network.image_size for network in found}
    if len(sizes) > 1:
        each = ", ".join(f"{network.slot.key} for {network.image_size}" for network in found)
        raise CheckpointError(
            f"its networks are for pictures of different sizes: {each}",
            where=where,
            remedy="name a checkpoint that one training wrote",
        )
    return found


def _some(tensors: Mapping[str, Any]) -> str:
    names = sorted(str(name)[:40] for name in tensors)
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "") if names else "nothing"


def _imported(
    tensors: Mapping[str, Any],
    networks: list[FoundNetwork],
    settings: Settings,
    path: Path,
    model: Literal["unsup3d", "lemul"],
    notes: list[str],
) -> Imported:
    size = networks[0].image_size
    if settings.image_size not in (None, size):
        raise CheckpointError(
            f"its networks are for pictures of {size} pixels, and {settings.source} says {settings.image_size}",
            where=str(path),
            remedy="name the configuration that belongs to it with --config, or use --preset",
        )
    encoders: dict[str, Any] = {
        network.slot.role: {"name": network.slot.component, **network.options} for network in networks
    }
    losses: dict[str, Any] = {}
    for role, terms in _WEIGHED[model].items():
        if role not in encoders and settings.pipeline != CARS:  # that pipeline has none already
            encoders[role] = None
            losses |= {term: {"likelihood": "none"} for term in terms}
    pipeline: dict[str, Any] = {
        "extends": settings.pipeline,
        "description": f"imported from {path.name}, with the settings of {settings.source}",
        "model": {"name": model, **settings.model(), "normal_epsilon": 1e-7, **settings.pairs},
        "encoders": encoders,
        "renderer": RENDERER,
        "camera": {"fov": settings.numbers["fov"]},
        "image_size": size,
        "losses": losses,
    }
    weights = {
        f"encoders.{network.slot.role}.{name}": tensor
        for network in networks
        for name, tensor in network.weights.items()
    }
    told = [
        f"networks: {', '.join(network.text() for network in networks)}",
        f"left out: {_left_out(tensors)}",
        settings.text(),
        "renderer: 2×2 samples, half a pixel off as the original's (--set renderer.pixel_offset=0 undoes it)",
        *_widths(networks),
        *notes,
    ]
    return Imported(pipeline, weights, told)


def _left_out(tensors: Mapping[str, Any]) -> str:
    taken = {slot.key for slot in LEMUL_SLOTS}
    parts = [
        f"{name[:40]} (a {value.name[:60]}, not loaded)" if isinstance(value, OpaqueObject) else name[:40]
        for name, value in tensors.items()
        if name not in taken
    ]
    return ", ".join(parts) or "nothing"


def _widths(networks: list[FoundNetwork]) -> list[str]:
    """A word of warning where the number of normalisation groups cannot be told from the weights."""
    odd = [n.slot.role for n in networks if n.slot.component != "conv-regressor" and n.options["width"] != 64]
    if not odd:
        return []
    return [f"{', '.join(odd)}: not of the published width 64; normalisation groups of four channels are assumed"]
