"""Merge methods on plain arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pv.registry.combine import Combine
from pv.vecstore.merge import methods
from pv.vecstore.merge.share import Place, Share
from pv.vecstore.tensors.array import F32

__all__ = ["combine"]


def combine(
    rule: Combine, pairs: Sequence[tuple[float, F32]], *, base: F32 | None = None, shape: tuple[int, ...] = ()
) -> F32:
    """(weight, delta) of one tensor, named "t", to the delta for the base, which is 0 unless given."""
    size = pairs[0][1].size if pairs else 0
    shares = [Share(weight, delta, f"vector {at}") for at, (weight, delta) in enumerate(pairs)]
    values = np.zeros(size, np.float32) if base is None else base
    return methods.combine(rule, shares, Place("t", shape or (size,), lambda: values))
