"""The base by its name, where it is, and where it is now."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from support.commands import InProcess, Processes, World, tensors, write_tensors
from support.loopback_state import HubState


@pytest.fixture
def referred(made: World, pv: InProcess, tmp_path: Path) -> Path:
    """A base that the registry of the test's folder only refers to, with one behaviour on it."""
    base = shutil.copytree(made.base, tmp_path / "tiny-base")
    pv.ok("init", "--base", base, "--reference")
    pv.ok("commit", made.tuned, "--as", "other")
    pv.ok("commit", made.tuned, "--as", "more", "--force")
    return base


def test_the_base_has_a_name(world: World, pv: InProcess) -> None:
    """Status, show and the errors name it, and not by its id alone."""
    status = pv.ok("status")
    short = pv.ok("base", "--json").json["id"][:12]
    assert f"base     base ({short})" in status.out
    assert "output   builds are written in the base's dtype, rounded stochastically (seed 0)" in status.out
    assert f"base     base ({short})" in pv.ok("show").out
    assert pv.ok("status", "--json").json["base"] == {"name": "base", "found": "folder"}
    text = pv.ok("base").out
    for line in (
        f"base     base ({short})",
        f"origin   {world.base}",
        "copy     in the registry",
        "licence  no licence file found",
    ):
        assert line in text


def test_a_base_that_is_gone_and_said_to_be_elsewhere(referred: Path, pv: InProcess, tmp_path: Path) -> None:
    """Status says so, and the hint is a command, not "put it back there, or a link to where it is now"."""
    short = pv.ok("base", "--json").json["id"][:12]
    first = pv.ok("build", "HEAD", "-o", "first", "--json").json["weights"]
    away = referred.rename(tmp_path / "away")
    (away / "LICENSE").write_text("MIT")
    status = pv.ok("status")
    assert f"base     tiny-base ({short}), not found at {referred}" in status.out
    assert "pv base move DIR" in status.err
    said = pv("build", "-o", "second")
    assert said.code == 5
    assert f"base tiny-base ({short}) was not found at {referred}" in said.err
    assert "behaviours on this base: more, other" in said.err and "pv base move DIR" in said.err
    assert f"missing  not found at {referred}" in pv.ok("base").out
    log = pv.ok("log", "--json").json
    said = pv.ok("base", "move", "away")
    assert f"base tiny-base ({short}) is at {away}" in said.err
    assert pv.ok("log", "--json").json == log, "no commit: it holds for every one that there is"
    assert pv.ok("build", "-o", "second", "--json").json["weights"] == first
    pv.ok("build", "HEAD~1", "-o", "third")
    state = pv.ok("base", "--json").json
    assert (state["found"], state["path"], state["pinned"]) == ("folder", str(away), False)
    assert state["moved"] == {"kind": "path", "path": str(away)}
    assert state["licence"] == str(away / "LICENSE")
    assert f"moved    {away}" in pv.ok("base").out
    for line in (("fsck",), ("fsck", "--deep")):
        assert "not found" not in pv.ok(*line).out
    away.rename(referred)
    assert pv.ok("base", "--json").json["path"] == str(referred), "where it was is looked at too"
    pv.ok("base", "move", referred)
    assert pv.ok("base", "--json").json["moved"] is None
    shutil.rmtree(referred)
    pv.ok("fsck")


def test_only_the_same_bytes_are_the_base(referred: Path, pv: InProcess, tmp_path: Path) -> None:
    other = shutil.copytree(referred, tmp_path / "other")
    held = tensors(other)
    dtype, shape, raw = held["model.norm.weight"]
    held["model.norm.weight"] = (dtype, shape, bytes([raw[0] ^ 1]) + raw[1:])
    write_tensors(other / "model.safetensors", held)
    shutil.rmtree(referred)
    for words, code, says in (
        (("move", "other"), 3, "1 of its"),
        (("move", "nowhere"), 5, "no checkpoint at"),
        (("move", "no/where"), 4, "cannot reach"),
        (("move",), 2, "Missing argument 'DIR_OR_HUB_ID'"),
        (("mvoe", "other"), 2, "Did you mean 'move'?"),
        (("--json", "move", "other"), 2, "pv base move DIR_OR_HUB_ID --json"),
    ):
        said = pv("base", *words)
        assert (said.code, said.out) == (code, ""), said
        assert says in said.err
    assert not (tmp_path / ".pv" / "bases.json").exists()


