"""Progress on stderr: a bar for each stage where there is a terminal, a line now and then where there is none."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pv.cli.render import size
from pv.cli.say import echo, plain
from pv.cli.terminal import colour, moves

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
    elif moves():
        bars = Bars()
        try:
            yield bars
        finally:
            bars.close()
    else:
        yield Lines()


class Bars:
    """One line after another: a stage's goes when the next begins. Until its total is known, it has no bar."""

    def __init__(self) -> None:
        self._shown: tuple[str, bool] | None = None
        self._line: Progress | None = None

    def __call__(self, tick: Tick) -> None:
        if (tick.stage, tick.total > 0) != self._shown:
            self.close()
            self._open(tick)
        assert self._line is not None
        self._line.update(self._task, completed=tick.done, tick=tick)

    def _open(self, tick: Tick) -> None:
        from rich.console import Console
        from rich.progress import Progress

        self._shown = tick.stage, tick.total > 0
        console = Console(stderr=True, no_color=colour() is False)
        self._line = Progress(*_columns(tick), console=console, transient=True)
        stage, room = plain(tick.stage), max(10, console.width - _right_of_it(tick))
        stage = stage if len(stage) <= room else f"{stage[: room - 1]}…"
        self._task = self._line.add_task(stage, total=tick.total or None, tick=tick)
        self._line.start()

    def close(self) -> None:
        if self._line is not None:
            self._line.stop()
        self._line = self._shown = None


def _right_of_it(tick: Tick) -> int:
    """The columns that what is right of a stage's name takes, at most."""
    if not tick.total:
        return 30 if tick.done else 11
    return 57 if tick.unit == "steps" else 44 if tick.unit == "bytes" else 34


def _columns(tick: Tick) -> list[ProgressColumn]:
    """What is done, a bar, and how far it is. On a narrow terminal the bar gives way first."""
    from rich.progress import BarColumn, ProgressColumn, SpinnerColumn, Task, TextColumn, TimeElapsedColumn
    from rich.table import Column
    from rich.text import Text

    class HowFar(ProgressColumn):
        def render(self, task: Task) -> Text:
            tick: Tick = task.fields["tick"]
            left = tick.seconds_left if tick.loss is not None else task.time_remaining
            speed = f"{size(round(task.speed))}/s" if task.speed and tick.unit == "bytes" else None
            return Text("  ".join([*_how_far(tick), *filter(None, [speed, _left(left)])]))

    whole = Column(no_wrap=True, overflow="ellipsis")
    name = TextColumn("{task.description}", markup=False, table_column=whole)
    how_far = HowFar(table_column=whole)
    if tick.total:
        return [name, BarColumn(bar_width=None, table_column=Column(max_width=40, ratio=1)), how_far]
    return [SpinnerColumn("line"), name, *([how_far] if tick.done else []), TimeElapsedColumn()]


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
            words = ", ".join([*_how_far(tick), *filter(None, [_left(tick.seconds_left)])])
            echo(plain(f"  {tick.stage}: {words}" if words else f"  {tick.stage}"), err=True)


def _how_far(tick: Tick) -> list[str]:
    """`step 3/18`, `loss 4.913`; `12/30 answers`; `12 MB of 269 MB`: nothing of what is not known."""
    if tick.unit == "steps":  # of which none is done yet: no loss
        loss = [] if tick.loss is None else [f"loss {tick.loss:.3f}"]
        rate = [] if tick.tokens_per_s is None else [f"{tick.tokens_per_s:.0f} tokens/s"]
        return [f"step {tick.done}/{tick.total}", *loss, *rate]
    if not tick.total:
        return [_amount(tick.done, tick.unit)] if tick.done else []
    if tick.unit == "bytes":
        return [f"{size(tick.done)} of {size(tick.total)}"]
    return [f"{_number(tick.done)}/{_amount(tick.total, tick.unit)}"]


def _amount(count: int, unit: str) -> str:
    return size(count) if unit == "bytes" else f"{_number(count)} {unit}".rstrip()


def _number(count: int) -> str:
    """In full up to a hundred thousand, which is what can be counted; beyond, in millions."""
    return f"{count:,}" if count < 100_000 else f"{count / 1e6:.3g}M"


def _left(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d} left" if hours else f"{minutes}:{rest:02d} left"
