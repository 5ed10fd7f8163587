"""How a failure is said: one message and one hint, as text or as JSON. Loaded when there is one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from pv.cli.say import echo, plain
from pv.registry.exit_codes import ExitCode

if TYPE_CHECKING:
    from pv.cli.app import Line

__all__ = ["bug", "no_such_command", "say", "usage_hint"]

_GLOBAL = ("-C", "-q", "--quiet", "-v", "--verbose", "--no-pager")


class NoSuchCommand(click.UsageError):
    """With a hint, where what was typed is a word of git or of another tool."""

    def __init__(self, message: str, ctx: click.Context, hint: str | None) -> None:
        super().__init__(message, ctx)
        self.hint = hint


def no_such_command(typed: str, names: Sequence[str], ctx: click.Context) -> NoSuchCommand:
    from difflib import get_close_matches

    from pv.cli.git_words import GIT, OTHERS

    message = f"No such command {typed!r}."
    if known := GIT.get(typed) or OTHERS.get(typed):
        return NoSuchCommand(message, ctx, known)
    close = get_close_matches(typed, names, 1)
    return NoSuchCommand(f"{message} Did you mean {close[0]!r}?" if close else message, ctx, None)


def usage_hint(line: Line, error: click.ClickException) -> str | None:
    from pv.cli.git_words import OPTIONS

    context = getattr(error, "ctx", None)
    option = getattr(error, "option_name", None)
    if hint := getattr(error, "hint", None):
        return str(hint)
    if context is None:  # as click says that an option lacks its value
        return f"see `pv {line.command.name} --help`" if line.command is not None else None
    if hint := OPTIONS.get((context.info_name, str(option))):
        return hint
    if context.parent is not None and option in _GLOBAL:
        return f"{option} goes before the command: `pv {option} {context.info_name} ...`"
    return f"see `{context.command_path} --help`"


def bug(line: Line, error: Exception) -> int:
    if line.verbose:
        import traceback

        traceback.print_exc()
    message = f"a bug in pv: {type(error).__name__}: {error}"
    return say(line, message, "run it again with `pv -v ...` and report the traceback", ExitCode.BUG)


def say(line: Line, message: str, hint: str | None, code: int, conflicts: Sequence[Any] = ()) -> int:
    if conflicts:
        from pv.cli.conflicts import conflict_hint, conflict_lines

        hint = conflict_hint(line.arguments, conflicts)
    if line.wants_json():
        import json

        fault: dict[str, Any] = {"message": message, "hint": hint, "exit_code": code}
        if conflicts:
            fault["conflicts"] = [conflict.to_json() for conflict in conflicts]
        click.echo(json.dumps({"schema": 1, "error": fault}), err=True)
        return code
    echo(click.style("error: ", fg="red", bold=True) + plain(message), err=True, hang=7)
    for text in conflict_lines(line.arguments, conflicts) if conflicts else ():
        echo(text, err=True, hang=8)
    if hint:
        echo(click.style("hint:  ", fg="cyan") + plain(hint), err=True, hang=7)
    return code
