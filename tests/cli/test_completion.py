"""Tab: what completes, in this process and in real shells."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.shell_completion import CompletionItem, ShellComplete
from support.commands import InProcess, Processes, World
from support.steering import add_steering

from pv.cli.completion import KINDS, Kind
from pv.cli.main import COMMANDS, cli
from pv.registry.registry import Registry

NAMES = [name for names in COMMANDS.values() for name in names]
Complete = Callable[..., list[str]]


@pytest.fixture
def complete(world: World, terse: None, pv: InProcess) -> Complete:
    """`complete("scale", "li")`: what the last word becomes, in a registry with branches main and terse, tag v1."""
    pv.ok("add", "quick=main:listening")

    def run(*words: str, at: Path | None = None) -> list[str]:
        items = found(["-C", str(at or world.folder), *words[:-1]], words[-1])
        return [item.value if item.type == "plain" else f"<{item.type}>" for item in items]

    return run


def found(args: list[str], incomplete: str) -> list[CompletionItem[str]]:
    return ShellComplete(cli, {}, "pv", "_PV_COMPLETE").get_completions(args, incomplete)


def test_commands_and_options(complete: Complete) -> None:
    assert complete("c") == [name for name in NAMES if name.startswith("c")]
    assert complete("") == NAMES
    assert complete("log", "--o") == ["--oneline"]
    assert complete("completion", "") == ["bash", "zsh", "fish"]


@pytest.mark.parametrize("command", ["build", "merge", "diff", "chat", "revert", "cherry-pick"])
def test_revisions(complete: Complete, command: str) -> None:
    assert complete(command, "") == ["HEAD", "main", "terse", "v1"]
    assert complete(command, "te") == ["terse"]


@pytest.mark.parametrize("command", ["show", "log"])
def test_revisions_and_behaviours(complete: Complete, command: str) -> None:
    assert complete(command, "") == ["HEAD", "main", "terse", "v1", "listening", "quick"]
    assert complete(command, "te") == ["terse"]
    assert complete(command, "terse:") == ["terse:listening"]


def test_branches_tags_and_second_places(complete: Complete) -> None:
    assert complete("switch", "") == complete("branch", "-d", "") == ["main", "terse"]
    assert complete("tag", "-d", "") == ["v1"]
    assert complete("branch", "new", "v") == complete("switch", "-c", "new", "v") == ["v1"]
    assert complete("diff", "main", "t") == ["terse"]
    assert complete("push", "v") == ["v1"]


@pytest.mark.parametrize("command", ["scale", "negate", "drop", "compress"])
def test_behaviours_of_head(complete: Complete, command: str) -> None:
    assert complete(command, "") == ["listening", "quick"]
    assert complete(command, "q") == ["quick"]


def test_behaviours_elsewhere(complete: Complete) -> None:
    assert complete("add", "terse") == ["terse:listening"]
    assert complete("add", "new=v1:") == ["new=v1:listening"]
    assert complete("add", "HEAD:q") == ["HEAD:quick"]
    assert complete("add", "main~2:") == []
    assert complete("commit", "x", "--as", "l") == ["listening"]
    assert complete("merge", "terse", "--take", "q") == ["quick=ours", "quick=theirs"]
    assert complete("combine", "dare", "--set", "d") == ["density="]
    assert complete("merge", "terse", "--set", "elect=w") == ["elect=weighted"]
    assert complete("combine", "da") == ["dare"]


def test_steering_terms(complete: Complete, world: World) -> None:
    with Registry.find(world.folder) as registry:
        add_steering(registry, "formal", 1)
    assert {"add", "drop", "list", "rename", "set", "unretire"} <= set(complete("steer", ""))
    for command in ("set", "drop", "rename", "test", "verify", "train", "retire", "unretire"):
        assert complete("steer", command, "f") == ["formal"]
    assert complete("steer", "set", "formal", "--site", "") == ["model.layers.0", "model.layers.1"]
    assert complete("steer", "set", "formal", "--positions", "re") == ["reply"]
    assert complete("steer", "retire", "formal", "--by", "l") == ["listening"]
    assert complete("steer", "pairs", "") == complete("steer", "extract", "") == ["<file>"]
    assert complete("steer", "add", "new=main:") == ["new=main:formal"]
    assert complete("steer", "export", "f") == ["formal"]
    assert complete("steer", "export", "main:") == ["main:formal"]
    assert complete("steer", "import", "") == complete("steer", "export", "formal", "-o", "") == ["<file>"]
    assert complete("merge", "terse", "--take", "f") == ["formal=ours", "formal=theirs"]


def test_files(complete: Complete) -> None:
    assert (
        complete("train", "")
        == complete("commit", "")
        == complete("compress", "x", "--data", "")
        == ["<file>"]
    )
    assert (
        complete("build", "-o", "") == complete("verify", "") == complete("init", "--base", "") == ["<dir>"]
    )
    assert complete("eval", "te") == ["<file>", "terse"]


def test_what_stands_below_a_command(complete: Complete) -> None:
    assert complete("base", "m") == ["move"]
    assert complete("base", "move", "") == ["<dir>"]
    assert complete("op", "s") == ["show"]
    assert complete("config", "output.") == ["output.dtype", "output.rounding", "output.seed"]


def test_every_place_for_a_text_completes_or_is_free_text(complete: Complete) -> None:
    """A new parameter is named as those it is like, or belongs here."""
    free = {"message", "endpoint", "parent", "prompts", "system", "to", "topics", "grep", "new", "either"}
    free |= {
        "value",
        "modules",
        "depth",
        "address",
        "adapter",
        "prompt",
        "when",
        "read",
        "layer",
        "layers",
        "coefficients",
    }
    for name in NAMES:
        command = cli.get_command(click.Context(cli, resilient_parsing=True), name)
        assert command is not None
        below = list(command.commands.values()) if isinstance(command, click.Group) else []
        for one in (command, *below):
            texts = {parameter.name for parameter in one.params if parameter.type is click.STRING}
            assert texts <= free, f"{name} {one.name}"
    assert all(isinstance(kind, Kind) for kind in KINDS.values())


def test_nothing_is_said_where_there_is_nothing_to_read(
    process: Processes, world: World, tmp_path: Path
) -> None:
    def tab(at: Path, line: str, **env: str) -> str:
        words = line.split(" ")
        env |= {"COMP_WORDS": "\n".join(words), "COMP_CWORD": str(len(words) - 1)}
        said = process(at=at, env={"_PV_COMPLETE": "bash_complete", **env})
        assert said.err == ""
        return said.out.strip()

    assert tab(world.folder, "pv scale l") == "plain,listening"
    assert tab(world.folder, "pv add main : l", PV_WORDBREAKS=":=") == "plain,listening"
    assert tab(world.folder, "pv add main:l", PV_WORDBREAKS=" ") == "plain,main:listening"
    assert tab(tmp_path.parent, "pv scale l") == tab(world.folder, "pv add nope: x") == ""
    assert tab(world.folder, "pv nope x") == tab(world.folder, "pv -C /nowhere scale x") == ""
    assert process(env={"_PV_COMPLETE": "tcsh_complete"}).out == ""
    assert process(env={"_PV_COMPLETE": "bash_complete"}).err == ""
    (world.folder / ".pv" / "history.git" / "HEAD").write_text("damaged")
    before = world.state()
    assert tab(world.folder, "pv scale l") == tab(world.folder, "pv switch m") == ""
    assert world.state() == before


def test_it_loads_no_tensor_library_and_nothing_of_the_network(world: World) -> None:
    code = """
