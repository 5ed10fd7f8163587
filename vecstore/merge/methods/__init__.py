"""Kernels of the merge methods, one file each (`sparse` is shared by some). To add one: a file, and a row in
registry/merge_methods.

A kernel is a module with

    NAME                                      as in the table of methods
    LINEAR                                    whether it is Σ wᵢ·δᵢ: then weights of one vector are summed first
    check_weight(options, weight, what)       refuses a weight that has no meaning under the rule
    ready(options, voices, tensor) -> Step   looks at a tensor, as often as it must, and says what is added to a piece
    COUNT = (least, most)                     of behaviours, where not any number will do; most may be None
    ROWS = True                           if its step needs pieces of whole rows
    GIVEN_ALL = True                          if a behaviour that leaves a tensor alone counts there: its delta is 0

tensors/arithmetic says which operations it may use, tensors/reduce how a whole tensor is summed up, tensors/scalars how
a number gets a sine. What needs others is computed once into a derived vector, which is then what the persona names.

Laws that all of them keep (tests/vecstore/merge): a weight of 0 is absence; weight -w with delta d is w with -d, or
it is refused; no size is absolute (but nearswap's limit, and what a softmax is taken of); of equal magnitudes the first
is the larger; draws belong to a vector, a tensor and an element.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType

import numpy as np

from pv.registry.combine import Combine
from pv.registry.errors import UsageError
from pv.registry.words import listed
from pv.vecstore.merge.methods import (
    add,
    arcee_fusion,
    breadcrumbs,
    consensus,
    dare,
    della,
    karcher,
    linear,
    model_stock,
    multislerp,
    nearswap,
    nuslerp,
    sce,
    slerp,
    ties,
)
from pv.vecstore.merge.share import Place, Share, Tensor, Weighed
from pv.vecstore.merge.steps import Step, nothing
from pv.vecstore.merge.weights import voices
from pv.vecstore.merge.whole import Whole
from pv.vecstore.tensors import float_environment
from pv.vecstore.tensors.arithmetic import common_size, single
from pv.vecstore.tensors.array import F32

__all__ = ["KERNELS", "by_rows", "check_weights", "combine", "given_all", "is_linear", "ready"]

KERNELS: Mapping[str, ModuleType] = {
    kernel.NAME: kernel
    for kernel in (
        add, ties, linear, slerp, nuslerp, multislerp, karcher, dare, della, breadcrumbs, sce, model_stock,
        consensus, nearswap, arcee_fusion,
    )
}  # fmt: skip


def ready(rule: Combine, deltas: Sequence[Weighed], tensor: Tensor) -> Step:
    """What is added to each piece of a tensor, of whose deltas this is said, in order of their keys.

    The rule looks at the tensor as often as it must. Raises UsageError for a weight that it refuses, or more
    behaviours than it takes, and IntegrityError for a tensor that it can make nothing of.
    """
    float_environment.check()
    kernel = _kernel(rule)
    _, most = _count(kernel)
    if most is not None and len(deltas) > most:
        raise _too_many(rule, len(deltas))
    there = voices(deltas)
    for voice in there:
        kernel.check_weight(rule.options, voice.weight, "a behaviour's weight")
    step: Step = kernel.ready(rule.options, there, tensor) if there else nothing
    return step


def combine(rule: Combine, shares: Sequence[Share], place: Place) -> F32:
    """The delta to add to the base, of deltas that are at hand: (n,) fp32, of shares in order of their keys."""
    out = np.empty(common_size([share.delta for share in shares]), np.float32)
    tensor = Whole(place, [share.delta for share in shares])
    step = ready(rule, shares, tensor)
    for piece in tensor.pieces(rows=by_rows(rule)):
        out[piece.start : piece.start + piece.size] = step(piece)
    return out


def is_linear(rule: Combine) -> bool:
    return bool(_kernel(rule).LINEAR)


def by_rows(rule: Combine) -> bool:
    """Whether it looks at whole rows."""
    return bool(getattr(_kernel(rule), "ROWS", False))


def given_all(rule: Combine) -> bool:
    """Whether a behaviour that has no say in a tensor is an operand there all the same."""
    return bool(getattr(_kernel(rule), "GIVEN_ALL", False))


def check_weights(rule: Combine, weights: Mapping[str, float]) -> None:
    """Refuse, naming the behaviour, a weight that `rule` gives no meaning, and a number of behaviours. UsageError."""
    kernel = _kernel(rule)
    present = []
    for name, weight in weights.items():
        what = f"the weight of {name!r}"
        rounded = float(single(weight, what))
        kernel.check_weight(rule.options, rounded, what)
        if rounded != 0:
            present.append(name)
    least, most = _count(kernel)
    if present and len(present) < least:  # none at all is the base
        raise UsageError(
            f"{rule.method} combines {_numbered(least, most)}, and only {present[0]} has a weight here",
            hint="combine with add: `pv combine add`",
        )
    if most is not None and len(present) > most:
        raise _too_many(rule, len(present), ": " + listed(sorted(present), 5))


def _count(kernel: ModuleType) -> tuple[int, int | None]:
    count: tuple[int, int | None] = getattr(kernel, "COUNT", (0, None))
    return count


def _numbered(least: int, most: int | None) -> str:
    match least, most:
        case 1, 1:
            return "the base with one behaviour"
        case _, None:
            return f"{least} or more behaviours"
    return f"exactly {least} behaviours"


def _too_many(rule: Combine, count: int, which: str = "") -> UsageError:
    wanted = _numbered(*_count(_kernel(rule)))
    if wanted.startswith("the base"):
        hint = "`pv combine nuslerp` is for two behaviours, multislerp for any number; or give all but one the weight 0"
    else:
        hint = "`pv combine multislerp` is for any number; or give all but two the weight 0"
    return UsageError(f"{rule.method} combines {wanted}; {count} have a weight here{which}", hint=hint)


def _kernel(rule: Combine) -> ModuleType:
    if rule.method not in KERNELS:
        raise UsageError(
            f"the engine has no combine method {rule.method!r}", hint=f"there are: {', '.join(KERNELS)}"
        )
    return KERNELS[rule.method]
