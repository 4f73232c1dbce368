"""Rendering from factors, for renderers that shade by themselves as well as for those that are given a lit image."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from recon_toolkit.structures import Rendering

RenderFactors = Callable[[Tensor, Tensor, Tensor, Tensor], Rendering]


def render_object(
    renderer: Callable[[Tensor, Tensor, Tensor], Rendering],
    depth: Tensor,
    image: Tensor,
    albedo: Tensor,
    light: Tensor | None,
    view: Tensor,
) -> Rendering:
    """The canonical object in the input view, by whichever of its two methods the renderer has.

    A renderer with the method ``render_factors(canonical_depth, canonical_albedo, light, view)`` shades by itself and
    is given that; any other is called with the lit image. Without a light (a model without shading) there is nothing
    to shade, and both are called with the image.

    Args:
        renderer: callable (canonical depth, canonical image, view) → Rendering.
        depth: canonical depth (B, H, W).
        image: the lit canonical image (B, 3, H, W).
        albedo: canonical albedo (B, 3, H, W) in [0, 1].
        light: (B, 5) ambient, diffuse, unit direction; or None.
        view: (B, 6) rotation x, y, z in radians, translation x, y, z.
    """
    render_factors: RenderFactors | None = getattr(renderer, "render_factors", None)
    if light is None or render_factors is None:
        found = renderer(depth, image, view)
    else:
        found = render_factors(depth, albedo, light, view)
    return found
