"""The picture and the page of a probe, where they were asked for."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pv.registry.disk.durable import write_file

if TYPE_CHECKING:
    from pv.vecstore.repo.repo import Repo

__all__ = ["write_files"]


def write_files(
    repo: Repo, kind: str, found: Any, plot: Path | None, page: Path | None, command: str | None = None
) -> None:
    """`command` measures the same again, for the page: where there is a command line, that as it was typed."""
    if plot is None and page is None:
        return
    drawn = import_module(f"pv.vecstore.publish.probe_{kind}")
    if plot is not None:
        write_file(plot, drawn.png(found))
    if page is not None:
        typed = repo.command("")
        command = f"pv {typed.removeprefix('pv ')}" if typed else command
        write_file(page, drawn.page(found, command).encode())
