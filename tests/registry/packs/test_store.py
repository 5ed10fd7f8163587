from __future__ import annotations

import os
import resource
import stat
import time
from pathlib import Path

import pytest
from support.registries import pack_bytes, run_python, vector

from pv.registry.disk import durable
from pv.registry.errors import CorruptPack, FormatError, NotFoundError, StorageError
from pv.registry.packs.store import DAMAGED, PackStore

A, B = vector(1).id, vector(2).id


@pytest.fixture
def store(tmp_path: Path) -> PackStore:
    for name in ("packs", "tmp", "quarantine"):
        (tmp_path / name).mkdir()
    return PackStore(tmp_path)


def put(store: PackStore, pack_id: str, data: bytes) -> Path:
    with store.writer() as pack:
        pack.write(data)
        return pack.commit(pack_id)


def test_write_and_read(store: PackStore) -> None:
    path = put(store, A, b"abc")
    assert path == store.path(A) == store.open_path(A) == store.packs / A[:2] / A
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    assert (store.has(A), store.has(B), store.size(A), list(store.ids())) == (True, False, 3, [A])
    put(store, B, b"")
    assert list(store.ids()) == sorted([A, B])
    assert list(store.tmp.iterdir()) == []


def test_durable_before_it_has_its_name(store: PackStore, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    monkeypatch.setattr(durable, "fault", steps.append)
    put(store, A, b"abc")
    folder = A[:2]
    assert steps == [
        "write pack", "fsync file", f"mkdir {folder}", "fsync dir packs",
        f"rename {A}", f"fsync dir {folder}", "fsync dir tmp",
    ]  # fmt: skip


def test_committed_at_the_end_of_the_block(store: PackStore) -> None:
    with store.writer(A) as pack:
        pack.path.write_bytes(b"by name")
    assert store.path(A).read_bytes() == b"by name"


def test_the_first_one_stays(store: PackStore) -> None:
    put(store, A, pack_bytes(1))
    before = store.path(A).stat().st_ino
    os.utime(store.path(A), (0, 0))
    put(store, A, b"second")
    assert store.path(A).read_bytes() == pack_bytes(1)
    assert store.path(A).stat().st_ino == before
    assert time.time() - store.path(A).stat().st_mtime < 60  # it was wanted again: no gc takes it soon
    assert list(store.tmp.iterdir()) == []


def test_writing_a_pack_again_mends_it(store: PackStore) -> None:
    put(store, A, b"half a pack")
    put(store, A, pack_bytes(1))
    assert store.path(A).read_bytes() == pack_bytes(1)
    (aside,) = store.quarantine.iterdir()
    assert aside.read_bytes() == b"half a pack"
    assert aside.name.startswith(A) and aside.name.endswith(DAMAGED)


def test_nothing_stays_of_a_writer_that_fails(store: PackStore) -> None:
    with pytest.raises(RuntimeError), store.writer(A) as pack:
        pack.write(b"half")
        raise RuntimeError
    with store.writer() as pack:
        pack.write(b"never committed")
    assert not store.has(A)
    assert list(store.tmp.iterdir()) == []


def test_a_full_disk(store: PackStore) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(StorageError), store.writer(A) as pack:
            for _ in range(10):
                pack.file.write(bytes(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(store.tmp.iterdir()) == []
    assert list(store.ids()) == []


@pytest.mark.parametrize("bad", ["", "../" + "a" * 61, "A" * 64, "a" * 63])
def test_only_ids_become_paths(store: PackStore, bad: str) -> None:
    for call in (store.path, store.has, store.size, store.remove, store.restore):
        with pytest.raises(FormatError):
            call(bad)
    with pytest.raises(FormatError), store.writer(bad):
        pass


def test_missing(store: PackStore) -> None:
    for call in (store.open_path, store.size, store.remove, store.restore):
        with pytest.raises(NotFoundError):
            call(A)


def test_quarantine(store: PackStore) -> None:
    os.utime(put(store, A, b"abc"), (0, 0))
    store.remove(A)
    assert not store.has(A)
    assert time.time() - store.quarantined()[A] < 60  # since it went there, not since it was written
    store.restore(A)
    assert store.path(A).read_bytes() == b"abc"


def test_leftovers_of_the_dead_but_not_of_the_living(store: PackStore) -> None:
    code = """
import os
from pathlib import Path
from pv.registry.packs.store import DAMAGED, PackStore
with PackStore(Path(sys.argv[1])).writer() as pack:
    pack.file.write(b"half")
    os._exit(9)
"""
    assert run_python(code, str(store.tmp.parent), check=False).returncode == 9
    (dead,) = store.tmp.iterdir()
    assert store.leftovers() == []  # so young that its writer may not have locked it yet
    with store.writer() as alive:
        assert store.leftovers(min_age_s=0) == [dead]
        assert store.sweep(min_age_s=0) == [dead]
        assert list(store.tmp.iterdir()) == [alive.path]
        alive.commit(A)
    assert store.has(A)


def test_a_stranger_among_the_packs(store: PackStore) -> None:
    put(store, A, b"abc")
    (store.packs / A[:2] / "notes.txt").write_text("hello")
    with pytest.raises(CorruptPack, match=r"notes\.txt"):
        list(store.ids())


def test_a_pack_that_is_held(store: PackStore) -> None:
    put(store, A, b"abc")
    assert not store.in_use(A)
    with store.holding(A) as path, store.holding(A):
        assert path == store.path(A)
        assert store.in_use(A)
    assert not store.in_use(A)
    with pytest.raises(NotFoundError), store.holding(B):
        pass


def test_a_scratch_folder_goes_and_is_swept_if_its_process_is_killed(store: PackStore) -> None:
    with store.scratch("build") as folder:
        (folder / "half").write_bytes(b"x")
        (folder / "deep").mkdir()
        assert store.sweep(min_age_s=0) == []
    assert list(store.tmp.iterdir()) == []
    code = """
import os
from pathlib import Path
from pv.registry.packs.store import PackStore
with PackStore(Path(sys.argv[1])).scratch("build") as folder:
    (folder / "half").write_bytes(b"x")
    os._exit(9)
"""
    assert run_python(code, str(store.tmp.parent), check=False).returncode == 9
    (dead,) = store.tmp.iterdir()
    assert store.leftovers() == []
    assert store.sweep(min_age_s=0) == [dead]
    assert list(store.tmp.iterdir()) == []
