"""What every command shares: where it runs, how much it says, and how it says it."""

from __future__ import annotations

import math
import os
import re
import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import click

from pv.cli.say import echo, plain, shown
from pv.registry.errors import UsageError

if TYPE_CHECKING:
    from pv.vecstore.progress import Report
    from pv.vecstore.repo.repo import Repo

__all__ = ["App", "pass_app", "short"]


class Jsonable(Protocol):
    """What a verb gives back."""

    def to_json(self) -> dict[str, Any]: ...


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

    def repo(self) -> Repo:
        """The repository here or above. Raises NotARegistry."""
        from pv.vecstore.repo.repo import Repo

        repo = Repo.open(self.path, command_line=self.command_line, **_cache_bytes())
        click.get_current_context().call_on_close(repo.close)
        return repo

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

    def json(self, value: Jsonable | dict[str, Any]) -> None:
        """One object on stdout, for programs."""
        document = value if isinstance(value, dict) else value.to_json()
        import json

        ascii_only = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
        whole = {"schema": 1, **_finite(document)}
        text = json.dumps(whole, indent=2, ensure_ascii=ascii_only, allow_nan=False)
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

    def progress(self) -> AbstractContextManager[Report | None]:
        """What a verb reports to: a bar on stderr for each stage; without a terminal, a line now and then."""
        from pv.cli.progress import reporter

        return reporter(quiet=self.quiet)


_OBEYED = re.compile("[\x7f-\x9f\u202a-\u202e\u2066-\u2069]")  # JSON leaves them alone; a terminal may obey


def _finite(value: Any) -> Any:
    """JSON has no word for what is not a number: null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    return [_finite(inner) for inner in value] if isinstance(value, list | tuple) else value


def _cache_bytes() -> dict[str, int]:
    """What PV_CACHE_BYTES says of how much of builds is kept. Raises UsageError."""
    said = os.environ.get("PV_CACHE_BYTES")
    if said is None:
        return {}
    if not (said.isascii() and said.isdigit()):
        raise UsageError(
            f"PV_CACHE_BYTES={said!r} is not a number of bytes",
            hint="PV_CACHE_BYTES=4000000000 keeps up to 4 GB of builds, PV_CACHE_BYTES=0 none",
        )
    return {"cache_bytes": int(said)}


pass_app = click.make_pass_decorator(App)


def short(identity: str | None) -> str:
    """The first digits of an id: enough to type."""
    return identity[:12] if identity else "-"
