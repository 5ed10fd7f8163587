"""What killed processes leave behind, told from what living ones are writing.

A temporary file or folder ends in `.pvtmp`, and its writer holds a lock on it (on the file `lock` in a
folder) for as long as it lives. git's own have other names and no lock: for those, age must do.
Invariant: nothing that a living process of pv's still needs is ever among the finds.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from pv.registry.disk import durable, locks
from pv.registry.errors import PvError

__all__ = ["at", "beside", "delete", "everywhere", "find", "place"]

MIN_AGE_S = 60.0  # younger ones may not have come to taking their lock
_GITS = ("tmp_obj_", "tmp_pack_", "tmp_idx_", "tmp_rev_")


def find(folder: Path, min_age_s: float = MIN_AGE_S) -> Iterator[Path]:
    """The leftovers that lie in a folder, sorted; nothing if there is no folder."""
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        ours = path.name.endswith(durable.TMP_SUFFIX) and _orphan(path, min_age_s)
        if ours or (path.name.startswith(_GITS) and _age(path) >= min_age_s):
            yield path


def everywhere(root: Path, min_age_s: float = MIN_AGE_S) -> Iterator[Path]:
    """Those in all folders of a registry, and beside it."""
    yield from beside(root, min_age_s)
    git = root / "history.git"
    objects = git / "objects"
    loose = sorted(p for p in objects.iterdir() if len(p.name) == 2) if objects.is_dir() else []
    inner = [git, objects, objects / "pack", *loose]
    for folder in (
        root,
        root / "tmp",
        root / "records",
        root / "folders",
        root / "trainings",
        root / "quarantine",
        *inner,
    ):
        yield from find(folder, min_age_s)


def beside(root: Path, min_age_s: float = MIN_AGE_S) -> Iterator[Path]:
    """Registries that were never finished, in the folder where this one is, or is to be."""
    try:
        names = sorted(entry.name for entry in os.scandir(root.parent))
    except OSError:
        return  # a folder that may not be listed, or is not there: whose it is, we have no business in it
    for name in names:
        if name.startswith(f"{root.name}.") and name.endswith(durable.TMP_SUFFIX):
            with contextlib.suppress(PvError):
                if _orphan(root.parent / name, min_age_s):
                    yield root.parent / name


def place(root: Path, path: Path) -> str:
    """A leftover's path as seen from the registry."""
    return Path(os.path.relpath(path, root)).as_posix()


def at(root: Path, place: str) -> Path:
    """The inverse of `place`: `..` is what is written before, also where the registry is a link."""
    return Path(os.path.normpath(root / place))


def delete(path: Path) -> None:
    """Remove a file or a folder; it may be gone already."""
    if path.is_dir() and not path.is_symlink():
        try:
            shutil.rmtree(path, ignore_errors=True)
        except RecursionError:
            with contextlib.suppress(OSError):
                _delete_deep(path)
    else:
        path.unlink(missing_ok=True)


def _delete_deep(top: Path) -> None:
    """What is deep is brought to the top first: no path gets too long."""
    pending = [top]
    while pending:
        folder = pending.pop()
        for path in list(folder.iterdir()):
            if path.is_dir() and not path.is_symlink():
                pending.append(path.rename(top / durable.tmp_name("deep")))
            else:
                path.unlink()
        if folder != top:
            folder.rmdir()
    top.rmdir()


def _orphan(path: Path, min_age_s: float) -> bool:
    try:
        if _age(path) < min_age_s:
            return False
        with (path / "lock" if path.is_dir() else path).open("rb") as file:
            return not locks.held_elsewhere(file.fileno())
    except FileNotFoundError:
        return path.is_dir()  # killed before it took its lock; a file that is gone is no leftover
    except OSError as error:
        raise PvError(f"cannot look at {path}: {error}") from error


def _age(path: Path) -> float:
    """Seconds since it, or what lies in it, was touched last."""
    try:
        latest = path.lstat().st_mtime
        if path.is_dir() and not path.is_symlink():
            with os.scandir(path) as entries:
                latest = max([latest, *(entry.stat().st_mtime for entry in entries)])
    except FileNotFoundError:
        return 0.0
    return time.time() - latest
