"""Kernels of the merge methods, one file each. To add a method: a file here, and a row in registry/combine.

A kernel is a module with

    NAME                                      as in the table of methods
    LINEAR                                    whether it is Σ wᵢ·δᵢ: then weights of one vector are summed first
    check_weight(options, weight, what)       refuses a weight that has no meaning under the rule
    combine(options, shares, place) -> (n,) fp32   what each behaviour adds to one tensor, to the delta for the base

tensors/arithmetic says which operations it may use. What needs others is computed once into a
derived vector, which is then what the persona names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType

from pv.registry.combine import Combine
from pv.registry.errors import UsageError
from pv.vecstore.merge.methods import add, ties
from pv.vecstore.merge.share import Place, Share
from pv.vecstore.tensors.arithmetic import single
from pv.vecstore.tensors.array import F32

__all__ = ["KERNELS", "check_weights", "combine", "is_linear"]

KERNELS: Mapping[str, ModuleType] = {kernel.NAME: kernel for kernel in (add, ties)}


def combine(rule: Combine, shares: Sequence[Share], place: Place) -> F32:
    """The delta to add to the base: (n,) fp32, of shares in order of their vectors' ids.

    Raises UsageError for a weight that the rule refuses.
    """
    delta: F32 = _kernel(rule).combine(rule.options, shares, place)
    return delta


def is_linear(rule: Combine) -> bool:
    return bool(_kernel(rule).LINEAR)


def check_weights(rule: Combine, weights: Mapping[str, float]) -> None:
    """Refuse, naming the behaviour, a weight that `rule` gives no meaning. Raises UsageError."""
    for name, weight in weights.items():
        what = f"the weight of {name!r}"
        _kernel(rule).check_weight(rule.options, float(single(weight, what)), what)


def _kernel(rule: Combine) -> ModuleType:
    if rule.method not in KERNELS:
        raise UsageError(
            f"the engine has no combine method {rule.method!r}", hint=f"there are: {', '.join(KERNELS)}"
        )
    return KERNELS[rule.method]
