"""Repairs that need no tensor: the configuration, HEAD, refs, operations, git objects, copies of packs.

Invariant: nothing is made worse. A damaged file gets a second name in the quarantine before it is replaced
or removed, and it is replaced by what is known to be right, never by a guess. Moving a ref is an operation,
so that `pv undo` takes it back. The caller has the registry for itself (`locks.alone`).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pv.registry.check import fsck, refstate
from pv.registry.check.report import Finding, Report
from pv.registry.disk import durable, locks, tempfiles
from pv.registry.errors import PvError
from pv.registry.format_file import format_bytes
from pv.registry.git import loose, refs
from pv.registry.git.objects import RefChange
from pv.registry.git.repository import CONFIG, GitRepository
from pv.registry.history import operations
from pv.registry.packs import packfile
from pv.registry.packs.store import PackStore

__all__ = ["Mended", "repair"]


@dataclass(frozen=True, slots=True)
class Mended:
    """One repair: what it was about and what was done; `done` is False if it could not be."""

    where: str
    what: str
    done: bool = True


def repair(root: Path, report: Report, copies: Mapping[str, bytes] | None = None) -> list[Mended]:
    """Work through what a check found; returns what was done. Check, and repair, again afterwards.

    `copies` are git objects that were found elsewhere, by id.
    """
    copies = copies or {}
    packs = PackStore(root)
    done: list[Mended] = []
    settings = [finding for finding in report.of("format", "config") if finding.repairable]
    done += [_settings(root, packs, finding, report.steers) for finding in settings]
    if not any(finding.kind == "config" and not finding.repairable for finding in report.findings):
        done += _pointers(root, packs, report)
        if any(one.done for one in done):
            return done  # what a pack or an object is needed for is to be seen anew
    for finding in report.findings:
        if finding.kind == "object" and (finding.repairable or finding.where in copies):
            done.append(_object(root, packs, report, finding, copies.get(finding.where)))
        elif finding.kind in ("pack", "missing"):
            done += _pack(packs, report, finding)
        elif finding.kind == "record":
            _put_away(packs, root / finding.where)
            again = "said" if finding.where == "bases.json" else "measured"
            done.append(Mended(finding.where, f"set aside: it can be {again} again"))
        elif finding.kind == "leftover":
            tempfiles.delete(tempfiles.at(root, finding.where))
            done.append(Mended(finding.where, "removed"))
    return done


def _put_away(packs: PackStore, path: Path) -> None:
    """Into the quarantine, and out of the way."""
    packs.set_aside(path)
    tempfiles.delete(path)
    durable.fsync_dir(path.parent)


def _settings(root: Path, packs: PackStore, finding: Finding, steers: bool) -> Mended:
    path = root / finding.where
    known = {"format": format_bytes(steering=steers), "history.git/config": CONFIG}
    if finding.where not in known:
        _put_away(packs, path)
        return Mended(finding.where, "set aside")
    if path.exists():
        packs.set_aside(path)
    durable.write_file(path, known[finding.where])
    return Mended(finding.where, "written anew")


def _pointers(root: Path, packs: PackStore, report: Report) -> list[Mended]:
    """HEAD, refs and the chain of operations."""
    if not report.of("head", "ref", "operations"):
        return []
    done: list[Mended] = []
    with locks.exclusive(root / "refs.lock") as lock, fsck.reading(root) as history:
        git_dir = root / "history.git"
        refs.sweep_locks(git_dir)
        begin = refstate.read(history)
        if "packed-refs" in begin.damaged:
            done.append(_packed_refs(packs, git_dir, begin))
        if not begin.operations and report.of("operations"):
            done += _find_chain(history, packs, begin)
        done += _missing_refs(history, packs, refstate.read(history))
        begin = refstate.read(history)
        done += _head(packs, git_dir, begin, begin.newest)
        begin = refstate.read(history)
        if begin.head is not None and not begin.damaged:
            done += _chain_and_refs(history, begin, lock)
    return done


def _find_chain(history: GitRepository, packs: PackStore, begin: refstate.RefState) -> list[Mended]:
    """Find the newest operation that there still is, and note after it where the refs are now.

    It may be older than the one that was lost: so the refs are believed, and none is taken back.
    """
    where, git_dir = f"history.git/{refs.OPS}", history.path
    tip = refstate.lost_chain(history, git_dir, list(loose.stored(git_dir)))
    known = tuple(operations.chain(history, tip))
    last = known[0] if known else None
    expected = {ref: left for ref, (left, _) in refstate.expected_refs(known).items()}
    changes = [
        RefChange(ref, expected.get(ref), now)
        for ref, now in begin.refs.items()
        if refs.is_ref(ref) and expected.get(ref) != now
    ]
    done = _head(packs, git_dir, begin, last)  # before git is asked to write anything
    head = refstate.read(history).head
    if changes and head is not None:
        before = last.head[1] if last else head
        last = operations.compose(history, last, "fsck --repair", changes, (before, head))
        history.sync()
    if last is None:
        return [*done, Mended(where, "no operation could be found", done=False)]
    _write_ref(packs, git_dir, refs.OPS, last.id)
    what = "the chain of operations was found again" if known else "the chain of operations begins anew"
    return [*done, Mended(where, f"{what}{', and the refs are noted as they are' if changes else ''}")]


def _write_ref(packs: PackStore, git_dir: Path, ref: str, commit: str) -> None:
    if (git_dir / ref).exists() or (git_dir / ref).is_symlink():
        packs.set_aside(git_dir / ref)
    refs.write_ref(git_dir, ref, commit)


def _missing_refs(history: GitRepository, packs: PackStore, begin: refstate.RefState) -> list[Mended]:
    """Refs that are gone or unreadable, put where the operations left them."""
    done = []
    waiting = {c.ref for c in begin.newest.refs if c.old is None} if begin.newest else set()
    for ref, (left, operation) in refstate.expected_refs(begin.operations).items():
        lost = ref in begin.damaged or (ref not in begin.refs and ref not in waiting)
        if left is None or not lost:
            continue
        where = f"history.git/{ref}"
        if _is_commit(history, left):
            _write_ref(packs, history.path, ref, left)
            done.append(Mended(where, f"back at {left[:12]}, where operation {operation.seq} left it"))
        else:
            done.append(Mended(where, f"commit {left[:12]}, where it was, is damaged", done=False))
    return done


def _packed_refs(packs: PackStore, git_dir: Path, begin: refstate.RefState) -> Mended:
    """What can be read of it becomes files of its own."""
    for ref, commit in begin.refs.items():
        if not (git_dir / ref).exists():
            _write_ref(packs, git_dir, ref, commit)
    _put_away(packs, git_dir / "packed-refs")
    return Mended("history.git/packed-refs", "set aside; its refs are files of their own now")


def _is_commit(history: GitRepository, commit: str) -> bool:
    try:
        history.commit(commit)
    except PvError:
        return False
    return True


def _head(
    packs: PackStore, git_dir: Path, begin: refstate.RefState, newest: operations.Operation | None
) -> list[Mended]:
    """HEAD where the newest operation left it, if it is nowhere."""
    if not any(finding.kind == "head" for finding in refstate.check(begin)):
        return []
    branches = [ref for ref in begin.refs if refs.is_branch_ref(ref)]
    wanted = newest.head[1] if newest else None
    if wanted not in branches:
        wanted = branches[0] if len(branches) == 1 else None
    if wanted is None:
        return [Mended("history.git/HEAD", "no branch is known that it could name", done=False)]
    path = git_dir / "HEAD"
    if path.exists():
        packs.set_aside(path)
    refs.write_head(git_dir, wanted)
    return [Mended("history.git/HEAD", f"names {wanted} again")]


def _chain_and_refs(history: GitRepository, begin: refstate.RefState, lock: int) -> list[Mended]:
    """git can be used again: shorten a chain whose end cannot be read, and put refs where it has them."""
    done = []
    if begin.broken is not None and begin.operations:
        try:
            operations.rewrite(history, begin.operations, lock)
        except PvError as error:
            return [Mended(f"history.git/{refs.OPS}", f"cannot be shortened: {error}", done=False)]
        done.append(Mended(f"history.git/{refs.OPS}", "the operations that cannot be read are forgotten"))
        begin = refstate.read(history)
    if _differences(begin):
        operations.recover(history, lock)
        moves = _differences(refstate.read(history))
        operations.publish(history, "fsck --repair", moves, lock=lock)
        done += [
            Mended(f"history.git/{c.ref}", f"back where the operations left it (it was at {_short(c.old)})")
            for c in moves
        ]
    return done


def _differences(begin: refstate.RefState) -> list[RefChange]:
    """Every ref that is not where the operations left it, unless the newest one has yet to move it."""
    newest = begin.newest
    waiting = {c.ref: c.old for c in newest.refs} if newest else {}
    return [
        RefChange(ref, begin.refs.get(ref), left)
        for ref, (left, _) in refstate.expected_refs(begin.operations).items()
        if begin.refs.get(ref) != left and not (ref in waiting and waiting[ref] == begin.refs.get(ref))
    ]


def _short(commit: str | None) -> str:
    return commit[:12] if commit else "nothing"


def _object(root: Path, packs: PackStore, report: Report, finding: Finding, copy: bytes | None) -> Mended:
    path = loose.object_path(root / "history.git", finding.where)
    data, how = loose.salvage(path, finding.where), "written anew: its content was unharmed"
    if data is None and copy is not None:
        data, how = copy, "written anew from the folder that the base came from"
    if data is None and finding.where in report.spare:
        pack_id = report.spare[finding.where]
        manifest = packfile.inspect(packs.path(pack_id), pack_id).manifest
        assert manifest is not None
        data, how = loose.blob(manifest.to_bytes())[1], f"written anew from pack {pack_id[:12]}"
    if data is None:
        _put_away(packs, path)
        return Mended(finding.where, "set aside: no commit needs it")
    durable.make_dirs(path.parent)
    if path.exists():
        packs.set_aside(path)
    durable.write_file(path, zlib.compress(data), mode=0o444)
    return Mended(finding.where, how)


def _pack(packs: PackStore, report: Report, finding: Finding) -> Iterable[Mended]:
    pack_id = finding.where.rpartition("/")[2]
    copy = packs.quarantine / pack_id
    if copy.is_file() and packfile.is_whole(copy, pack_id):
        packs.put(copy, pack_id)
        yield Mended(finding.where, "brought back from the quarantine")
    elif finding.kind == "pack" and pack_id not in report.uses:
        _put_away(packs, packs.path(pack_id))
        yield Mended(finding.where, "set aside: no commit needs it")
