"""The log: commits with their personas and the refs that point at them, in two git processes."""

from __future__ import annotations

from collections import defaultdict
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
    """`refs` are full names (refs/heads/main) of what points here; `head` says if HEAD's branch does."""

    id: str
    parents: tuple[str, ...]
    author: str
    email: str
    time: datetime
    message: str
    persona: Persona
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
        }


def read_log(
    history: GitRepository, tips: list[str], limit: int | None = None, *, lines_together: bool = False
) -> list[LogEntry]:
    """Newest first; no commit comes before all of its children have."""
    pointing = defaultdict(list)
    now = view(history)
    for ref, object_id in now.refs.items():
        if ref != refs.OPS:
            pointing[object_id].append(ref)
    entries = []
    for commit_id in history.walk(tips, limit, lines_together=lines_together):
        commit = history.commit(commit_id)
        entries.append(
            LogEntry(
                id=commit_id,
                parents=commit.parents,
                author=commit.author.name,
                email=commit.author.email,
                time=commit.author.time,
                message=commit.message,
                persona=Snapshot(history, commit_id).persona(),
                refs=tuple(pointing[commit_id]),
                head=commit_id == now.tip,
            )
        )
    return entries
