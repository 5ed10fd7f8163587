"""pv help"""

from __future__ import annotations

import click

from pv.cli.say import echo

__all__ = ["command"]


@click.command("help", short_help="Show the help of a command, or what replaces git's commands.")
@click.argument("topic", required=False, metavar="[COMMAND|git]")
@click.pass_context
def command(ctx: click.Context, topic: str | None) -> None:
    """Show the help of pv or of one command. `pv help git` lists what replaces git's commands.

    \b
    pv help
    pv help merge
    pv help git
    """
    from pv.cli.failures import no_such_command
    from pv.cli.git_words import GIT

    root = ctx.find_root()
    assert isinstance(root.command, click.Group)
    if topic is None:
        echo(root.get_help())
    elif topic == "git":
        echo("\n".join(f"{word:<11}{answer}" for word, answer in GIT.items()), hang=11)
    elif (found := root.command.get_command(root, topic)) is not None:
        with click.Context(found, info_name=topic, parent=root) as context:
            echo(found.get_help(context))
    else:
        raise no_such_command(topic, root.command.list_commands(root), root)
