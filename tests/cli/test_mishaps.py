"""What befalls a registry in daily use, and what pv says and does about it."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from support.commands import InProcess, World, command, tensors, write_tensors

from pv.registry.disk import durable
from pv.registry.registry import Registry


def vector_of(pv: InProcess, name: str) -> str:
    (term,) = pv.ok("status", "--json").json["persona"]["behaviours"][name]["terms"]
    return str(term[1])


def pack_of(folder: Path, vector: str) -> Path:
    return folder / ".pv" / "packs" / vector[:2] / vector


@pytest.mark.parametrize("how", ["lost", "damaged"])
def test_committing_again_puts_a_pack_back(world: World, pv: InProcess, how: str) -> None:
    pv.ok("commit", world.tuned, "--as", "other")
    pack = pack_of(world.folder, vector_of(pv, "other"))
    pack.chmod(0o644)
    whole = pack.read_bytes()
    pack.unlink() if how == "lost" else pack.write_bytes(whole[:-1] + b"?")
    assert pv("fsck").code == 3
    head = pv.ok("status", "--json").json["commit"]
    said = pv.ok("commit", world.tuned, "--as", "other")
    assert "put back: the pack of other" in said.err
    assert pack.read_bytes() == whole
    pv.ok("fsck", "--deep")
    assert pv.ok("status", "--json").json["commit"] == head
    again = pv("commit", world.tuned, "--as", "other")
    assert (again.code, "nothing changed: other is vector" in again.err) == (2, True)


def test_numbers_that_are_not_finite_are_kept_and_named(world: World, pv: InProcess, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(world.tuned, broken)
    held = tensors(broken)
    dtype, shape, raw = held["model.norm.weight"]
    assert dtype == "BF16"
    write_tensors(
        broken / "model.safetensors", {**held, "model.norm.weight": (dtype, shape, b"\xc1\x7f" + raw[2:])}
    )
    said = pv.ok("commit", broken, "--as", "broken")
    assert "model.norm.weight: some values are not finite" in said.err
    pv.ok("fsck", "--deep")
    assert pv("build", "-o", "built").code == 3
    document = pv.ok("diff", "HEAD~1", "HEAD", "--json").out
    assert "NaN" not in document and "null" in document
    assert "finite" not in pv.ok("commit", world.tuned, "--as", "whole").err


def test_a_branch_that_other_hands_named(world: World, pv: InProcess) -> None:
    """pv writes no operation that it could not read again."""
    heads = world.folder / ".pv/history.git/refs/heads"
    shutil.copy(heads / "main", heads / "-rf")
    said = pv("switch", "--", "-rf")
    assert (said.code, "cannot name a branch" in said.err) == (2, True)
    assert "a name that pv does not give" in pv("branch", "-d", "--", "-rf").err
    pv.ok("scale", "listening", "2")
    pv.ok("undo")
    pv.ok("fsck")


def test_a_registry_without_its_format(world: World, pv: InProcess) -> None:
    (world.folder / ".pv/format").unlink()
    for line in (("status",), ("init", "--base", world.base)):
        said = pv(*line)
        assert said.code in (2, 128)
        assert "`pv fsck --repair` writes it anew" in said.err
    pv.ok("fsck", "--repair")
    pv.ok("status")


def test_a_folder_that_only_has_the_name(pv: InProcess, world: World, tmp_path: Path) -> None:
    (tmp_path / "empty" / ".pv").mkdir(parents=True)
    said = pv("-C", tmp_path / "empty", "init", "--base", world.base)
    assert (said.code, "it is no registry: move it away" in said.err) == (2, True)


def test_what_a_killed_init_left_beside_a_registry(world: World, pv: InProcess) -> None:
    left = world.folder / durable.tmp_name(".pv")
    other = world.folder / ".pvtmp"
    for folder in (left, other):
        folder.mkdir()
        (folder / "lock").touch()
        os.utime(folder / "lock", (0, 0))
        os.utime(folder, (0, 0))
    assert "1 leftover of killed processes" in pv.ok("fsck").out
    assert ".pvtmp" in pv.ok("gc", "--dry-run").out
    assert left.exists()
    pv.ok("gc")
    assert not left.exists() and other.exists()
    left.mkdir()  # one that lives, or may
    assert time.time() - left.stat().st_mtime < 60
    pv.ok("gc")
    assert left.exists()


def test_a_registry_behind_a_link(world: World, pv: InProcess, tmp_path: Path) -> None:
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / ".pv").symlink_to(world.folder / ".pv")
    left = tmp_path / "linked" / durable.tmp_name(".pv")
    left.mkdir()
    os.utime(left, (0, 0))
    pv.ok("-C", tmp_path / "linked", "gc")
    assert not left.exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list every folder")
def test_a_folder_that_may_not_be_listed(world: World, pv: InProcess, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    shutil.move(world.folder / ".pv", closed)
    closed.chmod(0o311)
    try:
        for line in (("fsck",), ("gc",)):
            pv.ok("-C", closed, *line)
    finally:
        closed.chmod(0o755)


def test_a_damaged_side_file_comes_back_from_the_base(world: World, pv: InProcess) -> None:
    with Registry.find(world.folder) as registry:
        entry = registry.history.entry(registry.resolve("HEAD"), "base/files/config.json")
        assert entry is not None
    path = world.folder / ".pv/history.git/objects" / entry.id[:2] / entry.id[2:]
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-4])
    assert pv("build", "-o", "built").code == 3
    assert "from the folder that the base came from" in pv.ok("fsck", "--repair").out
    pv.ok("build", "-o", "built")
    assert (world.folder / "built/config.json").read_bytes() == (world.base / "config.json").read_bytes()


def test_a_base_that_is_referred_to_and_gone(world: World, pv: InProcess, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(world.base, base)
    home = tmp_path / "home"
    home.mkdir()
    pv.ok("-C", home, "init", "--base", base, "--reference")
    pv.ok("-C", home, "commit", world.tuned, "--as", "other")
    assert "was not found" not in pv.ok("-C", home, "fsck").out
    base.rename(tmp_path / "away")
    said = pv("-C", home, "build", "-o", "built")
    assert (said.code, "behaviours on this base: other" in said.err) == (5, True)
    base.symlink_to(tmp_path / "away")
    pv.ok("-C", home, "build", "-o", "built")
    base.unlink()
    said = pv.ok("-C", home, "fsck")
    assert "builds need it" in said.out and str(base) in said.out
    (tmp_path / "away").rename(base)
    held = tensors(base)
    del held["model.norm.weight"]
    write_tensors(base / "model.safetensors", held)
    for line in (("fsck",), ("fsck", "--repair"), ("fsck", "--deep")):
        assert pv("-C", home, *line).code == 3


READ_ONLY = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'


def test_a_build_of_a_registry_that_cannot_be_written_to(world: World, tmp_path: Path) -> None:
    line = command(("-C", world.folder, "build", "-o", tmp_path / "built", "--dtype", "fp16"))
    if os.geteuid() == 0:  # whom no permission stops
        line = ["unshare", "--mount", "sh", "-c", READ_ONLY, str(world.folder / ".pv"), *line]
    else:
        for folder in (world.folder / ".pv", *(world.folder / ".pv").iterdir()):
            folder.chmod(0o555 if folder.is_dir() else 0o444)
    said = subprocess.run(line, capture_output=True, text=True)
    if "unshare:" in said.stderr or "mount:" in said.stderr:
        pytest.skip("nothing may be mounted here")
    assert said.returncode == 0, said.stderr
    assert "are not recorded there" in said.stderr
    assert said.stdout.startswith("build ")


@pytest.mark.parametrize(
    ("name", "code", "word"),
    [
        ("model-00001-of-00002.safetensors", 3, "one of 2 shards"),
        ("model.gguf", 3, "is GGUF"),
        ("pytorch_model.bin", 3, "pickle"),
        ("notes.md", 5, "no safetensors weights"),
    ],
)
def test_folders_that_are_no_checkpoint(
    world: World, pv: InProcess, tmp_path: Path, name: str, code: int, word: str
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    shutil.copy(world.tuned / "model.safetensors", folder / name)
    said = pv("commit", folder, "--as", "x")
    assert (said.code, word in said.err) == (code, True), said.err


def test_verify_guesses_the_dtype(world: World, pv: InProcess) -> None:
    pv.ok("build", "-o", "wide", "--dtype", "fp32")
    said = pv("verify", "wide", "HEAD")
    assert (said.code, "--dtype fp32" in said.out.splitlines()[1]) == (1, True)
    shutil.rmtree(world.folder / ".pv" / "records")
    said = pv("verify", "wide", "HEAD")
    assert (said.code, "was it built with --dtype fp32?" in said.out) == (1, True)
    pv.ok("verify", "wide")  # its persona.json says so
    pv.ok("verify", "wide", "--dtype", "fp32")
