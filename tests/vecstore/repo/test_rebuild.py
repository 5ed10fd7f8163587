"""A build that is there already is not made again; of one that is nearly there, only what differs is computed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.commands import isolate
from support.vectors import nudged, save, small_base

import pv
from pv.registry.errors import UsageError
from pv.vecstore.repo.build import Build

NORM = "model.norm.weight"


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pv.Repo]:
    """`everywhere` touches each float tensor, `norm` one."""
    isolate(tmp_path, monkeypatch)
    tensors = small_base()
    save(tmp_path / "base", tensors)
    with pv.init(tmp_path / "home", base=tmp_path / "base") as made:
        made.commit(save(tmp_path / "everywhere", nudged(tensors, 1)), name="everywhere")
        made.commit(save(tmp_path / "norm", nudged(tensors, 2, only=[NORM])), name="norm")
        yield made


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def build(repo: pv.Repo, out: Path, *, force: bool = False, shard_bytes: int = 1000) -> Build:
    return repo.at("HEAD").build(out, force=force, shard_bytes=shard_bytes, threads=2)


def bytes_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def inodes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in folder.iterdir()}


def test_what_is_there_is_not_made_again(repo: pv.Repo, out: Path) -> None:
    first = build(repo, out)
    before = inodes(out)
    second = build(repo, out)
    assert not first.already and second.already
    assert inodes(out) == before
    for name in ("weights", "files", "tensors", "touched", "changed", "nbytes", "build"):
        assert getattr(second.built, name) == getattr(first.built, name), name
    assert build(repo, out, force=True).already


def test_nor_if_the_base_is_gone(repo: pv.Repo, out: Path, tmp_path: Path) -> None:
    build(repo, out)
    shutil.rmtree(tmp_path / "base")
    assert build(repo, out).already


def _retimed(out: Path) -> None:
    os.utime(out / "config.json", (0, 0))


def _forgotten(out: Path) -> None:
    shutil.rmtree(out.parent / "home" / ".pv" / "folders")


def _torn(out: Path) -> None:
    for file in (out.parent / "home" / ".pv" / "folders").iterdir():
        file.write_bytes(file.read_bytes()[:-40])


def _copied(out: Path) -> None:
    shutil.copytree(out, out.with_name("copy"))
    shutil.rmtree(out)
    out.with_name("copy").rename(out)


@pytest.mark.parametrize("how", [_retimed, _forgotten, _torn, _copied])
def test_without_its_seal_it_is_hashed(repo: pv.Repo, out: Path, how: Callable[[Path], None]) -> None:
    first, before = build(repo, out), bytes_in(out)
    how(out)
    made = build(repo, out)
    assert made.already
    assert bytes_in(out) == before
    assert (made.built.weights, made.built.files, made.built.touched) == (
        first.built.weights, first.built.files, first.built.touched,
    )  # fmt: skip
    assert (repo.path / ".pv" / "folders").is_dir()  # sealed again


def test_what_cannot_be_known_is_not_believed(repo: pv.Repo, out: Path) -> None:
    """Nothing says what the build gives."""
    build(repo, out)
    _forgotten(out)
    shutil.rmtree(repo.path / ".pv" / "records")
    with pytest.raises(UsageError, match="not empty"):
        build(repo, out)
    assert not build(repo, out, force=True).already


def _flipped(out: Path) -> None:
    """A bit of the weights, the size and every time that can be set as they were."""
    file = out / "model-00001-of-00004.safetensors"
    stat, data = file.stat(), bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "flipped": _flipped,
    "cut": lambda out: os.truncate(out / "model-00002-of-00004.safetensors", 99),
    "a file less": lambda out: (out / "model-00003-of-00004.safetensors").unlink(),
    "a file more": lambda out: (out / "adapter_config.json").write_text("{}"),
    "another config": lambda out: (out / "config.json").write_text("{}"),
    "another index": lambda out: (out / "model.safetensors.index.json").write_text("{}"),
    "another recipe": lambda out: (out / "persona.json").write_bytes(
        (out / "persona.json").read_bytes().replace(b'"seed":0', b'"seed":1')
    ),
    "a link": lambda out: _linked(out / "model-00002-of-00004.safetensors"),
}


def _linked(file: Path) -> None:
    shutil.copy(file, file.parent.parent / "elsewhere")
    (file.parent.parent / "elsewhere").write_bytes(b"\0" * file.stat().st_size)
    file.unlink()
    file.symlink_to(file.parent.parent / "elsewhere")


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_was_changed_is_not_taken_for_the_build(repo: pv.Repo, out: Path, damage: str) -> None:
    build(repo, out)
    before = bytes_in(out)
    DAMAGES[damage](out)
    with pytest.raises(UsageError, match="not empty"):
        build(repo, out)
    made = build(repo, out, force=True)
    assert not made.already
    assert bytes_in(out) == before


def test_other_files_of_the_same_build_are_made(repo: pv.Repo, out: Path) -> None:
    first = build(repo, out)
    with pytest.raises(UsageError, match="not empty"):
        build(repo, out, shard_bytes=1 << 30)
    made = build(repo, out, force=True, shard_bytes=1 << 30)
    assert made.built.weights == first.built.weights
    assert made.built.copied == made.built.tensors


def test_after_one_weight_changed_only_what_it_touches_is_computed(repo: pv.Repo, out: Path) -> None:
    first = build(repo, out)
    repo.scale("norm", 0.5)
    made = build(repo, out, force=True)
    assert made.built.copied == made.built.tensors - 1
    cold = build(repo, out.with_name("cold"))
    assert cold.built.copied == 0
    assert bytes_in(out) == bytes_in(out.with_name("cold"))
    assert (made.built.touched, made.built.changed) == (cold.built.touched, cold.built.changed)
    assert made.built.weights != first.built.weights


def test_a_copy_is_hashed(repo: pv.Repo, out: Path) -> None:
    build(repo, out)
    for file in out.glob("*.safetensors"):
        data = bytearray(file.read_bytes())
        data[-1] ^= 1  # of the last tensor in each
        file.write_bytes(data)
    repo.scale("norm", 0.5)
    made = build(repo, out, force=True)
    assert 0 < made.built.copied < made.built.tensors - 1
    build(repo, out.with_name("cold"))
    assert bytes_in(out) == bytes_in(out.with_name("cold"))


@pytest.mark.parametrize("change", ["rule", "dtype", "rounding"])
def test_what_every_tensor_is_made_from_counts(repo: pv.Repo, out: Path, change: str) -> None:
    """Under another rule, or written in another way, nothing that is touched is the same."""
    first = build(repo, out)
    match change:
        case "rule":
            repo.combine(pv.Combine.of("ties"))
        case "dtype":
            repo.output(dtype="fp32")
        case "rounding":
            repo.output(rounding="nearest")
    made = build(repo, out, force=True)
    assert made.built.copied <= made.built.tensors - first.built.touched
    build(repo, out.with_name("cold"))
    assert bytes_in(out) == bytes_in(out.with_name("cold"))


def test_a_full_registry_folder_is_forgotten_from_the_end(repo: pv.Repo, tmp_path: Path) -> None:
    for number in range(34):
        build(repo, tmp_path / f"out{number}")
    assert len(list((repo.path / ".pv" / "folders").iterdir())) == 32
    assert build(repo, tmp_path / "out33").already
