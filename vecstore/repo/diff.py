"""diff: what differs between two revisions, in their recipes and in their weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pv.registry.changes import Change, changes
from pv.registry.persona import Behaviour, Persona
from pv.vecstore.progress import Report, stage

if TYPE_CHECKING:
    from pv.vecstore.merge.diff import WeightDiff
    from pv.vecstore.merge.interference import Pair
    from pv.vecstore.repo.revision import Revision

__all__ = ["Diff", "diff"]


@dataclass(frozen=True, slots=True)
class Diff:
    """Two revisions. Falsy if their personas are the same.

    `weights` is None where they were not asked for, or cannot be compared: the bases differ, or there are none to
    compare. `pairs` has every two behaviours of both.
    """

    a: str
    b: str
    old: Persona
    new: Persona
    weights: WeightDiff | None = None
    pairs: tuple[Pair, ...] = ()

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

    def to_json(self) -> dict[str, Any]:
        document: dict[str, Any] = {
            "a": self.a,
            "b": self.b,
            "same": not self,
            "recipe": {"a": self.old.to_json(), "b": self.new.to_json()},
            "changes": [change.to_json() for change in self.changes],
        }
        if self.weights is not None:
            document |= {
                "total": self.weights.total.to_json(),
                "layers": [change.to_json() for change in self.weights.by_layer()],
                "modules": [change.to_json() for change in self.weights.by_module()],
                "interference": [pair.to_json() for pair in self.pairs],
            }
        return document

    def _repr_html_(self) -> str:
        from pv.vecstore.repo.html import diff_html

        return diff_html(self)


def diff(a: Revision, b: Revision, *, weights: bool = True, progress: Report | None = None) -> Diff:
    """Compare two revisions of one registry. Raises MissingBase, CorruptPack where weights are read."""
    old, new = a.persona, b.persona
    if not weights or old.base != new.base or not (old.behaviours or new.behaviours):
        return Diff(a.commit, b.commit, old, new)
    from pv.vecstore.merge.diff import weight_diff
    from pv.vecstore.merge.interference import interference
    from pv.vecstore.repo.opening import opened

    gone = {n: behaviour for n, behaviour in old.behaviours.items() if new.behaviours.get(n) != behaviour}
    together = {**{f"{name} ({a.name})": b for name, b in gone.items()}, **new.behaviours}
    with opened(b.registry, b.commit, [old, new]) as at:
        update = stage(progress, "comparing weights", "tensors")
        moved = weight_diff(old, new, at.base, at.vectors, progress=update)
        update = stage(progress, "comparing behaviours", "tensors")
        pairs = interference(together, at.vectors, base_id=new.base, progress=update)
    return Diff(a.commit, b.commit, old, new, moved, pairs)
