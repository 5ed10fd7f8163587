"""How long work says where it is: plain functions that are called as it goes on.

    Progress    (done, total)    one stage, in bytes or in things; from one thread at a time
    Added       (count)          the same, by how much was done since the last call
    Report      (Tick)           a whole verb: which stage it is in, and how far

A verb of `repo` takes `progress: Report | None` and gives each of its stages a `Progress` by `stage`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Added", "Progress", "Report", "Tick", "counted", "said", "stage"]

Progress = Callable[[int, int], None]
Added = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Tick:
    """`stage` in words ("building"), `done` of `total` `unit` ("bytes", a plural noun, or "" for no count at all).

    While a model is trained, the unit is "steps"; after the first, `loss`, `tokens_per_s` and `seconds_left` are there.
    """

    stage: str
    done: int
    total: int
    unit: str = "bytes"
    loss: float | None = None
    tokens_per_s: float | None = None
    seconds_left: float | None = None


Report = Callable[[Tick], None]


def stage(report: Report | None, name: str, unit: str = "bytes", total: int = 0) -> Progress | None:
    """The progress of one stage of a verb. Says at once that the stage has begun, and of how much if that is known."""
    if report is None:
        return None
    report(Tick(name, 0, total, unit))
    return lambda done, total: report(Tick(name, done, total, unit))


def said(report: Report | None, name: str) -> None:
    """A stage that cannot say how far it is."""
    if report is not None:
        report(Tick(name, 0, 0, ""))


def counted(progress: Progress | None, total: int) -> Added:
    """A function that is given how much was done since the last time, out of `total`."""
    done = 0
    if progress is not None:
        progress(0, total)

    def add(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, total)

    return add
