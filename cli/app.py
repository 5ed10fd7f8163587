"""What every command shares: where it runs, how much it says, and how it says it."""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import click

from pv.cli.say import echo, plain, shown
from pv.cli.terminal import colour, edge, wrap
from pv.registry.errors import UsageError

if TYPE_CHECKING:
    from pv.vecstore.data.questions import Questions
    from pv.vecstore.data.rows import Rows
    from pv.vecstore.progress import Report
    from pv.vecstore.repo.repo import Repo

__all__ = ["App", "Line", "pass_app", "short"]


class Jsonable(Protocol):
    """What a verb gives back."""

    def to_json(self) -> dict[str, Any]: ...


@dataclass(slots=True)
class Line:
    """What was typed, and what is known of it where something fails before a command has begun."""

    arguments: tuple[str, ...] = ()
    command: click.Command | None = None  # what runs, and what it was given
    rest: tuple[str, ...] = ()
    verbose: bool = False

    @property
    def text(self) -> str:
        """For the record of operations."""
        import shlex

        return shlex.join(self.arguments)[:500]

    def wants_json(self) -> bool:
        """Whether `--json` was given: as an option of the command, not as the value of another or after `--`.

        The command may have refused what else was typed, so its arguments are read once more, as far as they go.
        """
        return "--json" in self.arguments if self.command is None else bool(self.given().get("as_json"))

    def given(self) -> dict[str, Any]:
        """The command's options and arguments, by the names of its parameters, as far as they were understood."""
        if self.command is None:
            return {}
        command, rest = self.command, list(self.rest)
        while isinstance(command, click.Group) and rest and rest[0] in command.commands:
            command, rest = command.commands[rest[0]], rest[1:]
        ctx = click.Context(
            command, resilient_parsing=True, ignore_unknown_options=True, allow_extra_args=True
        )
        found, _, _ = command.make_parser(ctx).parse_args(rest)
        return found


@dataclass(frozen=True, slots=True)
class App:
    directory: str
    quiet: bool
    verbose: bool
    pager: bool
    line: Line  # for the record of operations, and for hints

    @property
    def together(self) -> bool:
        """Whether torchrun started this process, and others beside it."""
        return "RANK" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1"

    @property
    def follows(self) -> bool:
        """Whether another one of them leads: then there is nothing to say here."""
        return self.together and os.environ["RANK"] != "0"

    @property
    def path(self) -> Path:
        path = Path(self.directory)
        if not path.is_dir():
            raise UsageError(f"no folder {self.directory!r}", hint="-C takes an existing folder")
        return path.resolve()

    def repo(self) -> Repo:
        """The repository here or above. Raises NotARegistry."""
        from pv.vecstore.repo.repo import Repo

        repo = Repo.open(self.path, command_line=self.line.text, cache_bytes=_cache_bytes())
        click.get_current_context().call_on_close(repo.close)
        return repo

    def file(self, name: str) -> Path:
        """A path the user typed, seen from -C. Raises UsageError for "", as an unset variable of a shell gives."""
        if not name:
            raise UsageError(
                "a path is empty", hint="name a file or a folder; is a variable of the shell unset?"
            )
        return Path(os.path.normpath(self.path / Path(name).expanduser()))

    def rows(self, name: str, repo: Repo) -> Rows:
        """The rows in a file that the user named, or on stdin for `-`; what of them is left alone is said at once."""
        from pv.cli.rows import read

        rows = read(self.file(name), name, repo)
        for note in rows.notes:
            self.note(f"  {note}")
        return rows

    def questions(self, name: str | None) -> Questions:
        """The questions in a file that the user named, or pv's own."""
        from pv.vecstore.data.questions import read_questions
        from pv.vecstore.evaluate.tasks import own_questions

        if name is None:
            return own_questions()
        found = read_questions(self.file(name))
        for note in found.notes:
            self.note(f"  {note}")
        return found

    # what is said ------------------------------------------------------------------------------------

    def note(self, text: str) -> None:
        """A remark for people, on stderr."""
        if not self.quiet:
            echo(plain(text), err=True)

    def done(self, text: str) -> None:
        """The line that says a command did what it was asked to."""
        if not self.quiet:
            echo(click.style("✓ ", fg="green") + plain(text), err=True)

    def json(self, value: Jsonable | dict[str, Any]) -> None:
        """One object on stdout, for programs."""
        document = value if isinstance(value, dict) else value.to_json()
        click.echo(_json({"schema": 1, **_finite(document)}, indent=2))

    def json_lines(self, documents: Iterable[dict[str, Any]]) -> None:
        """Objects on stdout, one a line."""
        for document in documents:
            click.echo(_json(document))

    def page(self, text: str) -> None:
        """Long output: through a pager if someone is looking at a terminal."""
        if self.pager and sys.stdout.isatty():
            os.environ.setdefault("LESS", "-FRX")
            if chosen := os.environ.get("PV_PAGER"):
                os.environ["PAGER"] = chosen
            click.echo_via_pager(wrap(shown(text), edge()), color=colour())
        else:
            echo(text)

    def progress(self) -> AbstractContextManager[Report | None]:
        """What a verb reports to: a bar on stderr for each stage; without a terminal, a line now and then."""
        from pv.cli.progress import reporter

        return reporter(quiet=self.quiet)


_OBEYED = re.compile("[\x7f-\x9f\u202a-\u202e\u2066-\u2069]")  # JSON leaves them alone; a terminal may obey


def _json(document: dict[str, Any], indent: int | None = None) -> str:
    import json

    ascii_only = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
    text = json.dumps(document, indent=indent, ensure_ascii=ascii_only, allow_nan=False)
    return _OBEYED.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _finite(value: Any) -> Any:
    """JSON has no word for what is not a number: null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    return [_finite(inner) for inner in value] if isinstance(value, list | tuple) else value


def _cache_bytes() -> int | None:
    """What PV_CACHE_BYTES says of how much of builds is kept. Raises UsageError."""
    said = os.environ.get("PV_CACHE_BYTES")
    if said is None:
        return None
    if not (said.isascii() and said.isdigit()):
        raise UsageError(
            f"PV_CACHE_BYTES={said!r} is not a number of bytes",
            hint="PV_CACHE_BYTES=4000000000 keeps up to 4 GB of builds, PV_CACHE_BYTES=0 none",
        )
    return int(said)


pass_app = click.make_pass_decorator(App)


def short(identity: str | None) -> str:
    """The first digits of an id: enough to type."""
    return identity[:12] if identity else "-"
