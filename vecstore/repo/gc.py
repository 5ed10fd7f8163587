"""gc: take out what nothing needs any more."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pv.registry.check import gc as garbage
from pv.registry.check.gc import EXPIRE_S, GRACE_S, Plan
from pv.vecstore.progress import Report, stage

if TYPE_CHECKING:
    from pv.vecstore.repo.repo import Repo

__all__ = ["EXPIRE_S", "GRACE_S", "Collected", "collect"]


@dataclass(frozen=True, slots=True)
class Collected:
    """What went, or (`dry_run`) what would go."""

    plan: Plan
    dry_run: bool

    def to_json(self) -> dict[str, Any]:
        document = dataclasses.asdict(self.plan)
        return {
            "dry_run": self.dry_run,
            "freed_bytes": self.plan.freed,
            "git_objects": document.pop("commits") + document.pop("objects"),
            **document,
        }


def collect(
    repo: Repo,
    *,
    grace_s: float = GRACE_S,
    expire_s: float = EXPIRE_S,
    dry_run: bool = False,
    progress: Report | None = None,
) -> Collected:
    """Take out, or plan to. Raises IntegrityError if the history is damaged: then nothing has been done."""
    act = garbage.plan if dry_run else garbage.collect
    update = stage(progress, "reading the history", "commits")
    return Collected(act(repo.registry, grace_s=grace_s, expire_s=expire_s, progress=update), dry_run)
