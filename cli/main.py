"""The `pv` command: finds the subcommand, runs it, turns what went wrong into one message and an exit code.

Command modules are imported only when they run, and so is what only an error or `--json` needs: `pv --help`, `pv log`
and `pv status` are quick, and never load torch.
"""

from __future__ import annotations

import errno
import importlib
import io
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from typing import Any

import click

from pv.cli.app import App
from pv.cli.say import echo, plain
from pv.registry.errors import PvError
from pv.registry.exit_codes import MEANINGS, ExitCode

__all__ = ["COMMANDS", "cli", "main"]

COMMANDS: dict[str, tuple[str, ...]] = {
    "Start": ("init", "base"),
    "Make behaviours": ("train", "commit", "compress"),
    "Look": ("status", "log", "show", "diff", "eval", "chat", "rows"),
    "Change the persona": ("add", "scale", "negate", "drop", "combine"),
    "History": ("merge", "revert", "cherry-pick", "branch", "switch", "tag", "undo", "redo"),
    "Make checkpoints": ("build", "push", "verify"),
    "Keep it sound": ("fsck", "gc"),
}
RENAMED = {"pack": "it is `pv compress` now.", "demo": "it is `make demo` in a clone of pv."}
HELP_WIDTH = 100
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.EIO)
_GLOBAL = ("-C", "-q", "--quiet", "-v", "--verbose", "--no-pager")