import os, sys
os.environ.update(_PV_COMPLETE="bash_complete", COMP_WORDS="pv scale l", COMP_CWORD="2")
from pv.cli.main import run
run([])
print(sorted({"torch", "transformers", "numpy", "peft", "huggingface_hub", "rich"} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=world.folder, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["plain,listening", "[]"], done.stderr


# Real shells


@pytest.fixture
def programs(tmp_path: Path) -> dict[str, str]:
    """An environment in which `pv` and `personavec` are this pv."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("pv", "personavec"):
        program = folder / name
        program.write_text(
            f"#!{sys.executable}\nimport sys\nsys.argv[0] = {name!r}\nfrom pv.cli.main import main\nmain()\n"
        )
        program.chmod(0o755)
    return {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("pv sw", "switch"),
        ("pv switch te", "terse"),
        ("pv scale li", "listening"),
        ("pv add te", "terse:listening"),
        ("pv add terse : li", "listening"),
        ("pv add new = terse :", "listening"),
        ("pv merge terse --take listening = o", "ours"),
        ("pv build --dtype b", "base bf16"),
        ("personavec scale li", "listening"),
        ("pv scale 'li", "listening"),
    ],
)
def test_bash(world: World, terse: None, programs: dict[str, str], words: str, expected: str) -> None:
    """The words as bash splits them, at `:` and `=` too."""
    name = words.split()[0]
    quoted = " ".join(f'"{word}"' for word in words.split(" "))
    script = f"""
eval "$({name} completion bash)" || exit 9
complete -p {name} | grep -q _{name}_completion || exit 8
COMP_WORDS=({quoted}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMP_WORDBREAKS=$' \\t\\n:='
_{name}_completion {name} "${{COMP_WORDS[$COMP_CWORD]}}"
echo "${{COMPREPLY[*]}}"
"""
    done = subprocess.run(
        ["bash", "--norc", "-c", script], cwd=world.folder, env=programs, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, expected.split(), "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_takes_the_script(programs: dict[str, str], shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    script = subprocess.run(["pv", "completion", shell], env=programs, capture_output=True, text=True).stdout
    assert "_PV_COMPLETE" in script
    done = subprocess.run([shell, "-n"], input=script, env=programs, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("fish") is None, reason="no fish here")
def test_fish(world: World, terse: None, programs: dict[str, str]) -> None:
    script = "pv completion fish | source; complete -C 'pv scale li'; complete -C 'pv add te'"
    done = subprocess.run(
        ["fish", "-c", script], cwd=world.folder, env=programs, capture_output=True, text=True
    )
    assert (done.stdout.split(), done.stderr) == (["listening", "terse:listening"], "")


def test_an_unknown_shell(pv: InProcess) -> None:
    assert pv("completion", "tcsh").code == pv("completion").code == 2
