"""A place on disk for arrays that are known only by making them, until a pack is written from them.

A pack is written in one pass, once the shape of every part is known; so memory does not grow with the model.
"""

from __future__ import annotations

import os
import tempfile
import threading
from pathlib import Path

import numpy as np

from pv.registry.disk import durable
from pv.registry.disk.closing import Closing
from pv.registry.dtypes import DTYPES
from pv.registry.errors import StorageError
from pv.vecstore.packs.read import Reference
from pv.vecstore.packs.write import Part
from pv.vecstore.tensors.array import Array, Raw, storage_dtype

__all__ = ["Spool"]


class Spool(Closing):
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
        size, storage = DTYPES[array.dtype].itemsize, storage_dtype(array.dtype)

        def read(start: int, stop: int) -> Raw:
            found = os.pread(self._file.fileno(), (stop - start) * size, at + start * size)
            if len(found) != (stop - start) * size:
                raise StorageError(f"a temporary file in {self._folder} became shorter")
            return np.frombuffer(found, storage)

        return Part(name, part, array.dtype, array.shape, read, reference)

    def close(self) -> None:
        self._file.close()
