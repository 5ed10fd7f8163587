"""The neutral set that is part of pv: plain answers to ordinary prompts, and passages of plain text.

English and short (about 3,500 tokens): what a model for anything else should lose nothing on is `--neutral FILE`.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from pv.vecstore.data.rows import Rows, parse_rows

__all__ = ["neutral_set"]

FILE = Path(__file__).with_name("neutral.jsonl")


@cache
def neutral_set() -> Rows:
    return parse_rows(FILE.read_bytes(), source="pv's neutral set")
