"""What separates a photograph from a rendering: soft light and shadows, shine, hair over the brow, a loose crop, a
camera's blur, colours and grain, and JPEG.

Everything here is drawn from a stream of random numbers of its own, so that the same people in the same poses appear
with and without it. Depth, normals, albedo and view stay exact; light is that of the picture before the camera.
"""

from __future__ import annotations

import io
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numba import njit
from numpy.random import Generator, Philox
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from recon_synthetic_faces.colours import noise, step
from recon_toolkit.threads import given

#: No head is scaled so that its canonical view leaves the picture.
_LARGEST_HEAD = 1.12
_LUMA = np.array((0.299, 0.587, 0.114))


def draw_photograph(scene: NDArray[np.void], rng: Generator, amount: float) -> None:
    """Fill a scene's photographic fields, and loosen its hair, light and framing.

    Args:
        scene: one record, drawn already.
        rng: a stream of its own.
        amount: 0 to 1, the share of pictures that each effect is seen in, relative to its full share.
    """

    def chance(share: float) -> bool:
        return bool(rng.random() < share * amount)

    _loosen(scene, rng, chance(0.9), chance(0.35), chance(0.12))
    ambient, diffuse = float(scene["light"][0]), float(scene["light"][1])
    if chance(0.6):  # a cloudy sky, a large window, a flash: less of the light comes from one direction
        soft = rng.uniform(0.3, 1.0)
        scene["light"][0], scene["light"][1] = ambient + 0.45 * soft * diffuse, diffuse * (1 - 0.7 * soft)
    if chance(0.7):
        scene["specular"], scene["gloss"] = rng.uniform(0.02, 0.28), 2 ** rng.uniform(2.0, 5.0)
    if chance(0.35):  # of hair, a hat, a tree, whatever stands in the light
        scene["cast"] = (
            rng.uniform(0.15, 0.7), rng.uniform(0, 2 * math.pi), rng.uniform(-0.2, 0.75), rng.uniform(0.04, 0.5),
            rng.uniform(0, 0.5),
        )  # fmt: skip
    if chance(0.75):
        scene["blur"] = rng.uniform(0, 1) ** 2 * 1.1 + 0.05
    if chance(0.8):
        warm, tint = rng.normal(0, 0.09), rng.normal(0, 0.035)
        scene["gain"] = np.exp((warm, -tint, -warm)) * math.exp(rng.normal(0, 0.13))
    else:
        scene["gain"] = 1.0
    scene["gamma"] = math.exp(rng.normal(0, 0.18)) if chance(0.7) else 1.0
    scene["contrast"] = math.exp(rng.normal(0, 0.13)) if chance(0.7) else 1.0
    scene["saturation"] = math.exp(rng.normal(-0.05, 0.25)) if chance(0.7) else 1.0
    if chance(0.04):  # black and white
        scene["saturation"] = 0.0
    if chance(0.3):
        scene["vignette"] = rng.uniform(0.05, 0.5)
    if chance(0.6):
        scene["grain"] = 0.04 * rng.random() ** 2
    scene["grain_seed"] = rng.integers(1, 2**31)
    if chance(0.6):
        scene["jpeg"] = rng.integers(35, 96)


def _loosen(scene: NDArray[np.void], rng: Generator, framed: bool, fringed: bool, spectacled: bool) -> None:
    """Another crop, a fringe over the brow, glasses."""
    scale, sideways, up = math.exp(rng.normal(0.02, 0.06)), rng.normal(0, 0.007), rng.normal(0, 0.009)
    if framed:
        scene["head_size"] = min(float(scene["head_size"]) * scale, _LARGEST_HEAD)
        scene["pose"][3] += float(np.clip(sideways, -0.02, 0.02))
        scene["pose"][4] += float(np.clip(up, -0.025, 0.025))  # down: the crop cuts the chin
    fringe, sweep = rng.uniform(12, 46), rng.uniform(-1.3, 1.3)
    if fringed and scene["hair"] > 0:
        scene["fringe"], scene["sweep"] = fringe, sweep
    strength = rng.uniform(0.5, 1.0)
    if spectacled:
        scene["glasses"] = strength


@njit(inline="always")
def cast_shadow(u, v, p):  # type: ignore[no-untyped-def]
    """How much of the directed light reaches a point of the picture (u, v in [−1, 1]): 1 in full light."""
    if p.cast[0] == 0.0:
        return 1.0
    along = u * math.cos(p.cast[1]) + v * math.sin(p.cast[1]) - p.cast[2]
    along += p.cast[4] * noise(u * 2.3, v * 2.3, p.grain_seed)
    return 1.0 - p.cast[0] * step(-p.cast[3], p.cast[3], along)


@njit(inline="always")
def shine(normal, p):  # type: ignore[no-untyped-def]
    """Specular light (Phong) that a surface with a unit normal along the line of sight sends to the camera."""
    if p.specular == 0.0:
        return 0.0
    facing = normal[0] * p.light[2] + normal[1] * p.light[3] + normal[2] * p.light[4]
    if facing <= 0.0:
        return 0.0
    towards = 2.0 * facing * normal[2] - p.light[4]  # the mirrored light against the line of sight
    return p.specular * towards**p.gloss if towards > 0.0 else 0.0


def develop(images: NDArray[np.uint8], scenes: NDArray[np.void]) -> NDArray[np.uint8]:
    """Rendered pictures (N, 3, H, W) as a camera would have kept them: blur, colours, vignette, grain, JPEG."""
    with ThreadPoolExecutor(given().count) as pool:
        done = list(pool.map(_develop, images, scenes))
    return np.stack(done)


def _develop(pixels: NDArray[np.uint8], scene: NDArray[np.void]) -> NDArray[np.uint8]:
    size = pixels.shape[1]
    image = pixels.transpose(1, 2, 0).astype(np.float64) / 255
    if scene["blur"] > 0:  # in pixels of a 64-pixel picture
        sigma = float(scene["blur"]) * size / 64
        image = gaussian_filter(image, (sigma, sigma, 0), mode="nearest")
    image = np.clip(image * scene["gain"], 0, 1) ** float(scene["gamma"])
    image = (image - 0.5) * float(scene["contrast"]) + 0.5
    grey = (image @ _LUMA)[..., None]
    image = grey + (image - grey) * float(scene["saturation"])
    if scene["vignette"] > 0:
        axis = np.linspace(-1, 1, size)
        image *= 1 - float(scene["vignette"]) * ((axis**2 + axis[:, None] ** 2) / 2)[..., None]
    if scene["grain"] > 0:
        rng = Generator(Philox(int(scene["grain_seed"])))
        image = image + float(scene["grain"]) * rng.standard_normal(image.shape)
    shot = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    if scene["jpeg"] > 0:
        buffer = io.BytesIO()
        Image.fromarray(shot).save(buffer, "JPEG", quality=int(scene["jpeg"]))
        shot = np.asarray(Image.open(buffer).convert("RGB"))
    return np.ascontiguousarray(shot.transpose(2, 0, 1))
