"""Progress on stderr: a bar where there is a terminal, a line now and then where there is none."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from pv.cli.say import echo, plain

__all__ = ["bar", "lines", "training_bar"]

Update = Callable[[int, int], None]


@contextmanager
def bar(label: str, unit: str) -> Iterator[Update]:
    counts: list[ProgressColumn] = (
        [DownloadColumn(), TransferSpeedColumn()]
        if unit == "bytes"
        else [MofNCompleteColumn(), TextColumn(unit, markup=False)]
    )
    columns = [TextColumn("{task.description}", markup=False), BarColumn(), *counts, TimeRemainingColumn()]
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(plain(label), total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def lines(label: str, unit: str, *, every_s: float) -> Update:
    last = time.monotonic()

    def update(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= every_s:
            last = time.monotonic()
            share = f"{100 * done / total:.0f} %" if total else str(done)
            echo(f"{label}: {share} of {total if unit != 'bytes' else _size(total)} {unit}", err=True)

    return update


def _size(nbytes: int) -> str:
    return f"{nbytes / 1e6:,.0f} million"


@contextmanager
def training_bar(label: str) -> Iterator[Callable[[int, int, float, float, float], None]]:
    """Yields a function (step, steps, loss, tokens per second, seconds left)."""
    columns = [
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn(
            "step {task.completed}/{task.total}  loss {task.fields[loss]}  {task.fields[rate]} tokens/s"
        ),
        TextColumn("{task.fields[left]} left"),
    ]
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(plain(label), total=None, loss="-", rate="-", left="-")

        def update(step: int, steps: int, loss: float, rate: float, left: float) -> None:
            minutes, seconds = divmod(round(left), 60)
            progress.update(
                task,
                completed=step,
                total=steps,
                loss=f"{loss:.3f}",
                rate=f"{rate:.0f}",
                left=f"{minutes}:{seconds:02d}",
            )

        yield update
