"""docs/scripting.md is so: every command is run with --json, and what it answers has the type that is written there."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import click
import pytest
from support.commands import InProcess, Processes, Said, World, tensors, write_rows, write_tensors
from support.scripting import TEXT, TYPES, blocks, keeps_to_it, problems, section, type_name

import pv.cli.main
import pv.registry.check
import pv.vecstore.check
from pv.cli.main import COMMANDS, cli
from pv.registry.check.report import NOTES
from pv.registry.combine import METHODS, Combine
from pv.registry.dtypes import OUTPUT_CHOICES
from pv.registry.errors import PvError
from pv.registry.exit_codes import MEANINGS, ExitCode
from pv.registry.history.merge import MergeOutcome
from pv.registry.persona import ROUNDINGS
from pv.vecstore.evaluate.statistics import Interval

NAMES = [name for names in COMMANDS.values() for name in names]
ADDRESS = "hf://ada/persona"

Answer = Callable[..., dict[str, Any]]


@pytest.fixture
def answer(pv: InProcess) -> Answer:
    """`answer("log", "-n", "1", code=0)`: what stdout says, which has the type of the document."""

    def run(command: str, *words: str | Path, code: int = 0, at: Path | None = None) -> dict[str, Any]:
        said = pv("-q", command, *words, "--json", at=at)
        assert said.code == code, said
        assert keeps_to_it(said, command) == [], said
        return said.json if said.out else json.loads(said.err)["error"]

    return run


# The document and the program


def test_every_command_with_json_has_a_section_with_its_type() -> None:
    with_json = []
    for name, command in every_command():
        if any("--json" in parameter.opts for parameter in command.params):
            with_json.append(name)
    sections = re.findall(r"^### pv (.*)$", TEXT, flags=re.MULTILINE)
    assert sections == with_json, "in the order of the help"
    for name in sections:
        (block,) = blocks(section(f"pv {name}"))
        assert next(iter(re.findall(r"^type (\w+) =", block, flags=re.MULTILINE))) == type_name(name)


def every_command() -> Iterator[tuple[str, click.Command]]:
    """(name, command), and `op log` for the subcommand of a group."""
    for name in NAMES:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        if isinstance(command, click.Group):
            if command.invoke_without_command:
                yield name, command
            yield from ((f"{name} {inner}", one) for inner, one in command.commands.items())
        else:
            yield name, command


def name_of(words: list[str]) -> str:
    """The command of a command line."""
    known = {name for name, _ in every_command()}
    return next((name for name in (" ".join(words[:2]), words[0]) if name in known), words[0])


def test_the_exit_codes_are_those_that_pv_gives() -> None:
    documented = re.findall(r"^\| (\d+) \|", section("Exit codes"), flags=re.MULTILINE)
    assert list(map(int, documented)) == sorted(ExitCode) == sorted(MEANINGS)


def test_no_other_exit_code_is_given() -> None:
    """By an error, by `raise Exit(...)` of a command, by `run`: all name one of the table, and none is unused."""
    assert all(isinstance(kind.exit_code, ExitCode) for kind in kinds_of_error(PvError))
    named = {kind.exit_code.name for kind in kinds_of_error(PvError)}
    for module in (pv.cli.main, *(importlib.import_module(module_of(name)) for name in NAMES)):
        source = inspect.getsource(module)
        assert not re.search(r"(exit|Exit)\(\d", source)
        named |= set(re.findall(r"ExitCode\.([A-Z_]+)", source))
    assert named == {code.name for code in ExitCode}


def kinds_of_error(kind: type[PvError]) -> set[type[PvError]]:
    return {kind}.union(*(kinds_of_error(one) for one in kind.__subclasses__()))


def module_of(name: str) -> str:
    return f"pv.cli.commands.{name.replace('-', '_')}"


def test_the_listed_words_are_those_of_the_program() -> None:
    assert literals("Output", "dtype") == set(OUTPUT_CHOICES)
    assert literals("Output", "rounding") == set(ROUNDINGS)
    verdicts = get_args(get_type_hints(vars(Interval)["verdict"].fget)["return"])
    assert literals("Score", "verdict") == literals("EvalOne", "verdict") == set(verdicts)
    assert literals("Merge", "kind") == set(get_args(get_type_hints(MergeOutcome)["kind"]))
    assert literals("Finding", "kind") == kinds_of_findings() >= NOTES
    choices = {word for method in METHODS.values() for option in method.options for word in option.choices}
    assert {word[1:-1] for word in TYPES["CombineRule"].words() if word[0] == '"'} == choices | METHODS.keys()
    for name, method in METHODS.items():
        for option in method.options:
            for value in option.choices or (option.default,):
                switch: dict[str, Any] = {option.name: value}
                assert problems(Combine.of(name, **switch).to_json(), "CombineRule") == []


def literals(name: str, key: str) -> set[str]:
    """The words that a key can have."""
    members = dict(zip(TYPES[name].keys, TYPES[name].parts, strict=True))
    return {word[1:-1] for word in members[key].words() if word[0] == '"'}


def kinds_of_findings() -> set[str]:
    """What `Finding(KIND, ...)` and `about_pack(ID, KIND, ...)` are called with."""
    places = {"Finding": 0, "about_pack": 1}
    found = set()
    folders = [Path(package.__file__ or "").parent for package in (pv.registry.check, pv.vecstore.check)]
    for path in (path for folder in folders for path in folder.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = getattr(node, "func", None)
            place = places.get(getattr(name, "id", getattr(name, "attr", "")))
            if (
                isinstance(node, ast.Call)
                and place is not None
                and isinstance(node.args[place], ast.Constant)
            ):
                found.add(ast.literal_eval(node.args[place]))
    return found


# Every command

STORY = """
0 status
0 base
0 base move {base}
0 log --graph --all -n 1
0 log -1 --scores --since 2020-01-01
0 log HEAD~1..HEAD --grep train
0 log listening
0 log --behaviour listening HEAD --all -n 1
0 show
0 show listening
0 show HEAD:listening
0 vectors
0 op log -n 2
0 op show 1
0 diff
0 diff --weights
0 diff HEAD~1 HEAD --recipe
1 diff --exit-code
0 diff HEAD HEAD --exit-code
0 eval {held_out}
0 eval HEAD~1 {held_out}
0 eval HEAD~1 HEAD {held_out}
0 eval --all
0 eval --all HEAD --data {held_out} --dtype fp32
0 chat -p Hi -p Ho --max-tokens 2
0 rows listening
0 rows HEAD:listening -o {out}.jsonl
0 rows listening --held-out
0 chat HEAD~1 HEAD -p Hi --max-tokens 2
0 chat --base HEAD -p Hi --max-tokens 2
0 scale listening -0.5
0 negate listening
0 add more=HEAD~1:listening --weight 2
0 diff
0 rename more again
0 negate again listening
0 drop again
0 branch side HEAD~2
0 branch
0 switch side
0 scale listening 2
0 tag v1
0 tag
0 switch main
0 merge v1 --take listening=theirs --method ties --density 0.3
0 merge side
0 log
0 revert HEAD -m 1
0 cherry-pick HEAD~1 -m 1
0 undo --dry-run
0 undo
0 redo --dry-run
0 redo
0 undo -n 2
0 redo
0 undo --to 5
0 redo
0 op log
0 branch -v
0 branch -m side aside
0 branch -m aside side
0 switch side
0 switch -
0 tag -d v1
0 switch -c ahead
0 scale listening 4
0 scale listening 4 --module *.mlp.*=0.5
0 scale listening 4
0 combine
0 combine ties --density 0.5
0 config
0 config output.seed
0 config output.dtype fp32
0 config output.dtype base
0 combine add
0 switch main
0 merge ahead
0 branch -d side
0 train {rows} --as brief --max-steps 1 --threads 1 --no-data --held-out none
0 commit {tuned} --as tuned
0 commit {tuned} --as again --force
0 compress listening --to sparse:0.3
0 show
0 push -n hf://ada/persona
0 build -n -o {out} --shard-size 0.05
0 build -o {out} --shard-size 0.05
0 export listening -n -o {out}-listening
0 export listening -o {out}-listening
0 export HEAD~1:tuned -o {out}-tuned
0 export tuned -n --force -o {out}-tuned --shard-size 0.05
0 verify {out}
0 verify {out} HEAD --weights-only
0 verify {out} HEAD --recompute
1 verify {base} HEAD
1 verify {tuned}
0 fsck --deep
0 fsck --repair
0 gc -n
0 gc
"""
ELSEWHERE = {"init", "help", "completion"}  # a test of its own; no JSON

WRONG = """
1 merge terse
1 cherry-pick terse
2 scale listening much
2 scale listening 3 --no-modules --module a=1
2 merge main --method ties
2 merge terse --take listening=ours --take listening=ours
2 config output.dtype int4
2 rename listening HEAD
2 combine add --density 0.5
2 scale listening 1 --module nothing=2
2 log --nope
2 frobnicate
2 eval nowhere.jsonl
3 init --base {rows}
4 push hf://ada/persona
5 show nowhere
5 drop nobody
5 op show 9999
5 undo --to 9999
2 undo --to 3 -n 1
5 show nowhere:listening
5 show HEAD:nobody
5 log --behaviour nobody
2 log listening --graph
2 log --since yesterday
5 rows nobody
5 verify nowhere
2 verify terse {rows}
"""


def lines_of(text: str, **paths: Path) -> list[tuple[int, list[str]]]:
    """(exit code, command line)"""
    split = [shlex.split(line) for line in text.strip().splitlines()]
    return [(int(code), [word.format(**paths) for word in words]) for code, *words in split]


def test_every_answer_has_its_type(world: World, pv: InProcess, tmp_path: Path) -> None:
    held_out = world.rows.with_name("rows.heldout.jsonl")
    paths = {"held_out": held_out, "rows": world.rows, "base": world.base, "tuned": world.tuned}
    story = lines_of(STORY, **paths, out=tmp_path / "out")
    assert {words[0] for _, words in story} == set(NAMES) - ELSEWHERE
    found = {}
    for code, words in story:
        said = pv("-q", *words, "--json")
        assert said.out and said.code == code, (words, said)
        if wrong := keeps_to_it(said, name_of(words)):
            found[" ".join(words)] = wrong
    assert found == {}


def test_every_error_has_its_type(conflict: None, world: World, pv: InProcess, tmp_path: Path) -> None:
    for code, words in lines_of(WRONG, rows=world.rows):
        said = pv("-q", *words, "--json", at=tmp_path if words[0] == "init" else None)
        assert (said.code, said.out) == (code, ""), (words, said)
        assert keeps_to_it(said, name_of(words)) == [], words


def test_init(made: World, answer: Answer, tmp_path: Path) -> None:
    assert answer("status", code=128)["hint"]
    found = answer("init", "--base", made.base)
    assert found["registry"] == str(tmp_path / ".pv")
    assert answer("diff", "HEAD", "HEAD").keys().isdisjoint({"total", "interference"})


# What the story does not come by


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
    """The checks of this file can fail: a key too many, one too few, an id that is none, NaN."""
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
