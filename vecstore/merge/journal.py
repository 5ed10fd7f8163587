"""Which tensors of an unfinished build are in its files: what the next process need not compute again.

A line for each, appended when its bytes have been written: JSON `[name, tensor id, moved elements or null, seal]`.
Nothing is synced, and nothing believed: a line says what to look for, and the bytes in the file are hashed against
it. The seal, SHA-256 over the plan's id and the rest, is for lines that a power cut tore or mixed up.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from threading import Lock

from pv.registry import canonical, ids
from pv.registry.disk import durable
from pv.registry.disk.closing import Closing
from pv.registry.errors import FormatError
from pv.vecstore.merge.weight_file import Finished

__all__ = ["Journal"]


class Journal(Closing):
    """`found` is what it held when it was opened: {tensor: (id, moved)}."""

    def __init__(self, path: Path, plan: str) -> None:
        self._plan, self._writing = plan, Lock()
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        self.found: dict[str, tuple[str, int | None]] = {}
        self.noted: set[str] = set()
        with open(self._fd, "rb", closefd=False) as file:
            data = file.read()
        self.found.update(_lines(data, plan))
        if data and not data.endswith(b"\n"):
            os.write(self._fd, b"\n")

    def note(self, one: Finished) -> None:
        """Its bytes are in the file."""
        body = [one.name, one.row.id, one.moved]
        line = canonical.dumps([*body, _seal(self._plan, body)]) + b"\n"
        with self._writing:
            while line:
                line = line[os.write(self._fd, line) :]
            self.noted.add(one.name)
        durable.step(f"noted {one.name}")

    @property
    def here(self) -> set[str]:
        """The tensors that need not be computed again, as far as is known."""
        return self.noted | self.found.keys()

    def close(self) -> None:
        os.close(self._fd)


def _lines(data: bytes, plan: str) -> Iterator[tuple[str, tuple[str, int | None]]]:
    for line in data.split(b"\n"):
        try:
            document = canonical.loads(line, what="journal") if line else None
        except FormatError:
            continue
        match document:
            case [str(name), str(tensor_id), (int() | None) as moved, str(seal)] if ids.is_id(
                tensor_id
            ) and seal == _seal(plan, [name, tensor_id, moved]):
                yield name, (tensor_id, moved)


def _seal(plan: str, body: list[str | int | None]) -> str:
    return hashlib.sha256(b"pv:journal:1\n" + canonical.dumps([plan, *body])).hexdigest()
