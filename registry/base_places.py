"""Where a base is on this machine, if it is no longer where its manifest says: `.pv/bases.json`.

Not history: a path is true of one machine. By base id, so that it holds for every commit on that base.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

from pv.registry import canonical, ids
from pv.registry.disk import durable, locks
from pv.registry.disk.bounded import read_bounded
from pv.registry.errors import FormatError, PvError
from pv.registry.manifest import check_origin

__all__ = ["BasePlaces"]

SCHEMA = 1
FILE = "bases.json"
_HINT = "delete it, and say `pv base move DIR` again"


class BasePlaces:
    """The bases of one registry that have moved. `root` is its `.pv` folder."""

    def __init__(self, root: Path) -> None:
        self.path = root / FILE
        self._lock = root / "records.lock"

    def read(self) -> dict[str, Mapping[str, str]]:
        """{base id: origin, as in a base manifest}. Raises FormatError."""
        try:
            data = read_bounded(self.path)
        except FileNotFoundError:
            return {}
        except FormatError as error:
            raise FormatError(str(error), hint=_HINT) from error
        what = str(self.path)
        match canonical.loads(data, what=what):
            case {"schema": 1, "bases": dict(bases)}:
                return {ids.check_id(key, what): check_origin(origin, what) for key, origin in bases.items()}
        raise FormatError(f"{what} is not a list of bases", hint=_HINT)

    def read_if_sound(self) -> dict[str, Mapping[str, str]]:
        """The same for a check, which goes on where a file is damaged."""
        with contextlib.suppress(PvError, OSError):
            return self.read()
        return {}

    def of(self, base_id: str) -> Mapping[str, str] | None:
        """Where that base is now; None: where its manifest says."""
        return self.read().get(base_id)

    def move(self, base_id: str, origin: Mapping[str, str] | None) -> None:
        """Note where a base is now; None forgets it."""
        with locks.exclusive(self._lock):
            bases = self.read()
            bases.pop(base_id, None)
            if origin is not None:
                bases[base_id] = origin
            document = {"schema": SCHEMA, "bases": {key: dict(one) for key, one in bases.items()}}
            durable.write_file(self.path, canonical.dumps(document) + b"\n")
