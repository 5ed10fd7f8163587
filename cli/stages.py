"""Progress of work that has stages: one bar after another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from pv.cli.app import App

__all__ = ["stages"]

Staged = Callable[[str, int, int], None]


@contextmanager
def stages(app: App, labels: dict[str, tuple[str, str]]) -> Iterator[Staged]:
    """Yields a function (stage, done, total). `labels`: stage -> (what a person reads, unit)."""
    with ExitStack() as bar:
        now: str | None = None
        show: Callable[[int, int], None] = _nothing

        def update(stage: str, done: int, total: int) -> None:
            nonlocal now, show
            if stage != now:
                bar.close()
                now, show = stage, bar.enter_context(app.progress(*labels[stage]))
            show(done, total)

        yield update


def _nothing(done: int, total: int) -> None:
    pass
