"""Several processes commit to one branch while gc takes out, without grace, whatever nothing names yet, and
fsck looks on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import TESTS
from support.registries import fsck, git, new_registry

from pv.registry.registry import Registry

WORKERS, COMMITS, QUICK = 4, 25, 5

WORKER = """
from pathlib import Path
from pv.registry.registry import Registry
from support.registries import add
worker, count = int(sys.argv[2]), int(sys.argv[3])
with Registry.find(Path(sys.argv[1])) as registry:
    for number in range(count):
        print(add(registry, f"w{worker}-{number}", 100 * worker + number), flush=True)
"""
COLLECTOR = """
import json
import os
import time
from pathlib import Path
from pv.registry.check import gc
from pv.registry.registry import Registry
with Registry.find(Path(sys.argv[1])) as registry:
    runs = expired = objects = 0
    while os.getppid() == int(sys.argv[2]) and not Path(sys.argv[3]).exists():
        done = gc.collect(registry, grace_s=0.0, expire_s=0.0)
        assert done.quarantine == () and done.purge == ()  # every pack is named before its writer lets go
        time.sleep(0.2)  # the writers must get on, too
        runs, expired, objects = runs + 1, expired + len(done.expire), objects + len(done.objects)
print(json.dumps({"runs": runs, "expired": expired, "objects": objects}))
"""
CHECKER = """
import os
from pathlib import Path
from pv.registry.check import fsck
runs = 0
while os.getppid() == int(sys.argv[2]) and not Path(sys.argv[3]).exists():
    report = fsck.check(Path(sys.argv[1]) / ".pv")
    assert report.clean and not report.of("unknown"), report.findings
    runs += 1
print(runs)
"""


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    kit = str(TESTS)
    command = [sys.executable, "-W", "error", "-c", f"import sys; sys.path.insert(0, {kit!r})\n{code}"]
    return subprocess.Popen(
        [*command, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.slow
def test_many_writers_and_a_gc(tmp_path: Path, full: bool) -> None:
    count = COMMITS if full else QUICK
    home, stop = tmp_path / "home", tmp_path / "stop"
    new_registry(home).close()
    collector = start(COLLECTOR, home, os.getpid(), stop)
    checker = start(CHECKER, home, os.getpid(), stop)
    workers = [start(WORKER, home, number, count) for number in range(WORKERS)]
    said: list[str] = []
    try:
        for worker in workers:
            out, err = worker.communicate(timeout=900)
            assert worker.returncode == 0, err
            said += out.split()
    finally:
        stop.touch()
        for worker in workers:
            worker.kill()
        out, err = collector.communicate(timeout=300)
        checks, complaint = checker.communicate(timeout=300)
    assert collector.returncode == 0, err
    assert checker.returncode == 0, complaint  # no false alarm while others write
    collected = json.loads(out)
    print(f"{len(said)} commits, beside them {collected}, and {checks.strip()} checks")
    assert collected["runs"] >= 2  # it got its turn among writers that never pause
    assert int(checks) >= 2

    assert len(said) == WORKERS * count
    with Registry.find(home) as registry:
        line = git(registry, "rev-list", "--first-parent", "main").split()
        assert set(said) < set(line)
        assert len(line) == 1 + len(said)  # one line, nothing beside it
        names = {f"w{w}-{n}" for w in range(WORKERS) for n in range(count)}
        assert set(registry.persona().behaviours) == names
        seqs = [operation.seq for operation in registry.operations()]
        assert seqs == list(range(1 + len(said), len(said) + 1 - len(seqs), -1))
        assert {pack.name for pack in registry.packs.files()} == set(registry.persona().vectors)
        fsck(registry)
