from __future__ import annotations

import errno
import os
import resource
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.registries import run_python

from pv.registry.disk import durable
from pv.registry.errors import StorageError


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    seen: list[str] = []
    monkeypatch.setattr(durable, "fault", seen.append)
    return seen


def test_order_of_a_write(tmp_path: Path, steps: list[str]) -> None:
    durable.write_file(tmp_path / "x", b"data")
    assert steps == ["write x", "fsync file", "rename x", f"fsync dir {tmp_path.name}"]
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("x", b"data")]


def test_replace(tmp_path: Path) -> None:
    path = tmp_path / "x"
    durable.write_file(path, b"old")
    durable.write_file(path, b"new")
    with pytest.raises(FileExistsError):
        durable.write_file(path, b"newer", replace=False)
    assert path.read_bytes() == b"new"
    durable.write_file(tmp_path / "y", b"first", replace=False, mode=0o444)
    assert stat.S_IMODE((tmp_path / "y").stat().st_mode) == 0o444
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x", "y"]


def test_a_fault_leaves_old_or_new_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stop(Exception):
        pass

    for stop in range(4):
        path = tmp_path / str(stop)
        path.write_bytes(b"old")
        left = stop

        def fault(label: str) -> None:
            nonlocal left
            if left == 0:
                raise Stop(label)
            left -= 1

        monkeypatch.setattr(durable, "fault", fault)
        with pytest.raises(Stop):
            durable.write_file(path, b"new")
        assert path.read_bytes() == (b"old" if stop < 2 else b"new")
    assert len(list(tmp_path.iterdir())) == 4


def test_make_dirs_syncs_every_new_name(tmp_path: Path, steps: list[str]) -> None:
    durable.make_dirs(tmp_path / "a" / "b")
    assert steps == ["mkdir a", f"fsync dir {tmp_path.name}", "mkdir b", "fsync dir a"]
    durable.make_dirs(tmp_path / "a" / "b")
    assert len(steps) == 4


def test_rename_syncs_both_folders(tmp_path: Path, steps: list[str]) -> None:
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    (tmp_path / "here" / "x").write_bytes(b"1")
    durable.rename(tmp_path / "here" / "x", tmp_path / "there" / "y")
    assert steps == ["rename y", "fsync dir there", "fsync dir here"]


@contextmanager
def file_limit(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_refuses(tmp_path: Path) -> None:
    path = tmp_path / "x"
    durable.write_file(path, b"old")
    with file_limit(1000), pytest.raises(StorageError, match="cannot write") as caught:
        durable.write_file(path, bytes(5000))
    assert caught.value.hint
    assert caught.value.exit_code == 74
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO])
def test_refusals_become_storage_errors(number: int) -> None:
    with pytest.raises(StorageError) as caught, durable.storage_errors("it"):
        raise OSError(number, os.strerror(number))
    assert caught.value.hint


def test_other_errors_pass() -> None:
    with pytest.raises(FileNotFoundError), durable.storage_errors("it"):
        raise FileNotFoundError(errno.ENOENT, "gone")


def test_a_killed_writer_leaves_a_file_that_can_be_recognised(tmp_path: Path) -> None:
    code = """
import os
from pathlib import Path
from pv.registry.disk import durable
durable.fault = lambda label: os._exit(9)
durable.write_file(Path(sys.argv[1]), b"data")
"""
    assert run_python(code, str(tmp_path / "x"), check=False).returncode == 9
    (left,) = tmp_path.iterdir()
    assert left.name.startswith("x.")
    assert left.name.endswith(durable.TMP_SUFFIX)
