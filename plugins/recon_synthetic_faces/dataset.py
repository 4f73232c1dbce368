"""The data set ``synthetic-faces``: generated once into the cache, then memory-mapped."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recon_toolkit.errors import DataError
from recon_toolkit.files import content_key

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from recon_synthetic_faces.render import Pictures
    from recon_synthetic_faces.scene import Ranges
    from recon_toolkit.data.packed import PackedImages
    from recon_toolkit.data.packing import DataContext

#: Raise it when the same options give other pictures, so that caches of older versions are not used.
GENERATOR_VERSION = 4
SIZES = (32, 256)
_GROUP_SAMPLES = 64 * 128 * 128  # samples drawn at a time: 64 pictures at 64 pixels, 2 × 2
_PHOTOGRAPH_SIDE = 256
PATCHES = 8  # at most, on a face


class SyntheticFaces:
    """Procedural 3D heads with exact depth, normals, albedo, mask, light and view.

    Args:
        count: pictures to train on.
        validation: pictures in the split ``val``.
        test: pictures in the split ``test``. No person is in two splits.
        images_per_identity: pictures of each person, in different poses, expressions, light and places; with more
            than one, the field ``group`` is the person.
        seed: 0 or more; the same seed and options give the same bytes on the same kind of machine.
        background: folder of photographs to put behind the heads; procedural backgrounds without.
        supersampling: samples along a pixel's side, averaged in the picture.
        yaw, pitch, roll: limits of the head's turn in degrees; most pictures lie well within.
        ambient, diffuse: ranges of the strength of the light.
        side_light: light travels along normalise(x, y, 1) with x within ± this (and y from −0.35 × to 1 × this).
        fov: the camera's horizontal field of view in degrees, as the pipeline's.
        patches: coloured rectangles painted onto each face and the hair before it, at random places, 0 to 8: an
            albedo that is not symmetric (Wu et al. 2020, Table 4). They turn with the head and are shaded like skin.
            Nothing else in a picture changes with them.
        patch_size: range of a patch's sides, as shares of the face's width.
        patch_opacity: range of the weight with which a patch covers what is below it.
        photographic: how much of what separates photographs from renderings is in the pictures, 0 to 1: soft light,
            cast shadows, shine, hair over the brow, more glasses, loose crops that may cut the chin, and the camera's
            blur, colour casts, contrast, grain and JPEG. The people and their poses are the same at any value.
        anatomy: share of people whose heads are drawn from a basis of human anatomy (MakeHuman's, CC0) in place of the
            procedural one, 0 to 1. All else in a picture is drawn as without.

    Raises:
        DataError: an option is out of range, or ``background`` holds no images.
    """

    splits = ("train", "val", "test")
    reads_folder = False

    def __init__(
        self,
        *,
        count: int = 8000,
        validation: int = 500,
        test: int = 500,
        images_per_identity: int = 1,
        seed: int = 0,
        background: Path | None = None,
        supersampling: int = 2,
        yaw: float = 45.0,
        pitch: float = 20.0,
        roll: float = 20.0,
        ambient: tuple[float, float] = (0.35, 0.65),
        diffuse: tuple[float, float] = (0.5, 0.85),
        side_light: float = 1.0,
        fov: float = 10.0,
        patches: int = 0,
        patch_size: tuple[float, float] = (0.2, 0.5),
        patch_opacity: tuple[float, float] = (0.5, 1.0),
        photographic: float = 0.0,
        anatomy: float = 0.0,
    ) -> None:
        for name, value, low, high in (
            ("count", count, 1, 10_000_000), ("validation", validation, 1, 10_000_000), ("test", test, 1, 10_000_000),
            ("images_per_identity", images_per_identity, 1, 10_000), ("seed", seed, 0, 2**63 - 1),
            ("supersampling", supersampling, 1, 4), ("yaw", yaw, 0, 60), ("pitch", pitch, 0, 40), ("roll", roll, 0, 60),
            ("side_light", side_light, 0, 3), ("fov", fov, 1, 60), ("patches", patches, 0, PATCHES),
            ("photographic", photographic, 0, 1), ("anatomy", anatomy, 0, 1),
        ):  # fmt: skip
            _within(name, value, low, high)
        for name, pair in (
            ("ambient", ambient), ("diffuse", diffuse), ("patch_size", patch_size), ("patch_opacity", patch_opacity),
        ):  # fmt: skip
            _within(name, pair[0], 0, pair[1])
            _within(name, pair[1], pair[0], 1)
        self.counts = {"train": count, "val": validation, "test": test}
        self.images_per_identity = images_per_identity
        self.seed = seed
        self.background = None if background is None else Path(background)
        self.supersampling = supersampling
        self.yaw, self.pitch, self.roll = yaw, pitch, roll
        self.ambient, self.diffuse, self.side_light = tuple(ambient), tuple(diffuse), side_light
        self.fov = fov
        self.patches, self.patch_size, self.patch_opacity = patches, patch_size, patch_opacity
        self.photographic, self.anatomy = photographic, anatomy

    @property
    def ranges(self) -> Ranges:
        """The ranges that poses and light are drawn from."""
        from recon_synthetic_faces.scene import Ranges

        return Ranges(
            yaw=self.yaw,
            pitch=self.pitch,
            roll=self.roll,
            ambient=(self.ambient[0], self.ambient[1]),
            diffuse=(self.diffuse[0], self.diffuse[1]),
            light_x=self.side_light,
            light_y=(-0.35 * self.side_light, self.side_light),
        )

    def generate(
        self,
        indices: NDArray[np.integer[Any]],
        split: str,
        size: int,
        *,
        photographs: NDArray[np.uint8] | None = None,
    ) -> Pictures:
        """The pictures ``indices`` (N,) of a split at ``size`` pixels, whatever is generated beside them.

        ``photographs`` (P, 3, S, S) are the backgrounds, see :meth:`read_background`. All N pictures are in memory
        at once.
        """
        from recon_synthetic_faces.colours import Patches
        from recon_synthetic_faces.render import render
        from recon_synthetic_faces.scene import draw_scenes
        from recon_toolkit.geometry.camera import Camera

        _within("image size", size, *SIZES)
        scenes = draw_scenes(
            indices,
            split,
            self.seed,
            self.ranges,
            images_per_identity=self.images_per_identity,
            photographs=0 if photographs is None else len(photographs),
            patches=Patches(self.patches, self.patch_size, self.patch_opacity) if self.patches else None,
            photographic=self.photographic,
            anatomy=self.anatomy,
        )
        return render(
            scenes,
            size,
            supersampling=self.supersampling,
            camera=Camera(self.fov),
            photographs=photographs,
            photographic=self.photographic > 0,
        )

    def open(self, split: str, size: int, context: DataContext) -> PackedImages:
        """The packed split, generated first if it is not in the cache.

        Args:
            split: one of ``splits``.
            size: image height and width in pixels, 32 to 256.
            context: where the cache is, and where progress is shown.
        """
        import numpy as np

        from recon_toolkit.data.packed import PackWriter, field_specs
        from recon_toolkit.data.packing import open_cached

        if split not in self.splits:
            raise DataError(f"there is no split '{split}'", remedy=f"choose one of {', '.join(self.splits)}")
        _within("image size", size, *SIZES)
        options = self._options(size)
        key = content_key(options)
        count = self.counts[split]
        folder = context.cache / "synthetic-faces" / f"{split}-{size}px-{count}-{key}"
        cached = open_cached(folder, context)
        if cached is not None:
            return cached
        photographs = self.read_background()
        grouped = self.images_per_identity > 1
        names = ("image", "depth", "mask", "normals", "albedo", "light", "view", *(("group",) if grouped else ()))
        group = max(1, _GROUP_SAMPLES // (size * self.supersampling) ** 2)
        with (
            PackWriter(folder, count, size, field_specs(size, names)) as writer,
            context.progress.task(f"generating synthetic faces ({split})", count, "img") as task,
        ):
            for start in range(0, count, group):
                indices = np.arange(start, min(start + group, count))
                made = self.generate(indices, split, size, photographs=photographs).arrays()
                if grouped:
                    made["group"] = (indices // self.images_per_identity).astype(np.int32)
                writer.write(start, **made)
                task.advance(len(indices))
            provenance = {"dataset": "synthetic-faces", "split": split, **options}
            return writer.finish([f"{split}-{n:06d}" for n in range(count)], provenance)

    def read_background(self) -> NDArray[np.uint8] | None:
        """The photographs of the folder ``background``, (P, 3, 256, 256) uint8 in the order of their names; or None."""
        if self.background is None:
            return None
        import numpy as np

        from recon_toolkit.data.decode import CentreCrop, read_image

        whole = CentreCrop()
        images = [read_image(path, crop=whole, size=_PHOTOGRAPH_SIDE) for path in self._photographs()]
        return np.ascontiguousarray(np.stack(images).transpose(0, 3, 1, 2))

    def _photographs(self) -> list[Path]:
        from recon_toolkit.data.packing import find_images

        assert self.background is not None
        return find_images(self.background)

    def _options(self, size: int) -> dict[str, Any]:
        """All that the bytes of the pictures depend on, as JSON values."""
        photographs = None
        if self.background is not None:
            photographs = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in self._photographs()]
        options = {
            "generator": GENERATOR_VERSION,
            "size": size,
            "seed": self.seed,
            "images_per_identity": self.images_per_identity,
            "supersampling": self.supersampling,
            "fov": self.fov,
            "background": photographs,
            **asdict(self.ranges),
        }
        if self.patches:  # only then, so that data sets without keep the caches of before there were any
            options |= {"patches": self.patches, "patch_size": self.patch_size, "patch_opacity": self.patch_opacity}
        if self.images_per_identity > 1:
            options["fields"] = "group"
        if self.photographic:
            options["photographic"] = self.photographic
        if self.anatomy:
            options["anatomy"] = self.anatomy
        return options


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise DataError(f"synthetic faces: {name} = {value} is outside {low} to {high}", remedy=f"change {name}")
