"""A scene as text: JSON for the page's script, and pictures as data addresses."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

from PIL import Image
from torch import Tensor

from recon_toolkit.export.pictures import to_bytes
from recon_toolkit.export.viewer.grid import depth_grid
from recon_toolkit.export.viewer.scene import ViewerScene

JPEG_QUALITY = 92


def scene_json(scene: ViewerScene) -> str:
    """What the page's script needs of a scene, safe inside a ``script`` element.

    Raises:
        DataError: the mask leaves nothing to show.
        ValueError: a tensor has the wrong shape.
    """
    grid = depth_grid(scene.depth, scene.mask)
    height, width = grid.steps.shape
    content: dict[str, Any] = {
        "name": scene.name,
        "width": width,
        "height": height,
        "step": grid.step,
        "fov": scene.camera.fov,
        "depth": {"near": grid.near, "far": grid.far, "data": base64_text(grid.steps.astype("<u2").tobytes())},
        "levels": None if grid.levels is None else base64_text(grid.levels.tobytes()),
        "light": _numbers(scene.light),
        "view": _numbers(scene.view),
    }
    content |= {name: picture_address(image) for name, image in scene.pictures.items()}
    return script_text(json.dumps(content, allow_nan=False, separators=(",", ":")))


def script_text(text: str) -> str:
    """JSON made safe inside a ``script`` element: "</script>" or "<!--" in a name would end it or hide its end."""
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def picture_address(image: Tensor) -> str:
    """A picture (3 | 1, H, W) in [0, 1] as a data address: PNG, or JPEG of high quality where that is smaller."""
    pixels = to_bytes(image)
    picture = Image.fromarray(pixels[..., 0] if image.shape[0] == 1 else pixels)
    png, jpeg = io.BytesIO(), io.BytesIO()
    picture.save(png, format="PNG")
    picture.save(jpeg, format="JPEG", quality=JPEG_QUALITY, subsampling=0)
    if len(png.getvalue()) <= len(jpeg.getvalue()):
        return data_address(png.getvalue(), "image/png")
    return data_address(jpeg.getvalue(), "image/jpeg")


def data_address(content: bytes, kind: str) -> str:
    """Bytes of a MIME type as a ``data:`` address."""
    return f"data:{kind};base64,{base64_text(content)}"


def base64_text(content: bytes) -> str:
    """Bytes as text."""
    return base64.b64encode(content).decode("ascii")


def _numbers(values: Tensor | None) -> list[float] | None:
    return None if values is None else [float(value) for value in values.detach().cpu()]
