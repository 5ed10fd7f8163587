"""Entries that do what no entry may, under the watch of `feed`: it has to notice every one of them."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from attacks import feed
from attacks.case import Case

from pv.registry.errors import FormatError, NotFoundError


def raises() -> None:
    raise ZeroDivisionError


def exits() -> None:
    sys.exit(3)


def is_refused() -> None:
    raise NotFoundError("there is no such thing")


def speaks() -> None:
    raise FormatError("\x1b[2J")


def babbles() -> None:
    raise FormatError("x" * 1_000_000)


def loops() -> None:
    while True:
        pass


def takes(mebibytes: int) -> None:
    bytearray(b"x" * (mebibytes << 20))


def crashes() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


WAYS: dict[str, Callable[[], object]] = {
    "raises": raises,
    "exits": exits,
    "is refused": is_refused,
    "speaks in escapes": speaks,
    "says too much": babbles,
    "loops": loops,
    "waits": lambda: time.sleep(10_000),
    "takes memory": lambda: takes(310),  # the bytes, and a copy of them
    "takes too much memory": lambda: takes(4096),
    "crashes": crashes,
    "goes through": lambda: None,
    "writes": lambda: Path("litter").write_text("x"),
}


def main(root: Path) -> None:
    cases = [Case(name, name, lambda folder: None) for name in WAYS]
    entries = {name: {"it": lambda case, out, way=way: way()} for name, way in WAYS.items()}
    feed.CPU_SECONDS, feed.WALL_SECONDS = 2, 12
    feed.run(cases, root, entries)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
