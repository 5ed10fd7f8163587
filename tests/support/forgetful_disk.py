"""A disk that forgets: what a traced program wrote, and which of it a power cut at any moment would leave.

`record` runs a command under strace and gives every call that changed a file, a name or a folder below a
root, with the bytes. `Disk` replays them and knows at each moment what was promised to be durable: a file's
bytes as of its last fsync, a folder's names as of its last fsync. Everything after that a power cut may take
away, or not: `left` gives what is there afterwards if it takes all, or the bytes but not the names, or some.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Call", "Disk", "NotTraceable", "record"]

CALLS = (
    "open,openat,creat,close,write,pwrite64,writev,lseek,ftruncate,truncate,rename,renameat,renameat2,link,"
    "linkat,unlink,unlinkat,mkdir,mkdirat,rmdir,symlink,symlinkat,fsync,fdatasync,sync_file_range,chdir"
)
_LINE = re.compile(
    r"(?P<time>[\d.]+) (?P<name>\w+)\((?P<arguments>.*)\) += (?P<result>-?\d+|\?)(?:<.*>)?(?: .*)?$"
)
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"(\.\.\.)?')
_FD = re.compile(r"(AT_FDCWD|-?\d+)(?:<([^>]*)>)?")


class NotTraceable(Exception):
    """strace is there but may not trace."""


@dataclass(frozen=True)
class Call:
    """One successful system call. `paths` are absolute; `data` is what was written."""

    name: str
    process: int
    paths: tuple[str, ...] = ()
    fd: int = -1
    result: int = 0
    data: bytes = b""
    flags: str = ""
    offset: int = -1


def record(command: Sequence[str], traces: Path, cwd: Path) -> tuple[list[Call], str]:
    """Run a command; every call it and its children made, in order, and what it said on stdout."""
    traces.mkdir()
    strace = ["strace", "-ff", "-y", "-ttt", "-qq", "-xx", "-s", str(1 << 24), "-e", f"trace={CALLS}"]
    done = subprocess.run(
        [*strace, "-o", str(traces / "of"), *command], cwd=cwd, capture_output=True, text=True, timeout=300
    )
    if done.returncode != 0 and "ptrace" in done.stderr:
        raise NotTraceable(done.stderr)
    assert done.returncode == 0, done.stderr
    found: list[tuple[float, int, Call]] = []
    for trace in sorted(traces.iterdir()):
        process, here = int(trace.suffix[1:]), str(cwd)
        for number, line in enumerate(trace.read_text().splitlines()):
            match = _LINE.match(line)
            if match is None or match["result"].startswith(("-", "?")):
                continue
            call = _call(process, here, match["name"], match["arguments"], int(match["result"]))
            if call.name == "chdir":
                here = call.paths[0]
            found.append((float(match["time"]), number, call))
    found.sort(key=lambda row: (row[0], row[2].process, row[1]))
    return [call for _, _, call in found], done.stdout


def _call(process: int, here: str, name: str, arguments: str, result: int) -> Call:
    strings = []
    for text, more in _STRING.findall(arguments):
        assert not more, "a string was cut off"
        strings.append(bytes.fromhex(text.replace("\\x", "")))
    fd = _FD.match(arguments)
    if fd is not None and not name.endswith(("at", "at2")):
        known = name in ("pwrite64", "ftruncate")
        return Call(
            name,
            process,
            (decode(fd[2] or ""),),
            fd=int(fd[1]),
            result=result,
            data=b"".join(strings)[:result],
            offset=int(arguments.rpartition(", ")[2]) if known else -1,
        )
    folders = [found[2] or here for found in _FD.finditer(_STRING.sub('""', arguments)) if found[1]]
    folders = [decode(folder) for folder in folders] if name.endswith(("at", "at2")) else []
    paths = tuple(
        os.path.normpath(Path(folders[i] if i < len(folders) else here, os.fsdecode(string)))
        for i, string in enumerate(strings)
    )
    return Call(name, process, paths, result=result, flags=_STRING.sub("", arguments))


def decode(path: str) -> str:
    """A path that strace prints after a descriptor: escaped like a string."""
    return os.fsdecode(bytes.fromhex(path.replace("\\x", ""))) if path.startswith("\\x") else path


@dataclass
class Node:
    """A file or a folder: as it is, and as it was when it was last synced. A file that never was is empty."""

    folder: bool
    data: bytearray = field(default_factory=bytearray)
    synced: bytes = b""
    names: dict[str, Node] = field(default_factory=dict)
    synced_names: dict[str, Node] = field(default_factory=dict)

    def sync(self) -> None:
        self.synced, self.synced_names = bytes(self.data), dict(self.names)


class Disk:
    """What is below `root`, and how durable it is. It begins with all that is there now, durable."""

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        self.top = self._load(root)
        self._files: dict[tuple[int, int], tuple[Node, list[int]]] = {}

    def _load(self, path: Path) -> Node:
        if path.is_dir():
            node = Node(True, names={inner.name: self._load(inner) for inner in path.iterdir()})
        else:
            node = Node(False, bytearray(path.read_bytes()))
        node.sync()
        return node

    def _find(self, path: str) -> tuple[Node, str] | None:
        """The folder of a path, and its last name there; None if it is not below the root."""
        if path != self.root and not path.startswith(self.root + "/"):
            return None
        parts = path.removeprefix(self.root).strip("/").split("/")
        node = self.top
        for part in parts[:-1]:
            node = node.names[part]
        return node, parts[-1]

    def replay(self, call: Call) -> bool:
        """Do what the call did; True if it changed what is below the root, or how durable it is."""
        inside = any(path.startswith(f"{self.root}/") for path in call.paths)
        action = getattr(self, f"_{call.name}", None)
        assert action is not None or call.name == "chdir" or not inside, f"{call.name} is not modelled"
        return bool(action is not None and action(call))

    def _openat(self, call: Call) -> bool:
        self._files.pop((call.process, call.result), None)
        found = self._find(call.paths[0])
        if found is None:
            return False
        folder, name = found
        changed = False
        if not name:  # the root itself
            node = folder
        elif "O_TMPFILE" in call.flags:
            node = Node(False)  # a file without a name: nobody will ever find it
        elif name in folder.names:
            node = folder.names[name]
            if "O_TRUNC" in call.flags:
                node.data.clear()
                changed = True
        else:
            assert "O_CREAT" in call.flags, call
            node = folder.names[name] = Node(False)
            changed = True
        self._files[call.process, call.result] = (node, [0])
        return changed

    _open = _openat

    def _knows(self, call: Call) -> bool:
        known = (call.process, call.fd) in self._files
        assert known or not call.paths[0].startswith(f"{self.root}/"), f"who opened {call.paths[0]}?"
        return known

    def _close(self, call: Call) -> bool:
        self._files.pop((call.process, call.fd), None)
        return False

    def _lseek(self, call: Call) -> bool:
        if (call.process, call.fd) in self._files:
            self._files[call.process, call.fd][1][0] = call.result
        return False

    def _write(self, call: Call) -> bool:
        if not self._knows(call):
            return False
        node, at = self._files[call.process, call.fd]
        start = at[0] if call.offset < 0 else call.offset
        if len(node.data) < start:
            node.data.extend(bytes(start - len(node.data)))
        node.data[start : start + len(call.data)] = call.data
        if call.offset < 0:
            at[0] = start + len(call.data)
        return True

    _pwrite64 = _writev = _write

    def _ftruncate(self, call: Call) -> bool:
        if not self._knows(call):
            return False
        node = self._files[call.process, call.fd][0]
        del node.data[call.offset :]
        node.data.extend(bytes(call.offset - len(node.data)))
        return True

    def _fsync(self, call: Call) -> bool:
        if not self._knows(call):
            return False
        self._files[call.process, call.fd][0].sync()
        return True

    _fdatasync = _fsync

    def _rename(self, call: Call) -> bool:
        source, target = (self._find(path) for path in call.paths)
        if source is None and target is None:
            return False
        assert source is not None and target is not None, call
        target[0].names[target[1]] = source[0].names.pop(source[1])
        return True

    _renameat = _renameat2 = _rename

    def _link(self, call: Call) -> bool:
        source, target = (self._find(path) for path in call.paths)
        if source is None or target is None:
            return False
        target[0].names[target[1]] = source[0].names[source[1]]
        return True

    _linkat = _link

    def _unlink(self, call: Call) -> bool:
        found = self._find(call.paths[0])
        if found is None:
            return False
        del found[0].names[found[1]]
        return True

    _unlinkat = _rmdir = _unlink

    def _mkdir(self, call: Call) -> bool:
        found = self._find(call.paths[0])
        if found is None:
            return False
        found[0].names[found[1]] = Node(True)
        return True

    _mkdirat = _mkdir

    def left(self, how: str, chance: random.Random) -> dict[str, bytes | None]:
        """What is there after a power cut: {path: bytes, or None for a folder}.

        `all`: everything that was not synced is lost; `bytes`: names are kept, bytes that were not synced
        lost; `some`: for each file and folder by itself, one or the other.
        """
        return dict(self._walk(self.top, "", how, chance))

    def _walk(
        self, node: Node, path: str, how: str, chance: random.Random
    ) -> Iterator[tuple[str, bytes | None]]:
        lost = how == "all" or (how == "some" and chance.random() < 0.5)
        if not node.folder:
            yield path, node.synced if lost or how == "bytes" else bytes(node.data)
            return
        yield path, None
        names = node.synced_names if lost else node.names
        for name, inner in sorted(names.items()):
            yield from self._walk(inner, f"{path}/{name}" if path else name, how, chance)
