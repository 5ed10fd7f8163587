"""fsck: is every file of a registry what it should be? Files, ids and checksums; no tensor is decoded.

Invariant: a check changes nothing. Damage to one thing hides nothing else: whatever can be read, is, and
each finding says which behaviours and commits it affects. Where the configuration is not pv's own, no git
is started: a foreign one can run programs.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from pv.registry import canonical, ids, layout
from pv.registry.base_places import BasePlaces
from pv.registry.build_records import RecordStore
from pv.registry.check import refstate
from pv.registry.check.reachability import Reachable, reachable
from pv.registry.check.report import Finding, Report
from pv.registry.disk import locks, tempfiles
from pv.registry.errors import CorruptPack, NotARegistry, PvError, StorageError
from pv.registry.format_file import format_bytes
from pv.registry.git import loose, refs
from pv.registry.git.process import GitProcess
from pv.registry.git.repository import CONFIG, GitRepository
from pv.registry.packs import packfile
from pv.registry.packs.store import DAMAGED, PackStore

__all__ = ["Progress", "check", "locate", "reading"]

Progress = Callable[[str, int, int], None]
"""Called with ("commits" or "packs", done, total): commits, and bytes of packs."""

_ROOT = {
    "format",
    "history.git",
    "packs",
    "records",
    "cache",
    "folders",
    "tmp",
    "quarantine",
    "trainings",
    "bases.json",
    ".gitignore",
}
_TRAINING = re.compile("[0-9a-f]{32}")
_LOCKS = {"gate", "lock", "refs.lock", "records.lock"}
_GIT = {"config", "HEAD", "objects", "refs", "packed-refs"}
_FOREIGN = ("commondir", "config.worktree", "objects/info/alternates", "objects/info/http-alternates")
_MISSING = re.compile(r"missing (?:blob|tree|commit|tag) ([0-9a-f]{40})")
_COPY = "a copy of the registry may still have it"


def locate(start: Path) -> Path:
    """The `.pv` folder of `start` or of the nearest folder above, however damaged. Raises NotARegistry."""
    start = start.absolute()
    for directory in (start, *start.parents):
        if (directory / layout.FOLDER).is_dir():
            return directory / layout.FOLDER
    raise NotARegistry(f"no {layout.FOLDER} folder in {start} or above it", hint="give its folder: pv -C DIR")


def check(root: Path, *, progress: Progress | None = None, alone: bool = False) -> Report:
    """Check the files of the registry `root` (its `.pv` folder). `alone`: the caller keeps others out."""
    with contextlib.ExitStack() as held:
        if not alone:
            _lock(held, locks.writer(root))  # keeps gc away
        return _check(root, progress, alone)


def _lock(held: contextlib.ExitStack, lock: contextlib.AbstractContextManager[object]) -> bool:
    """Take a lock if one can be had: a registry that may only be read is checked all the same."""
    try:
        held.enter_context(lock)
    except (StorageError, OSError):
        return False
    return True


def _check(root: Path, progress: Progress | None, alone: bool) -> Report:
    found = [*_format(root), *_config(root)]
    sound_config = not any(f.kind == "config" for f in found)
    with reading(root, ask_git=sound_config) as history:
        with contextlib.ExitStack() as held:
            locked = alone or _lock(held, locks.exclusive(root / "refs.lock"))
            begin = refstate.read(history)
            stale = refs.stale_locks(history.path) if locked else []
        said = refstate.check(begin)
        report = (lambda done, total: progress("commits", done, total)) if progress else None
        known = reachable(history, begin.tips, report)
    found += [*_steering(root, known), *(_whose(finding, known) for finding in said)]
    found += _troubles(known)
    stored = list(loose.stored(root / "history.git"))
    found += _unreached(root, stored, known)
    pure = not any(f.kind in ("format", "config", "object", "ref", "head", "operations") for f in found)
    if pure:
        found += _git_fsck(root)
    base = Report(
        (),
        commits=len(known.commits),
        steers=any(c.persona is not None and c.persona.steering.terms for c in known.commits.values()),
        operations=len(begin.operations),
        objects=len(stored),
        uses=known.uses,
        bases=known.bases,
        provenance=known.provenance,
    )
    packs, spare, nbytes = _packs(root, base, progress)
    found = [replace(f, repairable=True) if _can_be_written_anew(root, f, spare) else f for f in found]
    records, count = _records(root)
    found += [*packs, *records, *_places(root), *_leftovers(root, stale), *_strangers(root)]
    stored_packs = sum(1 for _ in PackStore(root).files())
    return base.plus(found, packs=stored_packs, records=count, nbytes=nbytes, spare=spare)


@contextlib.contextmanager
def reading(root: Path, *, ask_git: bool = True) -> Iterator[GitRepository]:
    """The history, read from its files as far as they can be read."""
    git_dir = root / "history.git"
    with GitRepository(git_dir, reader=loose.LooseReader(git_dir, ask_git=ask_git)) as history:
        yield history


def _format(root: Path) -> list[Finding]:
    path = root / "format"
    try:
        data = path.read_bytes()
    except OSError:
        return [Finding("format", "format", "the format file is missing", repairable=True)]
    if data in (format_bytes(), format_bytes(steering=True)):
        return []
    try:
        layout.open_folder(root)
    except PvError as error:
        with contextlib.suppress(PvError):
            document = canonical.loads(data)
            if isinstance(document, dict) and type(document.get("pv")) is int:
                return [Finding("format", "format", str(error), hint=error.hint)]  # a newer pv's, perhaps
    return [Finding("format", "format", "the format file is damaged", repairable=True)]


def _steering(root: Path, known: Reachable) -> list[Finding]:
    """Steering terms in a registry that says that it has none."""
    path = root / "format"
    steered = [c.id for c in known.commits.values() if c.persona is not None and c.persona.steering.terms]
    if not steered or not path.is_file() or path.read_bytes() != format_bytes():
        return []
    what = (
        "the format is 1, and there are steering terms: an earlier pv does not know that it cannot read them"
    )
    return [Finding("format", "format", what, commits=tuple(steered), repairable=True)]


def _config(root: Path) -> list[Finding]:
    git_dir = root / "history.git"
    if not git_dir.is_dir():
        return [Finding("config", "history.git", "the history is gone", hint=_COPY)]
    found = []
    path = git_dir / "config"
    if not path.is_file() or path.read_bytes() != CONFIG:
        what = "is not what pv writes: a foreign configuration can run programs"
        found.append(Finding("config", "history.git/config", what, repairable=True))
    for name in _FOREIGN:
        if (git_dir / name).exists():
            what = "sends git to other places: pv never writes one"
            found.append(Finding("config", f"history.git/{name}", what, repairable=True))
    return found


def _whose(finding: Finding, known: Reachable) -> Finding:
    """The same finding, with the behaviours of the commits that it is about."""
    names: set[str] = set()
    for commit in finding.commits:
        if commit in known.commits:
            names |= known.commits[commit].behaviours(())
    return replace(finding, behaviours=tuple(sorted(names)))


def _troubles(known: Reachable) -> list[Finding]:
    commits: dict[tuple[str, str], list[str]] = {}
    names: dict[tuple[str, str], set[str]] = {}
    for commit in known.commits.values():
        for trouble in commit.troubles:
            key = (trouble.object, trouble.what)
            commits.setdefault(key, []).append(commit.id)
            names.setdefault(key, set()).update(commit.behaviours(trouble.vectors))
    return [
        Finding("object", where, what, tuple(sorted(names[where, what])), tuple(those), hint=_COPY)
        for (where, what), those in commits.items()
    ]


def _can_be_written_anew(root: Path, finding: Finding, spare: Mapping[str, str]) -> bool:
    """A git object that a pack has a copy of, or whose file is damaged where it does not matter."""
    if finding.kind != "object" or not refs.is_object_id(finding.where):
        return False
    path = loose.object_path(root / "history.git", finding.where)
    return finding.where in spare or loose.salvage(path, finding.where) is not None


def _unreached(root: Path, stored: list[str], known: Reachable) -> list[Finding]:
    """Damage where no commit leads: git would take such a file for the object, and write no other."""
    found = []
    for object_id in stored:
        if object_id not in known.objects:
            try:
                loose.read_loose(loose.object_path(root / "history.git", object_id), object_id)
            except PvError:
                what = "a git object that no commit needs is damaged"
                found.append(Finding("object", object_id, what, repairable=True))
    return found


def _git_fsck(root: Path) -> list[Finding]:
    """git's own opinion, where ours is that all is well: on packs that were fetched, and on form.

    git lists the objects first and reads the refs later: one that was written in between it calls missing.
    """
    status, out, err = GitProcess(root / "history.git").attempt(
        "fsck", "--strict", "--full", "--no-dangling", "--no-progress", env={"LC_ALL": "C"}
    )
    if status == 0:
        return []
    lines = (out.decode("utf-8", "replace") + err).splitlines()
    lines = [line for line in lines if line.strip() and not line.startswith("hint:")] or [f"status {status}"]
    lines = [line for line in lines if not _is_there(root, line)]
    return [Finding("object", "history.git", f"git fsck: {line}", hint=_COPY) for line in lines[:20]]


def _is_there(root: Path, line: str) -> bool:
    """True if git calls an object missing that can be read."""
    match = _MISSING.fullmatch(line)
    if match is None:
        return False
    with contextlib.suppress(PvError):
        loose.read_loose(loose.object_path(root / "history.git", match[1]), match[1])
        return True
    return False


def _packs(root: Path, base: Report, progress: Progress | None) -> tuple[list[Finding], dict[str, str], int]:
    """Findings; the manifests that could stand in for lost git objects {object id: pack}; bytes looked at."""
    files = list(PackStore(root).files())
    total, done = sum(path.stat().st_size for path in files), 0
    found: list[Finding] = []
    spare: dict[str, str] = {}

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if progress:
            progress("packs", done, total)

    for path in files:
        try:
            made = packfile.inspect(path, path.name, advance)
        except CorruptPack as error:
            found.append(base.about_pack(path.name, "pack", str(error), repairable=True))
        except OSError as error:
            found.append(base.about_pack(path.name, "pack", f"cannot be read: {error}", repairable=True))
        else:
            if made.manifest is not None:
                spare[loose.blob(made.manifest.to_bytes())[0]] = path.name
    there = {path.name for path in files}
    for pack_id in sorted(base.uses.keys() - there):
        what = f"the pack of this {base.uses[pack_id].kind} is missing"
        found.append(base.about_pack(pack_id, "missing", what, repairable=True))
    return found, spare, total


def _records(root: Path) -> tuple[list[Finding], int]:
    folder, store, count = root / "records", RecordStore(root), 0
    found = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if not path.name.endswith(".json") or not ids.is_id(path.name.removesuffix(".json")):
            continue
        count += 1
        try:
            store.read(path.name.removesuffix(".json"))
        except (PvError, OSError):
            what = "a record is damaged: what it said can be measured again"
            found.append(Finding("record", f"records/{path.name}", what, repairable=True))
    return found, count


def _places(root: Path) -> list[Finding]:
    try:
        BasePlaces(root).read()
    except (PvError, OSError):
        what = "where bases have moved to cannot be read: `pv base move` says it again"
        return [Finding("record", "bases.json", what, repairable=True)]
    return []


def _leftovers(root: Path, stale: list[Path]) -> list[Finding]:
    hint = "`pv gc` removes it"
    return [
        Finding("leftover", tempfiles.place(root, path), "left by a killed process", hint=hint)
        for path in [*tempfiles.everywhere(root), *stale]
    ]


def _strangers(root: Path) -> list[Finding]:
    """Files that pv did not make. Temporary ones are not strange: their writers may be at work."""
    found: list[Path] = []
    for folder, known in ((root, _ROOT | _LOCKS), (root / "history.git", _GIT)):
        found += [path for path in _inner(folder) if path.name not in known and path.suffix != ".lock"]
    for shard in _inner(root / "packs"):
        inner = _inner(shard) if shard.is_dir() else [shard]
        found += [path for path in inner if not ids.is_id(path.name) or path.name[:2] != shard.name]
    found += [
        path
        for path in _inner(root / "records")
        if path.suffix != ".json" or not ids.is_id(path.stem) or not path.is_file()
    ]
    found += [path for path in _inner(root / "trainings") if not _TRAINING.fullmatch(path.name)]
    found += _inner(root / "tmp")
    found += [
        path
        for path in _inner(root / "quarantine")
        if not ids.is_id(path.name) and not path.name.endswith(DAMAGED)
    ]
    foreign = {root / "history.git" / name for name in _FOREIGN}
    return [
        Finding("unknown", path.relative_to(root).as_posix(), "not a file of pv's")
        for path in found
        if not path.name.endswith(".pvtmp") and path not in foreign
    ]


def _inner(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []
