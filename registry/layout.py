"""The `.pv` folder: how it is made, found and recognised.

`.pv` appears by one rename of a folder that is already complete and durable, so that there is never half
a registry. `.pv/format` says what wrote it; another major version is refused, not guessed at.
"""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path

from pv.registry import canonical, durable
from pv.registry.errors import FormatError, NotARegistry, UsageError
from pv.registry.history import History

__all__ = ["FOLDER", "FORMAT", "create", "find", "open_folder"]

FOLDER = ".pv"
FORMAT = {"git": "sha1", "hash": "sha256", "pv": 1}
_FOLDERS = ("packs", "records", "tmp", "quarantine")
_INIT_HINT = "make one with `pv init --base DIR_OR_HUB_ID`, or give its folder with `pv -C DIR`"


def create(directory: Path) -> Path:
    """Make `directory/.pv`, with an unborn branch `main`. Raises UsageError if there is one already."""
    target = directory / FOLDER
    if target.exists() or target.is_symlink():
        raise UsageError(f"{target} is there already", hint="`pv status` shows what is in it")
    durable.make_dirs(directory)
    building = directory / f"{FOLDER}.{os.getpid()}.{secrets.token_hex(8)}{durable.TMP_SUFFIX}"
    try:
        for name in _FOLDERS:
            durable.make_dirs(building / name)
        History.create(building / "history.git").close()
        durable.write_file(building / "format", canonical.dumps(FORMAT) + b"\n")
        for name in ("lock", "refs.lock"):
            durable.write_file(building / name, b"")
        with durable.storage_errors(target):
            try:
                durable.rename(building, target)
            except OSError as error:
                if not target.is_dir():
                    raise
                raise UsageError(f"{target} is there already", hint="another pv has just made it") from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return target


def find(start: Path) -> Path:
    """The `.pv` folder of `start` or of the nearest folder above it. Raises NotARegistry."""
    start = start.absolute()
    for directory in (start, *start.parents):
        if (directory / FOLDER / "format").is_file():
            return directory / FOLDER
    raise NotARegistry(f"no {FOLDER} folder in {start} or above it", hint=_INIT_HINT)


def open_folder(root: Path) -> Path:
    """`root` itself, if it is a `.pv` folder that this version understands. Raises FormatError."""
    path = root / "format"
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotARegistry(f"{root} is not a registry: it has no file `format`", hint=_INIT_HINT) from error
    document = canonical.loads(data, what=str(path))
    if not isinstance(document, dict) or not isinstance(document.get("pv"), int):
        raise FormatError(f"{path} does not say which format this is")
    for key, known in FORMAT.items():
        if document.get(key) != known:
            raise FormatError(
                f"{path}: {key} {document.get(key)!r} is not known here, only {known!r}",
                hint="a newer pv wrote this registry: upgrade with `pip install -U personavec`",
            )
    return root
