"""pairs: contrast rows from a trait: what the base answers when it is told to have the trait, and when told not to.

The questions stand alone in the rows: who trains or extracts from them teaches the trait without being asked for it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pv.registry.disk.durable import write_file
from pv.registry.errors import DataError
from pv.vecstore.data.row import Message, Row, Rows
from pv.vecstore.data.trait import Trait, read_trait
from pv.vecstore.models.generate import Reply, written
from pv.vecstore.progress import Report, stage
from pv.vecstore.repo.revision import Revision

if TYPE_CHECKING:
    from pv.vecstore.repo.repo import Repo

__all__ = ["ContrastPairs", "pairs", "whole"]

TOGETHER = 20  # replies that are written at a time


@dataclass(frozen=True, slots=True)
class ContrastPairs:
    """Rows to extract from, and as many held out: every other question. `left_out`: those answered
    alike, or without a whole sentence."""

    trait: str
    rows: Rows
    held_out: Rows
    left_out: int

    def write(self, file: Path) -> tuple[Path, Path]:
        """Into FILE.jsonl and FILE.heldout.jsonl beside it, which is where `train` looks. Raises StorageError."""
        beside = file.with_name(f"{file.stem}.heldout{file.suffix}")
        write_file(file, self.rows.to_bytes())
        write_file(beside, self.held_out.to_bytes())
        return file, beside

    def to_json(self) -> dict[str, Any]:
        return {
            "trait": self.trait,
            "rows": {"n": len(self.rows), "id": self.rows.id},
            "held_out": {"n": len(self.held_out), "id": self.held_out.id},
            "left_out": self.left_out,
        }


def pairs(
    repo: Repo,
    trait: Trait | str | PathLike[str],
    *,
    max_tokens: int = 64,
    threads: int,
    progress: Report | None = None,
) -> ContrastPairs:
    """Ask the base every question twice; greedy. Raises DataError for a trait whose answers do not differ."""
    asked = trait if isinstance(trait, Trait) else read_trait(trait)
    prompts = asked.prompts()
    revision = Revision(repo.registry, repo.registry.resolve("HEAD"), "HEAD")
    with revision.chat(base=True, threads=threads, progress=progress) as chat:
        update = stage(progress, f"asking the base about {asked.name}", "replies", 2 * len(prompts))
        every = [prompt for _, have, lack in prompts for prompt in (have, lack)]
        said = written(chat.model, chat.tokenizer, every, max_tokens, batch=TOGETHER, progress=update)
    rows = []
    for (question, _, _), have, lack in zip(prompts, said[::2], said[1::2], strict=True):
        chosen, rejected = whole(have), whole(lack)
        if chosen and rejected and chosen != rejected:
            rows.append(Row((Message("user", question),), chosen, rejected))
    if len(rows) < 4:
        raise DataError(
            f"{len(rows)} of {len(prompts)} questions are answered differently when told so: too few to contrast",
            hint="write instructions that the base follows, or rows with chosen and rejected answers of your own",
        )
    return ContrastPairs(
        asked.name,
        Rows(tuple(rows[::2]), f"{asked.name}.jsonl"),
        Rows(tuple(rows[1::2]), f"{asked.name}.heldout.jsonl"),
        len(prompts) - len(rows),
    )


def whole(reply: Reply) -> str:
    """A reply; of one that was cut, its whole sentences: nobody should learn to stop in the middle of one."""
    if reply.finish == "stop":
        return reply.text
    ends = [match.end() for match in re.finditer(r"[.!?][\"')]?(?=\s|$)", reply.text)]
    return reply.text[: ends[-1]].strip() if ends else ""
