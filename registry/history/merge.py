"""Merge, revert and cherry-pick: `reconcile` applied to commits, inside a transaction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pv.registry.combine import Combine
from pv.registry.conflict import Conflict
from pv.registry.errors import ConflictError, UsageError
from pv.registry.git import refs
from pv.registry.history.snapshot import Snapshot
from pv.registry.history.threeway import Reconciled, Take, reconcile
from pv.registry.history.threeway import revert as reconcile_revert
from pv.registry.history.transaction import Transaction

__all__ = ["MergeOutcome", "cherry_pick", "merge", "revert"]


@dataclass(frozen=True, slots=True)
class MergeOutcome:
    """`commit` is where the branch is now; None if there are conflicts, and then nothing has changed."""

    commit: str | None
    kind: Literal["up-to-date", "fast-forward", "merge"]
    conflicts: tuple[Conflict, ...] = ()


def merge(
    plan: Transaction,
    theirs: str,
    name: str,
    take: Mapping[str, Take],
    combine: Combine | None,
    message: str | None,
) -> MergeOutcome:
    """Bring commit `theirs` (called `name` in the message) into the current branch."""
    history, ours = plan.history, plan.tip(plan.head)
    ancestor = history.merge_base(ours, theirs)
    if ancestor == theirs:
        if combine not in (None, Snapshot(history, ours).persona().combine):
            raise UsageError(
                f"{name} is merged already: there is nothing to combine anew",
                hint=f"`pv combine {combine.method}` sets the method by itself" if combine else None,
            )
        return MergeOutcome(ours, "up-to-date")
    our_snapshot, their_snapshot = Snapshot(history, ours), Snapshot(history, theirs)
    our_persona, their_persona = our_snapshot.persona(), their_snapshot.persona()
    before = None if ancestor is None else Snapshot(history, ancestor).persona()
    if combine is None:
        merged = reconcile(before, our_persona, their_persona, take)
    else:  # the same rule on both sides: nothing left to disagree about
        merged = reconcile(
            before, our_persona.with_combine(combine), their_persona.with_combine(combine), take
        )
    if merged.conflicts:
        return MergeOutcome(None, "merge", merged.conflicts)
    if ancestor == ours and merged.persona.to_bytes() == their_persona.to_bytes():
        plan.move(plan.head, theirs)
        return MergeOutcome(theirs, "fast-forward")
    commit = plan.commit(
        merged.persona,
        message or f"Merge {name} into {plan.head.removeprefix(refs.HEADS)}",
        [ours, theirs],
        base=our_snapshot.base_entry(),
        sources=[our_snapshot, their_snapshot],
    )
    plan.move(plan.head, commit)
    return MergeOutcome(commit, "merge")


def revert(
    plan: Transaction, target: str, mainline: int | None, take: Mapping[str, Take], message: str | None
) -> str:
    """A commit on the current branch that takes back what `target` did. Raises ConflictError, UsageError."""
    parent = _parent(plan, target, mainline, "revert")
    if parent is None:
        raise UsageError("the first commit cannot be reverted: nothing was there before it")
    theirs = Snapshot(plan.history, parent)
    ours = Snapshot(plan.history, plan.tip(plan.head))
    result = reconcile_revert(
        Snapshot(plan.history, target).persona(), theirs.persona(), ours.persona(), take
    )
    subject = plan.history.commit(target).message.partition("\n")[0]
    text = message or f'Revert "{subject}"\n\nThis takes back commit {target}.'
    return _settle(plan, result, ours, theirs, text, f"revert of {target[:12]}")


def cherry_pick(
    plan: Transaction, target: str, mainline: int | None, take: Mapping[str, Take], message: str | None
) -> str:
    """What `target` did to its parent, done to the current branch. Raises ConflictError, UsageError."""
    parent = _parent(plan, target, mainline, "pick")
    before = None if parent is None else Snapshot(plan.history, parent).persona()
    theirs = Snapshot(plan.history, target)
    ours = Snapshot(plan.history, plan.tip(plan.head))
    result = reconcile(before, ours.persona(), theirs.persona(), take)
    original = plan.history.commit(target)
    text = message or f"{original.message}\n\nPicked from commit {target}."
    return _settle(plan, result, ours, theirs, text, f"pick of {target[:12]}", pick_of=target)


def _settle(
    plan: Transaction,
    result: Reconciled,
    ours: Snapshot,
    theirs: Snapshot,
    message: str,
    what: str,
    *,
    pick_of: str | None = None,
) -> str:
    if result.conflicts:
        names = ", ".join(c.name for c in result.conflicts)
        raise ConflictError(
            f"{what}: {names} changed since",
            conflicts=result.conflicts,
            hint=f"choose with --take {result.conflicts[0].name}=ours|theirs|WEIGHT",
        )
    if result.persona.to_bytes() == ours.persona().to_bytes():
        raise UsageError(f"{what}: nothing changes, the persona is like that already")
    commit = plan.commit(
        result.persona,
        message,
        [ours.commit],
        base=ours.base_entry(),
        sources=[ours, theirs],
        author=None if pick_of is None else plan.history.commit(pick_of).author,
    )
    plan.move(plan.head, commit)
    return commit


def _parent(plan: Transaction, target: str, mainline: int | None, verb: str) -> str | None:
    parents = plan.history.commit(target).parents
    if len(parents) > 1 and mainline is None:
        raise UsageError(
            f"{target[:12]} is a merge: it has {len(parents)} parents",
            hint=f"say which one to {verb} it against: -m 1 is the branch that was merged into",
        )
    if mainline is not None and not 1 <= mainline <= max(1, len(parents)):
        raise UsageError(f"{target[:12]} has no parent {mainline}", hint=f"-m takes 1 to {len(parents)}")
    return parents[(mainline or 1) - 1] if parents else None
