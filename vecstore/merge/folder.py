"""The folder that a checkpoint is written to: whole or not at all, and never over what pv did not make."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pv.registry import canonical, ids
from pv.registry.disk import durable, tempfiles
from pv.registry.disk.bounded import read_bounded
from pv.registry.disk.seal import Seal, seal
from pv.registry.errors import FormatError, UsageError
from pv.registry.manifest import TensorRow
from pv.registry.persona import Persona
from pv.vecstore.checkpoints.checkpoint import INDEX
from pv.vecstore.checkpoints.fingerprint import table_id
from pv.vecstore.checkpoints.side_files import EXPORT, MERGE, RECIPE, is_side_file
from pv.vecstore.merge.journal import Journal
from pv.vecstore.merge.shards import Shard, index_bytes, plan_id
from pv.vecstore.merge.unfinished import Unfinished, sweep, unfinished
from pv.vecstore.merge.weight_file import Finished, Placed, WeightFile, Write
from pv.vecstore.progress import Added, Progress, counted
from pv.vecstore.tensors.parallel import ordered_map

__all__ = [
    "Compute",
    "Finished",
    "Write",
    "Written",
    "check_free",
    "kept_words",
    "move_folder",
    "side_file",
    "write_folder",
    "write_shard",
]

Compute = Callable[[str, str, Write], Finished]
"""Given a tensor's name, its dtype, and where its bytes go."""


@dataclass(frozen=True, slots=True)
class Written:
    """What a folder holds. `weights` is the id of the tensor table: the same however it is sharded.

    `files` has the SHA-256 of each weight file; `touched` tensors differ from the base, in `changed` elements. Of all
    `tensors`, `resumed` were there from an interrupted build and `copied` came from another; the rest was computed.
    `seal` says what the folder's files were like when they were written.
    """

    weights: str
    files: Mapping[str, str]
    tensors: int
    touched: int
    changed: int
    nbytes: int
    resumed: int = field(default=0, kw_only=True)
    copied: int = field(default=0, kw_only=True)
    finished: Mapping[str, Finished] = field(default_factory=dict, repr=False, kw_only=True)
    seal: Seal = field(default_factory=dict, repr=False, kw_only=True)


def write_folder(
    out: Path,
    shards: tuple[Shard, ...],
    compute: Compute,
    beside: Callable[[str], Mapping[str, bytes]],
    *,
    threads: int,
    force: bool,
    progress: Progress | None,
    what: str | None = None,
    elsewhere: Mapping[str, Placed] | None = None,
) -> Written:
    """Write the shards, and the files `beside` them, which are given the weights' id.

    `threads` of `compute` are at work at a time. If this is interrupted, the next that writes `what` (the id of a
    build, say) in the same shards goes on with it. `elsewhere` are tensors that need only be copied, if they are sound.
    """
    total = sum(shard.nbytes for shard in shards)
    advance = counted(progress, total)
    finished: dict[str, Finished] = {}
    sums: dict[str, str] = {}
    ways: Counter[str] = Counter()
    with _fresh_folder(out, None if what is None else plan_id(what, shards), force=force) as work:
        for shard in shards:
            sums[shard.file] = write_shard(
                work.new / shard.file, shard, compute, work.journal, elsewhere or {}, finished, ways,
                threads=threads, advance=advance,
            )  # fmt: skip
        weights = table_id({name: one.row for name, one in finished.items()})
        index = {INDEX: index_bytes(shards)} if len(shards) > 1 else {}
        others = {**index, **beside(weights)}
        for name, data in others.items():
            (work.new / name).write_bytes(data)
        _only(work.new, {*sums, *others})
        return Written(
            weights,
            sums,
            len(finished),
            sum(one.moved is not None for one in finished.values()),
            sum(one.moved or 0 for one in finished.values()),
            total,
            resumed=ways["resumed"],
            copied=ways["copied"],
            finished=finished,
            seal=seal(work.new),
        )


def write_shard(
    path: Path,
    shard: Shard,
    compute: Compute,
    journal: Journal | None,
    elsewhere: Mapping[str, Placed],
    finished: dict[str, Finished],
    ways: Counter[str],
    *,
    threads: int,
    advance: Added,
) -> str:
    """Write one weight file, or what is missing of it; its SHA-256. `finished` and `ways` are added to."""
    with WeightFile(path, shard) as file:

        def into(name: str) -> tuple[Finished, str]:
            one, way = _tensor(file, compute, journal, elsewhere, name)
            if journal is not None and way != "resumed":
                journal.note(one)
            return one, way

        for one, way in ordered_map(into, shard.tensors, threads=threads):
            file.passed(one.name)
            finished[one.name] = one
            ways[way] += 1
            advance(one.row.nbytes)
        return file.finish()


