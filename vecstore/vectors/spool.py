"""From encoded arrays to a pack: what captures, trains and derives a vector ends here.

A pack is written in one pass, once the shape of every part is known. Arrays that are known only by making
them wait in a `Spool`, on disk, so that memory does not grow with the model.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from pv.registry.disk import durable
from pv.registry.errors import StorageError
from pv.registry.manifest import TensorRow, VectorManifest
from pv.registry.packs.store import PackStore
from pv.vecstore.packs.codecs.layout import LAYOUTS, Raw
from pv.vecstore.packs.pack import Part, Reference, write_pack
from pv.vecstore.tensors.array import Array

__all__ = ["Spool", "store"]


class Spool:
    """A file without a name that holds arrays until they are packed. `part` may be called from any thread."""

    def __init__(self, folder: Path) -> None:
        durable.make_dirs(folder)
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  (closed by `close`)
        self._folder = folder
        self._end = 0
        self._lock = threading.Lock()

    def part(self, name: str, part: str, array: Array, reference: Reference | None = None) -> Part:
        """Put an array down; the part reads it from here."""
        raw = np.ascontiguousarray(array.raw)
        with self._lock:
            at = self._end
            self._end += raw.nbytes
        with durable.storage_errors(self._folder):
            data = raw.data.cast("B") if raw.nbytes else memoryview(b"")
            done = 0
            while done < len(data):
                done += os.pwrite(self._file.fileno(), data[done:], at + done)
        layout = LAYOUTS[array.dtype]

        def read(start: int, stop: int) -> Raw:
            size = (stop - start) * layout.itemsize
            found = os.pread(self._file.fileno(), size, at + start * layout.itemsize)
            if len(found) != size:
                raise StorageError(f"a temporary file in {self._folder} became shorter")
            return np.frombuffer(found, layout.storage)

        return Part(name, part, array.dtype, array.shape, read, reference)

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def store(
    parts: Sequence[Part],
    base: str,
    encoding: str,
    packs: PackStore,
    *,
    options: Mapping[str, Any] | None = None,
    smallest: bool = False,
    threads: int = 2,
    progress: Callable[[int], None] | None = None,
) -> VectorManifest:
    """Write the pack of a vector; returns its manifest. `progress` gets the raw bytes since the last call."""

    def manifest(rows: dict[tuple[str, str], TensorRow]) -> VectorManifest:
        tensors: dict[str, dict[str, TensorRow]] = {}
        for (name, part), row in rows.items():
            tensors.setdefault(name, {})[part] = row
        return VectorManifest(base, encoding, tensors, options or {})

    with packs.writer() as out:
        made = write_pack(out.file, parts, manifest, smallest=smallest, threads=threads, progress=progress)
        out.commit(made.id)
    assert isinstance(made, VectorManifest)
    return made
