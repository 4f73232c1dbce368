"""The data set ``procedural-objects``: chairs, tables, cars, planes and mugs made here, seen from many sides."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from recon_toolkit.errors import DataError, suggestion
from recon_toolkit.files import content_key

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from recon_object_views.render import Layout
    from recon_toolkit.data.packed import PackedImages
    from recon_toolkit.data.packing import DataContext

#: Raise it when the same options give other pictures, so that caches of older versions are not used.
GENERATOR_VERSION = 1
SPLITS = ("train", "val", "test")
#: The categories. Their positions are part of every object's seed: append, never reorder.
NAMES = ("chair", "table", "car", "plane", "mug")
_GROUP = 16  # objects drawn at a time


class ProceduralObjects:
    """Procedural objects with pictures to learn from, depth maps from fixed and from random sides, and clouds.

    Args:
        categories: some of ``chair``, ``table``, ``car``, ``plane`` and ``mug``.
        count: objects of each category to train on.
        validation: objects of each in the split ``val``.
        test: objects of each in the split ``test``. No object is in two splits.
        images: pictures of each object.
        depth_size: side of depth maps in pixels.
        novel_views: depth maps of each object from random sides, besides the eight fixed ones.
        points: of each object's cloud, evenly by area.
        elevation: range of the height that pictures are taken from, in degrees above the horizontal.
        seed: 0 or more; the same seed and options give the same bytes on the same kind of machine.

    Raises:
        DataError: an option is out of range, or there is no such category.
    """

    splits = SPLITS
    reads_folder = False

    def __init__(
        self,
        *,
        categories: tuple[str, ...] = ("chair",),
        count: int = 1000,
        validation: int = 50,
        test: int = 100,
        images: int = 24,
        depth_size: int = 128,
        novel_views: int = 100,
        points: int = 10000,
        elevation: tuple[float, float] = (0.0, 35.0),
        seed: int = 0,
    ) -> None:
        for name, value, low, high in (
            ("count", count, 1, 1_000_000), ("validation", validation, 1, 1_000_000), ("test", test, 1, 1_000_000),
            ("images", images, 1, 1000), ("depth_size", depth_size, 8, 1024), ("novel_views", novel_views, 1, 10_000),
            ("points", points, 1, 10_000_000), ("seed", seed, 0, 2**63 - 1), ("elevation", elevation[0], -90, 90),
            ("elevation", elevation[1], elevation[0], 90),
        ):  # fmt: skip
            if not low <= value <= high:
                raise DataError(f"{value} is outside {low} to {high}", where=f"dataset.{name}", remedy="choose another")
        for name in categories:
            if name not in NAMES:
                raise DataError(f"there is no category '{name}'", where="dataset.categories",
                                remedy=suggestion(name, NAMES))  # fmt: skip
        if not categories or len(set(categories)) < len(categories):
            raise DataError("name each category once", where="dataset.categories", remedy=f"of {', '.join(NAMES)}")
        self.categories, self.seed = tuple(categories), seed
        self.objects = {"train": count, "val": validation, "test": test}
        self.images, self.depth_size, self.novel_views, self.points = images, depth_size, novel_views, points
        self.elevation = (float(elevation[0]), float(elevation[1]))

    def layout(self, size: int) -> Layout:
        """What is drawn of each object, for pictures of ``size`` pixels."""
        from recon_object_views.render import Layout

        return Layout(
            image_size=size, images=self.images, depth_size=self.depth_size, novel=self.novel_views, points=self.points,
            elevation=self.elevation,
        )  # fmt: skip

    def generate(self, number: int, split: str, size: int) -> dict[str, NDArray[Any]]:
        """The fields of object ``number`` of a split, at ``size`` pixels; categories take turns."""
        import numpy as np
        from numpy.random import Generator, Philox, SeedSequence

        from recon_object_views.parametric import instance
        from recon_object_views.render import pictures_of

        number, place = divmod(number, len(self.categories))
        category = self.categories[place]
        made = instance(category, split, number, self.seed)
        key = (self.seed, self.splits.index(split), NAMES.index(category), number)
        fields = pictures_of(made, self.layout(size), Generator(Philox(SeedSequence(key, spawn_key=(1,)))))
        return fields | {"category": np.array([[place]], np.uint8)}

    def open(self, split: str, size: int, context: DataContext) -> PackedImages:
        """The packed split, generated first if it is not in the cache.

        Args:
            split: one of ``splits``.
            size: image height and width in pixels.
            context: where the cache is, and where progress is shown.
        """
        import numpy as np

        from recon_toolkit.data.packed import PackWriter
        from recon_toolkit.data.packing import open_cached
        from recon_toolkit.threads import given

        if split not in self.splits:
            raise DataError(f"there is no split '{split}'", remedy=f"choose one of {', '.join(self.splits)}")
        layout = self.layout(size)
        options = {"version": GENERATOR_VERSION, "seed": self.seed, "categories": self.categories, **asdict(layout)}
        key = content_key(options)
        objects = self.objects[split] * len(self.categories)
        folder = context.cache / "procedural-objects" / f"{split}-{size}px-{objects}-{key}"
        cached = open_cached(folder, context)
        if cached is not None:
            return cached
        with (
            PackWriter(folder, objects * self.images, size, layout.fields()) as writer,
            context.progress.task(f"generating objects ({split})", objects, "object") as task,
            ThreadPoolExecutor(given().count) as pool,
        ):
            for start in range(0, objects, _GROUP):
                numbers = range(start, min(start + _GROUP, objects))
                made = list(pool.map(lambda number: self.generate(number, split, size), numbers))
                joined = {name: np.concatenate([fields[name] for fields in made]) for name in made[0]}
                writer.write(start * self.images, **joined)
                task.advance(len(numbers))
            names = [
                f"{self.categories[n % len(self.categories)]}-{split}-{n // len(self.categories):05d}/{view:02d}"
                for n in range(objects)
                for view in range(self.images)
            ]
            return writer.finish(names, {"dataset": "procedural-objects", "split": split, **options})
