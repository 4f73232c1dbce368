"""Heads after human anatomy: a linear basis fitted to MakeHuman's head, as displacements of the template's vertices.

The first mode takes the procedural mean to the mean of MakeHuman's heads, the others are its principal components over
heads of all proportions, ages and origins, in standard deviations. ``heads.npz`` was made from the base mesh and
targets of MakeHuman, which are in the public domain (CC0), by ``benchmarks/makehuman_heads.py``. Charts stay those of
the template, so colour, hair and expressions fit these heads as they are.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

#: The mean, then principal components.
COUNT = 49
#: Standard deviations that components reach.
LIMIT = 2.2


@cache
def anatomy() -> NDArray[np.float32]:
    """Displacements (COUNT, V, 3) in millimetres, in the head frame of ``surface.py``."""
    with np.load(Path(__file__).with_name("heads.npz"), allow_pickle=False) as stored:
        return np.asarray(stored["modes"], dtype=np.float32)
