"""rows: what a behaviour was trained on, given back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pv.registry.disk import durable
from pv.registry.errors import NotFoundError, UsageError
from pv.registry.provenance import Captured, Provenance, Trained, TrainingData
from pv.registry.provenance_ways import as_behaviour, origins
from pv.vecstore.data.kept_rows import load_rows
from pv.vecstore.data.rows import Rows

if TYPE_CHECKING:
    from pv.vecstore.repo.revision import Revision

__all__ = ["KeptRows", "kept_rows"]


@dataclass(frozen=True, slots=True)
class KeptRows:
    """The rows that a behaviour was trained on, or `held_out` and measured on; `data` is the file they came from."""

    commit: str
    behaviour: str
    vector: str
    data: str
    rows: Rows
    held_out: bool = False

    @property
    def named(self) -> Rows:
        """The rows, by the name of the file that they came from."""
        return replace(self.rows, source=self.data)

    def to_json(self) -> dict[str, Any]:
        return {
            "commit": self.commit,
            "behaviour": self.behaviour,
            "vector": self.vector,
            "data": self.data,
            "data_id": self.rows.id,
            "held_out": self.held_out,
            "rows": [row.to_json() for row in self.rows],
        }

    def write(self, file: Path) -> None:
        """The rows as a new file of JSON lines, whole or not at all. Raises UsageError, StorageError."""
        try:
            durable.write_file(file, self.rows.to_bytes(), replace=False)
        except FileExistsError:
            raise UsageError(f"{file} exists already", hint="name a new file with -o") from None
        except (FileNotFoundError, NotADirectoryError):
            raise UsageError(
                f"no folder {file.parent}", hint="make it, or name another file with -o"
            ) from None


def kept_rows(revision: Revision, behaviour: str, *, held_out: bool = False) -> KeptRows:
    """The rows of the behaviour's newest training, or those that it was measured on then.

    Raises UnknownBehaviour, and NotFoundError if they are not kept.
    """
    registry, why = revision.registry, ""
    for vector, known in _origins(revision, behaviour):
        match known:
            case Trained() as run if held_out:
                name, rows_id = _measured_on(run)
                if rows_id in run.packs and registry.packs.has(rows_id):
                    rows = load_rows(rows_id, registry.packs)
                    return KeptRows(revision.commit, behaviour, vector, name, rows, held_out=True)
                why = why or "no held-out rows were kept when it was trained"
            case Trained(data=data) if data.kept and registry.packs.has(data.id):
                rows = load_rows(data.id, registry.packs)
                return KeptRows(revision.commit, behaviour, vector, data.name, rows)
            case Trained(data=data):
                why = why or _not_kept(data)
            case Captured(source=source):
                why = why or f"it was captured from {source}, not trained here"
    why = why or "where it comes from is not recorded"
    raise NotFoundError(
        f"no rows of {behaviour!r}: {why}",
        hint=f"`pv show {revision.name}:{behaviour}` shows where it came from",
    )


def _origins(revision: Revision, behaviour: str) -> Iterator[tuple[str, Provenance]]:
    """Where the behaviour's vectors came from, the newest first; of one that came in several ways, its own first."""
    for term in reversed(revision.behaviour(behaviour).terms):
        known = revision.registry.provenance(revision.commit, term.vector)
        yield from ((term.vector, one) for one in origins(as_behaviour(known, behaviour)))


def _measured_on(origin: Trained) -> tuple[str, str]:
    """The file's name and the rows' id."""
    match origin.held_out:
        case {"data": str(name), "data_id": str(rows_id)}:
            return name, rows_id
    return "", ""


def _not_kept(data: TrainingData) -> str:
    which = f"{data.rows} rows of {data.name}"
    return f"the pack of its {which} is gone" if data.kept else f"its {which} were not kept (--no-data)"
