"""What every command shares: where it runs, how much it says, and how it says it."""

from __future__ import annotations

import json
import math
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pv.cli.say import echo, plain, shown
from pv.registry.errors import UsageError

if TYPE_CHECKING:
    from pv.registry.registry import Registry

__all__ = ["App", "json_option", "pass_app", "short", "threads_option", "weight", "weight_option"]

LINE_EVERY_S = 30.0
MAX_WEIGHT = 1e6


@dataclass(frozen=True, slots=True)
class App:
    directory: str
    quiet: bool
    verbose: bool
    pager: bool
    command_line: str = ""  # what was typed, for the record of operations

    @property
    def path(self) -> Path:
        path = Path(self.directory)
        if not path.is_dir():
            raise UsageError(f"no folder {self.directory!r}", hint="-C takes an existing folder")
        return path.resolve()

    def registry(self) -> Registry:
        """The registry here or above. Raises NotARegistry."""
        from pv.registry.registry import Registry

        registry = Registry.find(self.path)
        click.get_current_context().call_on_close(registry.close)
        return registry

    def file(self, name: str) -> Path:
        """A path the user typed, seen from -C."""
        return Path(os.path.normpath(self.path / Path(name).expanduser()))

    # what is said ------------------------------------------------------------------------------------

    def note(self, text: str) -> None:
        """A remark for people, on stderr."""
        if not self.quiet:
            echo(plain(text), err=True)

    def done(self, text: str) -> None:
        """The line that says a command did what it was asked to."""
        if not self.quiet:
            echo(click.style("✓ ", fg="green") + plain(text), err=True)

    def json(self, document: dict[str, Any]) -> None:
        """One object on stdout, for programs."""
        text = json.dumps({"schema": 1, **_finite(document)}, indent=2, ensure_ascii=False, allow_nan=False)
        click.echo(_OBEYED.sub(lambda match: f"\\u{ord(match[0]):04x}", text))

    def page(self, text: str) -> None:
        """Long output: through a pager if someone is looking at a terminal."""
        if self.pager and sys.stdout.isatty():
            os.environ.setdefault("LESS", "-FRX")
            if chosen := os.environ.get("PV_PAGER"):
                os.environ["PAGER"] = chosen
            click.echo_via_pager(shown(text))
        else:
            echo(text)

    @contextmanager
    def progress(self, label: str, unit: str = "bytes") -> Iterator[Callable[[int, int], None]]:
        """A bar on stderr for work that may take over two seconds; without a terminal, a line now and then.

        Yields a function (done, total). `unit` is "bytes" or a plural noun.
        """
        if self.quiet:
            yield lambda done, total: None
        elif sys.stderr.isatty():
            from pv.cli.progress import bar

            with bar(label, unit) as update:
                yield update
        else:
            from pv.cli.progress import lines

            yield lines(label, unit, every_s=LINE_EVERY_S)


_OBEYED = re.compile("[\x7f-\x9f\u202a-\u202e\u2066-\u2069]")  # JSON leaves them alone; a terminal may obey


def _finite(value: Any) -> Any:
    """JSON has no word for what is not a number: null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    return [_finite(inner) for inner in value] if isinstance(value, list | tuple) else value


pass_app = click.make_pass_decorator(App)


def weight(text: str) -> float:
    """Reads an option or argument: a finite number up to a million, refused before any work is done with it."""
    try:
        value = float(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a number") from None
    if not abs(value) <= MAX_WEIGHT:  # so put, NaN is refused too
        raise click.BadParameter(f"a weight is a finite number up to a million, not {value:g}")
    return value + 0.0  # -0.0 becomes 0.0


weight_option = click.option(
    "--weight",
    type=weight,
    metavar="NUMBER",
    help="Its weight in the persona; 1 if it is new, else as it was.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
threads_option = click.option(
    "--threads",
    type=click.IntRange(1, 256),
    default=os.cpu_count() or 1,
    help="Threads; no result depends on it.",
)


def short(identity: str | None) -> str:
    """The first digits of an id: enough to type."""
    return identity[:12] if identity else "-"
