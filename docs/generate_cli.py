"""Write docs/cli.md, the README's table of commands and the tables of docs/git.md from the program itself.

With --check, write nothing and fail if one is out of date.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import click

from pv.cli.git_words import GIT, OTHERS
from pv.cli.main import COMMANDS, cli
from pv.cli.summaries import SUMMARIES
from pv.registry.exit_codes import MEANINGS

TARGET = Path(__file__).with_name("cli.md")
README = Path(__file__).resolve().parent.parent / "README.md"
GIT_WORDS = Path(__file__).with_name("git.md")
WIDTH = 100
HEAD = """# Command line

Written by `make docs` from the commands' own help; do not edit.

Data goes to stdout, everything else to stderr. `--json` prints one object with a `schema` field; where a
command fails it is on stderr, with an `error`. Every command has `-h`, too. Exit codes:

| code | meaning |
| --- | --- |
"""


def main() -> int:
    names = [name for section in COMMANDS.values() for name in section]
    codes = "".join(f"| {code} | {meaning} |\n" for code, meaning in MEANINGS.items()) + "\n"
    summaries = {f"`pv {name}`": SUMMARIES[name] for name in names}
    words = GIT_WORDS.read_text(encoding="utf-8")
    wanted = {
        TARGET: HEAD + codes + "\n".join(_sections(cli, click.Context(cli, info_name="pv"), names)),
        README: _filled(
            README.read_text(encoding="utf-8"), "commands", "| command | what it does |", summaries
        ),
        GIT_WORDS: _filled(
            _filled(words, "git", "| git | here |", GIT), "others", "| elsewhere | here |", OTHERS
        ),
    }
    stale = [path for path, text in wanted.items() if not path.is_file() or path.read_text("utf-8") != text]
    if "--check" not in sys.argv:
        for path in stale:
            path.write_text(wanted[path], encoding="utf-8")
        return 0
    for path in stale:
        sys.stderr.write(f"{path.name} is out of date: run `make docs`\n")
    return 1 if stale else 0


def _filled(text: str, name: str, header: str, rows: Mapping[str, str]) -> str:
    """A text with a table between its two comments."""
    begin, end = f"<!-- {name}: written by make docs -->", f"<!-- end of {name} -->"
    before, rest = text.split(begin)
    table = "".join(f"| {word} | {answer} |\n" for word, answer in rows.items())
    return f"{before}{begin}\n\n{header}\n| --- | --- |\n{table}\n{end}{rest.split(end)[1]}"


def _sections(command: click.Command, context: click.Context, names: list[str]) -> Iterator[str]:
    """A command's help, and that of its subcommands."""
    context.max_content_width = context.terminal_width = WIDTH
    yield f"## {context.command_path}\n\n```text\n{command.get_help(context).rstrip()}\n```\n"
    for name in names:
        assert isinstance(command, click.Group)
        inner = command.get_command(context, name)
        assert inner is not None
        below = inner.list_commands(context) if isinstance(inner, click.Group) else []
        yield from _sections(inner, click.Context(inner, info_name=name, parent=context), below)


if __name__ == "__main__":
    sys.exit(main())
