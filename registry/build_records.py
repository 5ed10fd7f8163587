"""Records: facts measured about a build (hash of its weights, scores), one JSON file per build id.

A record is not history: it can be measured again. It is replaced whole, never edited in place, and carries
a checksum: a digit that rotted would be read as a measurement otherwise.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pv.registry import canonical, ids
from pv.registry.disk import durable, locks
from pv.registry.disk.bounded import read_bounded
from pv.registry.errors import FormatError

__all__ = ["RecordStore"]

SCHEMA = 1
_HINT = "delete it and measure again; `pv fsck --repair` deletes it too"


class RecordStore:
    """The records of one registry. `root` is its `.pv` folder."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "records"
        self._lock = root / "records.lock"

    def path(self, build_id: str) -> Path:
        return self.folder / f"{ids.check_id(build_id, 'build id')}.json"

    def read(self, build_id: str) -> dict[str, Any]:
        """The facts known about a build; empty if there are none. Raises FormatError."""
        path = self.path(build_id)
        try:
            data = read_bounded(path)
        except FileNotFoundError:
            return {}
        except FormatError as error:
            raise FormatError(str(error), hint=_HINT) from error
        try:
            document = canonical.loads(data, what=str(path))
        except FormatError as error:
            raise FormatError(str(error), hint=_HINT) from error
        match document:
            case {"build": str(build), "facts": dict(facts)} if build == build_id and data == _document(
                build_id, facts
            ):
                return facts
        raise FormatError(f"{path} is not a record of build {build_id[:12]}", hint=_HINT)

    def update(self, build_id: str, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Add facts; returns all of them. Concurrent updates all land.

        A new value replaces the old one of the same key, except that an object is added to an object key
        by key: scores on one data file do not displace those on another.
        """
        path = self.path(build_id)
        with locks.exclusive(self._lock):
            merged = self.read(build_id)
            for key, value in facts.items():
                old = merged.get(key)
                if isinstance(old, dict) and isinstance(value, dict):
                    value = {**old, **value}
                merged[key] = value
            durable.make_dirs(self.folder)
            durable.write_file(path, _document(build_id, merged))
        return merged

    def holding(self, key: str, value: Any) -> Iterator[str]:
        """Build ids whose record has this fact, sorted. A record that cannot be read says nothing."""
        for build_id in self.ids():
            with contextlib.suppress(FormatError):
                if self.read(build_id).get(key) == value:
                    yield build_id

    def ids(self) -> Iterator[str]:
        """Build ids that have a record, sorted."""
        if self.folder.is_dir():
            names = sorted(path.name for path in self.folder.iterdir())
            yield from (n.removesuffix(".json") for n in names if ids.is_id(n.removesuffix(".json")))


def _document(build_id: str, facts: dict[str, Any]) -> bytes:
    seal = hashlib.sha256(b"pv:record:1\n" + canonical.dumps([build_id, facts])).hexdigest()
    document = {"schema": SCHEMA, "build": build_id, "facts": facts, "sha256": seal}
    return canonical.dumps(document) + b"\n"
