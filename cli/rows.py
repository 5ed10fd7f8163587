"""Rows that a command is given: a file, or `-` for stdin."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pv.registry.errors import DataError, PvError

if TYPE_CHECKING:
    from pv.vecstore.data.rows import Rows
    from pv.vecstore.repo.repo import Repo

__all__ = ["read"]

STDIN = "-"


def read(path: Path, typed: str, repo: Repo) -> Rows:
    """Rows of a file; `typed` is what the user wrote. Raises DataError, and says so if it is a revision."""
    from pv.vecstore.data.rows import parse_rows, read_rows

    if typed == STDIN:
        data = sys.stdin.buffer.read() if hasattr(sys.stdin, "buffer") else sys.stdin.read().encode()
        if not data.strip():
            raise DataError(
                "no rows on stdin", hint="pipe them in, or use `< FILE`; only one `-` can be read"
            )
        return parse_rows(data, source="stdin")
    if not path.exists() and _is_revision(typed, repo):
        hint = f"name a file of rows; a revision goes before it, as in `pv eval {typed} ROWS.jsonl`"
        raise DataError(f"{typed!r} is a revision, not a file of rows", hint=hint)
    return read_rows(path)


def _is_revision(typed: str, repo: Repo) -> bool:
    with contextlib.suppress(PvError):
        return bool(repo.at(typed).commit)
    return False
