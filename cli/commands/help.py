"""pv help"""

from __future__ import annotations

import click

from pv.cli.say import echo
from pv.registry.errors import UsageError

__all__ = ["command"]


@click.command("help", short_help="Show the help of a command, or what replaces git's commands.")
@click.argument("topics", nargs=-1, metavar="[COMMAND [SUBCOMMAND] | git]")
@click.pass_context
def command(ctx: click.Context, topics: tuple[str, ...]) -> None:
    """Show the help of pv or of one command. `pv help git` lists what replaces git's commands.

    \b
    pv help
    pv help merge
    pv help op show
    pv help git
    """
    from pv.cli.failures import no_such_command
    from pv.cli.git_words import GIT

    if topics == ("git",):
        echo("\n".join(f"{word:<11}{answer}" for word, answer in GIT.items()), hang=11)
        return
    at = ctx.find_root()
    for topic in topics:
        group = at.command
        if not isinstance(group, click.Group):
            raise UsageError(
                f"pv {group.name} has no subcommands", hint=f"`pv help {group.name}` shows its options"
            )
        found = group.get_command(at, topic)
        if found is None:
            raise no_such_command(topic, group.list_commands(at), at)
        at = click.Context(found, info_name=topic, parent=at)
    echo(at.get_help())
