"""Where a picture and a page are written: checked before anything is measured, and nothing else is written over."""

from __future__ import annotations

import tempfile
from pathlib import Path

from pv.registry.errors import UsageError
from pv.vecstore.publish.steering_plot import need_matplotlib

__all__ = ["check_outputs"]

SUFFIXES = {"picture": (".png",), "page": (".html", ".htm")}


def check_outputs(plot: Path | None, page: Path | None) -> None:
    """Raises UsageError for a file that could not be written, or that should not: a picture is FILE.png, a page
    FILE.html. Also without matplotlib, if either is asked for."""
    if plot is None and page is None:
        return
    need_matplotlib()
    for what, path in (("picture", plot), ("page", page)):
        if path is None:
            continue
        if path.suffix.lower() not in SUFFIXES[what]:
            raise UsageError(f"{path.name} is no name for a {what}", hint=f"it ends in {SUFFIXES[what][0]}")
        if not path.parent.is_dir():
            raise UsageError(f"there is no folder {path.parent}", hint="make it first, or name another")
        if path.exists() and not path.is_file():
            raise UsageError(f"{path} is no file", hint="name another")
        try:
            with tempfile.TemporaryFile(dir=path.parent):
                pass
        except OSError as error:
            raise UsageError(
                f"nothing can be written to {path.parent}", hint="name a file in another folder"
            ) from error
