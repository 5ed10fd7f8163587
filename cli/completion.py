"""What Tab completes: revisions, behaviours and files where a command takes them. Loaded only to complete.

Which parameter takes what is known by its name, or by its metavar: a new command is completed without a word here.
Nothing is said where something fails: there is no registry, it is damaged, a revision is unknown.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import BashComplete, CompletionItem, split_arg_string

if TYPE_CHECKING:
    from pv.registry.registry import Registry

__all__ = ["Bash", "complete_values"]

MOST = 200  # a list longer than that helps nobody
Values = Callable[["Registry", str], list[str]]


class Bash(BashComplete):
    """Bash splits words at `:` and `=` too, and replaces only what is behind the last of them."""

    source_template = """\
%(complete_func)s() {
    local IFS=$'\\n' kind value
    COMPREPLY=()
    while IFS=',' read -r kind value; do
        case $kind in
            plain) COMPREPLY+=("$value") ;;
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
        esac
    done < <(COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD=$COMP_CWORD PV_WORDBREAKS="$COMP_WORDBREAKS" \\
        %(complete_var)s=bash_complete "$1" 2>/dev/null)
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""

    def source(self) -> str:
        return self.source_template % self.source_vars()  # without a bash that is asked for its version

    def get_completion_args(self) -> tuple[list[str], str]:
        words = split_arg_string(os.environ["COMP_WORDS"])
        whole, typed = self._joined(words[: int(os.environ["COMP_CWORD"]) + 1])
        return (whole[1:-1], whole[-1]) if typed else (whole[1:], "")

    def _joined(self, words: list[str]) -> tuple[list[str], bool]:
        """Words as they were typed, and whether the last of them is the one that Tab was pressed in."""
        whole: list[str] = []
        glue = False
        for word in words:
            sign = bool(word) and set(word) <= set(self._breaks)
            if whole[1:] and (sign or glue):
                whole[-1] += word
            else:
                whole.append(word)
            glue = sign
        return whole, len(words) > int(os.environ["COMP_CWORD"])

    @property
    def _breaks(self) -> str:
        return "".join(ch for ch in ":=" if ch in os.environ.get("PV_WORDBREAKS", ""))

    def format_completion(self, item: CompletionItem[Any]) -> str:
        incomplete = self.get_completion_args()[1]
        start = max((incomplete.rfind(ch) + 1 for ch in self._breaks), default=0)
        return f"{item.type},{item.value[start:] if item.type == 'plain' else item.value}"


class Kind(click.types.StringParamType):
    """A text of which the values are known, and perhaps files too."""

    def __init__(self, values: Values | None, *, files: str = "") -> None:
        self.values, self.files = values, files

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem[str]]:
        found = [CompletionItem(incomplete, type=self.files)] if self.files else []
        if self.values is not None:
            with _registry(ctx) as registry:
                values = self.values(registry, incomplete) if registry is not None else []
                found += [CompletionItem(v) for v in values[:MOST] if v.startswith(incomplete)]
        return found


@contextmanager
def _registry(ctx: click.Context) -> Iterator[Registry | None]:
    from pv.registry.registry import Registry

    with Registry.find(Path(ctx.find_root().params.get("directory") or ".").resolve()) as registry:
        yield registry


def _branches(registry: Registry, incomplete: str) -> list[str]:
    return sorted(registry.branches())


def _tags(registry: Registry, incomplete: str) -> list[str]:
    return sorted(registry.tags())


def _revisions(registry: Registry, incomplete: str) -> list[str]:
    return ["HEAD", *sorted({*registry.branches(), *registry.tags()})]


def _behaviours(registry: Registry, incomplete: str) -> list[str]:
    return sorted(registry.persona().behaviours)


def _terms(registry: Registry, incomplete: str) -> list[str]:
    return sorted(registry.persona().steering.terms)


def _sites(registry: Registry, incomplete: str) -> list[str]:
    """Where the persona's steering vectors have directions."""
    vectors = (registry.vector(None, vector) for vector in registry.persona().steering_vectors)
    return sorted({site for vector in vectors for site in vector.tensors})


def _terms_elsewhere(registry: Registry, incomplete: str) -> list[str]:
    """`[NEW=]REV:TERM`"""
    new, equals, rest = incomplete.rpartition("=")
    revision, colon, _ = rest.partition(":")
    revisions = [revision] if colon else _revisions(registry, rest)[1:]
    return [
        f"{new}{equals}{rev}:{n}" for rev in revisions for n in sorted(registry.persona(rev).steering.terms)
    ]


def _terms_here_or_elsewhere(registry: Registry, incomplete: str) -> list[str]:
    """`[REV:]TERM`"""
    return _terms_elsewhere(registry, incomplete) if ":" in incomplete else _terms(registry, incomplete)


