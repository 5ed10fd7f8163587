"""No lost update: everything that several writers commit at once is in the history afterwards.

tests/stress has the same with processes, and a gc beside them.
"""

from __future__ import annotations

import threading
from pathlib import Path

from support.registries import add, new_registry, scale

from pv.registry.registry import Registry


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
