"""How a process of pv ends. `pv --help`, docs/cli.md and docs/scripting.md list these; errors carry them."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum

__all__ = ["MEANINGS", "ExitCode"]


class ExitCode(IntEnum):
    DONE = 0
    NO = 1
    USAGE = 2
    INTEGRITY = 3
    REMOTE = 4
    NOT_FOUND = 5
    BUG = 70  # as sysexits.h: EX_SOFTWARE
    DISK = 74  # EX_IOERR
    NO_REGISTRY = 128  # as git
    INTERRUPTED = 130  # as a shell says SIGINT
    READER_GONE = 141  # and SIGPIPE


MEANINGS: Mapping[ExitCode, str] = {
    ExitCode.DONE: "done",
    ExitCode.NO: "no: it differs, conflicts, or no encoding keeps enough",
    ExitCode.USAGE: "usage, or bad input",
    ExitCode.INTEGRITY: "integrity: damaged or wrong bytes",
    ExitCode.REMOTE: "network or Hub error",
    ExitCode.NOT_FOUND: "not found",
    ExitCode.BUG: "a bug in pv",
    ExitCode.DISK: "disk error",
    ExitCode.NO_REGISTRY: "not a registry",
    ExitCode.INTERRUPTED: "interrupted",
    ExitCode.READER_GONE: "stdout was closed (broken pipe)",
}
