"""Repairs that need no tensor: the configuration, HEAD, refs, operations, git objects, copies of packs.

Invariant: nothing is made worse. A damaged file gets a second name in the quarantine before it is replaced
or removed, and it is replaced by what is known to be right, never by a guess. Moving a ref is an operation,
so that `pv undo` takes it back. The caller has the registry for itself (`locks.alone`).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pv.registry import (
    canonical,
    durable,
    fsck,
    layout,
    leftovers,
    locks,
    objects,
    operations,
    packfile,
    refs,
)
from pv.registry import pointers as at
from pv.registry.errors import PvError
from pv.registry.findings import Finding, Report
from pv.registry.history import CONFIG, History, RefChange
from pv.registry.packs import PackStore

__all__ = ["Mended", "repair"]


@dataclass(frozen=True, slots=True)
class Mended:
    """One repair: what it was about and what was done; `done` is False if it could not be."""

    where: str
    what: str
    done: bool = True


def repair(root: Path, report: Report) -> list[Mended]:
    """Work through what a check found; returns what was done. Check again afterwards."""
    packs = PackStore(root)
    done: list[Mended] = []
    settings = [finding for finding in report.of("format", "config") if finding.repairable]
    done += [_settings(root, packs, finding) for finding in settings]
    if not any(finding.kind == "config" and not finding.repairable for finding in report.findings):
        done += _pointers(root, packs, report)
    for finding in report.findings:
        if finding.kind == "object" and finding.repairable:
            done.append(_object(root, packs, report, finding))
        elif finding.kind in ("pack", "missing"):
            done += _pack(packs, report, finding)
        elif finding.kind == "record":
            _put_away(packs, root / finding.where)
            done.append(Mended(finding.where, "set aside: it can be measured again"))
        elif finding.kind == "leftover":
            leftovers.delete(root / finding.where)
            done.append(Mended(finding.where, "removed"))
    return done


def _put_away(packs: PackStore, path: Path) -> None:
    """Into the quarantine, and out of the way."""
    packs.set_aside(path)
    leftovers.delete(path)
    durable.fsync_dir(path.parent)


def _settings(root: Path, packs: PackStore, finding: Finding) -> Mended:
    path = root / finding.where
    known = {"format": canonical.dumps(layout.FORMAT) + b"\n", "history.git/config": CONFIG}
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
        begin = at.read_pointers(history)
        lost = not begin.operations and bool(report.of("operations"))
        if lost:
            done.append(_find_chain(history, packs, git_dir))
            begin = at.read_pointers(history)
        if "packed-refs" in begin.damaged:
            done.append(_packed_refs(packs, git_dir, begin))
        done += _missing_refs(history, packs, begin)
        done += _head(packs, git_dir, at.read_pointers(history))
        begin = at.read_pointers(history)
        if begin.head is not None and not begin.damaged:
            done += _chain_and_refs(history, begin, lost, lock)
    return done


def _find_chain(history: History, packs: PackStore, git_dir: Path) -> Mended:
    path = git_dir / refs.OPS
    where = f"history.git/{refs.OPS}"
    tip = at.lost_chain(history, git_dir, list(objects.stored(git_dir)))
    if tip is not None:
        _write_ref(packs, git_dir, refs.OPS, tip)
        return Mended(where, "the chain of operations was found again")
    if path.exists():
        _put_away(packs, path)
    return Mended(where, "no operation could be found: the chain begins anew")


def _write_ref(packs: PackStore, git_dir: Path, ref: str, commit: str) -> None:
    path = git_dir / ref
    durable.make_dirs(path.parent)
    if path.exists() or path.is_symlink():
        packs.set_aside(path)
    durable.write_file(path, f"{commit}\n".encode())


def _missing_refs(history: History, packs: PackStore, begin: at.Pointers) -> list[Mended]:
    """Refs that are gone or unreadable, put where the operations left them."""
    done = []
    waiting = {c.ref for c in begin.newest.refs if c.old is None} if begin.newest else set()
    for ref, (left, operation) in at.expected_refs(begin.operations).items():
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


def _packed_refs(packs: PackStore, git_dir: Path, begin: at.Pointers) -> Mended:
    """What can be read of it becomes files of its own."""
    for ref, commit in begin.refs.items():
        if not (git_dir / ref).exists():
            _write_ref(packs, git_dir, ref, commit)
    _put_away(packs, git_dir / "packed-refs")
    return Mended("history.git/packed-refs", "set aside; its refs are files of their own now")


def _is_commit(history: History, commit: str) -> bool:
    try:
        history.commit(commit)
    except PvError:
        return False
    return True


def _head(packs: PackStore, git_dir: Path, begin: at.Pointers) -> list[Mended]:
    if not any(finding.kind == "head" for finding in at.check(begin)):
        return []
    branches = [ref for ref in begin.refs if ref.startswith(refs.HEADS)]
    wanted = begin.newest.head[1] if begin.newest else None
    if wanted not in branches:
        wanted = branches[0] if len(branches) == 1 else None
    if wanted is None:
        return [Mended("history.git/HEAD", "no branch is known that it could name", done=False)]
    path = git_dir / "HEAD"
    if path.exists():
        packs.set_aside(path)
    refs.write_head(git_dir, wanted)
    return [Mended("history.git/HEAD", f"names {wanted} again")]


def _chain_and_refs(history: History, begin: at.Pointers, lost: bool, lock: int) -> list[Mended]:
    """git can be used again: shorten a chain whose end cannot be read, and make refs and chain agree."""
    done = []
    if begin.broken is not None and begin.operations:
        try:
            operations.rewrite(history, begin.operations, lock)
        except PvError as error:
            return [Mended(f"history.git/{refs.OPS}", f"cannot be shortened: {error}", done=False)]
        done.append(Mended(f"history.git/{refs.OPS}", "the operations that cannot be read are forgotten"))
        begin = at.read_pointers(history)
    changes = _differences(begin)
    if lost and changes:  # an older chain, or none: what the refs say is newer
        noted = [RefChange(ref, left, now) for ref, now, left in changes]
        operations.publish(history, "fsck --repair", noted, lock=lock, settled=True)
        done.append(Mended(f"history.git/{refs.OPS}", "the refs were noted as they are"))
    elif changes:
        operations.recover(history, lock)
        moves = [RefChange(ref, now, left) for ref, now, left in _differences(at.read_pointers(history))]
        operations.publish(history, "fsck --repair", moves, lock=lock)
        done += [
            Mended(f"history.git/{c.ref}", f"back where the operations left it (it was at {_short(c.old)})")
            for c in moves
        ]
    return done


def _differences(begin: at.Pointers) -> list[tuple[str, str | None, str | None]]:
    """(ref, where it is, where the operations left it), for every ref where those differ."""
    expected = at.expected_refs(begin.operations)
    known = expected.keys() if expected else filter(refs.is_ref, begin.refs)
    rows = [(ref, begin.refs.get(ref), expected[ref][0] if ref in expected else None) for ref in known]
    newest = begin.newest
    waiting = {c.ref: c.old for c in newest.refs} if newest else {}
    return [
        (ref, now, left)
        for ref, now, left in sorted(rows)
        if now != left and not (ref in waiting and waiting[ref] == now)
    ]


def _short(commit: str | None) -> str:
    return commit[:12] if commit else "nothing"


def _object(root: Path, packs: PackStore, report: Report, finding: Finding) -> Mended:
    path = objects.object_path(root / "history.git", finding.where)
    pack_id = report.spare.get(finding.where)
    if pack_id is None:
        _put_away(packs, path)
        return Mended(finding.where, "set aside: no commit needs it")
    manifest = packfile.inspect(packs.path(pack_id), pack_id).manifest
    assert manifest is not None
    data = manifest.to_bytes()
    durable.make_dirs(path.parent)
    if path.exists():
        packs.set_aside(path)
    durable.write_file(path, zlib.compress(b"blob %d\0" % len(data) + data), mode=0o444)
    return Mended(finding.where, f"written anew from pack {pack_id[:12]}")


def _pack(packs: PackStore, report: Report, finding: Finding) -> Iterable[Mended]:
    pack_id = finding.where.rpartition("/")[2]
    copy = packs.quarantine / pack_id
    if copy.is_file() and packfile.is_whole(copy, pack_id):
        packs.put(copy, pack_id)
        yield Mended(finding.where, "brought back from the quarantine")
    elif finding.kind == "pack" and pack_id not in report.uses:
        _put_away(packs, packs.path(pack_id))
        yield Mended(finding.where, "set aside: no commit needs it")
