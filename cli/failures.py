"""How a failure is said: one message and one hint, as text or as JSON. Loaded when there is one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from pv.cli.say import echo, plain
from pv.cli.typed import place, typed, typed_with
from pv.registry.errors import PvError, UnknownRevision
from pv.registry.exit_codes import ExitCode

if TYPE_CHECKING:
    from pv.cli.app import Line

__all__ = ["bug", "hint_of", "no_such_command", "say", "usage"]


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


def usage(line: Line, error: click.ClickException) -> tuple[str, str | None]:
    """What is wrong with the words that were typed, and what to do."""
    if moved := _moved(line, error) or _switch(error):
        return error.message, moved  # and no guesses: the option is right, its place is not
    return error.format_message(), _usage_hint(line, error)


def _moved(line: Line, error: click.ClickException) -> str | None:
    """The command line with an option on the right side of the command's name, if it was on the wrong one."""
    if not isinstance(error, click.NoSuchOption) or error.ctx is None:
        return None
    words, name = list(line.arguments), error.option_name
    root = error.ctx.find_root()
    before = error.ctx is root
    begin = 0 if before else place(words) + 1
    at = next((at for at in range(begin, len(words)) if words[at].partition("=")[0] == name), None)
    if at is None or not (
        count := _length(_command(root, words[at + 1 :]) if before else root.command, name)
    ):
        return None
    count = 1 if "=" in words[at] else count
    moved = words[at : at + count] if at + count <= len(words) else [name, "VALUE"]
    rest = [*words[:at], *words[at + count :]]
    if before:
        return f"{name} goes after the command: `{typed_with(rest, moved)}`"
    return (
        f"{name} goes before the command: `{typed([*rest[: place(words)], *moved, *rest[place(words) :]])}`"
    )


def _switch(error: click.ClickException) -> str | None:
    """Of a merge method's switch that is no option by itself: how it is set."""
    if not isinstance(error, click.NoSuchOption) or error.ctx is None:
        return None
    if all("--set" not in param.opts for param in error.ctx.command.params):
        return None
    from pv.registry.combine import METHODS
    from pv.registry.words import number

    for method in METHODS.values():
        for switch in method.options:
            if f"--{switch.name}" == error.option_name:
                example = switch.default if isinstance(switch.default, str) else number(switch.default)
                return f"every switch of a method is set by --set: --set {switch.name}={example}"
    return None


def _command(root: click.Context, words: Sequence[str]) -> click.Command:
    """What would run, of words with options among them."""
    command = root.command
    for word in words:
        inner = command.get_command(root, word) if isinstance(command, click.Group) else None
        command = inner or command
    return command


def _length(command: click.Command, name: str) -> int:
    """How many words an option is with its value; 0 if the command has none of that name."""
    for param in command.params:
        if isinstance(param, click.Option) and name in param.opts:
            return 1 if param.is_flag else 2
    return 0


def _usage_hint(line: Line, error: click.ClickException) -> str | None:
    from pv.cli.git_words import OPTIONS

    context = getattr(error, "ctx", None)
    option = getattr(error, "option_name", None)
    if hint := getattr(error, "hint", None):
        return str(hint)
    if context is not None and context.info_name == "undo" and (word := line.arguments[-1]).isdecimal():
        return f"`pv undo --to {word}` goes back to operation {word}, `pv undo -n {word}` takes back the last {word}"
    if context is None:  # as click says that an option lacks its value
        return f"see `pv {line.command.name} --help`" if line.command is not None else None
    return OPTIONS.get((context.info_name, str(option))) or f"see `{context.command_path} --help`"


def hint_of(line: Line, error: PvError) -> str | None:
    """What to do next: of a behaviour where a revision goes, what does that with a behaviour."""
    if isinstance(error, UnknownRevision) and error.behaviour is not None:
        from pv.cli.behaviours import hint_for

        return hint_for(line, error.behaviour)
    return error.hint


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
