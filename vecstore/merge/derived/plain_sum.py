"""`sum`: the plain sum, as one vector. Of adapters, one adapter of the least rank that holds it: in core space
(arXiv:2509.17786) it is exact, and directions that several have count once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pv.vecstore.merge.derived.spectra import F64, total

__all__ = ["LEAST", "NAME", "ROTATES", "SOURCE", "SUMMARY", "matrix", "other"]

NAME = "sum"
SUMMARY = "their sum, as one vector; of adapters, of the least rank"
SOURCE = "arXiv:2509.17786"
LEAST = 1
ROTATES = True
other = total


def matrix(deltas: Sequence[NDArray[np.floating]], room: int | None = None) -> F64:
    return total(deltas)
