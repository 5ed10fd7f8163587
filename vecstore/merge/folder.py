"""The folder that a checkpoint is written to: whole or not at all, and never over what pv did not make."""

from __future__ import annotations

import contextlib
import errno
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pv.registry import canonical, ids
from pv.registry.disk import durable, locks, tempfiles
from pv.registry.disk.bounded import read_bounded
from pv.registry.errors import FormatError, UsageError
from pv.registry.manifest import TensorRow
from pv.registry.persona import Persona
from pv.vecstore.checkpoints.checkpoint import INDEX
from pv.vecstore.checkpoints.fingerprint import table_id
from pv.vecstore.checkpoints.side_files import EXPORT, RECIPE, is_side_file
from pv.vecstore.merge.shards import Shard, index_bytes, write_shard
from pv.vecstore.progress import Progress, counted
from pv.vecstore.tensors.array import Raw

__all__ = ["Finished", "Written", "check_free", "side_file", "write_folder"]

_NEW, _OLD = "new", "old"


@dataclass(frozen=True, slots=True)
class Finished:
    """One tensor as it is written, and how many elements moved (None: no vector touches it)."""

    name: str
    row: TensorRow
    raw: Raw
    moved: int | None


@dataclass(frozen=True, slots=True)
class Written:
    """What a folder holds. `weights` is the id of the tensor table: the same however it is sharded.

    `files` has the SHA-256 of each weight file; `touched` tensors differ from the base, in `changed` elements.
    """

    weights: str
    files: Mapping[str, str]
    tensors: int
    touched: int
    changed: int
    nbytes: int


def write_folder(
    out: Path,
    shards: tuple[Shard, ...],
    tensors: Callable[[Shard], Iterable[Finished]],
    beside: Callable[[str], Mapping[str, bytes]],
    *,
    force: bool,
    progress: Progress | None,
) -> Written:
    """Write the shards' tensors, and the files `beside` them, which are given the weights' id."""
    total = sum(shard.nbytes for shard in shards)
    advance = counted(progress, total)
    touched = changed = 0
    rows: dict[str, TensorRow] = {}
    sums: dict[str, str] = {}
    with _fresh_folder(out, force=force) as folder:
        for shard in shards:
            with write_shard(folder / shard.file, shard, sums) as write:
                for one in tensors(shard):
                    write(one.raw.data.cast("B"))
                    rows[one.name] = one.row
                    touched += one.moved is not None
                    changed += one.moved or 0
                    advance(one.row.nbytes)
        if len(shards) > 1:
            (folder / INDEX).write_bytes(index_bytes(shards))
        weights = table_id(rows)
        for name, data in beside(weights).items():
            (folder / name).write_bytes(data)
    return Written(weights, sums, len(rows), touched, changed, total)


@contextmanager
def _fresh_folder(out: Path, *, force: bool) -> Iterator[Path]:
    """A new folder that takes the place of `out` when the body is done, and vanishes if it fails.

    It is made in a hidden `.pvtmp` beside `out`, locked while we live, where the old one waits too until the new
    one is in. What killed processes left of those is swept; an `out` that one of them had moved aside comes back.
    """
    out = out.resolve()  # what a link points to is replaced, not the link
    check_free(out, force=force)
    hidden = out.with_name(f".{out.name[:60]}")
    with durable.storage_errors(out):
        for left in tempfiles.beside(hidden):
            _put_back(left, out)
            tempfiles.delete(left)
        aside = out.with_name(durable.tmp_name(hidden.name))
        try:
            (aside / _NEW).mkdir(parents=True)
        except OSError as error:
            shutil.rmtree(aside, ignore_errors=True)
            if error.errno in durable.REFUSALS:
                raise
            raise UsageError(
                f"cannot make {out}: {error.strerror}", hint="name another folder with -o"
            ) from None
        try:
            with locks.shared(aside / "lock"):  # tells a sweep that we are alive
                yield aside / _NEW
                check_free(out, force=force)  # it has been a while
                _swap(aside, out)
                durable.fsync_dir(out.parent)
        finally:
            _put_back(aside, out)
            shutil.rmtree(aside, ignore_errors=True)


def check_free(out: Path, *, force: bool) -> None:
    """Whether a checkpoint may be written there: nothing is, or with `force` what pv wrote. Raises UsageError."""
    with contextlib.suppress(FileNotFoundError):  # another process has just taken it away
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            ours = _is_ours(out)
            if not (force and ours):
                raise UsageError(
                    f"{out} exists and is not empty",
                    hint="--force replaces a folder that pv built" if ours else "name a new folder with -o",
                )


def _swap(aside: Path, out: Path) -> None:
    """Two renames, since no system has one for it; `_put_back` undoes the first without the second."""
    try:
        if out.exists():
            out.rename(aside / _OLD)
        (aside / _NEW).rename(out)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
            raise UsageError(
                f"another process writes to {out}",
                hint="run it again when that is done, or name another with -o",
            ) from error
        if error.errno == errno.EBUSY:
            raise UsageError(
                f"{out} is in use and cannot be replaced", hint="name a folder in it with -o"
            ) from error
        raise


def _put_back(aside: Path, out: Path) -> None:
    if (aside / _OLD).is_dir():
        with contextlib.suppress(OSError):  # another one may have come in its place
            (aside / _OLD).rename(out)


def _is_ours(folder: Path) -> bool:
    """Whether a folder holds what pv built or exported, and no folders: where a registry lives nothing is replaced."""
    return (_is_built(folder) or _is_exported(folder)) and not any(path.is_dir() for path in folder.iterdir())


def _is_built(folder: Path) -> bool:
    try:
        Persona.from_bytes(read_bounded(folder / RECIPE))
    except (OSError, FormatError):
        return False
    return True


def _is_exported(folder: Path) -> bool:
    try:
        document = canonical.loads(read_bounded(folder / EXPORT), what=EXPORT)
    except (OSError, FormatError):
        return False
    return isinstance(document, dict) and ids.is_id(document.get("vector"))


def side_file(name: str, data: bytes, torch_dtype: str | None) -> bytes:
    """A side file as it goes beside the weights. config.json says which dtype they have, where it is another.

    Side files come out of a history that may be a stranger's. Raises FormatError.
    """
    if not is_side_file(name):
        raise FormatError(f"{name[:80]!r} cannot lie beside a checkpoint's weights", hint="run `pv fsck`")
    if name != "config.json" or torch_dtype is None:
        return data
    try:
        config = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"the base's config.json is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise FormatError("the base's config.json is not a JSON object")
    for key in [key for key in ("dtype", "torch_dtype") if key in config] or ["dtype"]:
        config[key] = torch_dtype
    return json.dumps(config, indent=2).encode() + b"\n"
