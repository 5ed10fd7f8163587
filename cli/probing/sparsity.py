"""What `pv probe sparsity` found, as text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pv.cli.render import table
from pv.cli.say import plain
from pv.vecstore.probe.edit_found import counted
from pv.vecstore.publish.probe_sparsity import (
    HEADER,
    LEGEND,
    NEEDED,
    headline,
    needed_legend,
    needed_rows,
    run_rows,
)

if TYPE_CHECKING:
    from pv.vecstore.probe.sparse_found import Sparsity

__all__ = ["lines"]


def lines(found: Sparsity) -> Iterator[str]:
    """A line for each training, and whether a penalty made it sit in fewer neurons."""
    yield plain(f"{found.what}: trained plainly, and with a penalty on changed {found.penalized}")
    yield plain(f"{counted(found.data)}; {found.count:,} neurons in the model")
    yield ""
    yield table(HEADER, run_rows(found))
    yield LEGEND
    yield ""
    yield table(NEEDED, needed_rows(found))
    yield needed_legend(found)
    yield ""
    yield f"{headline(found)} ({found.why})"
