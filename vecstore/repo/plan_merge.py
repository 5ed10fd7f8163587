"""plan_merge: what a merge would make, and what its behaviours do to each other, before anything is built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pv.registry.changes import Change, changes
from pv.registry.combine import Combine
from pv.registry.errors import ConflictError
from pv.registry.history import merge
from pv.registry.history.threeway import Take
from pv.registry.persona import Persona
from pv.vecstore.merge.advice import Advice, recommend
from pv.vecstore.merge.report import Interference, interference
from pv.vecstore.progress import Report, stage
from pv.vecstore.repo.merge import choices, merge_notes
from pv.vecstore.repo.opening import opened
from pv.vecstore.repo.twice import counted_twice

if TYPE_CHECKING:
    from pv.vecstore.repo.repo import Repo

__all__ = ["MergePlan", "plan_merge"]


@dataclass(frozen=True, slots=True)
class MergePlan:
    """`persona` is what would result, `interference` what was measured of it. Nothing was changed."""

    kind: str
    said: str
    before: Persona
    persona: Persona
    interference: Interference
    notes: tuple[str, ...] = ()

    @property
    def changes(self) -> tuple[Change, ...]:
        return changes(self.before, self.persona)

    @property
    def advice(self) -> tuple[Advice, ...]:
        return recommend(self.interference)

    def to_json(self) -> dict[str, Any]:
        return {
            "dry_run": True,
            "kind": self.kind,
            "changes": [change.to_json() for change in self.changes],
            "notes": list(self.notes),
            "persona_id": self.persona.id,
            "persona": self.persona.to_json(),
            "interference": self.interference.to_json(),
            "advice": [one.to_json() for one in self.advice],
        }


def plan_merge(
    repo: Repo,
    revision: str,
    *,
    take: Mapping[str, Take] | None = None,
    rule: Combine | None = None,
    threads: int = 1,
    progress: Report | None = None,
) -> MergePlan:
    """Merge in thought. Raises ConflictError as `merge` does, MissingBase, CorruptPack."""
    registry = repo.registry
    ours, theirs = registry.resolve(None), registry.resolve(revision)
    planned = merge.plan_merge(registry.history, ours, theirs, revision, take or {}, rule)
    if planned.conflicts:
        raise ConflictError(
            f"both sides changed {', '.join(c.name for c in planned.conflicts)}; nothing would be merged",
            conflicts=planned.conflicts,
            hint=choices(planned.conflicts, take or {}),
        )
    with opened(registry, theirs if planned.kind == "fast-forward" else ours, [planned.persona]) as at:
        update = stage(progress, "measuring interference", "tensors")
        found = interference(planned.persona, at.base, at.vectors, threads=threads, progress=update)
    said = "already up to date" if planned.kind == "up-to-date" else f"{planned.kind} of {revision}"
    return MergePlan(
        planned.kind,
        said,
        planned.before,
        planned.persona,
        found,
        (*merge_notes(planned, revision), *counted_twice(planned.before, planned.persona)),
    )
