"""The log: commits with their personas, what those were before, and the refs that point at them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pv.registry.git import refs
from pv.registry.git.repository import GitRepository
from pv.registry.history.operations import view
from pv.registry.history.snapshot import Snapshot
from pv.registry.persona import Persona

__all__ = ["LogEntry", "read_log"]


@dataclass(frozen=True, slots=True)
class LogEntry:
    """`refs` are full names (refs/heads/main) of what points here; `head` says if HEAD's branch does.

    `before` is the persona of the first parent; None for a first commit.
    """

    id: str
    parents: tuple[str, ...]
    author: str
    email: str
    time: datetime
    message: str
    persona: Persona
    before: Persona | None
    refs: tuple[str, ...]
    head: bool

    @property
    def subject(self) -> str:
        return self.message.partition("\n")[0]

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "parents": list(self.parents),
            "author": {"name": self.author, "email": self.email},
            "time": self.time.isoformat(),
            "message": self.message,
            "refs": list(self.refs),
            "persona_id": self.persona.id,
            "behaviours": {name: b.to_json() for name, b in self.persona.behaviours.items()},
            "combine": self.persona.combine.to_json(),
            "output": self.persona.output.to_json(),
            "steering": self.persona.steering.to_json(),
        }


def read_log(
    history: GitRepository,
    tips: Sequence[str],
    limit: int | None = None,
    *,
    without: Sequence[str] = (),
    keep: Callable[[LogEntry], bool] | None = None,
    lines_together: bool = False,
) -> list[LogEntry]:
    """Newest first; no commit comes before all of its children have.

    What leads to `without` is left out, and what `keep` says no to; `limit` counts what is left.
    """
    pointing = defaultdict(list)
    now = view(history)
    for ref, object_id in now.refs.items():
        if ref != refs.OPS:
            pointing[object_id].append(ref)
    personas: dict[str, Persona] = {}

    def persona(commit_id: str) -> Persona:
        if commit_id not in personas:
            personas[commit_id] = Snapshot(history, commit_id).persona()
        return personas[commit_id]

    entries: list[LogEntry] = []
    bound = limit if keep is None else None
    for commit_id in history.walk(tips, bound, without=without, lines_together=lines_together):
        if len(entries) == limit:
            break
        commit = history.commit(commit_id)
        entry = LogEntry(
            id=commit_id,
            parents=commit.parents,
            author=commit.author.name,
            email=commit.author.email,
            time=commit.author.time,
            message=commit.message,
            persona=persona(commit_id),
            before=persona(commit.parents[0]) if commit.parents else None,
            refs=tuple(pointing[commit_id]),
            head=commit_id == now.tip,
        )
        if keep is None or keep(entry):
            entries.append(entry)
    return entries
