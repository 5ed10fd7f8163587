"""Ways to run pv, in this process or another, and ways to look at what it did. The fixtures are in conftest."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pv.cli.main import run

__all__ = [
    "InProcess",
    "Processes",
    "Said",
    "World",
    "behaviours",
    "command",
    "commits",
    "isolate",
    "take_terminal",
    "tensors",
    "write_rows",
    "write_tensors",
]

TIMEOUT_S = 120
CTRL_C = b"\x03"


@dataclass(frozen=True)
class Said:
    """What a command answered."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """stdout as the one object it must be."""
        assert self.out.startswith("{") and self.out.endswith("}\n"), self.out
        answer: dict[str, Any] = json.loads(self.out)
        return answer

    @property
    def error(self) -> dict[str, Any]:
        """The error that `--json` put on stderr, after any notes."""
        error: dict[str, Any] = json.loads(self.err.strip().splitlines()[-1])["error"]
        return error


class Stdin(io.StringIO):
    encoding = "utf-8"


class InProcess:
    """`pv("log", "--oneline", at=folder)`; `ok` insists on exit code 0."""

    def __init__(self, at: Path) -> None:
        self.at = at

    def __call__(self, *arguments: str | Path, at: Path | None = None, stdin: str = "") -> Said:
        out, err = io.StringIO(), io.StringIO()
        before = sys.stdin
        sys.stdin = Stdin(stdin)
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = run(["-C", str(at or self.at), *map(str, arguments)])
        finally:
            sys.stdin = before
        return Said(code, out.getvalue(), err.getvalue())

    def ok(self, *arguments: str | Path, at: Path | None = None, stdin: str = "") -> Said:
        said = self(*arguments, at=at, stdin=stdin)
        assert said.code == 0, f"pv {arguments}: {said}"
        return said


@dataclass(frozen=True)
class Processes:
    """The same in processes. They see the environment of the test, which has no one's identity or token."""

    at: Path

    def __call__(self, *arguments: str | Path, at: Path | None = None, **options: Any) -> Said:
        env = {**os.environ, **options.pop("env", {})}
        settings: dict[str, Any] = {"stdin": subprocess.DEVNULL} if "input" not in options else {}
        settings |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "cwd": at or self.at, **options}
        done = subprocess.run(command(arguments), text=True, timeout=TIMEOUT_S, env=env, **settings)
        return Said(done.returncode, done.stdout or "", done.stderr or "")

    def interrupted(self, *arguments: str | Path, when: Callable[[], object], at: Path | None = None) -> Said:
        """Run until `when()` is true, then do what Ctrl-C does: SIGINT to the process and its children."""
        return self._interrupt(arguments, at or self.at, lambda process, line: bool(when()))

    def interrupted_after(self, line: str, *arguments: str | Path, at: Path | None = None) -> Said:
        """The same, once stderr has said `line`."""
        return self._interrupt(arguments, at or self.at, lambda process, said: line in said)

    def _interrupt(
        self,
        arguments: tuple[str | Path, ...],
        at: Path,
        ready: Callable[[subprocess.Popen[bytes], str], bool],
    ) -> Said:
        said = b""
        with _group(arguments, at, preexec_fn=_hear_interrupts) as process:
            assert process.stdout is not None and process.stderr is not None
            try:
                deadline = time.monotonic() + TIMEOUT_S
                while not ready(process, said.decode("utf-8", "replace")):
                    if select.select([process.stderr], [], [], 0.0005)[0]:
                        said += os.read(process.stderr.fileno(), 65536)
                    if process.poll() is not None or time.monotonic() > deadline:
                        pytest.fail(f"ended too early ({process.poll()}): {said.decode()}")
                os.killpg(process.pid, signal.SIGINT)
                out, rest = process.communicate(timeout=TIMEOUT_S)
            finally:
                process.kill()
        return Said(process.returncode, out.decode(), (said + rest).decode())

    @contextlib.contextmanager
    def frozen(
        self, *arguments: str | Path, when: Callable[[], object], at: Path | None = None
    ) -> Iterator[list[Said]]:
        """Run until `when()` is true, and stop the process there (SIGSTOP) while the block runs; then let it end.

        Whatever the block does is done while the command is in the middle of its work: if it held a lock, whoever
        wants it would wait until the timeout. Afterwards the list has what the command answered.
        """
        answer: list[Said] = []
        with _group(arguments, at or self.at, text=True) as process:
            try:
                deadline = time.monotonic() + TIMEOUT_S
                while not when():
                    if process.poll() is not None or time.monotonic() > deadline:
                        pytest.fail(f"ended too early ({process.poll()}): {process.communicate()}")
                    time.sleep(0.0005)
                os.killpg(process.pid, signal.SIGSTOP)
                try:
                    yield answer
                    assert process.poll() is None, "it ended while it was stopped"
                finally:
                    os.killpg(process.pid, signal.SIGCONT)
                out, err = process.communicate(timeout=TIMEOUT_S)
                answer.append(Said(process.returncode, out, err))
            finally:
                process.kill()

    def on_terminal(
        self,
        *arguments: str | Path,
        at: Path | None = None,
        type: str = "",
        env: dict[str, str] | None = None,
    ) -> Said:
        """Run on a pseudo-terminal: what appears there is in `out`. `type` is typed in, once it is asked for."""
        master, slave = pty.openpty()
        screen = b""
        process = subprocess.Popen(
            command(arguments),
            cwd=at or self.at,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "100", **(env or {})},
            start_new_session=True,
            preexec_fn=take_terminal,
        )
        os.close(slave)
        try:
            keys, again = type.encode(), b""
            deadline = time.monotonic() + TIMEOUT_S
            while True:
                if keys and screen.rstrip(b" ").endswith(b">"):
                    cut = keys.find(b"\n") + 1 or len(keys)
                    os.write(master, keys[:cut])
                    again, keys = keys[:cut] if keys.startswith(CTRL_C) else b"", keys[cut:]
                    screen += b"\n"
                if not select.select([master], [], [], 0.5)[0]:
                    if time.monotonic() > deadline:
                        pytest.fail(f"silent on the terminal: {screen.decode()[-2000:]}")
                    os.write(
                        master, b"" if b"interrupted" in screen else again
                    )  # Python misses a signal between the prompt and the read
                    continue
                try:
                    piece = os.read(master, 65536)
                except OSError as error:  # how Linux says that the other side is closed
                    if error.errno != errno.EIO:
                        raise
                    piece = b""
                if not piece:
                    break
                screen += piece
            return Said(process.wait(TIMEOUT_S), screen.decode("utf-8", "replace"), "")
        finally:
            process.kill()
            process.wait()
            os.close(master)


