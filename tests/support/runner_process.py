"""A process that has imported pv and runs command lines in forks of itself, some of which it stops.

It has one thread, so a fork of it is as good as a fresh process, and costs a hundredth. It reads one JSON
object a line: {"lines": [[argument, ...], ...], "stop": steps | null, "kill": seconds | null, "group": bool,
"faulty": name | null}. It answers with one: {"code", "label", "out"}; `out` is what the child said on stdout.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time
from typing import Any

import pv.registry.check.fsck
import pv.registry.check.gc
import pv.vecstore.check.decode
import pv.vecstore.repo.opening
import pv.vecstore.vectors.vector  # noqa: F401  (imported before the forks, not in each of them)
from pv.cli.main import run
from pv.registry.disk import durable

STOPPED = 99


def main() -> None:
    for line in sys.stdin:
        job = json.loads(line)
        print(json.dumps(_run(job)), flush=True)


def _run(job: dict[str, Any]) -> dict[str, Any]:
    out_read, out_write = os.pipe()
    label_read, label_write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(out_read)
        os.close(label_read)
        _child(job, out_write, label_write)
    os.close(out_write)
    os.close(label_write)
    deadline = time.monotonic() + job["kill"] if job["kill"] is not None else None
    out = _read(out_read, child, deadline, job["group"])
    label = b"".join(iter(lambda: os.read(label_read, 65536), b"")).decode()
    os.close(out_read)
    os.close(label_read)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return {"code": code, "label": label, "out": out.decode("utf-8", "replace")}


def _read(fd: int, child: int, deadline: float | None, group: bool) -> bytes:
    """What the child and its gits say, until the last of them ends; killing it when its time is up."""
    out = b""
    while True:
        wait = None if deadline is None else max(0.0, deadline - time.monotonic())
        if not select.select([fd], [], [], wait)[0]:
            deadline = None
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL) if group else os.kill(child, signal.SIGKILL)
            continue
        piece = os.read(fd, 65536)
        if not piece:
            return out
        out += piece


def _child(job: dict[str, Any], out: int, label: int) -> None:
    os.setpgid(0, 0)
    os.dup2(out, 1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    left = job["stop"]

    def fault(step: str) -> None:
        nonlocal left
        if left is None:
            os.write(label, step.encode() + b"\n")
            return
        left -= 1
        if left < 0:
            os.write(label, step.encode())
            os._exit(STOPPED)

    code = 70
    try:
        durable.fault = fault
        for line in job["lines"]:
            code = run(line)
            if code in (3, 70):  # damage, or a bug
                break
    finally:
        sys.stdout.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
