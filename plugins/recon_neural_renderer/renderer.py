"""The renderer for general meshes with the original's defaults, and the renderer of a pipeline on top of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypedDict, Unpack

import torch
from torch import Tensor

from recon_neural_renderer import cameras
from recon_neural_renderer import cameras as checks
from recon_neural_renderer.cameras import Vector, lambert_light
from recon_neural_renderer.raster import FAR, NEAR, Backend, Drawing, Maps, draw, rasterize
from recon_toolkit import Camera
from recon_toolkit.geometry import grid_faces
from recon_toolkit.rendering import DepthRenderer, grid_vertices

CameraMode = Literal["projection", "look", "look_at"]


@dataclass(frozen=True)
class Images:
    """Pictures of a batch of meshes, as one sees them: rows count from the top.

    Attributes:
        depth: (B, H, W) z; ``far`` where nothing is seen, so pixels on the outline are means with it.
        silhouettes: (B, H, W) in [0, 1].
        rgb: (B, 3, H, W), None without textures.
    """

    depth: Tensor
    silhouettes: Tensor
    rgb: Tensor | None


class CameraArguments(TypedDict, total=False):
    """The camera of one call, in place of the renderer's own; tensors among them receive gradients."""

    eye: Vector
    at: Vector
    up: Vector
    camera_direction: Vector
    K: Tensor
    R: Tensor
    t: Tensor
    dist_coeffs: Tensor
    orig_size: float


