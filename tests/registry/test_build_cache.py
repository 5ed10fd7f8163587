"""The cache of builds: what is handed out is what was written, and nothing that anybody uses is taken away."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pv.registry import build_cache
from pv.registry.build_cache import BuildCache
from pv.registry.check import fsck, gc
from pv.registry.errors import FormatError
from pv.registry.registry import Registry

A, B, C, D, E, F = (letter * 64 for letter in "abcdef")


@pytest.fixture
def cache(tmp_path: Path) -> BuildCache:
    return BuildCache(tmp_path)


def make(cache: BuildCache, build: str, data: bytes = b"weights") -> None:
    with cache.making(build) as making:
        making.folder.mkdir()
        (making.folder / "model.safetensors").write_bytes(data)
        (making.folder / "config.json").write_text("{}")
        making.keep("0" * 64)
        assert (making.folder / "model.safetensors").read_bytes() == data, "it moved with the folder"


def known(cache: BuildCache) -> list[str]:
    return [kept.build[0] for kept in cache.kept()]


def use(cache: BuildCache, build: str) -> bytes | None:
    with cache.using(build) as folder:
        return None if folder is None else (folder / "model.safetensors").read_bytes()


def aged(cache: BuildCache, build: str, seconds: float) -> None:
    """As if it had been used so long ago."""
    when = time.time() - seconds
    os.utime(cache.path(build) / "build.json", (when, when))


def test_what_was_made_is_there_for_the_next(cache: BuildCache) -> None:
    assert use(cache, A) is None
    make(cache, A)
    assert use(cache, A) == b"weights"
    assert use(BuildCache(cache.folder.parent), A) == b"weights"
    assert list((cache.folder.parent / "tmp").iterdir()) == []
    with pytest.raises(FormatError), cache.using("../../etc"):
        pass


def test_what_is_not_to_be_kept_goes(cache: BuildCache) -> None:
    with cache.making(A) as making:
        making.folder.mkdir()
        (making.folder / "model.safetensors").write_bytes(b"x")
    assert use(cache, A) is None
    with pytest.raises(ZeroDivisionError), cache.making(A) as making:
        making.folder.mkdir()
        raise ZeroDivisionError
    assert list((cache.folder.parent / "tmp").iterdir()) == []


def _other_bytes(model: Path) -> None:
    """The same size, and the time of modification put back."""
    stat = model.stat()
    model.write_bytes(b"WEIGHTS")
    os.utime(model, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def _replaced(model: Path) -> None:
    stat = model.stat()
    other = model.with_name("other")
    other.write_bytes(b"WEIGHTS")
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    other.rename(model)


def _linked(model: Path) -> None:
    model.rename(model.parent.parent / "elsewhere")
    model.symlink_to("../elsewhere")


CHANGES: dict[str, Callable[[Path], object]] = {
    "other bytes": _other_bytes,
    "another file in its place": _replaced,
    "touched": lambda model: os.utime(model),
    "a link": _linked,
    "longer": lambda model: model.write_bytes(b"weights, and more"),
    "gone": lambda model: model.unlink(),
    "a file beside": lambda model: model.with_name("adapter_config.json").write_text("{}"),
    "no seal": lambda model: (model.parent.parent / "build.json").unlink(),
    "half a seal": lambda model: (model.parent.parent / "build.json").write_text('{"schema": 1, "fil'),
    "another's seal": lambda model: (model.parent.parent / "build.json").write_text(
        (model.parent.parent / "build.json").read_text().replace(A, B)
    ),
    "no lock": lambda model: (model.parent.parent / "lock").unlink(),
    "no folder": lambda model: shutil.rmtree(model.parent),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_not_as_it_was_written_is_never_handed_out(cache: BuildCache, change: str) -> None:
    make(cache, A)
    CHANGES[change](cache.path(A) / "checkpoint" / "model.safetensors")
    assert use(cache, A) is None
    assert not cache.path(A).exists(), "it is in nobody's way"
    make(cache, A, b"again")
    assert use(cache, A) == b"again"


def test_a_copied_registry_brings_no_builds(cache: BuildCache, tmp_path: Path) -> None:
    make(cache, A)
    shutil.copytree(cache.folder, tmp_path / "copy" / "cache", copy_function=shutil.copy2)
    assert use(BuildCache(tmp_path / "copy"), A) is None


def test_what_was_not_used_for_longest_goes_first(cache: BuildCache) -> None:
    for age, build in enumerate((D, C, B, A)):
        make(cache, build)
        aged(cache, build, 100 - age)
    assert len(known(cache)) == build_cache.BUILDS == 4
    assert use(cache, D) is not None  # which makes C the oldest
    make(cache, E)
    assert sorted(known(cache)) == ["a", "b", "d", "e"]


def test_the_limit_is_in_bytes(cache: BuildCache) -> None:
    sized = BuildCache(cache.folder.parent, limit=5000)
    make(sized, A, b"a" * 2000)
    aged(sized, A, 50)
    make(sized, B, b"b" * 1000)
    assert sorted(known(sized)) == ["a", "b"]
    make(sized, C, b"c" * 6000)
    assert sorted(known(sized)) == ["a", "b"], "too large to be kept, and nothing gave way for it"
    make(sized, D, b"d" * 2000)
    assert "a" not in known(sized) and "d" in known(sized)
    none = BuildCache(cache.folder.parent, limit=0)
    make(none, E)
    assert "e" not in known(none)


def test_what_is_in_use_stays(cache: BuildCache) -> None:
    make(cache, A)
    other = BuildCache(cache.folder.parent)
    with cache.using(A) as folder:
        assert folder is not None
        assert [kept.in_use for kept in other.kept()] == [True]
        assert not other.take_out(A) and other.clear() == 0
        assert folder.is_dir()
        with other.using(A) as shared:
            assert shared == folder
    assert [kept.in_use for kept in other.kept()] == [False]
    assert other.clear() > 0 and known(cache) == []


def test_what_is_being_made_is_in_use(cache: BuildCache) -> None:
    with cache.making(A) as making:
        making.folder.mkdir()
        (making.folder / "model.safetensors").write_bytes(b"x")
        making.keep("0" * 64)
        assert not BuildCache(cache.folder.parent).take_out(A)
        assert making.folder == cache.path(A) / "checkpoint"


def test_two_make_the_same_build(cache: BuildCache) -> None:
    with cache.making(A) as one:
        one.folder.mkdir()
        (one.folder / "model.safetensors").write_bytes(b"weights")
        make(cache, A)
        one.keep("0" * 64)
        assert (one.folder / "model.safetensors").read_bytes() == b"weights"
    assert use(cache, A) == b"weights"


def test_a_cache_that_cannot_be_written_is_no_trouble(cache: BuildCache) -> None:
    cache.folder.write_text("a file where the folder should be")
    make(cache, A)
    assert use(cache, A) is None
    assert cache.kept() == []


def test_gc_empties_it_but_for_what_is_in_use(registry: Registry) -> None:
    make(registry.builds, A)
    make(registry.builds, B)
    with registry.builds.using(A):
        plan = gc.plan(registry)
        assert [garbage.name for garbage in plan.builds] == [B] and plan.freed > 0 and not plan.empty
        assert [garbage.name for garbage in gc.collect(registry).builds] == [B]
        assert known(registry.builds) == ["a"]
    assert fsck.check(registry.root).findings == ()
    gc.collect(registry)
    assert known(registry.builds) == [] and gc.plan(registry).empty


KILLED = """
import os, sys, time
from pathlib import Path
from pv.registry.build_cache import BuildCache
cache = BuildCache(Path(sys.argv[1]))
with cache.making("a" * 64) as making:
    making.folder.mkdir()
    (making.folder / "model.safetensors").write_bytes(b"half")
    print("ready", flush=True)
    time.sleep(60)
