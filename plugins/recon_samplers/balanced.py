"""The sampler ``balanced``: categories, or parts of a mixture, by shares that do not depend on their sizes."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from recon_toolkit import ReconError
from recon_toolkit.data.packed import PackedImages
from recon_toolkit.data.sampling import endless


class Balanced:
    """Draws each label's images by its share; of a label, one image after another in random order.

    Args:
        data: with the field ``by``.
        batch_size: images of a step.
        seed: 0 or more.
        by: a field of whole numbers, such as ``part`` of a ``mixture``.
        shares: share by label, by its word where the data set has words for them, else by its number; labels that are
            left out are not drawn. All alike if not given.

    Raises:
        ReconError: the data has no such field, or ``shares`` names a label that no image has, or gives none above 0.
    """

    def __init__(
        self,
        data: PackedImages,
        batch_size: int,
        seed: int,
        *,
        by: str = "group",
        shares: dict[str, float] | None = None,
    ) -> None:
        labels = data.labels(by)
        words = data.fields[by].words
        present = {words[n] if n < len(words) else str(n): n for n in np.unique(labels).tolist()}
        unknown = sorted((shares or {}).keys() - present.keys())
        if unknown:
            raise ReconError(
                f"no image has the {by} '{unknown[0]}'", where="sampler.shares", remedy=f"one of {', '.join(present)}"
            )
        wanted = {name: share for name, share in (shares or dict.fromkeys(present, 1.0)).items() if share > 0}
        if not wanted or not math.isfinite(sum(wanted.values())):
            raise ReconError("no share is above 0", where="sampler.shares", remedy="give at least one")
        total = sum(wanted.values())
        self.shares = np.array([share / total for share in wanted.values()])
        self.members = [np.flatnonzero(labels == present[name]) for name in wanted]
        self.batch_size, self.seed = batch_size, seed
        if len(wanted) > batch_size:
            raise ReconError(
                f"a batch of {batch_size} images cannot hold {len(wanted)} kinds of {by}",
                where="training.batch_size",
                remedy="make it larger, or name fewer under sampler.shares",
            )

    def indices(self, step: int) -> NDArray[np.int64]:
        """The images (batch_size,) of a step, mixed."""
        before, after = (np.floor(self.shares * at * self.batch_size + 1e-9) for at in (step, step + 1))
        counts = (after - before).astype(np.int64)
        # Rounding may leave a step some images short or over: the largest share gives or takes them.
        counts[self.shares.argmax()] += self.batch_size - counts.sum()
        drawn = [
            members[endless(int(start), int(count), len(members), (self.seed, label, 4))]
            for label, (members, start, count) in enumerate(zip(self.members, before, counts, strict=True))
        ]
        mixed = np.random.default_rng([self.seed, step, 5]).permutation(np.concatenate(drawn))
        return np.asarray(mixed, dtype=np.int64)

    def epoch(self, step: int) -> float:
        """How often as many images as there are were drawn."""
        return step * self.batch_size / sum(map(len, self.members))
