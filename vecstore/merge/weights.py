"""Weights as the merge methods take them: those that have no meaning are refused by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal

import numpy as np

from pv.registry.errors import UsageError
from pv.vecstore.merge.share import Share
from pv.vecstore.tensors.arithmetic import common_size, single

__all__ = ["exactly", "no_negative", "present"]


def no_negative(weight: float, what: str, why: str) -> None:
    """Raises UsageError for a weight below 0: `why` the method has no use for it."""
    if weight < 0:
        raise UsageError(
            f"{what} is {weight:g}: {why}",
            hint="use weights above 0, or combine with add: `pv combine add`",
        )


def present(shares: Sequence[Share]) -> list[Share]:
    """Those with a weight, rounded to fp32 once; one that is then 0 is absent. Raises UsageError beyond fp32."""
    common_size([share.delta for share in shares])
    rounded = [replace(share, weight=float(single(share.weight, "a weight"))) for share in shares]
    return [share for share in rounded if share.weight != 0]


def exactly(share: Share) -> Decimal:
    return Decimal(float(np.float32(share.weight)))
