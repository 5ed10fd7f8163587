"""What --json answers where a story has to lead up to it, and what holds for all of it: see docs/scripting.md."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.commands import InProcess, Processes, Said, World, tensors, write_rows, write_tensors
from support.scripting import TEXT, Answer, keeps_to_it, problems

ADDRESS = "hf://ada/persona"


def test_a_vector_that_is_put_back(world: World, answer: Answer) -> None:
    made = answer("commit", world.tuned, "--as", "tuned")
    assert made["put_back"] is False
    (world.folder / ".pv" / "packs" / made["vector"][:2] / made["vector"]).unlink()
    assert answer("commit", world.tuned, "--as", "tuned")["put_back"] is True


def test_conflicts(conflict: None, answer: Answer) -> None:
    (found,) = answer("merge", "terse", code=1)["conflicts"]
    assert found["kind"] == "behaviour"
    (found,) = answer("revert", "v1", code=1)["conflicts"]
    assert found["theirs"] is None
    answer("add", "more=v1:listening")
    answer("switch", "terse")
    answer("add", "more=v1:listening", "--weight", "2")
    found = answer("merge", "main", code=1)["conflicts"]
    assert [one["ancestor"] is None for one in found] == [False, True]
    answer("undo")
    answer("switch", "main")
    answer("merge", "terse", "--take", "listening=ours", "--method", "ties", "--density", "0.5")
    answer("switch", "-c", "third", "v1")
    answer("merge", "terse", "--method", "ties", "--density", "0.7")
    (found,) = answer("merge", "main", code=1)["conflicts"]
    assert (found["kind"], found["name"]) == ("field", "combine")


def test_a_search_for_an_encoding(world: World, answer: Answer) -> None:
    held_out = world.rows.with_name("rows.heldout.jsonl")
    ladder = ("--to", "float", "--to", "sparse:0.3", "--to", "sparse:0.001")
    none = answer("compress", "listening", "--keep", "1", "--data", held_out, *ladder[2:], code=1)
    assert none["commit"] is None and none["vectors"] == {}
    found = answer("compress", "listening", "--keep", "0.5", "--data", held_out, *ladder)
    assert [("effect" in one) for one in found["candidates"]] == [False, True, True]
    assert found["chosen"] == "sparse:0.3"
    (origin,) = answer("show")["provenance"].values()
    assert problems(origin, "Derived") == [] and origin["measured"]["share"] == 0.5

    turned = [json.loads(line) for line in held_out.read_text().splitlines()]
    turned = [{**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in turned]
    rows = world.folder / "turned.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in turned))
    (one,) = answer("compress", "listening", "--to", "ternary", "--data", rows, "--force")["candidates"]
    assert one["kept"] is None


def test_where_vectors_came_from(world: World, answer: Answer, tmp_path: Path) -> None:
    """`Unknown` has every object, so each kind is held against its own type too."""
    from support.adapters import adapted  # which imports peft, quietly
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(world.base)
    lora = adapted(model, tmp_path / "lora", r=2, target_modules=["q_proj", "embed_tokens"])
    held_out = world.rows.with_name("rows.heldout.jsonl")
    answer("commit", lora, "--as", "brief")
    answer("commit", world.tuned, "--as", "tuned")
    trained = answer("show")["provenance"]
    answer("compress", "listening", "--to", "sparse:0.3", "--data", held_out)
    derived = answer("show")["provenance"]
    answer("compress", "brief", "--to", "int8", "--force")
    found = [*trained.values(), *derived.values(), *answer("show")["provenance"].values()]
    found += [one["original"] for one in found if one["kind"] == "derived"]
    assert {one["kind"] for one in found} == {"trained", "captured", "derived"}
    assert any("measured" in one for one in found)
    assert any("notes" in one.get("adapter", {}) for one in found)
    for one in found:
        assert problems(one, one["kind"].capitalize()) == []


def test_a_vector_that_came_about_twice_and_the_rows_of_both(world: World, answer: Answer) -> None:
    line = ("--max-steps", "1", "--threads", "1", "--held-out")
    other = world.folder / "other.jsonl"
    other.write_text(world.rows.read_text())
    made = answer("train", world.rows, "--as", "brief", *line, world.rows.with_name("rows.heldout.jsonl"))
    answer("train", other, "--as", "again", *line, "none")
    found = answer("show", made["vector"])["provenance"]
    assert problems(found, "Trained") == [] and [problems(one, "Also") for one in found["also"]] == [[]]
    assert answer("show", made["provenance"]["data"]["id"])["trained"]
    assert answer("show", made["provenance"]["held_out"]["data_id"])["measured"]


def test_damage_and_its_repair(world: World, answer: Answer) -> None:
    vector = answer("status")["persona"]["behaviours"]["listening"]["terms"][0][1]
    (world.folder / ".pv" / "packs" / vector[:2] / vector).unlink()
    (world.folder / ".pv" / "history.git" / "HEAD").unlink()
    (world.folder / ".pv" / "stranger").touch()
    assert {one["kind"] for one in answer("fsck", code=3)["findings"]} >= {"head", "unknown"}
    found = answer("fsck", "--repair", code=3)
    assert {one["done"] for one in found["repairs"]} == {True, False}
    assert found["behaviours"] == ["listening"]
    assert {one["kind"] for one in found["findings"]} == {"missing", "unknown"}


def test_garbage(world: World, answer: Answer) -> None:
    answer("undo")
    answer("branch", "other")  # now the undo can expire
    left = world.folder / ".pv" / "tmp" / "left.1.x.pvtmp"
    left.touch()
    os.utime(left, (0, 0))
    gone = [answer("gc", "--expire", "0")]
    assert gone[0]["young"] == 3  # the vector and both its rows
    gone += [answer("gc", "--expire", "0", "--grace", "0") for _ in range(2)]
    for key in ("expire", "git_objects", "leftovers", "quarantine", "purge", "freed_bytes"):
        assert any(one[key] for one in gone), key


def test_a_push(world: World, process: Processes, hub: Any, tmp_path: Path) -> None:
    from support.loopback_hub import client_env

    env = client_env(hub, tmp_path / "hf-home", "hf_w")
    for _ in range(2):
        said = process("-q", "push", ADDRESS, "--json", env=env)
        assert said.code == 0
        assert keeps_to_it(said, "push") == []
    assert said.json["uploaded"] == []


def test_what_is_not_finite_is_null(world: World, answer: Answer, tmp_path: Path) -> None:
    table = tensors(world.base)
    name = "model.layers.0.mlp.up_proj.weight"
    dtype, shape, raw = table[name]
    assert dtype == "BF16"
    table[name] = (dtype, shape, b"\x80\x7f" + raw[2:])  # +infinity
    write_tensors(tmp_path / "odd" / "model.safetensors", table)
    answer("commit", tmp_path / "odd", "--as", "odd")
    found = answer("diff", "--weights")
    assert [found["total"][key] for key in ("step", "relative", "largest")] == [None] * 3
    (pair,) = found["interference"]
    assert (pair["cosine"], pair["norm_b"]) == (None, None)


# The contract


def test_progress_goes_to_stderr_unless_quiet(world: World, pv: InProcess) -> None:
    words = ("train", world.rows, "--max-steps", "1", "--threads", "1", "--held-out", "none", "--json")
    said = pv(*words, "--as", "loud")
    assert "step 1/1" in said.err
    assert problems(said.json, "Train") == []
    said = pv("-q", *words, "--as", "quiet")
    assert (said.code, said.err) == (0, "")


def test_an_error_is_the_last_line(world: World, process: Processes) -> None:
    shutil.rmtree(world.folder / ".pv" / "records")
    (world.folder / ".pv" / "records").touch()
    said = process("-v", "build", "-o", "built", "--json")  # a traceback comes before it
    assert (said.code, said.out) == (70, "")
    assert len(said.err.splitlines()) > 1
    assert problems(json.loads(said.err.splitlines()[-1]), "Failure") == []


def test_paths_are_relative_to_the_folder_of_C(world: World, answer: Answer) -> None:
    assert not Path("few.jsonl").exists()
    write_rows(world.folder / "few.jsonl", 2)
    assert answer("eval", "few.jsonl")["n"] == 2


@pytest.mark.slow
def test_the_example(world: World, pv: InProcess, tmp_path: Path) -> None:
    """As it stands: a merge that holds, one that is in conflict, one that loses the behaviour."""
    if shutil.which("jq") is None:
        pytest.skip("jq is not installed")
    (program,) = re.findall(r"```sh\n(.*?)```", TEXT, flags=re.DOTALL)
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "pv"
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m pv.cli.main "$@"\n')
    command.chmod(0o755)
    shutil.copy(world.rows, world.folder / "listening.heldout.jsonl")

    def run() -> Said:
        env = {**os.environ, "PATH": f"{command.parent}:{os.environ['PATH']}"}
        done = subprocess.run(
            ["sh", "-c", program], cwd=world.folder, env=env, capture_output=True, text=True
        )
        return Said(done.returncode, done.stdout, done.stderr)

    for line in ("switch -c style", "scale listening 2", "switch main"):
        pv.ok(*line.split())
    said = run()
    assert (said.code, said.err) == (0, "")
    assert re.fullmatch("[0-9a-f]{64}\n", said.out)
    for line in ("scale listening 3", "switch style", "scale listening -1", "switch main"):
        pv.ok(*line.split())
    said = run()
    assert (said.code, said.out) == (1, "")
    assert "both sides changed listening" in said.err and 'listening: {"weight":3,' in said.err
    pv.ok("undo")  # the switch
    pv.ok("switch", "main")
    pv.ok("revert", "HEAD")
    before = pv.ok("status", "--json").json["persona_id"]
    said = run()
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith("effect -")
    assert pv.ok("status", "--json").json["persona_id"] == before


def test_a_wrong_answer_is_found(answer: Answer, world: World) -> None:
    """The checks can fail: a key too many, one too few, an id that is none, NaN."""
    right = answer("status")
    assert problems(right, "Status") == []
    assert problems({**right, "more": 1}, "Status") == ["$.more: unknown key"]
    assert problems({key: right[key] for key in right if key != "branch"}, "Status") == ["$.branch: missing"]
    assert problems({**right, "schema": 2}, "Status") == ["$.schema: 2 is no 1"]
    assert len(problems({**right, "commit": right["commit"][:12]}, "Status")) == 1
    deep = {**right["persona"], "output": {"dtype": "bf17", "rounding": "nearest", "seed": 0}}
    assert [line.partition(":")[0] for line in problems({**right, "persona": deep}, "Status")] == [
        "$.persona.output.dtype"
    ]
    said = Said(2, "", json.dumps({"schema": 1, "error": {"message": "", "hint": None, "exit_code": 3}}))
    assert keeps_to_it(said, "status") == ["the exit code is 2"]
    assert keeps_to_it(Said(0, json.dumps(right) + "\n", "a note\n"), "status") == ["stderr: a note\n"]
