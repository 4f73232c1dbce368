"""From the bytes of a picture to the page with its objects."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from recon_toolkit.data.decode import MAX_PIXELS, SUPPORTED, decode_image
from recon_toolkit.demo.refusal import Refusal
from recon_toolkit.errors import DataError

if TYPE_CHECKING:
    from recon_toolkit.export.viewer import Scene
    from recon_toolkit.reconstructor import Reconstructor


def scenes_of(data: bytes, reconstructor: Reconstructor, *, crop: bool, most: int) -> list[Scene]:
    """The objects in a picture, ready to be shown, the most certain first.

    Args:
        data: an image file.
        reconstructor: the model; its detector is left out where ``crop`` says so.
        crop: one object fills the picture.
        most: how many of them, at most.

    Raises:
        Refusal: no image (415), too many pixels (413), damaged (400), or without an object (422).
    """
    picture = decoded(data)
    found = reconstructor
    if crop:
        reconstructor = replace(reconstructor, detector=None)
    try:
        results = reconstructor.reconstruct_all(picture, limit=most)
        noun = found.noun.capitalize()
        names = [noun] if len(results) == 1 else [f"{noun} {n}" for n in range(1, len(results) + 1)]
        named = (replace(result.to("cpu"), name=name) for result, name in zip(results, names, strict=True))
        return [result.scene_with_mesh(f"{result.name.lower().replace(' ', '-')}.glb") for result in named]
    except DataError as error:
        remedy = (
            f"Take one in which a {found.noun} is upright, sharp and turned towards the camera; or cut it out by hand, "
            "so that it fills a square, and tick “The picture is a crop already”"
        )
        raise Refusal(422, _sentence(error.message), remedy) from None


def decoded(data: bytes) -> NDArray[np.uint8]:
    """An image file as (H, W, 3); what it is, its first bytes tell, and not its name.

    Raises:
        Refusal: no image (415), too many pixels (413), or damaged (400).
    """
    try:
        return decode_image(data)
    except DataError as error:
        raise Refusal(_status(error), _sentence(error.message), _sentence(error.remedy or "")) from None


def _status(error: DataError) -> int:
    if error.remedy == SUPPORTED:
        return 415
    return 413 if f"{MAX_PIXELS:,}" in error.message else 400


def _sentence(text: str) -> str:
    """With a capital, for people who see it without a file's name before it."""
    return text[:1].upper() + text[1:]
