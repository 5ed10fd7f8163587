"""Write docs/cli.md and the README's table of commands from the commands themselves.

With --check, write nothing and fail if either is out of date.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from pv.cli.main import COMMANDS, cli
from pv.cli.summaries import SUMMARIES
from pv.registry.exit_codes import MEANINGS

TARGET = Path(__file__).with_name("cli.md")
README = Path(__file__).resolve().parent.parent / "README.md"
BEGIN, END = "<!-- commands: written by make docs -->", "<!-- end of commands -->"
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
        TARGET: HEAD + codes + "\n".join(_section(name) for name in ["", *names]),
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
