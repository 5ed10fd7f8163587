"""Builds that are refused or cut short: a whole folder or none, and nobody's files are lost."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import TESTS
from support.vectors import (
    World,
    base_at,
    behaviour,
    files_below,
    kept,
    persona,
    random_f32,
    read_all,
    save,
    small_base,
    store,
    values,
)

from pv.registry.combine import Combine
from pv.registry.errors import BaseMismatch, CorruptPack, IntegrityError, PvError, UsageError
from pv.registry.persona import Persona
from pv.vecstore.checkpoints.checkpoint import Checkpoint
from pv.vecstore.checkpoints.fingerprint import fingerprint, table_id
from pv.vecstore.merge.build import build
from pv.vecstore.packs.read import Pack
from pv.vecstore.tensors.array import Array
from pv.vecstore.vectors.vector import open_vector

TENSORS = small_base()
NORM = "model.norm.weight"
POSITIONS = "model.position_ids"


# Refused, and nothing left


def _refused(world: World, recipe: Persona, kind: type[PvError], match: str, **options: Any) -> PvError:
    before = files_below(world.out)
    with pytest.raises(kind, match=match) as caught:
        world.build(recipe, **options)
    assert files_below(world.out) == before
    return caught.value


@pytest.mark.parametrize(
    ("dtype", "weight"), [("base", 1e30), ("bf16", 1e30), ("fp16", 3e9), ("fp32", 1e30), ("fp32", -1e30)]
)
def test_overflow(tmp_path: Path, world: World, dtype: str, weight: float) -> None:
    big = {NORM: np.full(12, 1e10, np.float32)}
    vector_id = kept(world.base, world.packs, big)
    with open_vector(vector_id, world.base, world.packs) as vector:
        recipe = world.of({"x": behaviour(weight, vector_id)}, dtype=dtype)
        with pytest.raises(IntegrityError, match=f"'{NORM}'.*infinite") as caught:
            build(recipe, world.base, {vector_id: vector}, world.out / "out", side_files={})
    assert "smaller weights" in (caught.value.hint or "")
    assert files_below(world.out) == set()


def test_a_base_that_is_too_wide_for_the_output(tmp_path: Path) -> None:
    wide = {"w": Array("F32", (3,), np.array([1.0, 70_000.0, 2.0], np.float32).view("<u4"))}
    (tmp_path / "built").mkdir()
    with base_at(save(tmp_path / "base", wide)) as base:
        with pytest.raises(IntegrityError, match="F16"):
            build(persona(base, {}, dtype="fp16"), base, {}, tmp_path / "built" / "out", side_files={})
        assert files_below(tmp_path / "built") == set()
        build(persona(base, {}, dtype="bf16"), base, {}, tmp_path / "built" / "out", side_files={})


def test_infinities_of_the_base_itself_pass(tmp_path: Path) -> None:
    strange = np.array([np.inf, -np.inf, np.nan, 1.0], np.float32).view("<u4")
    delta = {"w": np.array([1.0, 1.0, 1.0, 1.0], np.float32)}
    with base_at(save(tmp_path / "base", {"w": Array("F32", (4,), strange)})) as base:
        packs = store(tmp_path)
        vector_id = kept(base, packs, delta)
        with open_vector(vector_id, base, packs) as vector:
            recipe = persona(base, {"x": behaviour(1.0, vector_id)}, dtype="bf16")
            build(recipe, base, {vector_id: vector}, tmp_path / "out", side_files={})
    found = values(read_all(tmp_path / "out")["w"])
    assert found[:2].tolist() == [np.inf, -np.inf]
    assert np.isnan(found[2])
    assert found[3] == 2.0


def test_a_persona_of_another_base(world: World) -> None:
    recipe = Persona("0" * 64, {"x": behaviour(1.0, world.a)})
    _refused(world, recipe, BaseMismatch, f"base 000000000000, this is {world.base.manifest.id[:12]}")


def test_a_weight_without_meaning_is_refused_by_name(world: World) -> None:
    rule = Combine.of("ties", merge="weighted_mean")
    recipe = world.of({"grumpy": behaviour(-1.0, world.a)}, rule)
    _refused(world, recipe, UsageError, "'grumpy'")


def test_a_vector_for_integers(tmp_path: Path, world: World) -> None:
    vector_id = kept(world.base, world.packs, {POSITIONS: np.ones(16, np.float32)})
    with (
        open_vector(vector_id, world.base, world.packs) as vector,
        pytest.raises(IntegrityError, match="I64"),
    ):
        recipe = world.of({"x": behaviour(1.0, vector_id)})
        build(recipe, world.base, {vector_id: vector}, world.out / "out", side_files={})
    assert files_below(world.out) == set()


def test_a_folder_that_is_not_empty(world: World) -> None:
    recipe = world.of({"x": behaviour(1.0, world.a)})
    theirs = world.out / "out"
    theirs.mkdir()
    (theirs / "thesis.txt").write_text("three years")
    error = _refused(world, recipe, UsageError, "exists and is not empty")
    assert "new folder" in (error.hint or "")
    _refused(world, recipe, UsageError, "exists and is not empty", force=True)
    assert (theirs / "thesis.txt").read_text() == "three years"


def test_a_file_in_the_way(world: World) -> None:
    (world.out / "out").write_text("three years")
    for force in (False, True):
        _refused(world, world.of({}), UsageError, "exists", force=force)
    assert (world.out / "out").read_text() == "three years"


def test_force_replaces_what_pv_built(world: World) -> None:
    first, second = (world.of({"x": behaviour(w, world.a)}) for w in (1.0, 0.5))
    world.build(first, shard_bytes=1000)
    error = _refused(world, second, UsageError, "exists and is not empty")
    assert "--force" in (error.hint or "")
    assert Persona.from_bytes((world.out / "out" / "persona.json").read_bytes()) == first
    made = world.build(second, force=True)
    assert files_below(world.out) == {"out", "out/model.safetensors", "out/persona.json"}
    assert Persona.from_bytes((world.out / "out" / "persona.json").read_bytes()) == second
    assert made.weights == world.build(second, "again").weights


@pytest.mark.parametrize("precious", [".pv", ".git", "notes"])
def test_force_spares_a_folder_that_holds_more(world: World, precious: str) -> None:
    """A cloned registry has a built checkpoint and `.pv` in one folder: it must not be replaced."""
    recipe = world.of({"x": behaviour(1.0, world.a)})
    world.build(recipe)
    (world.out / "out" / precious).mkdir()
    (world.out / "out" / precious / "file").write_text("three years")
    error = _refused(world, recipe, UsageError, "exists and is not empty", force=True)
    assert "new folder" in (error.hint or "")


def test_force_needs_a_true_recipe(world: World) -> None:
    theirs = world.out / "out"
    theirs.mkdir()
    (theirs / "persona.json").write_text('{"name": "Hamlet"}')
    _refused(world, world.of({}), UsageError, "exists and is not empty", force=True)


@pytest.mark.parametrize("name", ["persona.json", "export.json"])
def test_force_reads_no_pipe_and_no_device(world: World, name: str) -> None:
    for kind in ("pipe", "device"):
        theirs = world.out / kind
        theirs.mkdir()
        if kind == "pipe":
            os.mkfifo(theirs / name)
        else:
            (theirs / name).symlink_to("/dev/zero")
        with pytest.raises(UsageError, match="exists and is not empty"):
            world.build(world.of({}), theirs.name, force=True)


@pytest.mark.parametrize("kind", ["nothing", "empty", "link"])
def test_where_a_build_may_go(world: World, kind: str) -> None:
    target = world.out / "deep" / "er"
    if kind != "nothing":
        target.mkdir(parents=True)
    if kind == "link":
        (world.out / "link").symlink_to(target)
    made = world.build(world.of({}), "link" if kind == "link" else "deep/er")
    assert (target / "model.safetensors").is_file()
    assert made.weights == world.base.manifest.id
    assert [p for p in files_below(world.out) if ".pvtmp" in p] == []


def test_threads_that_build_into_one_folder(world: World) -> None:
    """Each has a temporary folder of its own: one build is there in the end, whole, and nobody sees an OSError."""
    recipes = [world.of({"x": behaviour(w, world.a)}) for w in (1.0, 0.5, 0.25, 0.125)]
    ids = {world.build(recipe, f"alone{i}").weights for i, recipe in enumerate(recipes)}
    world.build(recipes[0])

    def many(recipe: Persona) -> None:
        for _ in range(12):
            with contextlib.suppress(UsageError):
                world.build(recipe, force=True)

    with ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(many, recipe) for recipe in recipes]:
            done.result()
    with Checkpoint(world.out / "out") as found:
        assert table_id(fingerprint(found)) in ids
    assert [path.name for path in world.out.iterdir() if path.name.startswith(".")] == []


def test_who_comes_first_is_not_replaced_without_force(world: World) -> None:
    recipe, out = world.of({"x": behaviour(1.0, world.a)}), world.out / "out"

    def meddle(done: int, total: int) -> None:
        out.mkdir(exist_ok=True)
        (out / "thesis.txt").write_text("three years")

    with pytest.raises(UsageError, match="exists and is not empty"):
        world.build(recipe, progress=meddle)
    assert files_below(world.out) == {"out", "out/thesis.txt"}


def test_what_a_killed_build_left_is_swept(world: World) -> None:
    recipe = world.of({"x": behaviour(1.0, world.a)})
    world.build(recipe)
    aside = world.out / f".out.1.{'0' * 16}.pvtmp"
    (aside / "new").mkdir(parents=True)
    (aside / "lock").touch()
    (world.out / "out").rename(aside / "old")  # killed between the two renames
    old = time.time() - 3600
    for path in (aside / "new", aside / "old", aside / "lock", aside):
        os.utime(path, (old, old))
    with pytest.raises(UsageError, match="exists and is not empty") as caught:
        world.build(recipe)
    assert "--force" in (caught.value.hint or "")
    assert files_below(world.out) == {"out", "out/model.safetensors", "out/persona.json"}


@pytest.mark.skipif(not Path("/proc/1").is_dir(), reason="no /proc")
def test_a_folder_in_which_none_can_be_made(world: World) -> None:
    with pytest.raises(UsageError, match="cannot make /proc/1/x"):
        build(world.of({}), world.base, {}, Path("/proc/1/x"), side_files={})


# Failures in the middle


def _changed_in_place(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))


@pytest.mark.parametrize("how", ["changed", "shorter"])
@pytest.mark.parametrize("replacing", [False, True])
def test_a_base_that_changes_under_a_build(tmp_path: Path, how: str, replacing: bool) -> None:
    """After the first tensors are written. What was at the target stays."""
    folder = save(tmp_path / "base", TENSORS)
    out = tmp_path / "built" / "out"
    out.parent.mkdir()
    with base_at(folder) as base:
        recipe = persona(base, {})
        if replacing:
            build(recipe, base, {}, out, side_files={})
        before = {p: p.read_bytes() for p in out.rglob("*")}
        whole = (folder / "model.safetensors").stat().st_size

        def meddle(done: int, total: int) -> None:
            if not done:
                return
            if how == "changed":
                _changed_in_place(folder / "model.safetensors", whole - 1)
            else:
                os.truncate(folder / "model.safetensors", whole - 1)

        with pytest.raises(IntegrityError, match=r"changed|became shorter") as caught:
            build(
                recipe, base, {}, out, side_files={}, shard_bytes=500, force=True, threads=1, progress=meddle
            )
    assert isinstance(caught.value, BaseMismatch) == (how == "changed")
    assert {p: p.read_bytes() for p in out.rglob("*")} == before
    assert list(out.parent.iterdir()) == ([out] if replacing else [])


def test_a_vector_that_is_damaged(tmp_path: Path, world: World) -> None:
    vector_id = kept(world.base, world.packs, {NORM: random_f32("to be damaged", 12)})
    path = world.packs.path(vector_id)
    with Pack(path) as pack:
        start = pack._file.data_start
    path.chmod(0o644)
    _changed_in_place(path, start + 20)
    with open_vector(vector_id, world.base, world.packs) as vector, pytest.raises(CorruptPack, match=NORM):
        recipe = world.of({"x": behaviour(1.0, vector_id)})
        build(recipe, world.base, {vector_id: vector}, world.out / "out", side_files={})
    assert files_below(world.out) == set()
    path.unlink()


@pytest.mark.parametrize("threads", [1, 2])
def test_a_build_that_is_interrupted_before_anything_is_done_leaves_nothing(
    world: World, threads: int
) -> None:
    """What others leave is in test_resume.py."""

    def progress(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        world.build(world.of({}), threads=threads, shard_bytes=1000, progress=progress)
    assert files_below(world.out) == set()


def test_a_full_disk(world: World) -> None:
    """A limit on file sizes stands in for it: the write is refused by the system just the same."""
    code = (
        "import resource, signal, sys; from pathlib import Path\n"
        f"sys.path.insert(0, {str(TESTS)!r})\n"
        "from support.vectors import base_at, persona\n"
        "from pv.vecstore.merge.build import build\n"
        "from pv.registry.errors import StorageError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "with base_at(Path(sys.argv[1])) as base:\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
        "    try: build(persona(base, {}), base, {}, Path(sys.argv[2]), side_files={})\n"
        "    except StorageError as error: print(error.exit_code, error.hint)\n"
    )
    path = world.base.checkpoint.path if world.base.checkpoint else None
    command = [sys.executable, "-W", "error", "-c", code, str(path), str(world.out / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("74 ")
    assert files_below(world.out) == set()