class Lazy(click.Group):
    """Loads `pv.cli.commands.NAME` when NAME is asked for; the list of commands needs no import."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for names in COMMANDS.values() for name in names]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in self.list_commands(ctx):
            return None
        module = importlib.import_module(f"pv.cli.commands.{name.replace('-', '_')}")
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from difflib import get_close_matches

            if args[0] in RENAMED:
                raise click.UsageError(f"No such command {args[0]!r}: {RENAMED[args[0]]}", ctx) from error
            close = get_close_matches(args[0], self.list_commands(ctx), 1)
            if not close or "mean" in error.message:
                raise
            raise click.UsageError(f"{error.message} Did you mean {close[0]!r}?", ctx) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from pv.cli.summaries import SUMMARIES

        for section, names in COMMANDS.items():
            with formatter.section(section):
                formatter.write_dl([(name, SUMMARIES[name]) for name in names])


@click.group(
    cls=Lazy,
    epilog=f"Exit codes: {'; '.join(f'{code} {meaning}' for code, meaning in MEANINGS.items())}.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": HELP_WIDTH},
    invoke_without_command=True,
)
@click.option("-C", "directory", metavar="DIR", default=".", help="Run as if started in DIR.")
@click.option("-q", "--quiet", is_flag=True, help="No progress and no notes; errors stay.")
@click.option("-v", "--verbose", is_flag=True, help="Say more; show the traceback of a bug.")
@click.option("--no-pager", is_flag=True, help="Do not page long output.")
@click.version_option(package_name="personavec", prog_name="pv", message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context, directory: str, quiet: bool, verbose: bool, no_pager: bool) -> None:
    """Personality as version control: git for the behaviours of a language model.

    \b
    pv init --base ./SmolLM2-135M-Instruct      begin a persona on a base checkpoint
    pv train listening.jsonl --as listening     learn a behaviour; a commit
    pv scale listening 0.5                      half of it; a commit
    pv build -o ./persona                       a checkpoint that loads anywhere
    pv revert HEAD                              as if it had never been

    `pv COMMAND --help` shows examples.
    """
    ctx.color = False if os.environ.get("NO_COLOR") else None
    ctx.obj = App(
        directory=directory, quiet=quiet, verbose=verbose, pager=not no_pager, command_line=ctx.obj or ""
    )
    if ctx.invoked_subcommand is None:
        if not sys.stdin.isatty() and not os.environ.get("PV_PLAIN_STDIN") and _pipe_on_stdin():
            raise click.UsageError(
                "this is pv of personavec, not Pipe Viewer. Pipe Viewer is likely /usr/bin/pv; "
                "this program also answers to `personavec`."
            )
        echo(ctx.get_help())


def _pipe_on_stdin() -> bool:
    import stat

    try:
        return stat.S_ISFIFO(os.fstat(0).st_mode)
    except OSError:
        return False


def main() -> None:
    """Entry point of the commands `pv` and `personavec`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal of another encoding is no reason to fail
            stream.reconfigure(errors="backslashreplace")
    # torch's threads spin while they wait for one another: where another program wants a core too, the one
    # that spins keeps it from the one that is waited for, and training slows down many times (docs/log.md).
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    code = run(sys.argv[1:])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # what is done is done: no late Ctrl-C changes the answer
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Run one command line; the exit code."""
    try:
        code = cli.main(arguments, prog_name="pv", standalone_mode=False, obj=shlex.join(arguments)[:500])
        sys.stdout.flush()
        return code if isinstance(code, int) else ExitCode.DONE
    except (
        SystemExit
    ) as stop:  # click's own end, for a shell's completion, or (1) for a reader that went away
        return ExitCode.READER_GONE if stop.code == 1 else ExitCode.DONE
    except click.ClickException as error:
        return _say(arguments, error.format_message(), _usage_hint(error, arguments), ExitCode.USAGE)
    except PvError as error:
        return _say(arguments, str(error), error.hint, error.exit_code, getattr(error, "conflicts", ()))
    except (KeyboardInterrupt, click.Abort) as stop:
        if isinstance(stop.__cause__, EOFError):  # click takes every end of file for a Ctrl-D
            return _bug(arguments, stop.__cause__)
        return _say(arguments, "interrupted; nothing is left half done", None, ExitCode.INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # no second complaint at exit
        return ExitCode.READER_GONE
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            return _say(arguments, f"{error.strerror}: {error.filename}", "name another path", ExitCode.USAGE)
        if error.errno in _DISK:
            hint = "free some space, or check the folder's rights"
            return _say(arguments, f"the disk refused: {error}", hint, ExitCode.DISK)
        return _bug(arguments, error)
    except Exception as error:
        return _bug(arguments, error)


def _usage_hint(error: click.ClickException, arguments: list[str]) -> str | None:
    context = getattr(error, "ctx", None)
    option = getattr(error, "option_name", None)
    if context is not None and context.parent is not None and option in _GLOBAL:
        return f"{option} goes before the command: pv {option} {context.info_name} ..."
    return f"see `{context.command_path} --help`" if context is not None else None


def _bug(arguments: list[str], error: Exception) -> int:
    if "-v" in arguments or "--verbose" in arguments:
        import traceback

        traceback.print_exc()
    message = f"a bug in pv: {type(error).__name__}: {error}"
    return _say(arguments, message, "run it again with `pv -v ...` and report the traceback", ExitCode.BUG)


def _say(
    arguments: list[str], message: str, hint: str | None, code: int, conflicts: Sequence[Any] = ()
) -> int:
    if "--json" in arguments:
        import json

        fault: dict[str, Any] = {"message": message, "hint": hint, "exit_code": code}
        if conflicts:
            fault["conflicts"] = [conflict.to_json() for conflict in conflicts]
        click.echo(json.dumps({"schema": 1, "error": fault}), err=True)
        return code
    color = False if os.environ.get("NO_COLOR") else None
    click.secho("error: ", fg="red", bold=True, nl=False, err=True, color=color)
    echo(plain(message), err=True)
    if conflicts:
        from pv.cli.render import conflict_side
    for conflict in conflicts:
        sides = {"before": conflict.ancestor, "ours": conflict.ours, "theirs": conflict.theirs}
        echo(f"  {conflict.name}", err=True)
        for side, value in sides.items():
            echo(f"    {side:<7} {conflict_side(value)}", err=True)
    if hint:
        click.secho("hint:  ", fg="cyan", nl=False, err=True, color=color)
        echo(plain(hint), err=True)
    return code


if __name__ == "__main__":
    main()
