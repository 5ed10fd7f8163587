"""What is known of folders that were built: `.pv/folders/<digits of the folder's path>.json`.

Of a folder whose files are as they were sealed when they were written, this says what it holds without reading it;
and of each tensor, what it was made from, so that the next build may copy it. All of it may be deleted, and nothing
of it is believed further than that: what is copied is hashed. Invariant: a build's folder is noted as it was before it
came to its place, so what another process puts there is never taken for it.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pv.registry import canonical, ids
from pv.registry.disk import durable
from pv.registry.disk.bounded import read_bounded
from pv.registry.disk.seal import Seal
from pv.registry.errors import FormatError, StorageError
from pv.registry.manifest import TensorRow

__all__ = ["BuiltFolder", "BuiltFolders", "BuiltTensor"]

SCHEMA = 1
MOST = 32
"""No more folders are known: those noted first are forgotten."""


@dataclass(frozen=True, slots=True)
class BuiltTensor:
    """What it was made from, what it is, and how many elements moved (None: no vector touches it)."""

    key: str
    row: TensorRow
    moved: int | None


@dataclass(frozen=True, slots=True)
class BuiltFolder:
    """`plan`: of which build, in which files. `files`: the SHA-256 of each weight file."""

    path: Path
    plan: str
    weights: str
    files: Mapping[str, str]
    seal: Seal
    tensors: Mapping[str, BuiltTensor]


class BuiltFolders:
    """Those that one registry knows. `root` is its `.pv` folder."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "folders"

    def at(self, path: Path) -> BuiltFolder | None:
        """What is known of the folder at a path, all links resolved."""
        return self._read(self._file(path))

    def note(self, built: BuiltFolder) -> None:
        """No trouble in doing so is anybody's trouble."""
        with contextlib.suppress(OSError, StorageError):
            if self._is_own():
                durable.make_dirs(self.folder)
                durable.write_file(self._file(built.path), _document(built))
                for file in self._newest()[MOST:]:
                    file.unlink(missing_ok=True)

    def _newest(self) -> list[Path]:
        if not (self._is_own() and self.folder.is_dir()):
            return []
        times = {}
        for file in self.folder.glob("*.json"):
            with contextlib.suppress(OSError):
                times[file] = file.stat().st_mtime_ns
        return sorted(times, key=lambda file: (-times[file], file.name))

    def _read(self, file: Path) -> BuiltFolder | None:
        try:
            return _parsed(read_bounded(file)) if self._is_own() else None
        except (OSError, FormatError):
            return None

    def _file(self, path: Path) -> Path:
        return self.folder / f"{hashlib.sha256(str(path).encode()).hexdigest()[:32]}.json"

    def _is_own(self) -> bool:
        """Not so where a link leads to another's folder."""
        return not self.folder.is_symlink()


def _document(built: BuiltFolder) -> bytes:
    said = {
        "schema": SCHEMA,
        "path": str(built.path),
        "plan": built.plan,
        "weights": built.weights,
        "files": dict(built.files),
        "seal": dict(built.seal),
        "tensors": {name: [one.key, one.row.to_json(), one.moved] for name, one in built.tensors.items()},
    }
    return canonical.dumps({**said, "sha256": _sum(said)}) + b"\n"


def _parsed(data: bytes) -> BuiltFolder | None:
    document = canonical.loads(data)
    if not isinstance(document, dict) or document.pop("sha256", None) != _sum(document):
        return None
    match document:
        case {
            "schema": 1, "path": str(path), "plan": str(plan), "weights": str(weights), "files": dict(files),
            "seal": dict(sealed), "tensors": dict(tensors),
        } if ids.is_id(weights):  # fmt: skip
            found = {name: _tensor(name, value) for name, value in tensors.items()}
            return BuiltFolder(Path(path), plan, weights, files, sealed, found)
    return None


def _tensor(name: str, value: Any) -> BuiltTensor:
    match value:
        case [str(key), row, (int() | None) as moved]:
            return BuiltTensor(key, TensorRow.from_json(row, name), moved)
    raise FormatError(f"{name[:80]!r}: a tensor is [key, [dtype, shape, id], moved]")


def _sum(said: dict[str, Any]) -> str:
    return hashlib.sha256(b"pv:folder:1\n" + canonical.dumps(said)).hexdigest()