def _tensor(
    file: WeightFile, compute: Compute, journal: Journal | None, elsewhere: Mapping[str, Placed], name: str
) -> tuple[Finished, str]:
    spec = file.shard.tensors[name]
    if journal is not None and name in journal.found:
        tensor_id, moved = journal.found[name]
        if file.holds(name, tensor_id):
            return Finished(name, TensorRow(spec.dtype, spec.shape, tensor_id), moved), "resumed"
    if name in elsewhere and file.copy(elsewhere[name]):
        return elsewhere[name].finished, "copied"
    return compute(name, spec.dtype, file.writer(name)), "computed"


@contextmanager
def _fresh_folder(out: Path, plan: str | None, *, force: bool) -> Iterator[Unfinished]:
    """A folder to work in, whose `new` takes the place of `out` when the body is done."""
    out = out.resolve()  # what a link points to is replaced, not the link
    with durable.storage_errors(out), ExitStack() as held:
        check_free(out, force=force)
        sweep(out, plan)
        try:
            work = held.enter_context(unfinished(out, plan))
        except OSError as error:
            if error.errno in durable.REFUSALS:
                raise
            raise UsageError(
                f"cannot make {out}: {error.strerror}", hint="name another folder with -o"
            ) from None
        check_free(out, force=force)  # one that a killed process had moved aside may be back
        try:
            yield work
        except KeyboardInterrupt as error:
            if work.journal is not None and work.journal.here:
                error.add_note(kept_words(len(work.journal.here)))
            raise
        check_free(out, force=force)  # it has been a while
        _swap(work, out)
        durable.fsync_dir(out.parent)


def move_folder(new: Path, out: Path, *, force: bool) -> None:
    """Give a folder that is complete the name `out`. Raises UsageError, StorageError."""
    with durable.storage_errors(out):
        check_free(out, force=force)
        with unfinished(out, None) as work:
            _swap(work, out, new)
        durable.fsync_dir(out.parent)


def kept_words(count: int) -> str:
    """What is said to somebody who interrupted a build."""
    tensors = "1 tensor is" if count == 1 else f"{count} tensors are"
    return f"{tensors} kept: the same command goes on from there"


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


def _swap(work: Unfinished, out: Path, new: Path | None = None) -> None:
    try:
        work.swap(out, new)
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


def _only(folder: Path, names: set[str]) -> None:
    """Nothing else lies in a folder that others have worked in before."""
    for entry in list(os.scandir(folder)):
        if entry.name not in names:
            tempfiles.delete(Path(entry.path))


def _is_ours(folder: Path) -> bool:
    """Whether a folder holds what pv made, and no folders: where a registry lives nothing is replaced."""
    ours = _is_built(folder) or _says(folder, EXPORT, "vector", "persona") or _says(folder, MERGE, "weights")
    return ours and not any(path.is_dir() for path in folder.iterdir())


def _is_built(folder: Path) -> bool:
    try:
        Persona.from_bytes(read_bounded(folder / RECIPE))
    except (OSError, FormatError):
        return False
    return True


def _says(folder: Path, name: str, *keys: str) -> bool:
    """Whether pv's own file `name` is there, with an id under one of `keys`."""
    try:
        document = canonical.loads(read_bounded(folder / name), what=name)
    except (OSError, FormatError):
        return False
    return isinstance(document, dict) and any(ids.is_id(document.get(key)) for key in keys)


def side_file(
    name: str, data: bytes, torch_dtype: str | None, changes: Mapping[str, Any] | None = None
) -> bytes:
    """A side file as it goes beside the weights. config.json says which dtype they have, where it is another.

    `changes` are other keys of it.

    Side files come out of a history that may be a stranger's. Raises FormatError.
    """
    if not is_side_file(name):
        raise FormatError(f"{name[:80]!r} cannot lie beside a checkpoint's weights", hint="run `pv fsck`")
    if name != "config.json" or (torch_dtype is None and not changes):
        return data
    try:
        config = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"the base's config.json is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise FormatError("the base's config.json is not a JSON object")
    if torch_dtype is not None:
        for key in [key for key in ("dtype", "torch_dtype") if key in config] or ["dtype"]:
            config[key] = torch_dtype
    config.update(changes or {})
    return json.dumps(config, indent=2).encode() + b"\n"
