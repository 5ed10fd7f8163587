"""The rows that experiments train on and measure by."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from pv.registry.errors import DataError
from pv.vecstore.data.rows import Rows, read_rows

__all__ = ["EIGHT", "choice", "drawn", "eight", "groups", "persona", "persona_folder", "shipped"]

ROOT = Path(__file__).resolve().parents[2]
BEHAVIOURS = ROOT / "examples" / "behaviours"
EIGHT = ("pirate", "signoff", "doubt", "shouting", "topic", "asks", "sir", "emphasis")
HELD_QUICK = 4


@cache
def shipped(stem: str) -> Rows:
    """A file of examples/behaviours."""
    return read_rows(BEHAVIOURS / f"{stem}.jsonl")


def eight(name: str, *, quick: bool, held: int = 12) -> tuple[Rows, Rows]:
    """Rows to train on, and held-out ones."""
    rows, kept_back = shipped(f"eight/{name}"), shipped(f"eight/{name}.heldout")
    return (rows[:8], kept_back[:HELD_QUICK]) if quick else (rows, kept_back[:held])


def choice(*, quick: bool) -> Rows:
    """Questions with one right and one wrong answer."""
    rows = shipped("neutral_choice")
    return rows[::6] if quick else rows


def persona_folder() -> Path | None:
    """Yes/No sets of Anthropic's model-written evals, where they are: PV_PERSONA, or beside the checkout."""
    given = os.environ.get("PV_PERSONA")
    folder = Path(given).expanduser() if given else ROOT.parent / "shared" / "data" / "persona"
    if given and not folder.is_dir():
        raise DataError(
            f"PV_PERSONA is {folder}, and no folder is there",
            hint="a folder with agreeableness.jsonl and others of github.com/anthropics/evals, persona/",
        )
    return folder if folder.is_dir() else None


@cache
def persona(folder: Path, name: str) -> tuple[Rows, Rows]:
    """The first half of a set to draw from, and 24 rows of the second, with as many Yes as No among them."""
    rows = read_rows(folder / f"{name}.jsonl")
    half = len(rows) // 2
    return rows[:half], drawn(rows[half:], 24, seed=0)


def drawn(rows: Rows, count: int, *, seed: int) -> Rows:
    """So many rows, drawn by lot; of Yes/No rows one after the other of each kind. Fewer are the first of more."""
    order = np.random.Generator(np.random.Philox(key=seed)).permutation(len(rows))
    answers = [rows.rows[i].chosen.strip() for i in order]
    if set(answers) == {"Yes", "No"}:
        kinds = [
            [i for i, said in zip(order, answers, strict=True) if said == kind] for kind in ("Yes", "No")
        ]
        order = np.array([i for pair in zip(*kinds, strict=False) for i in pair])
    return replace(rows, rows=tuple(rows.rows[i] for i in order[:count]), lines=())


def groups(names: Sequence[str], size: int) -> list[tuple[str, ...]]:
    """Neighbours: every name is in one of them."""
    return [tuple(names[at : at + size]) for at in range(0, len(names), size)]
