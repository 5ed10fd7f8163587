"""diff: what differs between two revisions, in their recipes and in their weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import astuple, dataclass, replace
from typing import TYPE_CHECKING, Any

from pv.registry.changes import Change, changes
from pv.registry.errors import FormatError, StorageError
from pv.registry.ids import comparison_id
from pv.registry.persona import Behaviour, Persona
from pv.vecstore.merge.diff import Movement, WeightDiff
from pv.vecstore.merge.interference import Pair
from pv.vecstore.progress import Report, stage

if TYPE_CHECKING:
    from pv.vecstore.merge.heads import Head
    from pv.vecstore.merge.spectrum import Spectrum
    from pv.vecstore.publish.words import Effect
    from pv.vecstore.repo.revision import Revision

__all__ = ["Diff", "diff"]

GONE = "@a"  # no name of a behaviour ends so
_MOVEMENT, _PAIR = "tccppp", "ttnncpp"  # their fields, as `_is` has them


@dataclass(frozen=True, slots=True)
class Diff:
    """Two revisions. Falsy if their personas are the same.

    `weights` is None where they were not asked for and never measured, or cannot be compared: the bases differ, or
    there are none to compare. `pairs` has every two behaviours of both; `heads` and `spectra` are there if asked for.
    """

    a: str
    b: str
    old: Persona
    new: Persona
    weights: WeightDiff | None = None
    pairs: tuple[Pair, ...] = ()
    heads: tuple[Head, ...] = ()
    spectra: tuple[Spectrum, ...] = ()
    effects: tuple[tuple[Effect, ...], tuple[Effect, ...]] = ((), ())
    """What was measured of the build of each, before."""

    def __bool__(self) -> bool:
        return self.old != self.new

    @property
    def behaviours(self) -> dict[str, tuple[Behaviour | None, Behaviour | None]]:
        """Those that differ, by name: (before, after), None where there is none."""
        names = sorted(self.old.behaviours.keys() | self.new.behaviours.keys())
        both = {name: (self.old.behaviours.get(name), self.new.behaviours.get(name)) for name in names}
        return {name: (before, after) for name, (before, after) in both.items() if before != after}

    @property
    def changes(self) -> tuple[Change, ...]:
        """What differs in the recipes: behaviours, then how they are combined and written."""
        return changes(self.old, self.new)

    def to_json(self, *, top: int | None = None) -> dict[str, Any]:
        """With `top`, the tensors that moved furthest."""
        document: dict[str, Any] = {
            "a": self.a,
            "b": self.b,
            "same": not self,
            "recipe": {"a": self.old.to_json(), "b": self.new.to_json()},
            "changes": [change.to_json() for change in self.changes],
            "measured": {
                side: [effect.to_json() for effect in effects]
                for side, effects in zip("ab", self.effects, strict=True)
            },
        }
        if self.weights is not None:
            document |= {
                "total": self.weights.total.to_json(),
                "layers": [change.to_json() for change in self.weights.by_layer()],
                "modules": [change.to_json() for change in self.weights.by_module()],
                "classes": [change.to_json() for change in self.weights.by_class()],
                "interference": [pair.to_json() for pair in self.pairs],
            }
            if self.heads:
                document["heads"] = [one.to_json() for one in self.heads]
            if self.spectra:
                document["spectra"] = [one.to_json() for one in self.spectra]
            if top is not None:
                document["tensors"] = [change.to_json() for change in self.weights.largest(top)]
        return document

    def _repr_html_(self) -> str:
        from pv.vecstore.repo.html import diff_html

        return diff_html(self)


def diff(
    a: Revision,
    b: Revision,
    *,
    weights: bool = False,
    heads: bool = False,
    spectra: bool = False,
    threads: int = 1,
    progress: Report | None = None,
) -> Diff:
    """Compare two revisions of one registry: their recipes, and the weights if asked, or measured before.

    `heads` and `spectra` ask for the weights, and read once more what they need. Raises MissingBase, CorruptPack where
    weights are read; UsageError where how many heads there are is not known.
    """
    found = _compared(a, b, weights=weights or heads or spectra, threads=threads, progress=progress)
    with suppress(FormatError):  # a record that rotted: recipes can be compared without
        found = replace(found, effects=(a.effects, b.effects))
    if found.weights and (heads or spectra):
        return _with_details(found, a, b, heads=heads, spectra=spectra, threads=threads, progress=progress)
    return found


def _compared(a: Revision, b: Revision, *, weights: bool, threads: int, progress: Report | None) -> Diff:
    old, new = a.persona, b.persona
    if old.base != new.base or not (old.behaviours or new.behaviours):
        return Diff(a.commit, b.commit, old, new)
    key = comparison_id(old.id, new.id)
    gone = {name + GONE for name in old.behaviours}
    found = _noted(b.registry.record(key), gone | new.behaviours.keys())
    if found is None and weights:
        found = _measure(a, b, threads, progress)
        with suppress(
            StorageError, FormatError
        ):  # a registry that cannot be written to; numbers that are not finite
            b.registry.update_record(key, {"comparison": _note(*found)})
    if found is None:
        return Diff(a.commit, b.commit, old, new)
    moved, pairs = found
    shown = tuple(replace(pair, a=_shown(pair.a, a.name), b=_shown(pair.b, a.name)) for pair in pairs)
    return Diff(a.commit, b.commit, old, new, moved, shown)


def _with_details(
    found: Diff,
    a: Revision,
    b: Revision,
    *,
    heads: bool,
    spectra: bool,
    threads: int,
    progress: Report | None,
) -> Diff:
    from pv.vecstore.merge.heads import HeadCount
    from pv.vecstore.merge.step import step_details
    from pv.vecstore.repo.opening import opened

    config = b.registry.base_files(b.commit).get("config.json")
    count = HeadCount.of(config, f"the base of {b.name}") if heads else None
    with opened(b.registry, b.commit, [a.persona, b.persona]) as at:
        moved, spread = step_details(
            a.persona, b.persona, at.base, at.vectors, heads=count, spectra=spectra, threads=threads,
            progress=stage(progress, "looking at heads and spectra", "tensors"),
        )  # fmt: skip
    return replace(found, heads=moved, spectra=spread)


def _measure(
    a: Revision, b: Revision, threads: int, progress: Report | None
) -> tuple[WeightDiff, tuple[Pair, ...]]:
    """Behaviours that `b` does not have as `a` has them are named with `GONE` behind."""
    from pv.vecstore.merge.compare import compare
    from pv.vecstore.repo.opening import opened

    old, new = a.persona, b.persona
    gone = {
        n + GONE: behaviour for n, behaviour in old.behaviours.items() if new.behaviours.get(n) != behaviour
    }
    with opened(b.registry, b.commit, [old, new]) as at:
        update = stage(progress, "comparing weights", "tensors")
        found = compare(
            old, new, {**gone, **new.behaviours}, at.base, at.vectors, threads=threads, progress=update
        )
    return found.moved, found.pairs


def _shown(name: str, revision: str) -> str:
    return f"{name.removesuffix(GONE)} ({revision})" if name.endswith(GONE) else name


def _note(moved: WeightDiff, pairs: Sequence[Pair]) -> dict[str, Any]:
    return {
        "tensors": [list(astuple(change)) for change in moved.tensors],
        "pairs": [list(astuple(pair)) for pair in pairs],
    }


def _noted(record: Mapping[str, Any], names: Set[str]) -> tuple[WeightDiff, tuple[Pair, ...]] | None:
    """What was measured before; None if that is not in the form of `_note`: a record may be anybody's."""
    match record.get("comparison"):
        case {"tensors": [*tensors], "pairs": [*pairs]}:
            if all(_is(one, _MOVEMENT) for one in tensors) and all(
                _is(one, _PAIR) and {one[0], one[1]} <= names for one in pairs
            ):
                return WeightDiff(tuple(Movement(*one) for one in tensors)), tuple(
                    Pair(*one) for one in pairs
                )
    return None


def _is(noted: object, kinds: str) -> bool:
    """Whether a list has a text (t), a count (c), a number (n), or one that is not negative (p) in each place."""
    return isinstance(noted, list) and len(noted) == len(kinds) and all(map(_is_a, noted, kinds))


def _is_a(value: object, kind: str) -> bool:
    if kind == "t":
        return isinstance(value, str)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return False
    return kind == "n" or (value >= 0 and (kind == "p" or value == int(value)))
