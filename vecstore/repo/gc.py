"""gc: take out what nothing needs any more."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pv.registry.check import gc as garbage
from pv.registry.check.gc import EXPIRE_S, GRACE_S, Plan
from pv.registry.errors import UsageError
from pv.vecstore.progress import Report, stage

if TYPE_CHECKING:
    from pv.vecstore.repo.repo import Repo

__all__ = ["EXPIRE_S", "GRACE_S", "Collected", "collect"]

DAY_S = 86400.0
LONGEST_DAYS = 100_000


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
    grace_days: float = GRACE_S / DAY_S,
    expire_days: float = EXPIRE_S / DAY_S,
    dry_run: bool = False,
    progress: Report | None = None,
) -> Collected:
    """Take out, or plan to.

    Raises UsageError for days out of bounds, IntegrityError if the history is damaged: then nothing is done.
    """
    grace, expire = _seconds(grace_days), _seconds(expire_days)
    act = garbage.plan if dry_run else garbage.collect
    update = stage(progress, "reading the history", "commits")
    return Collected(act(repo.registry, grace_s=grace, expire_s=expire, progress=update), dry_run)


def _seconds(days: float) -> float:
    if not 0 <= days <= LONGEST_DAYS:
        raise UsageError(
            f"a number of days from 0 to {LONGEST_DAYS}, not {days}", hint="leave it out for the default"
        )
    return days * DAY_S
