"""Methods that make one vector of several, once: what cannot be part of a build.

A build may use only operations that give the same bits on every machine, and a singular value decomposition does
not. So these are computed when a person asks for it, and the result is kept: a vector like any other.

A method is a module with

    NAME
    SUMMARY                          a clause for people
    SOURCE                           the paper
    LEAST                            how many operands it takes at least
    ROTATES                          whether it is the same in any orthonormal basis: f(P D Q^T) = P f(D) Q^T
    matrix(deltas, room, **options) -> (rows, columns) fp64      of one matrix, fp32 or fp64 (rows, columns) each
    other(deltas) -> (n,) fp64       of a tensor that is no matrix, flat
    OPTIONS                          its numbers, if it has any: `svc(a, b, alpha=0.5)`

`room` is the smaller side of the tensor, where the matrices are cores of it: see `core`.

`deltas` are those of all operands, with their weights in them: zeros where one has no say in the tensor. Two things
that the papers leave open are settled so that nothing arbitrary comes in. A matrix of zeros counts as absent. And
directions whose singular value is below `spectra.NOISE` of the largest are not there: of a low-rank delta, a
decomposition gives arbitrary ones, and a method that raises them to the mean would fill the weights with noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType

from pv.registry.errors import UsageError
from pv.registry.merge_methods import Option
from pv.vecstore.merge.derived import iso_c, iso_cts, negmerge, plain_sum, svc, tsv

__all__ = ["METHODS", "by_name", "options"]

METHODS: Mapping[str, ModuleType] = {
    module.NAME: module for module in (tsv, iso_c, iso_cts, svc, plain_sum, negmerge)
}


def by_name(name: str) -> ModuleType:
    """Raises UsageError."""
    if name not in METHODS:
        known = "; ".join(f"{module.NAME}, {module.SUMMARY}" for module in METHODS.values())
        raise UsageError(
            f"no method {name[:40]!r} that makes a vector of several", hint=f"there are: {known}"
        )
    return METHODS[name]


def options(method: ModuleType, given: Mapping[str, float]) -> dict[str, float]:
    """Every number of a method, those that are not given as they are by default. Raises UsageError."""
    known: dict[str, Option] = {one.name: one for one in getattr(method, "OPTIONS", ())}
    for name in given:
        if name not in known:
            has = f"it has: {', '.join(known)}" if known else f"{method.NAME} has none"
            raise UsageError(f"{method.NAME} takes no {name[:40]!r}", hint=has)
    return {name: float(one.check(method.NAME, given.get(name, one.default))) for name, one in known.items()}
