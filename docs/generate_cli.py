"""Write docs/cli.md, the README's table of commands and the tables of docs/git.md from the program itself.

With --check, write nothing and fail if one is out of date.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import click

from pv.cli.git_words import GIT, OTHERS
from pv.cli.main import COMMANDS, cli
from pv.cli.summaries import SUMMARIES
from pv.registry.exit_codes import MEANINGS

TARGET = Path(__file__).with_name("cli.md")
README = Path(__file__).resolve().parent.parent / "README.md"
GIT_WORDS = Path(__file__).with_name("git.md")
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
        TARGET: HEAD + codes + "\n".join(_section(name) for name in ["", *names]),
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


def _section(name: str) -> str:
    context = click.Context(cli, info_name="pv", max_content_width=100, terminal_width=100)
    command: click.Command = cli
    if name:
        found = cli.get_command(context, name)
        assert found is not None
        command = found
        context = click.Context(
            found, info_name=name, parent=context, max_content_width=100, terminal_width=100
        )
    text = command.get_help(context).rstrip()
    return f"## pv {name}".rstrip() + f"\n\n```text\n{text}\n```\n"


if __name__ == "__main__":
    sys.exit(main())