def test_where_bases_are_is_checked_and_mended(referred: Path, pv: InProcess, tmp_path: Path) -> None:
    pv.ok("base", "move", shutil.copytree(referred, tmp_path / "again"))
    file = tmp_path / ".pv" / "bases.json"
    whole = file.read_text()
    for bad in (
        "{",
        "[]",
        whole.replace('"schema":1', '"schema":2'),
        whole.replace('"kind":"path"', '"kind":"ftp"'),
    ):
        file.write_text(bad)
        said = pv("build", "-o", "built")
        assert said.code == 3 and "bases.json" in said.err, bad
        for line in (("fsck",), ("fsck", "--deep")):
            said = pv(*line)
            assert said.code == 3 and "where bases have moved to cannot be read" in said.out
        pv.ok("fsck", "--repair")
        assert not file.exists()
        pv.ok("status")
    pv.ok("fsck")


def test_moves_by_two_processes_are_both_kept(referred: Path, pv: InProcess, tmp_path: Path) -> None:
    """A registry may have met several bases; each is noted by itself."""
    from concurrent.futures import ThreadPoolExecutor

    from pv.registry.base_places import BasePlaces

    keys = [f"{n:064x}" for n in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(
            pool.map(lambda key: BasePlaces(tmp_path / ".pv").move(key, {"kind": "path", "path": key}), keys)
        )
    assert BasePlaces(tmp_path / ".pv").read().keys() == set(keys)


def test_a_base_may_move_to_a_hub_and_from_it(
    made: World, hub: HubState, process: Processes, tmp_path: Path
) -> None:
    from support.loopback_hub import client_env

    env = client_env(hub, tmp_path / "cache")
    hub.create("ada/tiny")
    hub.put("ada/tiny", {file.name: file.read_bytes() for file in made.base.iterdir()})
    base = shutil.copytree(made.base, tmp_path / "base")
    assert process("init", "--base", base, "--reference", env=env).code == 0
    shutil.rmtree(base)
    assert process("base", "move", "hf://ada/tiny", env=env).code == 0
    state = process("base", "--json", env=env).json
    assert (state["found"], state["moved"]["repo"]) == ("hub", "ada/tiny")
    assert process("build", "-o", "built", env=env).code == 0
    hub.delete("ada/tiny") if hasattr(hub, "delete") else None
    shutil.rmtree(tmp_path / "cache")
    env["HF_ENDPOINT"] = "http://127.0.0.1:9"
    said = process("build", "-o", "again", env=env)
    assert (said.code, "base base (" in said.err, "cannot reach" in said.err) == (4, True, True), said


# Addresses


ADDRESSES = [
    "hf://ada/tiny",
    "ada/tiny",
    "ada/tiny/",
    "ada/tiny@main",
    "hf://ada/tiny@main",
    "hf://models/ada/tiny",
]
PAGES = [
    "https://huggingface.co/ada/tiny",
    "https://huggingface.co/ada/tiny/",
    "https://hf.co/ada/tiny/tree/main",
]


@pytest.mark.parametrize("address", [*ADDRESSES, *PAGES])
def test_a_hub_id_is_understood_as_it_is_written(
    made: World, hub: HubState, process: Processes, tmp_path: Path, address: str
) -> None:
    """None of these is taken for a folder."""
    from support.loopback_hub import client_env

    hub.create("ada/tiny")
    hub.put("ada/tiny", {file.name: file.read_bytes() for file in made.base.iterdir()})
    said = process("init", "--base", address, "--json", env=client_env(hub, tmp_path / "cache"))
    assert said.code == 0, said
    assert said.json["name"] == "ada/tiny"
    assert said.json["stored_bytes"] is None


def test_a_folder_of_that_name_comes_first(made: World, pv: InProcess, tmp_path: Path) -> None:
    shutil.copytree(made.base, tmp_path / "ada" / "tiny")
    said = pv.ok("init", "--base", "ada/tiny", "--json")
    assert said.json["notes"] == [
        "ada/tiny is a folder here, and that is taken; on the Hub it is hf://ada/tiny"
    ]
    shutil.copytree(made.tuned, tmp_path / "ada" / "tuned")
    said = pv.ok("commit", "./ada/tuned/", "--as", "mine", "--json")
    assert said.json["notes"] == []
    for base, code, says in (
        ("./ada/none", 5, "no checkpoint at"),
        ("hf://ada", 2, "does not name a repository"),
        ("https://huggingface.co/ada", 2, "is not the page of a model"),
        ("https://huggingface.co/ada/tiny/blob/main/config.json", 2, "is not the page of a model"),
        ("https://huggingface.co/datasets/ada/tiny", 2, "is not the page of a model"),
        ("ada/none", 4, "cannot reach"),
    ):
        (tmp_path / "new").mkdir(exist_ok=True)
        said = pv("init", "--base", base, at=tmp_path / "new")
        assert (said.code, says in said.err) == (code, True), said


def test_a_hub_that_is_not_reached_is_no_missing_base(
    made: World, hub: HubState, process: Processes, tmp_path: Path
) -> None:
    """Not exit code 5, which says that there is no such base."""
    from support.loopback_hub import client_env

    env = client_env(hub, tmp_path / "cache")
    offline, silent = {**env, "HF_HUB_OFFLINE": "1"}, {**env, "HF_ENDPOINT": "http://127.0.0.1:9"}
    hub.create("ada/tiny")
    hub.put("ada/tiny", {file.name: file.read_bytes() for file in made.base.iterdir()})
    for base, where, code, says in (
        ("ada/tiny", offline, 4, "unset HF_HUB_OFFLINE"),
        ("ada/tiny", silent, 4, "cannot reach http://127.0.0.1:9"),
        ("ada/nothing", env, 5, "there is no such model on the Hub"),
        ("ada/tiny@v9", env, 5, "no such revision"),
    ):
        said = process("init", "--base", base, env=where)
        assert (said.code, said.out) == (code, ""), said
        assert says in said.err and "hint:" in said.err
        assert "push" not in said.err
    hub.fail_next(503, on="/ada/tiny")
    assert process("init", "--base", "ada/tiny", env=env).code in (0, 4), "the client may ask again"


def test_an_adapter_is_committed_from_a_hub(
    world: World, hub: HubState, process: Processes, tmp_path: Path
) -> None:
    """`pv commit user/lora` does not look for ./user/lora."""
    from support.adapters import adapted
    from support.loopback_hub import client_env
    from transformers import AutoModelForCausalLM

    lora = adapted(AutoModelForCausalLM.from_pretrained(world.base), tmp_path / "lora", r=2)
    hub.create("ada/lora")
    hub.put("ada/lora", {file.name: file.read_bytes() for file in lora.iterdir()})
    env = client_env(hub, tmp_path / "cache")
    there = process("commit", "hf://ada/lora", "--as", "there", "--json", env=env)
    assert there.code == 0, there
    here = process("commit", lora, "--as", "here", "--json", env=env)
    assert here.json["vector"] == there.json["vector"]
    shown = process("show", "HEAD~1", "--json", env=env).json["provenance"][there.json["vector"]]
    assert shown["source"] == f"hf://ada/lora@{hub.head('ada/lora').oid}"
    said = process("commit", "ada/none", "--as", "x", env=env)
    assert (said.code, "no such model" in said.err) == (5, True)
    assert json.loads(process("status", "--json", env=env).out)["persona"]["behaviours"].keys() >= {
        "here",
        "there",
    }