"""


def test_a_killed_maker_leaves_what_a_gc_sweeps(registry: Registry) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(registry.root)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    (left,) = (registry.root / "tmp").iterdir()
    for path in (left, *left.iterdir()):
        os.utime(path, (0, 0))
    assert gc.plan(registry).leftovers == (), "its maker is alive"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert use(registry.builds, A) is None
    assert gc.collect(registry).leftovers == (f"tmp/{left.name}",)
    assert not left.exists()


def test_a_seal_that_is_a_pipe(cache: BuildCache) -> None:
    make(cache, A)
    (cache.path(A) / "build.json").unlink()
    os.mkfifo(cache.path(A) / "build.json")
    assert use(cache, A) is None
    assert not cache.path(A).exists()


def test_a_deep_tree_in_a_build(registry: Registry) -> None:
    """Deeper than Python's recursion goes, and longer than a path may be."""
    cache = registry.builds
    make(cache, A)
    top = cache.path(A) / "checkpoint"
    deep = os.open(top, os.O_RDONLY)
    for _ in range(2500):
        os.mkdir("dd", dir_fd=deep)
        inner = os.open("dd", os.O_RDONLY, dir_fd=deep)
        os.close(deep)
        deep = inner
    os.close(deep)
    assert [kept.nbytes for kept in cache.kept()] == [len(b"weights") + len("{}")]
    gc.collect(registry)
    assert not cache.path(A).exists()
    assert list((registry.root / "tmp").iterdir()) == []


def test_a_cache_that_is_a_link(cache: BuildCache, tmp_path: Path) -> None:
    other = BuildCache(tmp_path / "other")
    make(other, A)
    cache.folder.symlink_to(other.folder)
    assert cache.kept() == []
    assert cache.clear() == 0
    assert use(cache, A) is None
    make(cache, B)
    assert known(other) == ["a"]
