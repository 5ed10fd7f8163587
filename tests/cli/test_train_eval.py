"""Making behaviours (train, commit) and measuring them (eval), on a real, tiny model."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.commands import InProcess, Processes, World, tensors, write_rows, write_tensors

QUICK = ("--max-steps", "2", "--threads", "1")


def head(pv: InProcess) -> str:
    found: str = pv.ok("status", "--json").json["commit"]
    return found


def behaviour(pv: InProcess, name: str) -> dict[str, Any]:
    found: dict[str, Any] = pv.ok("status", "--json").json["persona"]["behaviours"][name]
    return found


# Train


def test_training_ends_in_a_commit_that_knows_where_it_came_from(world: World, pv: InProcess) -> None:
    before = head(pv)
    said = pv.ok("train", world.rows, "--as", "brief", *QUICK, "--seed", "3", "-m", "Teach brevity", "--json")
    assert said.json["schema"] == 1
    assert said.json["commit"] == head(pv)
    shown = pv.ok("show", "--json").json
    assert shown["parents"] == [before]
    assert shown["message"].strip() == "Teach brevity"
    provenance = said.json["provenance"]
    assert shown["provenance"][said.json["vector"]] == provenance
    assert provenance["kind"] == "trained"
    assert provenance["data"]["rows"] == 6
    assert provenance["data"]["name"] == "rows.jsonl"
    assert (provenance["options"]["seed"], provenance["options"]["max_steps"]) == (3, 2)
    assert provenance["loss"][0] > provenance["loss"][1] > 0
    assert provenance["held_out"]["n"] == 4
    assert provenance["held_out"]["data"] == "rows.heldout.jsonl"
    assert "training brief: step 2/2, loss " in said.err
    assert (
        world.folder / ".pv" / "packs" / provenance["data"]["id"][:2] / provenance["data"]["id"]
    ).is_file()


def test_what_a_person_sees(world: World, pv: InProcess) -> None:
    said = pv.ok("train", world.rows, "--as", "brief", *QUICK)
    assert said.out == ""
    assert "brief trained on 6 rows of rows.jsonl: 2 of 6 steps (--max-steps 2), 2 epochs, apollo" in said.err
    assert "at step 2 (of that step's batch, before its update)" in said.err
    assert "✓ " in said.err
    assert "brief is vector " in said.err and said.err.count(", on branch main\n") == 1
    assert "held-out effect +" in said.err
    assert "nats at weight 1, 95 %, n=4 (rows.heldout.jsonl): stronger than in the base" in said.err
    assert pv.ok("-q", "train", world.rows, "--as", "b2", *QUICK, "--held-out", "none").err == ""


def test_the_same_training_gives_the_same_vector(world: World, pv: InProcess) -> None:
    first = pv.ok("train", world.rows, "--as", "a", *QUICK, "--held-out", "none", "--json").json
    again = pv.ok("train", world.rows, "--as", "b", *QUICK, "--held-out", "none", "--json").json
    other = pv.ok(
        "train", world.rows, "--as", "c", *QUICK, "--held-out", "none", "--seed", "1", "--json"
    ).json
    assert first["vector"] == again["vector"] != other["vector"]
    assert "held_out" not in first["provenance"]


def test_without_held_out_rows_beside_it_nothing_is_measured(
    world: World, pv: InProcess, tmp_path: Path
) -> None:
    rows = shutil.copy(world.rows, tmp_path / "alone.jsonl")
    said = pv.ok("train", rows, "--as", "brief", *QUICK, "--json")
    assert "held_out" not in said.json["provenance"]
    other = write_rows(tmp_path / "others.jsonl", 5)
    said = pv.ok("train", rows, "--as", "other", *QUICK, "--held-out", other, "--json")
    assert said.json["provenance"]["held_out"]["n"] == 5


def test_options_reach_the_training(world: World, pv: InProcess) -> None:
    said = pv.ok(
        "train", world.rows, "--as", "brief", "--lr", "5e-5", "--epochs", "1", "--batch", "2", "--rank", "4",
        "--optimizer", "adamw", "--full-context", "--train-embeddings", "--encoding", "float", "--no-data",
        "--held-out", "none", "--json",
    )  # fmt: skip
    provenance = said.json["provenance"]
    options = provenance["options"]
    assert (options["lr"], options["epochs"], options["batch"], options["rank"]) == (5e-5, 1, 2, 4)
    assert (options["optimizer"], options["frozen_context"], options["train_embeddings"]) == (
        "adamw",
        False,
        True,
    )
    assert provenance["settings"]["steps"] == 3
    assert provenance["data"]["kept"] is False
    assert "  float, " in pv.ok("show").out


def test_a_next_version_keeps_the_weight_that_was_set(world: World, pv: InProcess) -> None:
    old = behaviour(pv, "listening")
    pv.ok("scale", "listening", "0.25")
    pv.ok("train", world.rows, "--as", "listening", *QUICK, "--held-out", "none", "--seed", "9")
    new = behaviour(pv, "listening")
    assert new["weight"] == 0.25
    assert new["terms"] != old["terms"]
    pv.ok("commit", world.tuned, "--as", "listening")
    assert behaviour(pv, "listening")["weight"] == 0.25
    pv.ok("commit", world.tuned, "--as", "second", "--weight", "-2")
    assert behaviour(pv, "second")["weight"] == -2


def test_held_out_rows_that_cannot_be_measured_stop_it_before_the_training(
    world: World, pv: InProcess, tmp_path: Path
) -> None:
    before = world.state()
    plain = tmp_path / "plain.jsonl"
    plain.write_text('{"prompt": "a", "chosen": "b"}\n')
    long = tmp_path / "long.jsonl"
    long.write_text(json.dumps({"prompt": "x" * 600, "chosen": "b", "rejected": "c"}) + "\n")
    for rows, words in ((plain, "no 'rejected' answer"), (long, "the model's context holds 512")):
        said = pv("train", world.rows, "--as", "x", *QUICK, "--held-out", rows)
        assert (said.code, said.out) == (2, "")
        assert words in said.err
        assert "training" not in said.err
    assert world.state() == before


def test_training_goes_on_while_the_persona_changes(world: World, pv: InProcess) -> None:
    """Long work holds no lock: what another command did meanwhile is kept."""
    pv.ok("scale", "listening", "2")
    pv.ok("train", world.rows, "--as", "brief", *QUICK, "--held-out", "none")
    assert behaviour(pv, "listening")["weight"] == 2
    assert behaviour(pv, "brief")["weight"] == 1


def test_a_bar_is_drawn_on_a_terminal(world: World, process: Processes) -> None:
    said = process.on_terminal("train", world.rows, "--as", "brief", *QUICK, "--held-out", "none")
    assert said.code == 0
    assert "training brief" in said.out
    assert "step 2/2" in said.out
    assert "tokens/s" in said.out


# Commit


def test_a_checkpoint_comes_back_bit_for_bit(world: World, pv: InProcess, tmp_path: Path) -> None:
    pv.ok("undo")
    said = pv.ok("commit", world.tuned, "--as", "tuned", "-m", "From elsewhere", "--json")
    assert said.json["stored_bytes"] > 0
    assert 0 < said.json["tensors"] <= len(tensors(world.tuned))
    pv.ok("build", "-o", tmp_path / "built")
    assert tensors(tmp_path / "built") == tensors(world.tuned)
    shown = pv.ok("show")
    assert "From elsewhere" in shown.out
    assert "captured from tuned" in shown.out
    assert "exact" in shown.out


def test_shards_and_a_single_file_are_the_same_vector(world: World, pv: InProcess, tmp_path: Path) -> None:
    whole = tensors(world.tuned)
    names = sorted(whole)
    where = {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(names)}
    for file in sorted(set(where.values())):
        write_tensors(tmp_path / "shards" / file, {n: whole[n] for n in names if where[n] == file})
    (tmp_path / "shards" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    ids = [
        pv.ok("commit", path, "--as", name, "--json").json["vector"]
        for name, path in (
            ("a", world.tuned),
            ("b", tmp_path / "shards"),
            ("c", world.tuned / "model.safetensors"),
        )
    ]
    assert len(set(ids)) == 1


def test_the_base_itself_is_nothing_to_commit(world: World, pv: InProcess) -> None:
    before = world.state()
    said = pv("commit", world.base, "--as", "x")
    assert (said.code, said.out) == (2, "")
    assert "is the base itself" in said.err
    assert pv("commit", world.tuned, "--as", "a b").code == 2
    assert world.state() == before


# Eval


def test_eval_measures_once_and_reads_it_the_second_time(world: World, pv: InProcess) -> None:
    rows = write_rows(world.folder / "other.jsonl", 5)
    first = pv.ok("eval", rows, "--json")
    found = first.json
    assert (found["schema"], found["n"], found["data"]) == (1, 5, "other.jsonl")
    for key in ("margin", "base_margin", "effect", "effect_per_token"):
        assert found[key]["low"] <= found[key]["mean"] <= found[key]["high"]
    assert found["effect"]["mean"] == pytest.approx(found["margin"]["mean"] - found["base_margin"]["mean"])
    assert found["verdict"] == "up"
    code = "import sys; from pv.cli.main import run; run(sys.argv[1:]); sys.exit('torch' in sys.modules)"
    again = subprocess.run(
        [sys.executable, "-c", code, "eval", rows, "--json"], cwd=world.folder, capture_output=True, text=True
    )
    assert (again.returncode, again.stdout) == (0, first.out), (
        "no model was loaded, and the answer is the same"
    )
    text = pv.ok("eval", "main", rows).out
    assert text.startswith(f"main ({found['commit'][:12]})  listening 1\n")
    assert f"{found['effect']['mean']:+.2f} [" in text
    assert "\nthe interval lies above 0: stronger than in the base\n" in text


def test_a_score_belongs_to_a_build_and_to_rows(world: World, pv: InProcess) -> None:
    half = pv.ok("eval", world.rows, "--json").json
    pv.ok("scale", "listening", "-1")
    reversed_ = pv.ok("eval", world.rows, "--json").json
    assert reversed_["build"] != half["build"]
    assert reversed_["base_margin"] == half["base_margin"]
    assert reversed_["effect"]["mean"] < 0 < half["effect"]["mean"]
    assert reversed_["verdict"] == "down"
    assert pv.ok("eval", "HEAD~1", world.rows, "--json").json == half
    wide = pv.ok("eval", "HEAD~1", world.rows, "--dtype", "fp32", "--json").json
    assert wide["build"] != half["build"]
    assert wide["effect"]["mean"] == pytest.approx(half["effect"]["mean"], rel=0.05)


def test_eval_takes_a_revision_and_rows(world: World, pv: InProcess, tmp_path: Path) -> None:
    assert pv("eval").code == 2
    plain = tmp_path / "plain.jsonl"
    plain.write_text('{"prompt": "a", "chosen": "b"}\n')
    said = pv("eval", plain)
    assert (said.code, said.out) == (2, "")
    assert "no 'rejected' answer" in said.err
