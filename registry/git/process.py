"""Git processes for one repository that is ours alone.

Invariant: nothing in the caller's environment or in a configuration other than the user's own redirects
git (to another repository, an index, a hook, a remote), and no text from a user is ever an option. Every
variable that could redirect is given a harmless value rather than left to chance.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from pv.registry.errors import IntegrityError, PvError, StorageError, UsageError

__all__ = ["GitProcess", "ObjectReader", "Reader"]

# Given on every command line: they win over whatever the repository's own config says.
_HARDENED = (
    "-c", f"core.hooksPath={os.devnull}",
    "-c", "core.fsync=all",
    "-c", "core.logAllRefUpdates=false",
    "-c", "core.fsmonitor=false",
    "-c", "i18n.commitEncoding=UTF-8",
    "-c", "gc.auto=0",
    "-c", "advice.graftFileDeprecated=false",
)  # fmt: skip
_DISK = re.compile(
    r"No space left|quota exceeded|Read-only file system|Permission denied|Input/output error|File too large"
)
_HEX40 = re.compile(r"[0-9a-f]{40}")
MAX_OBJECT_BYTES = 1 << 28


class GitProcess:
    """Runs git on one bare repository."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._version: tuple[int, int] | None = None
        here = str(path)
        self._environment = {
            "LANGUAGE": "C",  # messages are read here
            "LC_ALL": "C",
            "GIT_DIR": here,
            "GIT_COMMON_DIR": here,
            "GIT_WORK_TREE": here,
            "GIT_OBJECT_DIRECTORY": str(path / "objects"),
            "GIT_INDEX_FILE": str(path / "index"),
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": "",
            "GIT_NAMESPACE": "",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_COUNT": "0",
            "GIT_CONFIG_PARAMETERS": "",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_OPTIONAL_LOCKS": "0",
            "GIT_NO_REPLACE_OBJECTS": "1",
            "GIT_GRAFT_FILE": os.devnull,
            "GIT_SHALLOW_FILE": "",
            "GIT_ALLOW_PROTOCOL": "none",  # a missing object is an error, never a download
            "GIT_NO_LAZY_FETCH": "1",
        }

    def syncs_itself(self) -> bool:
        """True if this git obeys `core.fsync` (2.36 and newer); an older one is synced after, by us."""
        if self._version is None:
            words = self.run("version").decode().split()
            digits = re.match(r"(\d+)\.(\d+)", words[2] if len(words) > 2 else "")
            self._version = (int(digits[1]), int(digits[2])) if digits else (0, 0)
        return self._version >= (2, 36)

    def start(
        self, *args: str, env: Mapping[str, str] | None = None, pass_fds: Sequence[int] = ()
    ) -> subprocess.Popen[bytes]:
        """A running git with its three streams as pipes."""
        try:
            return subprocess.Popen(
                ["git", *_HARDENED, *args],
                cwd=self.path,
                env={**os.environ, **self._environment, **(env or {})},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=tuple(pass_fds),
            )
        except OSError as error:
            if shutil.which("git") is not None:
                raise
            raise UsageError(
                "pv needs git, and found none", hint="install git, or put its folder on the PATH"
            ) from error

    def attempt(
        self,
        *args: str,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> tuple[int, bytes, str]:
        """Run to the end: exit status, stdout, stderr."""
        process = self.start(*args, env=env, pass_fds=pass_fds)
        with process:
            out, err = process.communicate(stdin)
        return process.returncode, out, err.decode("utf-8", "replace").strip()

    def run(
        self,
        *args: str,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> bytes:
        """Run to the end and return stdout. Raises StorageError or IntegrityError."""
        status, out, err = self.attempt(*args, stdin=stdin, env=env, pass_fds=pass_fds)
        if status != 0:
            raise failure(args[0], status, err)
        return out


def failure(command: str, status: int, err: str) -> PvError:
    """The error for a git that did not end well."""
    lines = [line for line in err.splitlines() if not line.startswith(("warning:", "hint:"))]
    message = f"git {command} failed ({status}): {lines[0] if lines else 'it gave no reason'}"
    if _DISK.search(err) or status == -signal.SIGXFSZ:
        return StorageError(message, hint="check free space and permissions, then run the command again")
    return IntegrityError(message, hint="`pv fsck` checks the whole registry")


class Reader(Protocol):
    """Where objects come from."""

    def get(self, object_id: str) -> tuple[str, bytes] | None:
        """(type, bytes), or None if there is no such object. Raises IntegrityError for a damaged one."""
        ...

    def close(self) -> None: ...


class ObjectReader:
    """Objects of the repository, read through one `git cat-file --batch` that stays open.

    What is read is hashed again: a loose object that rotted on disk is an error, never data.
    """

    def __init__(self, git: GitProcess) -> None:
        self._git = git
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def get(self, object_id: str) -> tuple[str, bytes] | None:
        """(type, bytes) of an object, or None if it is not there. Raises IntegrityError."""
        if not _HEX40.fullmatch(object_id):
            raise ValueError(f"not an object id: {object_id!r}")
        with self._lock:
            kind, data = self._ask(object_id)
        if kind is None:
            if (self._git.path / "objects" / object_id[:2] / object_id[2:]).exists():
                raise damaged(object_id)  # git calls a file that it cannot read "missing"
            return None
        digest = hashlib.sha1(f"{kind} {len(data)}\0".encode() + data, usedforsecurity=False)
        if digest.hexdigest() != object_id:
            raise damaged(object_id)
        return kind, data

    def _ask(self, object_id: str) -> tuple[str | None, bytes]:
        for _ in range(2):
            try:
                return self._ask_once(object_id)
            except (BrokenPipeError, EOFError):
                self._stop()  # Ctrl-C reaches idle children too: ask a fresh one
            except BaseException:
                self._stop()  # stopped half way: what comes next on this pipe is no answer
                raise
        raise damaged(object_id)

    def _ask_once(self, object_id: str) -> tuple[str | None, bytes]:
        if self._process is None:
            self._process = self._git.start("cat-file", "--batch")
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(object_id.encode() + b"\n")
        process.stdin.flush()
        header = process.stdout.readline().split()
        if len(header) == 2 and header[1] == b"missing":
            return None, b""
        if len(header) != 3:
            raise EOFError
        size = int(header[2])
        if size > MAX_OBJECT_BYTES:
            raise IntegrityError(f"git object {object_id[:12]} has {size} bytes, too many for history")
        data = process.stdout.read(size)
        if len(data) != size or process.stdout.read(1) != b"\n":
            raise EOFError
        return header[1].decode(), data

    def close(self) -> None:
        with self._lock:
            self._stop()

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        for stream in (process.stdin, process.stdout, process.stderr):
            with contextlib.suppress(OSError):
                if stream is not None:
                    stream.close()
        process.terminate()
        process.wait()

    def __del__(self) -> None:
        self._stop()


def damaged(object_id: str) -> IntegrityError:
    return IntegrityError(
        f"git object {object_id} in history.git is damaged",
        hint="`pv fsck` says what it affects; a copy of the registry may still have it",
    )
