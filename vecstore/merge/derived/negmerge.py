"""`negmerge`: what fine-tunes of one task agree on (Kim et al., "NegMerge: Sign-Consensual Weight Merging for Machine
Unlearning", ICML 2025).

Elements whose sign is the same in all are averaged, the others are 0. Made for several runs over the same data (other
seeds, other settings), to be subtracted afterwards: what differs between them is not the task.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pv.vecstore.merge.derived.spectra import F64, mean

__all__ = ["LEAST", "NAME", "ROTATES", "SOURCE", "SUMMARY", "matrix", "other"]

NAME = "negmerge"
SUMMARY = "the elements whose sign is the same in all, averaged"
SOURCE = "arXiv:2410.05583"
LEAST = 2
ROTATES = False


def matrix(deltas: Sequence[NDArray[np.floating]], room: int | None = None) -> F64:
    agree = np.logical_or(
        np.all([delta > 0 for delta in deltas], axis=0), np.all([delta < 0 for delta in deltas], axis=0)
    )
    return np.where(agree, mean(deltas), 0.0)


other = matrix