class Renderer:
    """Neural 3D Mesh Renderer (Kato, Ushiku and Harada, CVPR 2018).

    Args:
        image_size: side of the picture in pixels.
        anti_aliasing: 2 × 2 samples per pixel.
        background_color: (3,) or (B, 3).
        fill_back: draw both sides of faces.
        camera_mode: ``projection`` (K, R, t), ``look`` (eye, direction) or ``look_at`` (eye, point).
        K, R, t, dist_coeffs: for ``projection``: (B, 3, 3), (B, 3, 3), (B, 1, 3), (B, 5).
        orig_size: side in pixels of the picture that K belongs to.
        perspective: for ``look`` and ``look_at``; without it x and y are taken as they are.
        viewing_angle: half of the field of view in degrees.
        eye: (3,) or (B, 3); (0, 0, −(1 / tan(viewing_angle) + 1)) if not given.
        at, up, camera_direction: what ``look_at`` looks at, what is up, and the direction of ``look``.
        near, far: range of depths drawn.
        eps: least distance in the approximate gradient; 1e-3, and 1e-4 for silhouettes alone, if not given.
        light_intensity_ambient, light_intensity_directional: strengths of the lights.
        light_color_ambient, light_color_directional: their colours, (3,) or (B, 3).
        light_direction: where the directional light shines from, (3,) or (B, 3).
        backend: ``auto`` (Numba on the CPU, PyTorch elsewhere), ``numba`` or ``torch``.

    Raises:
        ValueError: an option is out of range or unknown; when drawing, an argument's shape, type, device or value.
    """

    def __init__(
        self,
        image_size: int = 256,
        *,
        anti_aliasing: bool = True,
        background_color: Vector = (0.0, 0.0, 0.0),
        fill_back: bool = True,
        camera_mode: CameraMode = "projection",
        K: Tensor | None = None,
        R: Tensor | None = None,
        t: Tensor | None = None,
        dist_coeffs: Tensor | None = None,
        orig_size: float = 1024,
        perspective: bool = True,
        viewing_angle: float = 30.0,
        eye: Vector | None = None,
        at: Vector = (0.0, 0.0, 0.0),
        up: Vector = (0.0, 1.0, 0.0),
        camera_direction: Vector = (0.0, 0.0, 1.0),
        near: float = NEAR,
        far: float = FAR,
        eps: float | None = None,
        light_intensity_ambient: float = 0.5,
        light_intensity_directional: float = 0.5,
        light_color_ambient: Vector = (1.0, 1.0, 1.0),
        light_color_directional: Vector = (1.0, 1.0, 1.0),
        light_direction: Vector = (0.0, 1.0, 0.0),
        backend: Backend = "auto",
    ) -> None:
        checks.check_size(image_size)
        checks.check_limits(near, far, eps)
        if camera_mode not in ("projection", "look", "look_at"):
            raise ValueError(f"camera_mode is projection, look or look_at, not {camera_mode!r}")
        if not 0 < viewing_angle < 90:
            raise ValueError(f"viewing_angle must be between 0 and 90 degrees, not {viewing_angle}")
        self.image_size, self.anti_aliasing, self.background_color = image_size, anti_aliasing, background_color
        self.fill_back, self.camera_mode = fill_back, camera_mode
        self.K, self.R, self.t, self.dist_coeffs, self.orig_size = K, R, t, dist_coeffs, orig_size
        self.perspective, self.viewing_angle = perspective, viewing_angle
        self.eye: Vector = (0.0, 0.0, -(1 / math.tan(math.radians(viewing_angle)) + 1)) if eye is None else eye
        self.at, self.up, self.camera_direction = at, up, camera_direction
        self.near, self.far, self.eps = near, far, eps
        self.light_intensity_ambient = light_intensity_ambient
        self.light_intensity_directional = light_intensity_directional
        self.light_color_ambient, self.light_color_directional = light_color_ambient, light_color_directional
        self.light_direction, self.backend = light_direction, backend

    def __call__(
        self, vertices: Tensor, faces: Tensor, textures: Tensor | None = None, **camera: Unpack[CameraArguments]
    ) -> Images:
        """Everything at once.

        Args:
            vertices: (B, V, 3) in the world, float32 or float64.
            faces: (F, 3) or (B, F, 3) of int32 or int64.
            textures: (B, F, t, t, t, 3), or (1, …) for all meshes.
            camera: eye, at, up, camera_direction, K, R, t, dist_coeffs or orig_size of this call.
        """
        maps = self._draw(vertices, faces, textures, camera, depth=True, alpha=True)
        assert maps.depth is not None and maps.alpha is not None
        return Images(maps.depth, maps.alpha, maps.rgb)

    def render_silhouettes(self, vertices: Tensor, faces: Tensor, **camera: Unpack[CameraArguments]) -> Tensor:
        """Silhouettes alone: (B, H, W) in [0, 1]."""
        maps = self._draw(vertices, faces, None, camera, depth=False, alpha=True)
        assert maps.alpha is not None
        return maps.alpha

    def render_depth(self, vertices: Tensor, faces: Tensor, **camera: Unpack[CameraArguments]) -> Tensor:
        """Depth alone: (B, H, W)."""
        maps = self._draw(vertices, faces, None, camera, depth=True, alpha=False)
        assert maps.depth is not None
        return maps.depth

    def render_rgb(
        self, vertices: Tensor, faces: Tensor, textures: Tensor, **camera: Unpack[CameraArguments]
    ) -> Tensor:
        """Colours alone: (B, 3, H, W)."""
        if textures is None:
            raise ValueError("textures must be given for rgb: (B, F, t, t, t, 3)")
        maps = self._draw(vertices, faces, textures, camera, depth=False, alpha=False)
        assert maps.rgb is not None
        return maps.rgb

    def _draw(
        self,
        vertices: Tensor,
        faces: Tensor,
        textures: Tensor | None,
        camera: CameraArguments,
        *,
        depth: bool,
        alpha: bool,
    ) -> Maps:
        checks.check_vertices(vertices)
        faces = checks.check_faces(faces, vertices)
        projected = self.project(vertices, **camera)
        checks.check_in_front(projected)
        return rasterize(
            projected,
            faces,
            textures,
            image_size=self.image_size,
            anti_aliasing=self.anti_aliasing,
            fill_back=self.fill_back,
            near=self.near,
            far=self.far,
            eps=self.eps,
            background_color=self.background_color,
            light=None if textures is None else self._light(vertices, faces),
            depth=depth,
            alpha=alpha,
            backend=self.backend,
        )

    def project(self, vertices: Tensor, **camera: Unpack[CameraArguments]) -> Tensor:
        """Vertices (B, V, 3) on the screen: x and y in [−1, 1], y up, and depth z."""
        unknown = sorted(camera.keys() - CameraArguments.__annotations__.keys())
        if unknown:
            known = ", ".join(CameraArguments.__annotations__)
            raise ValueError(f"a call takes the camera arguments {known}, not {unknown[0]}")
        if self.camera_mode == "projection":
            K, R, t = (
                checks.check_camera_matrix(camera.get(name, getattr(self, name)), name, shape, vertices)  # type: ignore[arg-type]
                for name, shape in (("K", (3, 3)), ("R", (3, 3)), ("t", (1, 3)))
            )
            distortion = camera.get("dist_coeffs", self.dist_coeffs)
            if distortion is not None:
                distortion = checks.check_camera_matrix(distortion, "dist_coeffs", (5,), vertices)
            size = camera.get("orig_size", self.orig_size)
            if not size > 0:
                raise ValueError(f"orig_size must be above 0, not {size}")
            return cameras.project(vertices, K, R, t, distortion, size)
        eye, up = camera.get("eye", self.eye), camera.get("up", self.up)
        if self.camera_mode == "look_at":
            seen = cameras.look_at(vertices, eye, camera.get("at", self.at), up)
        else:
            seen = cameras.look(vertices, eye, camera.get("camera_direction", self.camera_direction), up)
        return cameras.perspective(seen, self.viewing_angle) if self.perspective else seen

    def _light(self, vertices: Tensor, faces: Tensor) -> Tensor:
        """Factors of the faces' colours (B, F, 3), those of their backs appended with ``fill_back``."""
        rows = torch.arange(len(vertices), device=vertices.device)[:, None, None]
        corners = vertices[rows, faces.long()]
        sides = (corners, corners.flip(2)) if self.fill_back else (corners,)
        lights = [
            lambert_light(
                side,
                ambient=self.light_intensity_ambient,
                directional=self.light_intensity_directional,
                ambient_colour=self.light_color_ambient,
                directional_colour=self.light_color_directional,
                direction=self.light_direction,
            )
            for side in sides
        ]
        return torch.cat(lights, dim=1)


