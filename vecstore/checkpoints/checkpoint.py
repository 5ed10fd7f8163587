"""A checkpoint: one safetensors file, or shards with an index, and the side files beside them; here or in a store.

Opening reads headers only. Everything a checkpoint says about itself is checked here; a pickle is refused.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

import numpy as np

from pv.registry import canonical
from pv.registry.disk.closing import Closing
from pv.registry.disk.ranges import Ranges
from pv.registry.disk.safetensors import MAX_TENSORS, Entry, TensorFile, is_usable_name
from pv.registry.dtypes import DTYPES
from pv.registry.errors import CheckpointRefused, FormatError, NotFoundError, UsageError
from pv.registry.manifest import Spec, is_plain_file_name
from pv.vecstore.checkpoints.object_store import ObjectFolder
from pv.vecstore.tensors.array import Raw, storage_dtype

__all__ = ["INDEX", "MAX_INDEX_BYTES", "Checkpoint", "Weights", "read_raw", "stored_files"]

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_SHARD = re.compile(r"-\d{1,9}-of-(\d{1,9})\.safetensors$")
MAX_INDEX_BYTES = 64 << 20
MAX_TENSORS_IN_ALL = 2 * MAX_TENSORS


class Weights(Protocol):
    """Named tensors that can be read in pieces: a checkpoint on disk, or a base pinned in the registry."""

    @property
    def specs(self) -> Mapping[str, Spec]: ...

    def read(self, name: str, start: int = 0, stop: int | None = None) -> memoryview:
        """Raw little-endian bytes `start` to `stop` of a tensor."""
        ...


def read_raw(weights: Weights, name: str, start: int = 0, stop: int | None = None) -> Raw:
    """Elements start to stop of a tensor, flat, as storage integers."""
    dtype = weights.specs[name].dtype
    size = DTYPES[dtype].itemsize
    data = weights.read(name, start * size, None if stop is None else stop * size)
    return np.frombuffer(data, storage_dtype(dtype))


class Checkpoint(Closing):
    """An opened checkpoint. `specs` is in name order."""

    def __init__(self, where: Path | ObjectFolder) -> None:
        """A folder or file on this machine, or one in an object store, which is closed with it."""
        self.where = where
        self._files: list[TensorFile] = []
        self._where: dict[str, TensorFile] = {}
        try:
            index = _weight_map(where)
            for opened in _opened(where, index):
                self._files.append(opened)
                if len(self._where) + len(opened.entries) > MAX_TENSORS_IN_ALL:
                    raise CheckpointRefused(f"{where} has more than {MAX_TENSORS_IN_ALL} tensors")
                for name in opened.entries:
                    if name in self._where:
                        raise CheckpointRefused(
                            f"{where}: tensor {name[:80]!r} is in both {self._where[name].source.name} and "
                            f"{opened.source.name}"
                        )
                    self._where[name] = opened
            _check_index(where, index, self._where)
            _check_dtypes(where, self._entries())
        except BaseException:
            self.close()
            raise
        self.specs: Mapping[str, Spec] = {
            name: Spec(entry.dtype, entry.shape) for name, entry in sorted(self._entries())
        }

    @property
    def path(self) -> Path:
        """Raises UsageError for one that is not on this machine."""
        if isinstance(self.where, Path):
            return self.where
        raise UsageError(f"{self.where} is not on this machine", hint="copy the folder here first")

    def _entries(self) -> Iterator[tuple[str, Entry]]:
        for name, file in self._where.items():
            yield name, file.entries[name]

    @property
    def files(self) -> tuple[Ranges, ...]:
        """The weight files, in reading order."""
        return tuple(file.source for file in self._files)

    def read(self, name: str, start: int = 0, stop: int | None = None) -> memoryview:
        return self._where[name].read(name, start, stop)

    def place(self, name: str) -> tuple[int, int]:
        """Where a tensor's bytes begin: an open file, and the offset in it."""
        return self._where[name].place(name)

    def close(self) -> None:
        for file in self._files:
            file.close()
        if isinstance(self.where, ObjectFolder):
            self.where.close()


def _opened(where: Path | ObjectFolder, index: Mapping[str, str] | None) -> Iterator[TensorFile]:
    if isinstance(where, ObjectFolder):
        for name in stored_files(where, index):
            yield TensorFile(where.open(name))
    else:
        for path in _weight_files(where, index):
            yield _open(path)


def stored_files(folder: ObjectFolder, index: Mapping[str, str] | None = None) -> list[str]:
    """The names of the weight files in a store. Raises as `Checkpoint`."""
    if folder.file is not None:
        return [folder.file]
    index = index or _weight_map(folder)
    if index is not None:
        return sorted(set(index.values()))
    names = folder.names()
    if names is None:
        return [SINGLE]
    return [_sole(str(folder), names)] if SINGLE not in names else [SINGLE]