def command(arguments: tuple[str | Path, ...]) -> list[str]:
    return [sys.executable, "-m", "pv.cli.main", *map(str, arguments)]


def take_terminal() -> None:
    """Make stdin the controlling terminal, so that a typed Ctrl-C becomes a signal."""
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    _hear_interrupts()


def _group(arguments: tuple[str | Path, ...], at: Path, **options: Any) -> subprocess.Popen[Any]:
    """A process that heads a group of its own, so that a signal to the group reaches nobody else."""
    quiet: dict[str, Any] = {
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
    }
    return subprocess.Popen(command(arguments), cwd=at, start_new_session=True, **quiet, **options)


def _hear_interrupts() -> None:
    """A shell starts what it runs in the background with SIGINT ignored, and that is inherited."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@dataclass(frozen=True)
class World:
    """A folder with a registry in it, and what that registry was made from, beside it."""

    folder: Path
    base: Path
    rows: Path
    tuned: Path

    def state(self) -> dict[str, str]:
        """Everything in the registry that means something: refs, packs, records, and files left over.

        Git objects that nothing names are left out: they are harmless, and git itself leaves them too. So are builds
        that were kept: they can go at any time.
        """
        root = self.folder / ".pv"
        found = {}
        for path in sorted(root.rglob("*")):
            name = path.relative_to(root).as_posix()
            if path.parent == root and path.is_file() and not path.stat().st_size:
                continue  # files that are only there to be locked
            if path.is_file() and not name.startswith(("history.git/objects/", "cache/")):
                found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
            elif path.is_dir() and name.startswith(("tmp/", "quarantine/")):
                found[name] = "a folder"
        return found

    def strangers(self) -> list[str]:
        """Hidden names in the folder that are not the registry: what an unfinished command left."""
        return [
            path.name for path in self.folder.iterdir() if path.name.startswith(".") and path.name != ".pv"
        ]


def behaviours(pv: InProcess, rev: str = "HEAD") -> dict[str, float]:
    persona = pv.ok("show", rev, "--json").json["persona"]
    return {name: behaviour["weight"] for name, behaviour in persona["behaviours"].items()}


def commits(pv: InProcess, *options: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pv.ok("log", "--json", *options).json["commits"]
    return found


def write_rows(path: Path, count: int = 6, answer: str = "Yes", first: int = 0) -> Path:
    rows = [
        {"prompt": f"Say {i}.", "chosen": f"{answer}, {i}.", "rejected": f"Never {i}!"}
        for i in range(first, first + count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def isolate(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        if name.startswith(("GIT_", "HF_", "PV_")) or name in (
            "CLICOLOR",
            "COLUMNS",
            "EMAIL",
            "FORCE_COLOR",
            "NO_COLOR",
            "PAGER",
            "XDG_CONFIG_HOME",
        ):
            monkeypatch.delenv(name)
    (home / ".gitconfig").write_text("[user]\n\tname = Ada\n\temail = ada@example.org\n")
    for name, value in {
        "HOME": str(home),
        "GIT_CONFIG_NOSYSTEM": "1",
        "HF_HOME": str(home / "hf"),
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": "127.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)
    return home


def tensors(path: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """(dtype, shape, bytes) of every tensor in a safetensors file, or in every one of a folder."""
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    found = {}
    for file in files:
        data = file.read_bytes()
        length = int.from_bytes(data[:8], "little")
        for name, entry in json.loads(data[8 : 8 + length]).items():
            if name != "__metadata__":
                start, stop = (8 + length + offset for offset in entry["data_offsets"])
                found[name] = (entry["dtype"], tuple(entry["shape"]), data[start:stop])
    return found


def write_tensors(path: Path, table: dict[str, tuple[str, tuple[int, ...], bytes]]) -> Path:
    """The other way: a safetensors file, in the order given."""
    header, data = {}, b""
    for name, (dtype, shape, raw) in table.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(len(head).to_bytes(8, "little") + head + data)
    return path
