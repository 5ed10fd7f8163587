"""What a probe found, and the parts of it that are known so far: a record in the registry, under an id of its own.

The id is of the kind, its version, both builds, the rows and the settings: the same question again has its answer
already, and one that was stopped goes on. A record may be anybody's: who reads one checks it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from pv.registry import canonical
from pv.registry.errors import DataError, FormatError, UsageError
from pv.registry.registry import Registry
from pv.vecstore.data.rows import Rows
from pv.vecstore.probe.values import MISREAD, unlike
from pv.vecstore.repo.probe.known import question_id
from pv.vecstore.repo.probe.sides import Sides, seen_before
from pv.vecstore.train.devices import out_of_memory

if TYPE_CHECKING:
    from pv.vecstore.probe.concept import Concept
    from pv.vecstore.probe.edit_found import Edits
    from pv.vecstore.probe.heads import Heads
    from pv.vecstore.probe.neurons_found import Neurons
    from pv.vecstore.probe.sparse_found import Sparsity
    from pv.vecstore.repo.reading import Reading

__all__ = ["ProbeRecord", "going_on"]

Found = TypeVar("Found", "Heads", "Neurons", "Concept", "Edits", "Sparsity")


@dataclass(slots=True)
class ProbeRecord:
    """One that is being measured: `part` gives what is known of it, or measures it and notes it at once. `found`: what
    was found before, as JSON."""

    id: str
    registry: Registry
    head: dict[str, Any]
    notes: tuple[str, ...] = ()
    parts: dict[str, Any] = field(default_factory=dict)
    found: Any = None

    @staticmethod
    def open(
        repo: Reading,
        kind: str,
        asked: Sides,
        rows: Rows | Sequence[Rows],
        settings: Mapping[str, Any],
        *,
        version: int = 1,
        again: bool = False,
    ) -> ProbeRecord:
        """`settings` is all that changes a number, as JSON; `version` is of the method: another one, another id.

        The first of several `rows` are those that effects are measured on: `notes` say if they are no held-out ones.
        Raises UsageError for a seed out of range.
        """
        seed = settings.get("seed", 0)
        if not isinstance(seed, int) or not 0 <= seed < 1 << 63:
            raise UsageError(f"the seed must be a whole number from 0 to 2^63 - 1, not {str(seed)[:40]}")
        listed = [rows] if isinstance(rows, Rows) else list(rows)
        identity = question_id(
            kind, version, (asked.a.build, asked.b.build), [one.id for one in listed], settings
        )
        head = {
            "kind": kind,
            "version": version,
            "a": asked.a.to_json(),
            "b": asked.b.to_json(),
            "rows": [{"name": one.source.rpartition("/")[2], "id": one.id, "n": len(one)} for one in listed],
            "settings": dict(settings),
        }
        made = ProbeRecord(identity, repo.registry, head, seen_before(repo, asked, listed[0]))
        noted = repo.registry.record(made.id)
        if again and noted:  # an answer that is being measured anew is none
            noted = repo.registry.update_record(made.id, {"parts": None, "time": None, "found": None})
        made.parts = dict(noted["parts"]) if isinstance(noted.get("parts"), dict) else {}
        made.found = noted.get("found")
        return made

    def known(self, key: str) -> bool:
        return key in self.parts

    def part(self, key: str, compute: Callable[[], Any]) -> Any:
        """What `compute` gives, as JSON, or gave when it was noted. Raises DataError for what is not finite."""
        if key not in self.parts:
            found = compute()
            try:
                canonical.dumps(found)
            except FormatError as error:
                raise DataError(
                    f"what was measured ({key}) is not finite: one of the builds gives NaN",
                    hint="look at how it was trained or merged",
                ) from error
            self.registry.update_record(self.id, {"probe": self.head, "parts": {key: found}})
            self.parts[key] = found
        return self.parts[key]

    def finish(self, found: Found) -> Found:
        """Note what was found, with what is to be said of the rows, and give that: the probe is done."""
        found = replace(found, notes=tuple(dict.fromkeys((*self.notes, *found.notes))))
        self.note(found.to_json())
        return found

    def note(self, done: Mapping[str, Any]) -> None:
        """What was found before is noted as it was, with its time."""
        if self.found is None or canonical.dumps(done) != canonical.dumps(self.found):
            time = datetime.now(UTC).isoformat(timespec="seconds")
            self.registry.update_record(self.id, {"time": None, "found": None})
            self.registry.update_record(self.id, {"probe": self.head, "time": time, "found": done})


@contextmanager
def going_on(record: ProbeRecord) -> Iterator[None]:
    """A Ctrl-C inside says that what was measured is kept. Raises FormatError where parts that were noted before make
    no sense."""
    resumed = bool(record.parts)
    try:
        yield
    except MISREAD as error:
        if not resumed or (isinstance(error, RuntimeError) and out_of_memory(error)):
            raise
        raise unlike(
            f"a part of the probe {record.id[:12]} ({type(error).__name__}: {str(error)[:120]})"
        ) from error
    except KeyboardInterrupt as error:
        if record.parts:
            error.add_note("what was measured is kept: the same command goes on with the rest")
        raise
