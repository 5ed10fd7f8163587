"""What the documents say is so: generated parts are current, named files exist, named commands are commands."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from pv.cli.git_words import GIT, OPTIONS, OTHERS
from pv.cli.main import COMMANDS, cli

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
PRESENT = [
    path
    for path in DOCUMENTS
    if path.name not in ("CHANGELOG.md", "log.md") and "decisions" not in path.parts
]
SOURCES = sorted(
    path
    for room in ("api", "cli", "registry", "vecstore", "examples")
    for path in (ROOT / room).rglob("*.py")
)
NAMES = {name for names in COMMANDS.values() for name in names}


def test_the_generated_reference_is_current() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "generate_cli.py", "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://")):
            assert (document.parent / target).exists(), target


@pytest.mark.parametrize("document", PRESENT, ids=lambda path: path.name)
def test_a_document_names_only_commands_and_options_that_exist(document: Path) -> None:
    assert unknown(document.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_help_messages_and_hints_name_only_commands_and_options_that_exist(source: Path) -> None:
    """Every text in the source: `pv WORD` in backticks, on an indented line, or after a colon."""
    assert [line for text in texts(source) for line in unknown(text)] == []


def test_nobody_is_told_to_pull_what_pv_cannot_pull() -> None:
    told = {path.name: path.read_text("utf-8") for path in PRESENT if path.name != "git.md"}
    told |= {path.name: "\n".join(texts(path)) for path in SOURCES if path.name != "git_words.py"}
    assert [name for name, text in told.items() if re.search(r"\bpull\b", text)] == []


def test_the_scan_finds_what_it_is_for() -> None:
    for wrong in (
        "run `pv pull`",
        "for example:\n\n    pv clone x",
        "`pv -C d log --nope`",
        "try: pv fetch",
        "```sh\n$ pv rebase\n```",
    ):
        assert unknown(wrong), wrong
    for right in ("`pv -q log -n 5`", "`pv COMMAND --help`", "`pv`", "a word: pv says so", "`pv ...`"):
        assert not unknown(right), right


def unknown(text: str) -> list[str]:
    """The command lines in a text that name no command of pv, or an option which that command does not have."""
    fences = re.findall(r"^```.*?^```", text, flags=re.DOTALL | re.MULTILINE)
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    found = [match.strip("`") for match in re.findall(r"`pv [^`]*`", prose)]
    for start, part in ((" {4}", prose), ("", "\n".join(fences))):
        found += re.findall(rf"^{start}\s*(?:\$ )?(pv [^#\n]*)", part, flags=re.MULTILINE)
    found += [match for match in re.findall(r": (pv [a-z][a-z-]* [^`\n]*)", prose) if " --" in match]
    found += re.findall(r"[a-z]: (pv (?:clone|fetch|pull|remote)\b)", prose)
    return [line for line in found if not _exists(line)]


def _exists(line: str) -> bool:
    words = re.split(r"\s+", re.split(r" (?:\||&&|;|>|<|#) | {3,}|, then | \(", line)[0].strip())[1:]
    context = click.Context(cli, info_name="pv")
    while words and words[0].startswith("-"):
        if words.pop(0) == "-C" and words:
            words.pop(0)
    if not words or not re.fullmatch(r"[a-z][a-z-]*", words[0]):
        return True  # `pv ...`, `pv COMMAND`
    command = cli.get_command(context, words[0])
    if command is None:
        return False
    if isinstance(command, click.Group) and len(words) > 1 and words[1] in command.commands:
        command, words = command.commands[words[1]], words[1:]
    known = {name for one in command.params for name in (*one.opts, *one.secondary_opts)} | {"-h", "--help"}
    given = [re.match(r"--?[a-z][a-z-]*", word) for word in words[1:]]
    return {match[0] for match in given if match} <= known


def texts(source: Path) -> list[str]:
    """The strings of a file, with an X for what is filled in."""
    nodes = list(ast.walk(ast.parse(source.read_text(encoding="utf-8"))))
    filled = [node for node in nodes if isinstance(node, ast.JoinedStr)]
    inner = {id(part) for node in filled for part in node.values}
    whole = [node for node in nodes if isinstance(node, ast.Constant) and id(node) not in inner]
    return [
        *(str(node.value) for node in whole if isinstance(node.value, str)),
        *("".join(str(p.value) if isinstance(p, ast.Constant) else "X" for p in n.values) for n in filled),
    ]


def test_words_of_git_and_others_are_no_commands_of_pv() -> None:
    assert not (GIT.keys() | OTHERS.keys()) & NAMES
    assert not GIT.keys() & OTHERS.keys()
    for name, option in OPTIONS:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None and all(option not in one.opts for one in command.params)
