"""The `pv` command: finds the subcommand, runs it, turns what went wrong into one message and an exit code.

Command modules are imported only when they run, and so is what only an error or `--json` needs: `pv --help`, `pv log`
and `pv status` are quick, and never load torch.
"""

from __future__ import annotations

import errno
import gc
import importlib
import io
import os
import signal
import sys
from typing import Any

import click

from pv.cli.app import App, Line
from pv.cli.say import echo
from pv.cli.terminal import colour
from pv.registry.errors import PvError
from pv.registry.exit_codes import MEANINGS, ExitCode

__all__ = ["COMMANDS", "cli", "main"]

COMMANDS: dict[str, tuple[str, ...]] = {
    "Start": ("init", "base"),
    "Make behaviours": ("train", "commit", "compress", "steer"),
    "Look": ("status", "log", "show", "vectors", "diff", "forecast", "probe", "eval", "chat", "rows"),
    "Change the persona": ("add", "scale", "negate", "drop", "rename", "combine", "config"),
    "History": ("merge", "revert", "cherry-pick", "branch", "switch", "tag", "undo", "redo", "op"),
    "Make checkpoints": ("build", "export", "push", "verify"),
    "Keep it sound": ("fsck", "gc"),
    "Help": ("help", "completion"),
}
HELP_WIDTH = 100
VARIABLE = "_PV_COMPLETE"
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.EIO)


class Lazy(click.Group):
    """Loads `pv.cli.commands.NAME` when NAME is asked for; the list of commands needs no import."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for names in COMMANDS.values() for name in names]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in self.list_commands(ctx):
            return None
        module = importlib.import_module(f"pv.cli.commands.{name.replace('-', '_')}")
        command: click.Command = module.command
        if ctx.resilient_parsing:
            from pv.cli.completion import complete_values

            complete_values(command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            name, command, rest = super().resolve_command(ctx, args)
        except click.UsageError as error:
            from pv.cli.failures import no_such_command

            raise no_such_command(args[0], self.list_commands(ctx), ctx) from error
        if isinstance(ctx.obj, Line):
            ctx.obj.command, ctx.obj.rest = command, tuple(rest)
        return name, command, rest

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        """The commands and what they do, without an import of each, and this group's own options."""
        from click.shell_completion import CompletionItem

        from pv.cli.summaries import SUMMARIES

        names = [name for name in self.list_commands(ctx) if name.startswith(incomplete)]
        options = click.Command.shell_complete(self, ctx, incomplete)
        return [*(CompletionItem(name, help=SUMMARIES[name]) for name in names), *options]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from pv.cli.summaries import SUMMARIES

        for section, names in COMMANDS.items():
            with formatter.section(section):
                formatter.write_dl([(name, SUMMARIES[name]) for name in names])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(int(code)), meaning) for code, meaning in MEANINGS.items()])


@click.group(
    cls=Lazy,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": HELP_WIDTH},
    invoke_without_command=True,
)
@click.option("-C", "directory", metavar="DIR", default=".", help="Run as if started in DIR.")
@click.option("-q", "--quiet", is_flag=True, help="No progress and no notes; errors are still printed.")
@click.option("-v", "--verbose", is_flag=True, help="Show more details, and the traceback of a bug.")
@click.option("--no-pager", is_flag=True, help="Do not page long output.")
@click.version_option(package_name="personavec", prog_name="pv", message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context, directory: str, quiet: bool, verbose: bool, no_pager: bool) -> None:
    """Personality as version control: git for the behaviours of a language model.

    A behaviour is trained on its own and kept as a task vector: fine-tuned weights minus base weights. A persona is
    a base and weighted behaviours. Every change is a commit, and every commit can be built into a checkpoint.

    \b
    pv init --base ./SmolLM2-135M-Instruct      start from a base checkpoint
    pv train listening.jsonl --as listening     train a behaviour; a commit
    pv scale listening 0.5                      set its weight to a half; a commit
    pv build -o ./persona                       a checkpoint that loads anywhere
    pv revert HEAD                              take that back, in a commit

    `pv help COMMAND` shows a command's options and examples, `pv help git` lists what replaces git's commands.
    """
    ctx.color = colour()
    line = ctx.obj if isinstance(ctx.obj, Line) else Line()
    line.verbose = verbose
    ctx.obj = App(directory, quiet, verbose, pager=not no_pager, line=line)
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
    # numpy's are of no use beside pv's own, which take a tensor each, and they spin too.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # What torch and transformers make while they are imported stays: to look through all of it for garbage, again
    # and again and once more at the end, took 1.5 s of a short chat (docs/log.md). Young garbage is freed as ever.
    gc.set_threshold(*gc.get_threshold()[:2], 1000)
    code = run(sys.argv[1:])
    gc.freeze()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # what is done is done: no late Ctrl-C changes the answer
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Run one command line; the exit code."""
    if VARIABLE in os.environ:
        return _complete()
    line = Line(tuple(arguments))
    try:
        code = cli.main(arguments, prog_name="pv", standalone_mode=False, obj=line)
        sys.stdout.flush()
        return code if isinstance(code, int) else ExitCode.DONE
    except SystemExit as stop:  # click's own end: (1) for a reader that went away
        return ExitCode.READER_GONE if stop.code == 1 else ExitCode.DONE
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # no second complaint at exit
        return ExitCode.READER_GONE
    except (Exception, KeyboardInterrupt) as error:
        return _failed(line, error)


def _complete() -> int:
    """What a shell asks for when Tab is pressed: it wants an answer or none, but never a complaint."""
    from click.shell_completion import add_completion_class, shell_complete

    from pv.cli.completion import Bash

    add_completion_class(Bash)
    try:
        code: int = shell_complete(cli, {}, "pv", VARIABLE, os.environ[VARIABLE])
        sys.stdout.flush()
    except (Exception, KeyboardInterrupt):
        return ExitCode.NO
    return code


def _failed(line: Line, error: BaseException) -> int:
    from pv.cli.failures import bug, hint_of, say, usage

    match error:
        case click.ClickException():
            return say(line, *usage(line, error), ExitCode.USAGE)
        case PvError():
            return say(
                line, str(error), hint_of(line, error), error.exit_code, getattr(error, "conflicts", ())
            )
        case click.Abort(__cause__=EOFError() as cause):  # click takes every end of file for a Ctrl-D
            return bug(line, cause)
        case KeyboardInterrupt() | click.Abort():
            kept = getattr(error.__cause__ or error, "__notes__", ["nothing is left half done"])
            return say(line, f"interrupted; {kept[-1]}", None, ExitCode.INTERRUPTED)
        case OSError(errno=errno.ENAMETOOLONG | errno.ELOOP):
            return say(line, f"{error.strerror}: {error.filename}", "name another path", ExitCode.USAGE)
        case OSError() if error.errno in _DISK:
            hint = "free some space, or check the folder's rights"
            return say(line, f"the disk refused: {error}", hint, ExitCode.DISK)
        case Exception():
            return bug(line, error)
    raise error


if __name__ == "__main__":
    main()
