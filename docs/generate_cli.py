"""Write docs/cli.md and the README's table of commands from the commands themselves.

With --check, write nothing and fail if either is out of date.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from pv.cli.main import COMMANDS, cli
from pv.cli.summaries import SUMMARIES
from pv.registry.exit_codes import MEANINGS

TARGET = Path(__file__).with_name("cli.md")
README = Path(__file__).resolve().parent.parent / "README.md"
BEGIN, END = "<!-- commands: written by make docs -->", "<!-- end of commands -->"
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
    readme = README.read_text(encoding="utf-8")
    before, rest = readme.split(BEGIN)
    after = rest.split(END)[1]
    table = "".join(f"| `pv {name}` | {SUMMARIES[name]} |\n" for name in names)
    codes = "".join(f"| {code} | {meaning} |\n" for code, meaning in MEANINGS.items()) + "\n"
    wanted = {
        TARGET: HEAD + codes + "\n".join(_sections(cli, click.Context(cli, info_name="pv"), names)),
        README: f"{before}{BEGIN}\n\n| command | what it does |\n| --- | --- |\n{table}\n{END}{after}",
    }
    stale = [path for path, text in wanted.items() if not path.is_file() or path.read_text("utf-8") != text]
    if "--check" not in sys.argv:
        for path in stale:
            path.write_text(wanted[path], encoding="utf-8")
        return 0
    for path in stale:
        sys.stderr.write(f"{path.name} is out of date: run `make docs`\n")
    return 1 if stale else 0


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