def _several_terms(registry: Registry, incomplete: str) -> list[str]:
    """`TERM[,TERM]`: the last of them."""
    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in _terms_here_or_elsewhere(registry, last)]


def _elsewhere(registry: Registry, incomplete: str) -> list[str]:
    """`[NAME=]REV:BEHAVIOUR`"""
    new, equals, rest = incomplete.rpartition("=")
    revision, colon, _ = rest.partition(":")
    revisions = [revision] if colon else _revisions(registry, rest)[1:]
    return [
        f"{new}{equals}{one}:{name}" for one in revisions for name in sorted(registry.persona(one).behaviours)
    ]


def _here_or_elsewhere(registry: Registry, incomplete: str) -> list[str]:
    """`[REV:]BEHAVIOUR`"""
    return _elsewhere(registry, incomplete) if ":" in incomplete else _behaviours(registry, incomplete)


def _anything(registry: Registry, incomplete: str) -> list[str]:
    """A revision, a behaviour, `REV:BEHAVIOUR`."""
    if ":" in incomplete:
        return _elsewhere(registry, incomplete)
    return [*_revisions(registry, incomplete), *_behaviours(registry, incomplete)]


def _takes(registry: Registry, incomplete: str) -> list[str]:
    """`NAME=ours`, `NAME=theirs`"""
    names = [*_behaviours(registry, incomplete), *_terms(registry, incomplete)]
    return [f"{name}={side}" for name in names for side in ("ours", "theirs")]


def _settings(registry: Registry, incomplete: str) -> list[str]:
    from pv.vecstore.repo.config import settings

    return list(settings(registry.persona()))


def _switches(registry: Registry, incomplete: str) -> list[str]:
    """`density=`, `elect=weighted`: those of any merge method."""
    from pv.registry.combine import METHODS

    options = [option for method in METHODS.values() for option in method.options]
    return sorted({f"{option.name}={choice}" for option in options for choice in option.choices or ("",)})


REVISION, BEHAVIOUR, BRANCH = Kind(_revisions), Kind(_behaviours), Kind(_branches)
KINDS: dict[
    object, Kind
] = {  # the more a name says, the earlier it stands: by command and name, by metavar, by name
    ("branch", "name"): BRANCH,
    ("switch", "name"): BRANCH,
    ("tag", "name"): Kind(_tags),
    ("eval", "what"): Kind(_revisions, files="file"),
    ("push", "what"): REVISION,
    ("log", "what"): Kind(_anything),
    ("show", "what"): Kind(_anything),
    ("rename", "old"): BEHAVIOUR,
    ("config", "key"): Kind(_settings),
    ("log", "behaviour"): BEHAVIOUR,
    "[NAME=]REV:BEHAVIOUR | NAME=EXPRESSION": Kind(_elsewhere),
    "[REV:]BEHAVIOUR": Kind(_here_or_elsewhere),
    "[REV:]NAME": Kind(_here_or_elsewhere),
    "[REV:]NAME [REV:]NAME ...": Kind(_here_or_elsewhere),
    "SITE": Kind(_sites),
    "TERM": Kind(_terms),
    "term": Kind(_terms),
    "BEHAVIOUR": BEHAVIOUR,
    "[TERM]": Kind(_terms),
    "TERM...": Kind(_terms),
    "[REV:]TERM": Kind(_terms_here_or_elsewhere),
    "[NEW=]REV:TERM": Kind(_terms_elsewhere),
    "TERM[,TERM]": Kind(_several_terms),
    "NAME=CHOICE": Kind(_takes),
    "SWITCH=VALUE": Kind(_switches),
    "CHECKPOINT": Kind(None, files="file"),
    "ROWS": Kind(None, files="file"),
    "[ROWS]": Kind(None, files="file"),
    "TRAIT": Kind(None, files="file"),
    "WHAT": Kind(_anything),
    "DIR": Kind(None, files="dir"),
    "DIR_OR_HUB_ID": Kind(None, files="dir"),
    "FILE": Kind(None, files="file"),
    "FILE|none": Kind(None, files="file"),
    "FILE.png": Kind(None, files="file"),
    "FILE.html": Kind(None, files="file"),
    "[REV]": REVISION,
    "REV": REVISION,
    "a": REVISION,
    "b": REVISION,
    "branch": REVISION,
    "at": REVISION,
    "name": BEHAVIOUR,
    "names": BEHAVIOUR,
    "revs": REVISION,
    "rev": REVISION,
}


def complete_values(command: click.Command) -> None:
    """Give the parameters of a command, and of those below it, that take a text the kind of what they take."""
    for parameter in command.params:
        if parameter.type is click.STRING:
            for key in ((command.name, parameter.name), parameter.metavar, parameter.name):
                if key in KINDS:
                    parameter.type = KINDS[key]
                    break
    for below in command.commands.values() if isinstance(command, click.Group) else ():
        complete_values(below)
