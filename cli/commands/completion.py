"""pv completion"""

from __future__ import annotations

import sys
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from pv.cli.say import echo

__all__ = ["command"]

PROGRAMS = ("pv", "personavec")


@click.command("completion", short_help="Print a shell completion script.")
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print a shell script that completes commands, options, revisions, behaviours and files.

    \b
    eval "$(pv completion bash)"                              in ~/.bashrc
    eval "$(pv completion zsh)"                               in ~/.zshrc, after compinit
    pv completion fish > ~/.config/fish/completions/pv.fish   once

    The script completes the program that printed it: `personavec completion bash` completes `personavec`.
    """
    from pv.cli.completion import Bash
    from pv.cli.main import VARIABLE

    name = Path(sys.argv[0]).stem
    kind = Bash if shell == "bash" else get_completion_class(shell)
    assert kind is not None
    program = name if name in PROGRAMS else PROGRAMS[0]
    echo(kind(ctx.find_root().command, {}, program, VARIABLE).source(), nl=False)