def _weight_files(path: Path, index: Mapping[str, str] | None) -> list[Path]:
    if path.is_file():
        if path.suffix in PICKLES:
            raise _pickle_refused(str(path))
        if path.suffix == ".gguf" or _is_gguf(path):
            raise _gguf_refused(str(path))
        return [path]
    if not path.is_dir():
        raise NotFoundError(
            f"no checkpoint at {path}", hint="name a folder with model.safetensors, or the file itself"
        )
    if index is not None:
        return [path / name for name in sorted(set(index.values()))]
    if (path / SINGLE).is_file():
        return [path / SINGLE]
    if (path / "adapter_config.json").is_file():
        raise CheckpointRefused(
            f"{path} is an adapter, not a checkpoint",
            hint="merge it into its base first: PeftModel.from_pretrained(...).merge_and_unload().save_pretrained(DIR)",
        )
    return [path / _sole(str(path), sorted(file.name for file in path.iterdir()))]


def _sole(where: str, names: Iterable[str]) -> str:
    """The weight file among the files of a folder that has neither an index nor the usual one."""
    found = sorted(name for name in names if name.endswith(".safetensors"))
    if len(found) == 1 and not is_usable_name(found[0]):
        raise CheckpointRefused(f"{where}: {found[0][:80]!r} cannot name weights", hint="rename the file")
    if len(found) == 1 and (shard := _SHARD.search(found[0])) and int(shard[1]) > 1:
        raise CheckpointRefused(
            f"{where} holds one of {int(shard[1])} shards and no {INDEX}",
            hint="fetch the others, and the index",
        )
    if len(found) == 1:
        return found[0]
    if found:
        raise CheckpointRefused(
            f"{where} holds {len(found)} safetensors files and no {INDEX}",
            hint="name one file, or add the index",
        )
    for name in sorted(names):
        if name.endswith(PICKLES):
            raise _pickle_refused(f"{where}/{name}")
        if name.endswith(".gguf"):
            raise _gguf_refused(f"{where}/{name}")
    raise NotFoundError(
        f"no safetensors weights in {where}", hint="a checkpoint folder holds model.safetensors"
    )


def _open(file: Path) -> TensorFile:
    try:
        return TensorFile(file)
    except OSError as error:
        raise CheckpointRefused(
            f"{file} cannot be opened: {error.strerror}",
            hint="a checkpoint of very many shards needs `ulimit -n` above their number"
            if error.errno in (errno.EMFILE, errno.ENFILE)
            else "check its permissions and where links lead",
        ) from error


def _pickle_refused(file: str) -> CheckpointRefused:
    return CheckpointRefused(
        f"{file} is a pickle, which can run code when it is opened: refused",
        hint="convert it where you trust it: AutoModelForCausalLM.from_pretrained(DIR).save_pretrained(NEW_DIR) "
        "writes safetensors",
    )


def _is_gguf(file: Path) -> bool:
    try:
        with file.open("rb") as opened:
            return opened.read(4) == b"GGUF"
    except OSError:
        return False  # which opening it in earnest will say


def _gguf_refused(file: str) -> CheckpointRefused:
    return CheckpointRefused(
        f"{file} is GGUF, which holds weights made smaller for inference",
        hint="use the checkpoint that it was made from; or AutoModelForCausalLM.from_pretrained(DIR, gguf_file=NAME)"
        ".save_pretrained(NEW_DIR), whose weights are no longer those of the original",
    )


def _weight_map(where: Path | ObjectFolder) -> dict[str, str] | None:
    """{tensor: file} of the index; None if there is none."""
    if (data := _index_of(where)) is None:
        return None
    what = f"{where}/{INDEX}"
    index = canonical.loads(data, what=what)
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise FormatError(f"{what} has no weight_map")
    for file in weight_map.values():
        if not isinstance(file, str) or not is_plain_file_name(file) or not file.endswith(".safetensors"):
            raise FormatError(f"{what}: {str(file)[:80]!r} cannot name a shard")
        if isinstance(where, Path) and not (where / file).is_file():
            raise CheckpointRefused(f"{where}: shard {file} is missing", hint="download the checkpoint again")
    return weight_map


def _index_of(where: Path | ObjectFolder) -> bytes | None:
    if isinstance(where, ObjectFolder):
        return None if where.file is not None else where.get(INDEX, MAX_INDEX_BYTES)
    file = where / INDEX
    if where.is_file() or not file.is_file():
        return None
    if file.stat().st_size > MAX_INDEX_BYTES:
        raise FormatError(f"{file} is larger than {MAX_INDEX_BYTES} bytes")
    return file.read_bytes()


def _check_index(
    where: Path | ObjectFolder, weight_map: Mapping[str, str] | None, found: Mapping[str, TensorFile]
) -> None:
    if weight_map is None:
        return
    for name, file in weight_map.items():
        if name not in found or found[name].source.name != file:
            raise CheckpointRefused(
                f"{where}: the index places {name[:80]!r} in {file}, which does not hold it"
            )
    for name, opened in found.items():
        if name not in weight_map:
            raise CheckpointRefused(
                f"{where}: {opened.source.name} holds {name[:80]!r}, which the index does not know"
            )


def _check_dtypes(where: Path | ObjectFolder, entries: Iterator[tuple[str, Entry]]) -> None:
    for name, entry in entries:
        if DTYPES[entry.dtype].bits % 8:
            raise CheckpointRefused(
                f"{where}: tensor {name[:80]!r} is {entry.dtype}, whose elements share bytes",
                hint="pv works on tensors element by element: convert it to BF16, F16 or F32 first",
            )