class NeuralRenderer(DepthRenderer):
    """Neural Renderer (Kato, Ushiku and Harada 2018), which Unsup3D trains with, over the grid mesh of a depth map.

    Depth has its exact gradient; the silhouette plays no part. Colour follows by the inverse warp. An empty sample
    counts as ``far`` in a pixel's mean, so a pixel is covered if all of its samples are.

    Args:
        anti_aliasing: 2 × 2 samples per pixel; without it depth fills with stripes in training.
        original_offset: show the surface at u = i + 0.5 in pixel i, as the original does; for imported weights.
        fill_back: draw both sides of faces.
        near, far: range of depths drawn.
        raster_backend: ``auto`` (Numba on the CPU, PyTorch elsewhere), ``numba`` or ``torch``.

    Raises:
        ValueError: near and far are not 0 < near < far, or far does not lie behind the object.
    """

    def __init__(
        self,
        *,
        camera: Camera,
        depth_range: tuple[float, float],
        anti_aliasing: bool = True,
        original_offset: bool = False,
        fill_back: bool = True,
        near: float = 0.1,
        far: float = 100.0,
        raster_backend: Backend = "auto",
    ) -> None:
        super().__init__(camera=camera, depth_range=depth_range)
        if not 0 < near < far:
            raise ValueError(f"near and far must be 0 < near < far, not {near} and {far}")
        if far <= depth_range[1]:
            raise ValueError(f"far must lie behind the object, which ends at {depth_range[1]}, not at {far}")
        self.samples, self.original_offset = 2 if anti_aliasing else 1, original_offset
        self.fill_back, self.near, self.far = fill_back, near, far
        self.raster_backend: Backend = raster_backend

    def render_depth(self, canonical_depth: Tensor, view: Tensor) -> tuple[Tensor, Tensor]:
        """Depth and coverage; see :class:`DepthRenderer`."""
        height, width = canonical_depth.shape[-2:]
        points = grid_vertices(
            canonical_depth,
            view,
            self.camera,
            samples=self.samples,
            pixel_offset=0.5 if self.original_offset else 0.0,
        )
        faces = grid_faces(height, width, points.device)
        drawing = Drawing(
            height, width, self.samples, self.near, self.far, 0.0, self.fill_back, depth=True, alpha=True, rgb=False
        )
        maps = draw(points, faces[None], None, None, None, drawing, self.raster_backend)
        assert maps.depth is not None and maps.alpha is not None
        return maps.depth, maps.alpha.detach() == 1  # detached: no gradient through the silhouette
