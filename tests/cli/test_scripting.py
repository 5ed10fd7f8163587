"""docs/scripting.md is so: every command is run with --json, and what it answers has the type that is written there."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import click
from support.commands import InProcess, World
from support.scripting import TEXT, TYPES, Answer, blocks, keeps_to_it, problems, section, type_name

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
    assert literals("MergeDone", "kind") == set(get_args(get_type_hints(MergeOutcome)["kind"]))
    assert literals("Finding", "kind") == kinds_of_findings() >= NOTES
    choices = {word for method in METHODS.values() for option in method.options for word in option.choices}
    unspelled = {option.default for method in METHODS.values() for option in method.options if option.later}
    listed = {word[1:-1] for word in TYPES["CombineRule"].words() if word[0] == '"'}
    assert listed == (choices - unspelled) | METHODS.keys()
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
0 steer list
0 steer list HEAD~1
0 op log -n 2
0 op show 1
0 diff
0 diff --weights
0 diff HEAD~1 HEAD --recipe
0 diff --stat
0 diff --top 3 --heads --spectra
1 diff {base} {tuned} --exit-code
0 diff {base} HEAD --spectra --heads --html {out}.html
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
0 add less=again-0.5*HEAD~2:listening
0 show less
0 drop less
0 add all=negmerge(again,listening,HEAD~1:listening) --match-norm --to int8
0 show all
0 vectors
0 drop all
0 negate again listening
0 drop again
0 branch side HEAD~2
0 branch
0 switch side
0 scale listening 2
0 tag v1
0 tag
0 switch main
0 merge v1 --take listening=theirs --method ties --density 0.3 -n
0 merge v1 --take listening=theirs --method ties --density 0.3
0 merge side
0 merge side -n
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
0 scale listening 4 --modules *.mlp.*=0.5
0 scale listening 4 --depth 0:0.5,1:1
0 scale listening 4
0 combine
0 combine --list
0 combine della --list
0 combine ties --preset paper
0 combine ties --density 0.5
0 combine dare --set density=0.4 --set seed=7
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
0 forecast listening brief tuned
0 probe list
0 compress listening --to sparse:0.3
0 show
0 push -n hf://ada/persona
0 build -n -o {out} --shard-size 0.05
0 build -o {out} --shard-size 0.05
0 build -o {out} --shard-size 0.05
0 build -o {out}-shares --shards 1/2
0 build -o {out}-shares --shards 2/2
0 build -o {out}-shares --shards 2/2
0 export listening -n -o {out}-listening
0 export listening -o {out}-listening
0 export HEAD~1:tuned -o {out}-tuned
0 export tuned -n --force -o {out}-tuned --shard-size 0.05
0 export --lora listening --rank 4 -o {out}-lora
0 export --lora --rank 4 -o {out}-lora --force
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
2 scale listening 3 --modules none --modules a=1
2 merge main --method ties
2 add c=listening-listening
2 export --lora listening -o {out}-lora
5 add c=listening-nobody
2 add c=svd(listening)
2 merge terse --take listening=ours --take listening=ours
2 config output.dtype int4
2 rename listening HEAD
2 combine add --density 0.5
2 combine dare --set density=much
2 scale listening 1 --modules nothing=2
2 scale listening 1 --depth 1:2,0:1
2 log --nope
2 frobnicate
2 eval nowhere.jsonl
3 init --base {rows}
4 push hf://ada/persona
2 forecast listening
2 forecast listening listening
5 forecast listening nobody
5 forecast listening HEAD --calibration nowhere.json
5 show nowhere
5 drop nobody
5 op show 9999
5 steer set nobody 2
2 steer set
5 steer drop nobody
5 steer add HEAD:nobody
2 steer add nobody
5 steer compare listening nobody
5 diff --against nobody
2 diff --texts {rows}
5 steer export nobody -o {out}.gguf
5 steer import nowhere.gguf --as formal
2 steer set nobody --always --when a>1
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
    for code, words in lines_of(WRONG, rows=world.rows, out=tmp_path / "out"):
        said = pv("-q", *words, "--json", at=tmp_path if words[0] == "init" else None)
        assert (said.code, said.out) == (code, ""), (words, said)
        assert keeps_to_it(said, name_of(words)) == [], words


def test_init(made: World, answer: Answer, tmp_path: Path) -> None:
    assert answer("status", code=128)["hint"]
    found = answer("init", "--base", made.base)
    assert found["registry"] == str(tmp_path / ".pv")
    assert answer("diff", "HEAD", "HEAD").keys().isdisjoint({"total", "interference"})
