"""Connected components."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def pieces(one: NDArray[np.int64], other: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """The number of the piece that each of ``size`` things belongs to, from 0, where ``one`` and ``other`` are joined.

    Args:
        one, other: (L,) each, the two ends of every link.
        size: how many things there are.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    links = coo_array((np.ones(len(one), dtype=bool), (one, other)), shape=(size, size))
    return np.asarray(connected_components(links, directed=False)[1])
