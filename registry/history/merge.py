"""Merge, revert and cherry-pick: `reconcile` applied to commits, inside a transaction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pv.registry.combine import Combine
from pv.registry.conflict import Conflict
from pv.registry.errors import ConflictError, UsageError
from pv.registry.git import refs
from pv.registry.git.repository import GitRepository
from pv.registry.history.origin import Reverted, reverted_merge, takes_back, with_origins
from pv.registry.history.snapshot import Snapshot
from pv.registry.history.threeway import Reconciled, Take, reconcile
from pv.registry.history.threeway import revert as reconcile_revert
from pv.registry.history.transaction import Transaction
from pv.registry.persona import Persona
from pv.registry.words import combine_words

__all__ = ["MergeOutcome", "PlannedMerge", "cherry_pick", "merge", "plan_merge", "revert"]


@dataclass(frozen=True, slots=True)
class MergeOutcome:
    """`commit` is where the branch is now, `before` where it was; None if there are conflicts: nothing has changed.

    `reverted` says that a part of what was to be merged is here already, but was taken back.
    """

    commit: str | None
    kind: Literal["up-to-date", "fast-forward", "merge"]
    before: str
    conflicts: tuple[Conflict, ...] = ()
    reverted: Reverted | None = None


@dataclass(frozen=True, slots=True)
class PlannedMerge:
    """What a merge would do, and what of it is known before anything is written. `persona` is what would result."""

    kind: Literal["up-to-date", "fast-forward", "merge"]
    before: Persona
    persona: Persona
    conflicts: tuple[Conflict, ...] = ()
    reverted: Reverted | None = None


def plan_merge(
    history: GitRepository,
    ours: str,
    theirs: str,
    name: str,
    take: Mapping[str, Take],
    combine: Combine | None,
) -> PlannedMerge:
    """What bringing commit `theirs` (called `name`) into `ours` comes to. Writes nothing."""
    ancestor = history.merge_base(ours, theirs)
    our_persona = Snapshot(history, ours).persona()
    if ancestor == theirs:
        _check_nothing_asked(name, take, combine, our_persona.combine)
        reverted = reverted_merge(history, ours, theirs, our_persona)
        return PlannedMerge("up-to-date", our_persona, our_persona, reverted=reverted)
    their_persona = Snapshot(history, theirs).persona()
    before = None if ancestor is None else Snapshot(history, ancestor).persona()
    if combine is None:
        merged = reconcile(before, our_persona, their_persona, take)
    else:  # the same rule on both sides: nothing left to disagree about
        merged = reconcile(
            before, our_persona.with_combine(combine), their_persona.with_combine(combine), take
        )
    if merged.conflicts:
        conflicts = with_origins(history, merged.conflicts, ours, theirs)
        return PlannedMerge("merge", our_persona, merged.persona, conflicts)
    if ancestor == ours and merged.persona.to_bytes() == their_persona.to_bytes():
        return PlannedMerge("fast-forward", our_persona, their_persona)
    if ancestor is None:
        return PlannedMerge("merge", our_persona, merged.persona.checked())
    reverted = reverted_merge(history, ours, ancestor, our_persona, merged.persona)
    return PlannedMerge("merge", our_persona, merged.persona.checked(), reverted=reverted)


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
    planned = plan_merge(history, ours, theirs, name, take, combine)
    if planned.conflicts:
        return MergeOutcome(None, "merge", ours, planned.conflicts)
    if planned.kind == "up-to-date":
        return MergeOutcome(ours, "up-to-date", ours, reverted=planned.reverted)
    if planned.kind == "fast-forward":
        plan.move(plan.head, theirs)
        return MergeOutcome(theirs, "fast-forward", ours)
    our_snapshot, their_snapshot = Snapshot(history, ours), Snapshot(history, theirs)
    commit = plan.commit(
        planned.persona,
        message or f"Merge {name} into {plan.head.removeprefix(refs.HEADS)}",
        [ours, theirs],
        base=our_snapshot.base_entry(),
        sources=[our_snapshot, their_snapshot],
    )
    plan.move(plan.head, commit)
    return MergeOutcome(commit, "merge", ours, reverted=planned.reverted)


def _check_nothing_asked(name: str, take: Mapping[str, Take], combine: Combine | None, now: Combine) -> None:
    """What is merged already cannot be merged in another way: silence would pass for consent. Raises UsageError."""
    if take:
        choices = " ".join(f"--take {one}={choice}" for one, choice in take.items())
        weight = next(((one, c) for one, c in take.items() if isinstance(c, int | float)), None)
        settle = "scale NAME WEIGHT" if weight is None else f"scale {weight[0]} {weight[1]:g}"
        raise UsageError(
            f"{name} is merged already: {choices} has nothing to settle",
            hint=f"`pv {settle}` sets a weight; `pv add NEW={name}:NAME` brings a behaviour as it is there",
        )
    if combine is not None and combine != now:
        raise UsageError(
            f"{name} is merged already: there is nothing to combine anew",
            hint=f"set the rule by itself: pv combine {_typed(combine)}; now it is {combine_words(now)}",
        )


def _typed(combine: Combine) -> str:
    return " ".join(
        [
            combine.method,
            *(f"--set {key}={value}" for key, value in combine.to_json().items() if key != "method"),
        ]
    )


def revert(
    plan: Transaction, target: str, mainline: int | None, take: Mapping[str, Take], message: str | None
) -> str:
    """A commit on the current branch that takes back what `target` did. Raises ConflictError, UsageError."""
    parent = _parent(plan, target, mainline, "revert")
    if parent is None:
        raise UsageError(
            "the first commit cannot be reverted: nothing was there before it",
            hint="`pv drop NAME` takes a behaviour out",
        )
    theirs = Snapshot(plan.history, parent)
    ours = Snapshot(plan.history, plan.tip(plan.head))
    result = reconcile_revert(
        Snapshot(plan.history, target).persona(), theirs.persona(), ours.persona(), take
    )
    subject = plan.history.commit(target).message.partition("\n")[0]
    said = message or f'Revert "{subject}"'
    text = f"{said}\n\n{takes_back(target)}"
    return _settle(plan, result, ours, theirs, text, f"revert of {target[:12]}")


def cherry_pick(
    plan: Transaction, target: str, mainline: int | None, take: Mapping[str, Take], message: str | None
) -> str:
    """What `target` did to its parent, done to the current branch. Raises ConflictError, UsageError."""
    parent = _parent(plan, target, mainline, "cherry-pick")
    before = None if parent is None else Snapshot(plan.history, parent).persona()
    theirs = Snapshot(plan.history, target)
    ours = Snapshot(plan.history, plan.tip(plan.head))
    result = reconcile(before, ours.persona(), theirs.persona(), take)
    original = plan.history.commit(target)
    text = f"{(message or original.message).strip()}\n\nPicked from commit {target}."
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
        conflicts = with_origins(plan.history, result.conflicts, ours.commit, theirs.commit)
        raise ConflictError(
            f"{what}: {', '.join(c.take for c in conflicts)} changed since", conflicts=conflicts
        )
    if result.persona.to_bytes() == ours.persona().to_bytes():
        raise UsageError(
            f"{what}: nothing changes, the persona is like that already",
            hint="`pv show` lists what it holds, `pv log` what was done",
        )
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
            hint=f"say against which: pv {verb} {target[:12]} -m 1; -m 1 is the branch that was merged into",
        )
    if mainline is None:
        return parents[0] if parents else None
    if len(parents) < 2:
        raise UsageError(
            f"{target[:12]} is not a merge: there is no parent {mainline} to choose",
            hint=f"leave -m {mainline} out; a message that is a number is given with --message {mainline}",
        )
    if not 1 <= mainline <= len(parents):
        raise UsageError(f"{target[:12]} has no parent {mainline}", hint=f"-m takes 1 to {len(parents)}")
    return parents[mainline - 1]
