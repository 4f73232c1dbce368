"""The categories of procedural objects, and one instance of each by its number."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator, Philox, SeedSequence

from recon_object_views.furniture import chair, mug, table
from recon_object_views.procedural import NAMES, SPLITS
from recon_object_views.solids import ColouredMesh
from recon_object_views.vehicles import car, plane

#: How each category is made.
CATEGORIES: dict[str, Callable[[Generator], ColouredMesh]] = dict(
    zip(NAMES, (chair, table, car, plane, mug), strict=True)
)


def instance(category: str, split: str, number: int, seed: int = 0) -> ColouredMesh:
    """Object ``number`` of a category in a split, normalised: bounding box about the origin, its diagonal 1, z up.

    It depends on the seed, the split, the category and its number only.

    Raises:
        KeyError: there is no such category.
        ValueError: there is no such split.
    """
    make = CATEGORIES[category]
    made = make(Generator(Philox(SeedSequence((seed, SPLITS.index(split), NAMES.index(category), number)))))
    if not np.isfinite(made.vertices).all():
        raise AssertionError(f"{category} {number} of {split} has vertices that are not finite")
    return made.normalised()
