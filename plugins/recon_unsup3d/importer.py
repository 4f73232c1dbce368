"""Published checkpoints of Unsup3D (Wu et al. 2020) and LeMul (Ho et al. 2021) as weights of the model ``unsup3d``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from recon_toolkit import CheckpointError, Imported
from recon_toolkit.unpickle import Foreign
from recon_unsup3d.importer_layout import SECOND_CONFIDENCE, SLOTS, FoundNetwork, find_network
from recon_unsup3d.importer_settings import CARS, LeMulPreset, Settings, Unsup3DPreset, find_settings

#: The original's renderer: 2 × 2 samples, of which pixel i shows the surface at u = i + 0.5, while colours are sampled
#: with integer u at pixel centres.
RENDERER = {"name": "depth-mesh", "supersampling": 2, "pixel_offset": 0.5}
#: Losses on the mirrored reconstruction, which a model without symmetry does not have.
_FLIPPED = {"flipped": None, "flipped-perceptual": None}
#: How long the published models of faces were trained.
FACE_EPOCHS = 30
#: Losses that weigh by the confidence.
_TERMS = ("photometric", "perceptual", *_FLIPPED)


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
    networks = _networks(tensors, str(path))
    if _is_lemul(tensors):
        raise CheckpointError(
            "this is a checkpoint of LeMul, whose model has no mirror symmetry",
            where=str(path),
            remedy="use recon import lemul",
        )
    # Of the published models only that of cars has no confidence.
    guess = "celeba" if "netC" in tensors else "car"
    settings = find_settings(tensors, path, preset, config, lemul=False, guess=guess)
    epoch, notes = tensors.get("epoch"), []
    if guess == "celeba" and settings.alternatives and isinstance(epoch, int) and epoch > FACE_EPOCHS:
        notes = [f"it is of epoch {epoch}: published faces have {FACE_EPOCHS}, cats 200 (--preset cat)"]
    return _imported(tensors, networks, settings, path, {}, notes)


def import_lemul(
    tensors: Mapping[str, Any], path: Path, *, preset: LeMulPreset | None = None, config: Path | None = None
) -> Imported:
    """A checkpoint of LeMul: the same networks, in a model without mirror symmetry.

    The second confidence network, which compares two images in training, is left out.

    Args:
        tensors: the file's dictionary: ``netD``, ``netA``, ``netL``, ``netV``, ``netC`` and ``netC2`` hold state dicts.
        path: the file.
        preset: what it was trained on; from a configuration if there is one, else guessed and said.
        config: the configuration that it was trained with, a YAML file of the original.

    Raises:
        CheckpointError: it is a checkpoint of something else, or of networks with other layers.
    """
    networks = _networks(tensors, str(path))
    if not _is_lemul(tensors) and "netC" in tensors:
        raise CheckpointError(
            "this is a checkpoint of Unsup3D, not of LeMul", where=str(path), remedy="use recon import unsup3d"
        )
    settings = find_settings(tensors, path, preset, config, lemul=True, guess="celeba")
    model = {"flip_depth": False, "flip_albedo": False}
    notes = ["no mirror symmetry; training on from it is Unsup3D's without symmetry, not LeMul's from pairs of images"]
    if "netC" in tensors:
        notes.append("its one channel of confidence is stored twice; the second is not used")
    if settings.numbers["xyz_rotation_range"] != 60:
        notes.append("LeMul's test settings turn by ±60° instead: --set model.rotation_range=60")
    return _imported(tensors, networks, settings, path, model, notes)


def _is_lemul(tensors: Mapping[str, Any]) -> bool:
    heads = tensors.get("netC")
    head = heads.get("out_net2.0.weight") if isinstance(heads, Mapping) else None
    return SECOND_CONFIDENCE in tensors or (isinstance(head, Tensor) and head.shape[:1] == (1,))


def _networks(tensors: Mapping[str, Any], where: str) -> list[FoundNetwork]:
    missing = [slot.key for slot in SLOTS if slot.key not in tensors and slot.role != "confidence"]
    if missing:
        flat = bool(tensors) and all(isinstance(value, Tensor) for value in tensors.values())
        held = "a state dict of one network" if flat else _some(tensors)
        raise CheckpointError(
            f"no checkpoint of Unsup3D or LeMul: it lacks {', '.join(missing)}; it holds {held}",
            where=where,
            remedy="name the checkpoint*.pth that the training wrote",
        )
    found = [find_network(slot, tensors[slot.key], where) for slot in SLOTS if slot.key in tensors]
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
    model: Mapping[str, Any],
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
    losses: dict[str, Any] = dict(_FLIPPED) if model.get("flip_depth") is False else {}
    if "confidence" not in encoders and settings.pipeline != CARS:  # that pipeline has none already
        encoders["confidence"] = None
        losses |= {term: {"likelihood": "none"} for term in _TERMS if losses.get(term, 0) is not None}
    pipeline: dict[str, Any] = {
        "extends": settings.pipeline,
        "description": f"imported from {path.name}, with the settings of {settings.source}",
        "model": {"name": "unsup3d", **settings.model(), "normal_epsilon": 1e-7, **model},
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
    taken = {slot.key for slot in SLOTS}
    parts = [
        f"{name[:40]} (a {value.name[:60]}, not loaded)" if isinstance(value, Foreign) else name[:40]
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
