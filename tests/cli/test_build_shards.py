"""`pv build --shards`: shares in any order, by any number of processes; nothing is a model before it is whole."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest
from support.commands import InProcess, Processes, World, command
from transformers import AutoModelForCausalLM

from pv.registry.errors import CheckpointRefused, NotFoundError
from pv.registry.persona import Persona
from pv.vecstore.checkpoints.checkpoint import Checkpoint


def sums(folder: Path) -> dict[str, str]:
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in sorted(folder.glob("*.safetensors"))}


def share(pv: InProcess, number: int, count: int, out: str = "out", *options: str) -> dict[str, object]:
    return pv.ok("build", "-o", out, "--shards", f"{number}/{count}", "--json", *options).json


@pytest.mark.parametrize("count", [1, 2, 5, 20])
def test_any_order_gives_what_one_process_gives(world: World, pv: InProcess, count: int) -> None:
    whole = pv.ok("build", "-o", "whole", "--json").json
    order = list(range(1, count + 1))
    random.Random(count).shuffle(order)
    for done, number in enumerate(order, 1):
        made = share(pv, number, count)
        assert made["missing"] == sorted(order[done:])
        assert (world.folder / "out").exists() == (done == count)
    assert made["weights"] == whole["weights"]
    assert made["build"] == whole["build"]
    if count == 1:
        assert sums(world.folder / "out") == whole["files"]
    else:
        assert len(sums(world.folder / "out")) == count
        index = json.loads((world.folder / "out" / "model.safetensors.index.json").read_text())
        assert set(index["weight_map"].values()) == sums(world.folder / "out").keys()
    beside = {p.name: p.read_bytes() for p in (world.folder / "whole").iterdir() if "model." not in p.name}
    assert beside.items() <= {p.name: p.read_bytes() for p in (world.folder / "out").iterdir()}.items()
    assert not (world.folder / "out.pvparts").exists()
    assert pv.ok("verify", "out", "--json").json["same"]
    AutoModelForCausalLM.from_pretrained(world.folder / "out")


def test_the_plan_is_about_even(world: World, pv: InProcess) -> None:
    sizes = [int(str(share(pv, number, 4)["bytes"])) for number in range(1, 5)]
    with Checkpoint(world.base) as checkpoint:
        largest = max(spec.nbytes for spec in checkpoint.specs.values())
    assert max(sizes) - min(sizes) <= 2 * largest


def test_a_share_twice_is_harmless(world: World, pv: InProcess) -> None:
    first = share(pv, 1, 2)
    assert share(pv, 1, 2) == first
    share(pv, 2, 2)
    before = sums(world.folder / "out")
    again = share(pv, 1, 2)
    assert (again["missing"], again["sha256"]) == ([], first["sha256"])
    assert sums(world.folder / "out") == before
    assert not (world.folder / "out.pvparts").exists()


def test_before_it_is_whole_it_is_no_model(world: World, pv: InProcess) -> None:
    share(pv, 1, 3)
    share(pv, 3, 3)
    parts = world.folder / "out.pvparts"
    for folder in [parts, *(path for path in parts.rglob("*") if path.is_dir())]:
        with pytest.raises((NotFoundError, CheckpointRefused)):
            Checkpoint(folder)
        with pytest.raises((OSError, ValueError)):
            AutoModelForCausalLM.from_pretrained(folder)


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone", "rows"])
def test_a_share_that_is_damaged_is_written_again(world: World, pv: InProcess, damage: str) -> None:
    first = share(pv, 1, 2)
    (file,) = (world.folder / "out.pvparts").glob("*/model/*.safetensors")
    (rows,) = (world.folder / "out.pvparts").glob("*/*.rows")
    match damage:
        case "flipped":
            data = bytearray(file.read_bytes())
            data[-1] ^= 1
            file.write_bytes(data)
        case "cut":
            os.truncate(file, 100)
        case "gone":
            file.unlink()
        case "rows":
            rows.write_bytes(rows.read_bytes().replace(b'"BF16"', b'"F16"'))
    if damage != "flipped":  # a share's bytes are read by whoever writes that share
        assert share(pv, 2, 2)["missing"] == [1]
    assert share(pv, 1, 2)["sha256"] == first["sha256"]
    share(pv, 2, 2)
    assert pv.ok("verify", "out", "--json").json["same"]


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("0/4", "no shard 0 of 4"),
        ("5/4", "no shard 5 of 4"),
        ("0/0", "no shard 0 of 0"),
        ("a/b", "'a/b' must be a shard"),
        ("3", "'3' must be a shard"),
        ("-1/4", "'-1/4' must be a shard"),
        ("1/4/2", "must be a shard"),
        ("1.5/4", "must be a shard"),
        ("1/9999", "20 tensors cannot be written in 9999 shards"),
    ],
)
def test_numbers_that_mean_nothing(world: World, pv: InProcess, option: str, said: str) -> None:
    refused = pv("build", "-o", "out", "--shards", option)
    assert refused.code == 2 and said in refused.err and "hint:" in refused.err, refused
    assert not list(world.folder.glob("*out*"))


def test_options_that_contradict_it(world: World, pv: InProcess) -> None:
    for more in (["--shard-size", "1GB"], ["--ray"], ["--ray", "auto"]):
        refused = pv("build", "-o", "out", "--shards", "1/2", *more)
        assert refused.code == 2 and "--shards" in refused.err and "hint:" in refused.err, refused
    assert not list(world.folder.glob("*out*"))


def test_a_folder_of_another_build(world: World, pv: InProcess) -> None:
    pv.ok("build", "HEAD~1", "-o", "out")
    before = sums(world.folder / "out")
    refused = pv("build", "-o", "out", "--shards", "1/2")
    assert refused.code == 2 and "--force" in refused.err
    assert not (world.folder / "out.pvparts").exists()
    share(pv, 1, 2, "out", "--force")
    assert sums(world.folder / "out") == before
    share(pv, 2, 2, "out", "--force")
    assert pv.ok("verify", "out", "HEAD", "--json").json["same"]


def test_shares_of_two_builds_do_not_mix(world: World, pv: InProcess) -> None:
    share(pv, 1, 2)
    pv.ok("scale", "listening", "0.5")
    assert share(pv, 2, 2)["missing"] == [1]
    assert share(pv, 2, 3)["missing"] == [1, 3]
    assert share(pv, 1, 2)["missing"] == []
    assert pv.ok("verify", "out", "HEAD", "--json").json["same"]
    assert len(list((world.folder / "out.pvparts").iterdir())) == 2  # the others' shares are theirs


def test_nothing_is_written_to_a_registry_that_is_read_only(world: World, pv: InProcess) -> None:
    before = world.state()
    share(pv, 1, 2)
    assert world.state() == before


def test_a_dry_run_says_which_file(world: World, pv: InProcess) -> None:
    said = pv.ok("build", "-o", "out", "--shards", "2/3", "-n")
    assert "model-00002-of-00003.safetensors" in said.out and "00001" not in said.out
    assert list(pv.ok("build", "-o", "out", "--shards", "2/3", "-n", "--json").json["sizes"]) == [
        "model-00002-of-00003.safetensors"
    ]
    assert not list(world.folder.glob("*out*"))


def test_a_full_disk_leaves_the_other_shares(world: World, pv: InProcess, process: Processes) -> None:
    first = share(pv, 1, 2)

    def small() -> None:
        import resource
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    refused = process("build", "-o", "out", "--shards", "2/2", preexec_fn=small)
    assert refused.code == 74, refused
    assert [p.name for p in (world.folder / "out.pvparts").rglob(".*")] == []
    assert share(pv, 1, 2) == first


def test_all_at_once(world: World, pv: InProcess) -> None:
    """Each share by two processes at the same time."""
    whole = pv.ok("build", "-o", "whole", "--json").json
    lines = [
        ("build", "-o", "out", "--shards", f"{n}/3", "--threads", "1", "--json") for n in (1, 2, 3, 3, 2, 1)
    ]
    running = [
        subprocess.Popen(
            command(line), cwd=world.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for line in lines
    ]
    said = [process.communicate() for process in running]
    assert [process.returncode for process in running] == [0] * 6, said
    answers = [json.loads(out) for out, _ in said]
    assert whole["weights"] in {answer["weights"] for answer in answers}
    assert all(answer["weights"] in (None, whole["weights"]) for answer in answers)
    assert pv.ok("verify", "out", "--json").json["weights_same"]


def test_gathered_by_the_next_one(world: World, pv: InProcess) -> None:
    """All shares are there, and whoever wrote the last one died before it made the folder."""
    share(pv, 1, 2)
    kept = world.folder / "kept"
    shutil.copytree(world.folder / "out.pvparts", kept)
    share(pv, 2, 2)
    whole = sums(world.folder / "out")
    (plan,) = kept.iterdir()
    shutil.copy(world.folder / "out" / "model-00002-of-00002.safetensors", plan / "model")
    shutil.rmtree(world.folder / "out")
    kept.rename(world.folder / "out.pvparts")
    assert share(pv, 2, 2)["missing"] == []  # whose rows were not written: it is not believed
    assert sums(world.folder / "out") == whole
    persona = (world.folder / "out" / "persona.json").read_bytes()
    assert Persona.from_bytes(persona).behaviours
