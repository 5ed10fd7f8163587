"""merge, revert, cherry-pick: three-way, behaviour by behaviour; a conflict changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pv.registry.combine import Combine
from pv.registry.conflict import Conflict
from pv.registry.errors import ConflictError
from pv.registry.history.threeway import Take
from pv.vecstore.repo.edit import Committed

if TYPE_CHECKING:
    from pv.vecstore.repo.repo import Repo

__all__ = ["cherry_pick", "merge", "revert"]


def merge(
    repo: Repo,
    revision: str,
    *,
    take: Mapping[str, Take] | None = None,
    rule: Combine | None = None,
    message: str | None = None,
) -> Committed:
    """Bring another branch's changes into the current one. Raises ConflictError, which lists both sides."""
    outcome = repo.registry.merge(revision, take, combine=rule, message=message)
    if outcome.conflicts:
        raise ConflictError(
            f"both sides changed {', '.join(c.name for c in outcome.conflicts)}; nothing was merged",
            conflicts=outcome.conflicts,
            hint=f"settle each: pv merge {revision} {' '.join(map(_choice, outcome.conflicts))}",
        )
    commit = outcome.commit or repo.registry.resolve("HEAD")
    said = "already up to date" if outcome.kind == "up-to-date" else f"{outcome.kind} of {revision}"
    return Committed(commit, said, repo.registry.persona(commit), {"kind": outcome.kind})


def revert(
    repo: Repo,
    revision: str,
    *,
    mainline: int | None = None,
    take: Mapping[str, Take] | None = None,
    message: str | None = None,
) -> Committed:
    """Take back what one commit did, in a new commit. Raises ConflictError, UsageError."""
    target = repo.registry.resolve(revision)
    commit = repo.registry.revert(target, mainline, take=take, message=message)
    return Committed(commit, f"reverts {target[:12]}", repo.registry.persona(commit), {"reverted": target})


def cherry_pick(
    repo: Repo,
    revision: str,
    *,
    mainline: int | None = None,
    take: Mapping[str, Take] | None = None,
    message: str | None = None,
) -> Committed:
    """Do here what one commit did elsewhere. Raises ConflictError, UsageError."""
    target = repo.registry.resolve(revision)
    commit = repo.registry.cherry_pick(target, mainline, take=take, message=message)
    return Committed(commit, f"picks {target[:12]}", repo.registry.persona(commit), {"picked": target})


def _choice(conflict: Conflict) -> str:
    sides = "ours|theirs|WEIGHT" if conflict.kind == "behaviour" else "ours|theirs"
    return f"--take {conflict.name}={sides}"
