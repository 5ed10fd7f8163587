"""Write docs/cli.md from the commands' own help; with --check, fail if it is out of date."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from pv.cli.main import COMMANDS, cli

TARGET = Path(__file__).with_name("cli.md")
HEAD = """# Command line

Written by `make docs` from the commands' own help; do not edit.

Data goes to stdout, everything else to stderr. `--json` prints one object with a `schema` field. Exit codes:

| code | meaning |
| --- | --- |
| 0 | done |
| 1 | differs (`diff --exit-code`), or a conflict |
| 2 | usage, or bad input |
| 3 | integrity: bytes are not what they should be |
| 4 | the network, or the remote, refused |
| 5 | no such revision, behaviour or base |
| 70 | a bug in pv |
| 74 | the disk refused |
| 128 | not a registry |
| 130 | interrupted |

"""


def main() -> int:
    text = HEAD + "\n".join(_section(name) for name in ["", *(n for names in COMMANDS.values() for n in names)])
    if "--check" not in sys.argv:
        TARGET.write_text(text, encoding="utf-8")
        return 0
    if TARGET.is_file() and TARGET.read_text(encoding="utf-8") == text:
        return 0
    sys.stderr.write("docs/cli.md is out of date: run `make docs`\n")
    return 1


def _section(name: str) -> str:
    context = click.Context(cli, info_name="pv", max_content_width=100, terminal_width=100)
    command: click.Command = cli
    if name:
        found = cli.get_command(context, name)
        assert found is not None
        command = found
        context = click.Context(found, info_name=name, parent=context, max_content_width=100, terminal_width=100)
    text = command.get_help(context).rstrip()
    return f"## pv {name}".rstrip() + f"\n\n```text\n{text}\n```\n"


if __name__ == "__main__":
    sys.exit(main())
