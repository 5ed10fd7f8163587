"""The `.pv` folder: how it is made, found and recognised.

`.pv` appears by one rename of a folder that is already complete and durable, so that there is never half
a registry. `.pv/format` says what a reader must know; another major version is refused, not guessed at.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from pv.registry import canonical
from pv.registry.disk import durable, locks, tempfiles
from pv.registry.errors import FormatError, NotARegistry, UsageError
from pv.registry.format_file import KNOWN, format_bytes
from pv.registry.git.repository import GitRepository

__all__ = ["FOLDER", "creating", "find", "open_folder"]

FOLDER = ".pv"
_FOLDERS = ("packs", "records", "tmp", "quarantine")
_SHOWN = "`pv status` shows what is in it"
_INIT_HINT = "make one with `pv init --base DIR_OR_HUB_ID`, or give its folder with `pv -C DIR`"


@contextlib.contextmanager
def creating(directory: Path) -> Iterator[Path]:
    """A new `.pv`, under a temporary name while the block runs; it gets its own when the block ends well.

    It has an unborn branch `main`. Raises UsageError if `directory` has a `.pv` already.
    """
    directory = directory.absolute()
    if directory.exists() and not directory.is_dir():
        raise UsageError(f"{directory} is no folder")
    target = directory / FOLDER
    if target.exists() or target.is_symlink():
        known = (target / "format").is_file()
        raise UsageError(f"{target} exists already", hint=_SHOWN if known else _what_it_is(target))
    durable.make_dirs(directory)
    for left in tempfiles.beside(target):
        tempfiles.delete(left)
    building = directory / durable.tmp_name(FOLDER)
    try:
        durable.make_dirs(building)
        with locks.shared(building / "lock"):  # tells a sweep that we are alive
            for name in _FOLDERS:
                durable.make_dirs(building / name)
            GitRepository.create(building / "history.git").close()
            durable.write_file(building / "format", format_bytes())
            durable.write_file(building / "refs.lock", b"")
            durable.write_file(building / ".gitignore", b"*\n")  # a git work tree around it leaves it alone
            yield building
            try:
                durable.rename(building, target)
            except OSError as error:
                if not target.exists():
                    raise
                raise UsageError(f"{target} exists already", hint="another pv has just made it") from error
    finally:
        shutil.rmtree(building, ignore_errors=True)


def find(start: Path) -> Path:
    """The `.pv` folder of `start` or of the nearest folder above it. Raises NotARegistry."""
    start = start.absolute()
    for directory in (start, *start.parents):
        if (directory / FOLDER / "format").is_file():
            return directory / FOLDER
        if (directory / FOLDER / "history.git").is_dir():
            raise NotARegistry(f"{directory / FOLDER} has no `format`", hint=_what_it_is(directory / FOLDER))
    raise NotARegistry(f"no {FOLDER} folder in {start} or above it", hint=_INIT_HINT)


def _what_it_is(folder: Path) -> str:
    """What to do about a `.pv` that says of itself not even what format it has."""
    if (folder / "history.git").is_dir():
        return "`pv fsck --repair` writes it anew"
    return "it is no registry: move it away"


def open_folder(root: Path) -> Path:
    """`root`, absolute, if it is a `.pv` folder that this version understands. Raises FormatError."""
    root = root.absolute()  # git runs elsewhere, and a program may change its folder
    path = root / "format"
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotARegistry(f"{root} is not a registry: it has no file `format`", hint=_INIT_HINT) from error
    document = canonical.loads(data, what=str(path))
    if not isinstance(document, dict) or type(document.get("pv")) is not int:
        raise FormatError(f"{path} does not say which format this is")
    for key, known in KNOWN.items():
        if document.get(key) not in known:
            raise FormatError(
                f"{path}: {key} {document.get(key)!r} is not known here, only {' and '.join(map(repr, known))}",
                hint="a newer pv wrote this registry: upgrade with `pip install -U personavec`",
            )
    return root
