"""Branches and tags: made, renamed, deleted, and gone to, each in one transaction."""

from __future__ import annotations

import contextlib

from pv.registry.errors import NotFoundError, UnknownRevision, UsageError
from pv.registry.git import refs
from pv.registry.history import revisions
from pv.registry.history.transaction import Transaction

__all__ = ["create", "delete", "rename_branch", "switch"]


def create(plan: Transaction, folder: str, name: str, commit: str, *, switch: bool = False) -> None:
    """A new name for a commit, and HEAD on to it if `switch`. Raises UsageError if it is taken."""
    _check_free(plan, name)
    plan.move(folder + name, commit)
    if switch:
        plan.head = folder + name


def _check_free(plan: Transaction, name: str) -> None:
    for folder, kind in ((refs.HEADS, "branch"), (refs.TAGS, "tag")):
        if at := plan.refs.get(folder + name):
            ways = {"branch": f"pv switch {name}` goes there", "tag": f"pv tag -d {name}` frees the name"}
            said = f"there is a {kind} {name!r} already, at {at[:12]}"
            raise UsageError(said, hint=f"`{ways[kind]}, or take another name")


def rename_branch(plan: Transaction, old: str, new: str) -> str:
    """HEAD follows if it is the current one. Returns the commit. Raises NotFoundError, UsageError."""
    _check_free(plan, new)
    ref, current = plan.branch_ref(old), plan.head
    commit = plan.tip(ref)
    plan.move(ref, None)
    plan.move(refs.HEADS + new, commit)
    plan.head = refs.HEADS + new if ref == current else current
    return commit


def delete(plan: Transaction, folder: str, what: str, name: str) -> str:
    """Returns where it was. Raises NotFoundError, UsageError for the current branch."""
    ref = folder + name
    if ref not in plan.refs:
        raise NotFoundError(f"no {what} {name!r}", hint=f"`pv {what}` lists them")
    if ref == plan.head:
        raise UsageError(f"{name!r} is the current branch", hint="`pv switch` to another one first")
    plan.move(ref, None)
    return plan.refs[ref]


def switch(plan: Transaction, name: str) -> None:
    """Make a branch the current one. Raises NotFoundError, UsageError for a tag or a commit."""
    if refs.HEADS + name not in plan.refs:
        with contextlib.suppress(UnknownRevision):
            commit = revisions.resolve(plan.history, name)
            raise UsageError(
                f"{name!r} is not a branch",
                hint=f"make one there: pv branch NAME {commit[:12]}, then pv switch NAME",
            )
        branches = [ref.removeprefix(refs.HEADS) for ref in plan.refs if ref.startswith(refs.HEADS)]
        close = revisions.did_you_mean(name, branches)
        raise NotFoundError(f"no branch {name!r}", hint=close or "`pv branch` lists the branches")
    refs.check_ref_name(name)
    plan.head = refs.HEADS + name
