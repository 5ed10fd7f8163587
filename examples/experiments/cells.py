"""Cells that were measured, one JSON file each, named by all that decides them: a run that was stopped goes on."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Cells"]


@dataclass(frozen=True, slots=True)
class Cells:
    """`common` is what decides all of them: base, code, dtype, neutral set."""

    folder: Path
    common: Mapping[str, Any]

    def get(self, decides: Mapping[str, Any]) -> dict[str, Any] | None:
        """What was found, or None: not measured yet, or half a file."""
        try:
            document = json.loads(self._file(decides).read_bytes())
            found = document["found"]
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None
        return found if isinstance(found, dict) else None

    def put(self, decides: Mapping[str, Any], found: Mapping[str, Any]) -> None:
        """There as a whole or not at all, whatever stops this process."""
        file = self._file(decides)
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(f".{os.getpid()}.part")
        document = {"common": self.common, "decides": decides, "found": found}
        with part.open("w", encoding="utf-8") as out:
            json.dump(document, out, allow_nan=False)
            out.flush()
            os.fsync(out.fileno())
        part.replace(file)

    def _file(self, decides: Mapping[str, Any]) -> Path:
        said = json.dumps([self.common, decides], sort_keys=True)
        return self.folder / f"{hashlib.sha256(said.encode()).hexdigest()[:24]}.json"
