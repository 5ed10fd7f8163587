"""What a commit promises about power loss, counted from outside: the system calls of a real commit."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import TESTS
from support.registries import add, new_registry

CALLS = "openat,open,fsync,fdatasync,rename,renameat,renameat2,link,linkat,close"
COMMIT = """
from pathlib import Path
from pv.registry.registry import Registry
from support.registries import add
with Registry.find(Path(sys.argv[1])) as registry:
    add(registry, "b", 2)
"""
_OPEN = re.compile(r'(?:openat\(AT_FDCWD, |open\()"([^"]+)".* = (\d+)$')
_FSYNC = re.compile(r"(?:fsync|fdatasync)\((\d+)\)")
_CLOSE = re.compile(r"close\((\d+)\)")
_MOVE = re.compile(r'(?:rename|link)(?:at2?)?\((?:AT_FDCWD, )?"([^"]+)", (?:AT_FDCWD, )?"([^"]+)"')


def events(folder: Path) -> list[tuple[str, str, str]]:
    """("sync", path, "") and ("move", from, to) in the order in which they happened; one trace a process."""
    found: list[tuple[float, tuple[str, str, str]]] = []
    for trace in folder.iterdir():
        files: dict[str, str] = {}
        for line in trace.read_text().splitlines():
            time, _, call = line.partition(" ")
            if match := _OPEN.match(call):
                files[match[2]] = match[1]
            elif match := _CLOSE.match(call):
                files.pop(match[1], None)
            elif match := _FSYNC.match(call):
                found.append((float(time), ("sync", files.get(match[1], "?"), "")))
            elif match := _MOVE.match(call):
                found.append((float(time), ("move", match[1], match[2])))
    return [event for _, event in sorted(found, key=lambda pair: pair[0])]


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_everything_is_on_the_platter_before_a_ref_moves(tmp_path: Path) -> None:
    with new_registry(tmp_path / "r") as registry:
        add(registry, "a", 1)
    traces = tmp_path / "traces"
    traces.mkdir()
    code = f"import sys; sys.path.insert(0, {str(TESTS)!r})\n" + COMMIT
    options = ["-ff", "-ttt", "-qq", "-s", "4096", "-e", f"trace={CALLS}", "-o", str(traces / "of")]
    command = ["strace", *options, sys.executable, "-c", code]
    done = subprocess.run([*command, str(tmp_path / "r")], capture_output=True, text=True)
    if done.returncode != 0 and "ptrace" in done.stderr:
        pytest.skip("strace may not trace here")
    assert done.returncode == 0, done.stderr

    root = str(tmp_path / "r" / ".pv")
    seen = [e for e in events(traces) if root in e[1]]
    moves = {to.removeprefix(root + "/"): i for i, (what, _, to) in enumerate(seen) if what == "move"}
    syncs = [(i, path.removeprefix(root + "/")) for i, (what, path, _) in enumerate(seen) if what == "sync"]
    ops, main = moves["history.git/refs/pv/ops"], moves["history.git/refs/heads/main"]
    assert ops < main
    before = [sum(i < deadline for i, _ in syncs) for deadline in (ops, main)]
    print(f"{len(syncs)} syncs: {before[0]} before the operation moves, {before[1]} before the ref does")

    def synced(path: str, after: int, before: int) -> bool:
        return any(p == path and after < i < before for i, p in syncs)

    written = {name: i for name, i in moves.items() if "/refs/" not in name}
    assert sum(name.startswith("history.git/objects/") for name in written) == 10
    assert sum(name.startswith("packs/") for name in written) == 1
    for name, i in written.items():
        source = seen[i][1].removeprefix(root + "/")
        folder = name.rpartition("/")[0]
        assert synced(source, -1, i), f"{name} got its name before its bytes were safe"
        assert synced(folder, i, ops), f"the name {name} was not safe when the operation moved"
        assert synced(folder.rpartition("/")[0], -1, ops), f"nor was the folder of {name}"
    for ref, i, deadline in (
        ("history.git/refs/pv/ops", ops, main),
        ("history.git/refs/heads/main", main, len(seen)),
    ):
        assert synced(f"{ref}.lock", -1, i)
        assert synced(ref.rpartition("/")[0], i, deadline)
