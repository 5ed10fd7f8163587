"""No lost update: everything that several processes commit at once is in the history afterwards."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from store_kit import add, fsck, git, new_registry, scale

from pv.registry.registry import Registry

WORKER = """
from pathlib import Path
from pv.registry.registry import Registry
from store_kit import add
worker = int(sys.argv[2])
with Registry.find(Path(sys.argv[1])) as registry:
    for number in range(5):
        print(add(registry, f"w{worker}-{number}", 100 * worker + number), flush=True)
"""


@pytest.mark.slow
def test_three_processes_on_one_branch(registry: Registry, tmp_path: Path) -> None:
    kit = str(Path(__file__).parent.parent)
    code = f"import sys; sys.path.insert(0, {kit!r})\n" + WORKER
    workers = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", code, str(tmp_path), str(number)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(3)
    ]
    said: list[str] = []
    for worker in workers:
        out, err = worker.communicate(timeout=300)
        assert worker.returncode == 0, err
        said += out.split()
    assert len(said) == 15
    line = git(registry, "rev-list", "--first-parent", "main").split()
    assert set(said) <= set(line)
    assert len(line) == 16  # one line, nothing beside it
    assert set(registry.persona().behaviours) == {f"w{w}-{n}" for w in range(3) for n in range(5)}
    assert [o.seq for o in registry.operations()] == list(range(16, 0, -1))
    fsck(registry)


def test_threads_with_a_registry_each(tmp_path: Path) -> None:
    new_registry(tmp_path).close()
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            with Registry.find(tmp_path) as mine:
                add(mine, f"t{number}", number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with Registry.find(tmp_path) as registry:
        assert set(registry.persona().behaviours) == {"t0", "t1", "t2", "t3"}


def test_an_edit_sees_the_newest_persona(registry: Registry, tmp_path: Path) -> None:
    add(registry, "a", 1)
    with Registry.find(tmp_path) as other:
        assert other.persona().behaviours["a"].weight == 1.0  # read before the change below
        registry.change("scale", "m", scale("a", 5.0))
        add(other, "b", 2)
    assert registry.persona().behaviours["a"].weight == 5.0


def test_records_from_several_threads_all_land(registry: Registry) -> None:
    build = "ab" * 32
    threads = [
        threading.Thread(target=registry.update_record, args=(build, {"scores": {str(n): n}}))
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert registry.record(build) == {"scores": {str(n): n for n in range(8)}}
