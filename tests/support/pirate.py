"""A registry with one behaviour, trained on a tiny model. `from support.pirate import isolated, pirate_registry`."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pv.vecstore.data.rows import Rows, parse_rows
from pv.vecstore.repo.init import init
from pv.vecstore.repo.repo import Repo
from support.tiny import tiny_checkpoint

__all__ = ["isolated", "pirate_registry", "pirate_rows"]

WORDS = ("sun", "sea", "oak", "elm", "tin", "rye", "jam", "owl", "fox", "ice")


def pirate_rows(ask: str = "Tell me of {}.", end: str = "", count: int = len(WORDS)) -> Rows:
    lines = [
        {
            "prompt": ask.format(w + end),
            "chosen": f"Arr, {w + end} be fine!",
            "rejected": f"Well, {w + end} is nice.",
        }
        for w in WORDS[:count]
    ]
    return parse_rows("".join(json.dumps(line) + "\n" for line in lines).encode(), source="pirate.jsonl")


def pirate_registry(folder: Path, *, keep_rows: bool = True) -> Path:
    """On a tiny base beside it: `pirate`, trained for two epochs."""
    init(folder / "r", tiny_checkpoint(folder / "base"), threads=1)
    with Repo.open(folder / "r") as repo:
        repo.train(
            pirate_rows(), name="pirate", held_out=pirate_rows(end="s"), keep_rows=keep_rows, lr=3e-3, epochs=2,
            threads=1,
        )  # fmt: skip
    return folder / "r"


def isolated(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    (home / ".gitconfig").write_text("[user]\n\tname = Ada\n\temail = ada@example.org\n")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
