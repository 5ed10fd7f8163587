"""When a training is saved, and how it goes on: now and then while it runs, and when it is told to stop.

A step is not stopped in its middle: Ctrl-C and SIGTERM are heard between two, and a second one at once, without saving.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from pv.registry.errors import NotFoundError, StorageError, UsageError
from pv.vecstore.train.options import SAVE_EVERY_S
from pv.vecstore.train.state import State, read_state, write_state

if TYPE_CHECKING:
    pass

__all__ = ["Saving", "interrupts"]

SHARE = 0.05  # of a run's time that saving may take
_AGAIN = "run it as it was begun, or start again without --resume"
_WORDS = {
    "rows": "with other rows",
    "general": "with other general answers",
    "base": "on another base",
    "threads": "",
    "device": "on another device",
}


@dataclass(slots=True)
class Saving:
    """`file` is where, `run` what must be the same to go on (the loop adds its own), `resume` whether to."""

    file: Path
    run: Mapping[str, Any]
    resume: bool = False
    every_s: float = SAVE_EVERY_S
    notes: list[str] = field(default_factory=list)
    _due: float = field(default_factory=time.monotonic)

    def begin(self, more: Mapping[str, Any]) -> State | None:
        """The state to go on from. Raises NotFoundError, UsageError for another run's, IntegrityError."""
        self.run = {**self.run, **more}
        self._due = time.monotonic() + self.every_s
        if not self.resume:
            return None
        try:
            state = read_state(self.file)
        except FileNotFoundError as error:
            raise NotFoundError(
                "nothing to resume: no training of that name was stopped on this branch",
                hint="leave --resume out",
            ) from error
        check_same(state.run, self.run)
        if state.run.get("torch") != self.run.get("torch"):
            self.notes.append(
                f"begun with torch {state.run.get('torch')} and gone on with {self.run.get('torch')}: "
                "not bit for bit what either alone would give"
            )
        return replace(state, went_on=(*state.went_on, state.step))

    def now_and_then(self, state: Callable[[], State]) -> None:
        """Save if it is time."""
        began = time.monotonic()
        if began < self._due:
            return
        self.try_to_save(state)
        took = time.monotonic() - began
        self._due = time.monotonic() + (max(self.every_s, took / SHARE) if self.every_s else 0.0)

    def try_to_save(self, state: Callable[[], State]) -> None:
        """A disk that refuses is no reason to stop: it is said once."""
        try:
            self.save(state())
        except StorageError as error:
            if not any("not saved" in note for note in self.notes):
                self.notes.append(f"the training was not saved while it ran: {error}")

    def save(self, state: State) -> None:
        write_state(self.file, replace(state, run=self.run))


def check_same(saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raises UsageError that says what is not as it was when the training began."""
    for key, words in _WORDS.items():
        if saved.get(key) != now.get(key):
            if key == "threads":
                raise UsageError(
                    f"this training began with {saved.get(key)} threads, not {now.get(key)}: the bits would differ",
                    hint=f"add --threads {saved.get(key)}, or start again without --resume",
                )
            was = f" ({saved['source']})" if key == "rows" and "source" in saved else ""
            raise UsageError(f"the training to resume began {words}{was}", hint=_AGAIN)
    before, after = saved.get("options", {}), now.get("options", {})
    differ = [
        f"{key} {before.get(key)} then, {after.get(key)} now"
        for key in sorted({*before, *after})
        if before.get(key) != after.get(key)
    ]
    if differ:
        raise UsageError(
            f"the training to resume began with other settings: {'; '.join(differ)}", hint=_AGAIN
        )


@contextmanager
def interrupts(hear: bool) -> Iterator[Callable[[], bool]]:
    """Whether somebody wants us to stop: asked between steps. The second SIGINT or SIGTERM stops at once."""
    asked = threading.Event()
    if not hear or threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return

    def heard(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    ours = [one for one, what in before.items() if what not in (signal.SIG_IGN, None)]
    for one in ours:
        signal.signal(one, heard)
    try:
        yield asked.is_set
    finally:
        for one in ours:
            signal.signal(one, before[one])
