"""Ref names and ref files: what a user may call a branch, and what is on disk now.

Reading is strict. git passes over a ref file that is broken and reports the branch as missing; here that
is an IntegrityError, because "no such branch" would be a lie. The files layout is git's documented one
(gitrepository-layout), and pinned at `pv init`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from pv.registry.disk import durable
from pv.registry.errors import IntegrityError, UsageError

__all__ = [
    "HEADS",
    "OPS",
    "REMOTES",
    "TAGS",
    "check_ref_name",
    "fsync_path",
    "fsync_ref",
    "is_branch_ref",
    "is_object_id",
    "is_ref",
    "read_head",
    "read_refs",
    "scan",
    "stale_locks",
    "sweep_locks",
    "write_head",
    "write_ref",
]

HEADS = "refs/heads/"
TAGS = "refs/tags/"
REMOTES = "refs/remotes/"
OPS = "refs/pv/ops"

_HEX40 = re.compile(r"[0-9a-f]{40}")
_REF_FILE = re.compile(rb"[0-9a-f]{40}\n")
_PACKED = re.compile(rb"([0-9a-f]{40}) (refs/[^\x00-\x20\x7f]+)")
_FORBIDDEN = re.compile(r"[\x00-\x20\x7f~^:?*\[\\\u2028\u2029\ud800-\udfff]")
_RESERVED = {"HEAD", "@", "ORIG_HEAD", "FETCH_HEAD", "MERGE_HEAD", "CHERRY_PICK_HEAD"}


def check_ref_name(name: str, what: str = "branch") -> str:
    """`name` if it may name a branch or a tag: git's own rules and a few more. Raises UsageError."""
    reason = _refusal(name)
    if reason is not None:
        raise UsageError(
            f"{name!r} cannot name a {what}: {reason}",
            hint="letters, digits, '.', '_', '-' and '/' are always fine",
        )
    return name


def _refusal(name: str) -> str | None:
    parts = name.split("/")
    if not name or len(name.encode("utf-8", "replace")) > 200:
        return "it must have 1 to 200 bytes"
    if _FORBIDDEN.search(name) or "@{" in name:
        return "spaces, control characters and ~ ^ : ? * [ \\ @{ have other meanings"
    if name.startswith("-"):
        return "it would read as an option"
    if ".." in name or name.endswith("."):
        return "'..' and a final '.' have other meanings"
    if any(not part or part.startswith(".") or part.endswith(".lock") for part in parts):
        return "no part between slashes may be empty, start with '.' or end in '.lock'"
    if name in _RESERVED or parts[0] in ("pv", "refs"):
        return "that name is reserved"
    if _HEX40.fullmatch(name.lower()):
        return "it would read as a commit id"
    return None


def is_branch_ref(ref: str) -> bool:
    """True for refs/heads/ and a valid name."""
    return ref.startswith(HEADS) and _refusal(ref.removeprefix(HEADS)) is None


def is_ref(ref: str) -> bool:
    """True for a ref that an operation may move: a branch, a tag, or a remote's branch."""
    folder = next((f for f in (HEADS, TAGS, REMOTES) if ref.startswith(f)), None)
    return folder is not None and _refusal(ref.removeprefix(folder)) is None


def is_object_id(text: object) -> bool:
    """True for 40 lower-case hex digits."""
    return isinstance(text, str) and _HEX40.fullmatch(text) is not None


def read_head(git_dir: Path) -> str:
    """The ref that HEAD names, such as refs/heads/main. Raises IntegrityError."""
    try:
        text = (git_dir / "HEAD").read_bytes().decode()
    except (FileNotFoundError, IsADirectoryError, UnicodeDecodeError):
        text = ""
    ref = text.removeprefix("ref: ").removesuffix("\n")
    if text != f"ref: {ref}\n" or not is_branch_ref(ref):
        raise IntegrityError(f"{git_dir / 'HEAD'} names no branch", hint="`pv fsck --repair` restores it")
    return ref


def write_head(git_dir: Path, ref: str) -> None:
    if not is_branch_ref(ref):
        raise ValueError(f"not a branch ref: {ref!r}")
    durable.write_file(git_dir / "HEAD", f"ref: {ref}\n".encode())


def write_ref(git_dir: Path, ref: str, object_id: str) -> None:
    """Put a ref file in place without git, for a repair: while one ref is damaged, git may refuse them all."""
    target = git_dir / ref
    aside = git_dir / durable.tmp_name(target.name)  # not beside the others: it would be read as one of them
    durable.write_file(aside, f"{object_id}\n".encode())
    durable.make_dirs(target.parent)
    durable.rename(aside, target)


def read_refs(git_dir: Path) -> dict[str, str]:
    """Every ref and the object it names, sorted by name. Raises IntegrityError for a damaged one."""
    found, damaged = scan(git_dir)
    for name in damaged:
        raise IntegrityError(f"{name} is damaged", hint="`pv fsck --repair` restores it")
    return found


def scan(git_dir: Path) -> tuple[dict[str, str], list[str]]:
    """The refs that can be read, sorted by name, and the names of the files (`refs/...`) that cannot."""
    loose, damaged = {}, []
    for path in _files(git_dir / "refs"):
        name = path.relative_to(git_dir).as_posix()
        try:
            text = b"" if path.is_symlink() else path.read_bytes()  # pv makes no links
        except FileNotFoundError:
            continue  # deleted, or packed, since the folder was listed
        if _REF_FILE.fullmatch(text):
            loose[name] = text[:40].decode()
        else:
            damaged.append(name)
    # Packed refs are read after the loose ones: a ref being packed meanwhile is then seen at least once.
    packed, whole = _packed(git_dir / "packed-refs")
    return dict(sorted({**packed, **loose}.items())), damaged if whole else [*damaged, "packed-refs"]


def fsync_ref(git_dir: Path, ref: str, *, itself: bool) -> None:
    """Make a ref that git has just moved or deleted durable: `itself`, and every folder above it."""
    path = git_dir / ref
    if itself and path.is_file():
        fsync_path(path)
    for folder in path.parents:
        if folder == git_dir:
            break
        if folder.is_dir():
            durable.fsync_dir(folder)


def fsync_path(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        durable.fsync_file(fd)
    finally:
        os.close(fd)


def sweep_locks(git_dir: Path) -> list[Path]:
    """Remove lock files that a killed git left. The caller holds the lock that every writer holds."""
    found = stale_locks(git_dir)
    for path in found:
        path.unlink(missing_ok=True)
    return found


def stale_locks(git_dir: Path) -> list[Path]:
    """Lock files that git left, if the caller holds the lock that every writer holds."""
    found = [git_dir / name for name in ("HEAD.lock", "packed-refs.lock", "config.lock")]
    return [path for path in found if path.exists()] + list(_files(git_dir / "refs", locks=True))


def _files(folder: Path, *, locks: bool = False) -> Iterator[Path]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except FileNotFoundError:
        return  # git removes empty folders as it goes
    for entry in entries:
        path = folder / entry.name
        if entry.is_dir(follow_symlinks=False):
            yield from _files(path, locks=locks)
        elif entry.name.endswith(".lock") == locks:
            yield path


def _packed(path: Path) -> tuple[dict[str, str], bool]:
    """What can be read of it, and whether that is all."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return {}, True
    found, whole = {}, text.endswith(b"\n") or not text
    for line in text.splitlines():
        if line.startswith((b"#", b"^")):
            continue
        match = _PACKED.fullmatch(line)
        if match is None:
            whole = False
        else:
            found[os.fsdecode(match[2])] = match[1].decode()
    return found, whole
