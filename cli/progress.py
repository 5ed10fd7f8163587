"""Progress on stderr: a bar for each stage where there is a terminal, a line now and then where there is none."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pv.cli.say import echo, plain

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn

    from pv.vecstore.progress import Report, Tick

__all__ = ["Bars", "Lines", "reporter"]

LINE_EVERY_S = 30.0


@contextmanager
def reporter(*, quiet: bool) -> Iterator[Report | None]:
    """Yields a function that takes a `Tick`; None if nothing is to be said."""
    if quiet:
        yield None
    elif sys.stderr.isatty():
        bars = Bars()
        try:
            yield bars
        finally:
            bars.close()
    else:
        yield Lines()


class Bars:
    """One bar after another: a stage's goes when the next begins."""

    def __init__(self) -> None:
        self._stage: str | None = None
        self._bar: Progress | None = None

    def __call__(self, tick: Tick) -> None:
        if tick.stage != self._stage:
            self.close()
            self._open(tick)
        assert self._bar is not None
        rest: dict[str, Any] = {"loss": f"{tick.loss:.3f}"} if tick.loss is not None else {}
        if tick.tokens_per_s is not None and tick.seconds_left is not None:
            minutes, seconds = divmod(round(tick.seconds_left), 60)
            rest |= {"rate": f"{tick.tokens_per_s:.0f}", "left": f"{minutes}:{seconds:02d}"}
        self._bar.update(self._task, completed=tick.done, total=tick.total or None, **rest)

    def _open(self, tick: Tick) -> None:
        from rich.console import Console
        from rich.progress import Progress

        self._stage = tick.stage
        self._bar = Progress(*_columns(tick), console=Console(stderr=True), transient=True)
        self._task = self._bar.add_task(
            plain(tick.stage), total=tick.total or None, loss="-", rate="-", left="-"
        )
        self._bar.start()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
        self._bar = self._stage = None


def _columns(tick: Tick) -> list[ProgressColumn]:
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    name = TextColumn("{task.description}", markup=False)
    if tick.unit == "steps":
        steps = "step {task.completed}/{task.total}  loss {task.fields[loss]}  {task.fields[rate]} tokens/s"
        return [name, BarColumn(), TextColumn(steps), TextColumn("{task.fields[left]} left")]
    if not tick.unit:
        return [name, BarColumn()]
    if tick.unit == "bytes":
        return [name, BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()]
    counts = [MofNCompleteColumn(), TextColumn(tick.unit, markup=False)]
    return [name, BarColumn(), *counts, TimeRemainingColumn()]


class Lines:
    """Lines for a log: the first of a training at once, then one in half a minute."""

    def __init__(self, every_s: float = LINE_EVERY_S) -> None:
        self._every_s = every_s
        self._last = time.monotonic()
        self._stage: str | None = None

    def __call__(self, tick: Tick) -> None:
        if not tick.unit:
            echo(plain(tick.stage), err=True)
            return
        now = time.monotonic()
        training = tick.loss is not None and (tick.stage != self._stage or tick.done == tick.total)
        if training or now - self._last >= self._every_s:
            self._last, self._stage = now, tick.stage
            echo(plain(_line(tick)), err=True)


def _line(tick: Tick) -> str:
    if tick.loss is not None:
        rate, left = tick.tokens_per_s or 0.0, tick.seconds_left or 0.0
        return (
            f"  {tick.stage}: step {tick.done}/{tick.total}, loss {tick.loss:.3f}, "
            f"{rate:.0f} tokens/s, {left:.0f} s left"
        )
    share = f"{100 * tick.done / tick.total:.0f} %" if tick.total else str(tick.done)
    total = f"{tick.total / 1e6:,.0f} million" if tick.unit == "bytes" else tick.total
    return f"{tick.stage}: {share} of {total} {tick.unit}"
