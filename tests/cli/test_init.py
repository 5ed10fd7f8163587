"""pv init: a registry on a base, complete or not at all."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from support.commands import InProcess, Processes, World, tensors, write_tensors
from support.loopback_state import HubState

ID = 64


def pinned(folder: Path) -> int:
    return sum(path.stat().st_size for path in (folder / ".pv" / "packs").rglob("*") if path.is_file())


def test_a_registry_on_a_folder_keeps_a_copy_of_the_base(made: World, pv: InProcess, tmp_path: Path) -> None:
    base = shutil.copytree(made.base, tmp_path / "base")
    said = pv.ok("init", "--base", "base")
    assert said.out == ""
    assert "a registry in" in said.err
    assert "next: pv train" in said.err
    assert pinned(tmp_path) > 10_000
    assert "a copy of the base is in it (" in said.err and "--reference" in said.err
    assert "on base base (" in said.err
    pv.ok("build", "-o", "first")
    shutil.rmtree(base)
    pv.ok("build", "-o", "second")
    first, second = (tmp_path / name / "model.safetensors" for name in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()
    assert tensors(first) == tensors(made.base)


def test_reference_notes_where_the_base_is_and_says_so_when_it_is_gone(
    made: World, pv: InProcess, tmp_path: Path
) -> None:
    base = shutil.copytree(made.base, tmp_path / "base")
    pv.ok("init", "--base", base, "--reference")
    assert pinned(tmp_path) == 0
    shutil.move(base, tmp_path / "elsewhere")
    said = pv("build", "-o", "built")
    assert said.code == 5
    assert str(base) in said.err, "the message says where the base came from"
    assert pv.ok("status").out.startswith("on branch main"), "looking needs no base"
    assert not (tmp_path / "built").exists()


def test_json_and_what_builds_are_written_in(made: World, pv: InProcess, tmp_path: Path) -> None:
    said = pv.ok(
        "init", "--base", made.base, "--dtype", "fp32", "--rounding", "nearest", "--seed", "7", "--json"
    )
    assert said.json["schema"] == 1
    assert said.json["registry"] == str(tmp_path / ".pv")
    assert said.json["tensors"] == len(tensors(made.base))
    assert len(said.json["base"]) == ID
    assert len(said.json["commit"]) == 40
    status = pv.ok("status", "--json").json
    assert status["persona"]["output"] == {"dtype": "fp32", "rounding": "nearest", "seed": 7}
    assert status["persona"]["base"] == said.json["base"]
    assert status["commit"] == said.json["commit"]


def test_the_same_base_has_the_same_id_wherever_it_lies_and_however_it_is_sharded(
    made: World, pv: InProcess, tmp_path: Path
) -> None:
    sharded = tmp_path / "sharded"
    shutil.copytree(made.base, sharded)
    weights = tensors(sharded)
    (sharded / "model.safetensors").unlink()
    names = sorted(weights)
    where: dict[str, str] = {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        file = f"model-{number:05d}-of-00002.safetensors"
        write_tensors(sharded / file, {name: weights[name] for name in part})
        where |= dict.fromkeys(part, file)
    (sharded / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    ids = []
    for name, base in (("a", made.base), ("b", sharded)):
        (tmp_path / name).mkdir()
        ids.append(pv.ok("init", "--base", base, "--json", at=tmp_path / name).json["base"])
    assert ids[0] == ids[1]


def test_a_registry_that_is_there_is_left_alone(world: World, pv: InProcess) -> None:
    before = world.state()
    said = pv("init", "--base", world.base)
    assert (said.code, said.out) == (2, "")
    assert "exists already" in said.err
    assert "pv status" in said.err
    assert world.state() == before


@pytest.mark.parametrize(
    ("base", "code", "words"),
    [
        ("./nowhere", 5, "no checkpoint at"),
        ("empty", 5, "no safetensors weights in"),
        ("pickled", 3, "is a pickle"),
        ("torn", 3, "model.safetensors"),
        ("somebody/model", 4, "cannot reach"),
        ("README.md", 3, "is not a safetensors file"),
        ("model.gguf", 3, "is GGUF"),
        ("weights", 3, "is GGUF"),
    ],
)
def test_a_base_that_is_none_leaves_nothing_behind(
    made: World, pv: InProcess, tmp_path: Path, base: str, code: int, words: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "pickled").mkdir()
    (tmp_path / "pickled" / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    (tmp_path / "torn").mkdir()
    (tmp_path / "README.md").write_text("# A long story\n" * 9)  # not "claims a header of ..."
    (tmp_path / "model.gguf").write_bytes(b"GGUF" + bytes(60))
    (tmp_path / "weights").write_bytes(b"GGUF" + bytes(60))
    whole = (made.base / "model.safetensors").read_bytes()
    (tmp_path / "torn" / "model.safetensors").write_bytes(whole[:-100])
    before = sorted(tmp_path.rglob("*"))
    said = pv("init", "--base", base)
    assert (said.code, said.out) == (code, ""), said
    assert words in said.err
    assert "hint:" in said.err or base == "torn"
    assert sorted(tmp_path.rglob("*")) == before
    assert pv("status").code == 128


def test_the_base_is_required_and_the_seed_is_in_range(made: World, pv: InProcess) -> None:
    assert "Missing option '--base'" in pv("init").err
    assert pv("init", "--base", made.base, "--seed", str(1 << 53)).code == 2
    assert pv("init", "--base", made.base, "--dtype", "int4").code == 2


def test_a_base_on_a_hub_is_noted_at_its_full_commit(
    made: World, hub: HubState, pv: InProcess, process: Processes, tmp_path: Path
) -> None:
    from support.loopback_hub import client_env

    hub.create("somebody/tiny")
    hub.put("somebody/tiny", {file.name: file.read_bytes() for file in made.base.iterdir()})
    env = client_env(hub, tmp_path / "cache")
    work = tmp_path / "work"
    work.mkdir()
    said = process("init", "--base", "somebody/tiny", "--json", at=work, env=env)
    assert said.code == 0, said
    assert said.json["base"] == base_id(pv, made.folder)
    assert hub.head("somebody/tiny").oid[:12] in said.err
    hub.put("somebody/tiny", {"model.safetensors": b"somebody replaced it"})
    assert process("build", "-o", "built", at=work, env=env).code == 0
    assert tensors(work / "built") == tensors(made.base)


def base_id(pv: InProcess, folder: Path) -> str:
    found: str = pv.ok("status", "--json", at=folder).json["persona"]["base"]
    return found


def test_a_git_work_tree_leaves_the_registry_alone(made: World, pv: InProcess, tmp_path: Path) -> None:
    """`git add .` does not take the packs."""
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    pv.ok("init", "--base", made.base, "--reference")
    seen = subprocess.run(
        ["git", "-C", tmp_path, "status", "--porcelain", "-uall"], capture_output=True, text=True, check=True
    )
    assert seen.stdout == ""
    assert "not a file of pv's" not in pv.ok("fsck").out


def test_a_registry_in_a_registry_is_said_to_be(world: World, pv: InProcess, tmp_path: Path) -> None:
    inner = world.folder / "inner"
    inner.mkdir()
    said = pv.ok("init", "--base", world.base, "--reference", at=inner)
    assert f"inside the registry of {world.folder}" in said.err
    assert pv.ok("init", "--base", world.base, "--json", at=tmp_path).json["notes"] == []
