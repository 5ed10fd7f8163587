"""Revisions: from what a person types to one commit id.

    NAME      a branch, a tag or a remote branch (`main`, `v1`, `origin/main`), or refs/... in full
    HEAD, @   the commit that the current branch is at
    1a2b3c    the only commit whose id starts so (at least 4 hex digits)
    REV~N     N first parents back          REV^   the parent          REV^N   the N-th parent of a merge

These chain: `main~2^2~1`. Where several commits are meant, `A..B` are those that lead to B and not to A; either
end may be left out, for HEAD. No text of the user's reaches git: names are looked up in a table, prefixes are
checked to be hex digits.
"""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Iterable, Mapping

from pv.registry.errors import IntegrityError, UnknownRevision
from pv.registry.git import refs
from pv.registry.git.repository import GitRepository
from pv.registry.history.operations import view
from pv.registry.history.snapshot import Snapshot

__all__ = ["did_you_mean", "lasting", "resolve", "resolve_range"]

_REVISION = re.compile(r"(?P<start>[^~^]*)(?P<steps>([~^][0-9]*)*)")
_STEP = re.compile(r"([~^])([0-9]*)")
_PREFIX = re.compile(r"[0-9a-fA-F]{4,40}")
_FOLDERS = ("", refs.HEADS, refs.TAGS, refs.REMOTES)


def resolve(history: GitRepository, text: str) -> str:
    """The 40-hex id of the commit that `text` means. Raises UnknownRevision, with close names as a hint."""
    match = _REVISION.fullmatch(text)
    if match is None or not match["start"]:
        hint = "use a branch, a tag, a commit id, HEAD~1, NAME^2"
        raise _behaviour(history, text) or UnknownRevision(f"{text[:80]!r} is not a revision", hint=hint)
    commit_id = _start(history, match["start"])
    for kind, digits in _STEP.findall(match["steps"]):
        if len(digits) > 9:
            raise UnknownRevision(f"{text[:80]!r} goes back too far")
        count = int(digits) if digits else 1
        commit_id = (
            _back(history, commit_id, count, text)
            if kind == "~"
            else _parent(history, commit_id, count, text)
        )
    return commit_id


def lasting(text: str, commit: str) -> str:
    """A revision as it can be written down: what is counted from HEAD, which moves, is the commit's short id."""
    return commit[:12] if re.split("[~^]", text)[0] in ("HEAD", "@") else text


def resolve_range(history: GitRepository, text: str) -> tuple[str, str | None]:
    """The commit that `A..B`, or a plain revision, leads up to, and the one whose history is left out of it."""
    if "..." in text:
        raise UnknownRevision(f"{text[:80]!r} is not a range", hint="A..B: what leads to B and not to A")
    begin, dots, end = text.partition("..")
    if not dots:
        return resolve(history, text), None
    return resolve(history, end or "HEAD"), resolve(history, begin or "HEAD")


def _start(history: GitRepository, name: str) -> str:
    now = view(history)
    if name in ("HEAD", "@"):
        if now.tip is None:
            raise UnknownRevision(
                f"branch {now.head.removeprefix(refs.HEADS)} has no commit yet",
                hint="`pv init --base DIR_OR_HUB_ID` makes the first one",
            )
        return now.tip
    known = now.refs
    found = {folder + name for folder in _FOLDERS if folder + name in known and folder + name != refs.OPS}
    if len({known[ref] for ref in found}) > 1:
        raise UnknownRevision(f"{name!r} is ambiguous", hint=f"write one of: {', '.join(sorted(found))}")
    if found:
        return known[found.pop()]
    if _PREFIX.fullmatch(name):
        return _by_prefix(history, name)
    said = f"no branch, tag or commit {name[:80]!r}"
    raise _behaviour(history, name) or UnknownRevision(said, hint=_hint(name, known), name=name)


def _behaviour(history: GitRepository, text: str) -> UnknownRevision | None:
    """What is wrong with it if it is a behaviour's name, or REV:NAME: that, and where it is."""
    revision, _, name = text.rpartition(":")
    now = view(history)
    tips = [commit for ref, commit in now.refs.items() if ref != refs.OPS]
    found = None
    with contextlib.suppress(UnknownRevision, IntegrityError):  # damage is for `pv fsck` to tell
        for commit in [resolve(history, revision)] if revision else [now.tip or "", *history.walk(tips)]:
            if commit and name in Snapshot(history, commit).persona().behaviours:
                found = text if revision else name if commit == now.tip else f"{commit[:12]}:{name}"
                break
    if found is None:
        return None
    hint = f"`pv show {found}` shows it; `pv branch` and `pv tag` list the revisions"
    return UnknownRevision(f"{text[:80]!r} is a behaviour, not a revision", hint=hint, behaviour=found)


def _by_prefix(history: GitRepository, name: str) -> str:
    prefix = name.lower()
    candidates = [prefix] if len(prefix) == 40 else history.with_prefix(prefix)
    commits = [object_id for object_id in candidates if _is_persona_commit(history, object_id)]
    if len(commits) == 1:
        return commits[0]
    if commits:
        raise UnknownRevision(
            f"{prefix!r} is ambiguous: {len(commits)} commits begin with it",
            hint=f"write more digits: {', '.join(c[: len(prefix) + 4] for c in commits[:5])}",
        )
    hint = "`pv log --all` lists the commits"
    raise _behaviour(history, name) or UnknownRevision(f"no commit {prefix!r}", hint=hint, name=name)


def _is_persona_commit(history: GitRepository, object_id: str) -> bool:
    """Operations are commits too, but nothing that a person could mean."""
    return history.kind(object_id) == "commit" and "persona.json" in history.tree(
        history.commit(object_id).tree
    )


def _back(history: GitRepository, commit_id: str, count: int, text: str) -> str:
    for _ in range(count):
        commit_id = _parent(history, commit_id, 1, text)
    return commit_id


def _parent(history: GitRepository, commit_id: str, number: int, text: str) -> str:
    if number == 0:
        return commit_id
    parents = history.commit(commit_id).parents
    if number > len(parents):
        what = "is the first commit" if not parents else f"has {len(parents)} parent(s)"
        raise UnknownRevision(f"{text[:80]!r} does not exist: {commit_id[:12]} {what}")
    return parents[number - 1]


def _hint(name: str, known: Mapping[str, str]) -> str:
    short = {
        ref.removeprefix(folder): ref for ref in known for folder in _FOLDERS[1:] if ref.startswith(folder)
    }
    return did_you_mean(name, short) or "`pv branch` and `pv tag` list the names, `pv log --all` the commits"


def did_you_mean(name: str, names: Iterable[str]) -> str | None:
    """A hint with the names that are close, if there are any."""
    close = difflib.get_close_matches(name, list(names), n=3, cutoff=0.6)
    return f"did you mean {' or '.join(close)}?" if close else None
