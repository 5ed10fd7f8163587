"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, ClassVar

import click

from pv.registry.dtypes import OUTPUT_CHOICES, output_name
from pv.registry.errors import UsageError
from pv.registry.persona import ROUNDINGS

if TYPE_CHECKING:
    from pv.registry.history.threeway import Take

__all__ = [
    "Dtype",
    "Number",
    "Size",
    "TakesNumbers",
    "Whole",
    "dtype_option",
    "json_option",
    "mainline_options",
    "message_option",
    "model_threads_option",
    "name_option",
    "ray_option",
    "read_modules",
    "read_takes",
    "read_weight",
    "rounding_option",
    "shard_option",
    "share_option",
    "take_option",
    "term_option",
    "threads_choice",
    "threads_option",
    "weight_option",
]

MAX_WEIGHT = 1e6
MAX_BYTES = 1 << 60
Command = Callable[..., Any]


# How values are written


class Whole(click.IntRange):
    """A whole number: `Whole(1)` is at least 1."""

    name = "integer"

    def _describe_range(self) -> str:
        return super()._describe_range() if _bounds(self) else ""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            number = int(value)
        except (ValueError, TypeError):
            number = None
        if number is None or not _within(number, self):
            self.fail(f"{value!r} must be a whole number{_bounds(self)}", param, ctx)
        return number


class Number(click.FloatRange):
    """A finite number: `Number(0, above=True)` is above 0."""

    name = "number"

    def __init__(self, least: float | None = None, most: float | None = None, *, above: bool = False) -> None:
        super().__init__(least, most, min_open=above)

    def _describe_range(self) -> str:
        return super()._describe_range() if _bounds(self) else ""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            number = float(value)
        except (ValueError, TypeError):
            number = math.nan
        if not math.isfinite(number) or not _within(number, self):
            self.fail(f"{value!r} must be a number{_bounds(self)}", param, ctx)
        return number


def _within(number: float, kind: click.IntRange | click.FloatRange) -> bool:
    below = kind.min is not None and (number < kind.min or (number == kind.min and kind.min_open))
    return not below and (kind.max is None or number <= kind.max)


def _bounds(kind: click.IntRange | click.FloatRange) -> str:
    """` >= 1`, ` > 0 and <= 1`"""
    least = [] if kind.min is None else [f"{'>' if kind.min_open else '>='} {kind.min:g}"]
    most = [] if kind.max is None else [f"<= {kind.max}"]
    return f" {' and '.join(least + most)}" if least or most else ""


class Size(click.ParamType[int]):
    """A number of bytes as the Hub writes it: `5GB`, `500MB`, `1.5GiB`; a plain number is megabytes."""

    name = "size"
    UNITS: ClassVar[dict[str, int]] = {"": 10**6, "b": 1} | {
        f"{prefix}{i}b": (1024 if i else 1000) ** power
        for power, prefix in enumerate("kmgt", start=1)
        for i in ("", "i")
    }

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        found = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([a-z]*)\s*", str(value).lower())
        unit = self.UNITS.get(found[2]) if found else None
        if found is None or unit is None or not 0 < float(found[1]) * unit < MAX_BYTES:
            self.fail(f"{value!r} must be a size: 5GB, 500MB, or a number of megabytes", param, ctx)
        return max(1, int(float(found[1]) * unit))


class Dtype(click.Choice[str]):
    """What builds are written in; PyTorch's names are taken too."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return super().convert(output_name(value) if isinstance(value, str) else value, param, ctx)


class TakesNumbers(click.Command):
    """A command among whose arguments is a number, which may be below 0: that is no option."""

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        return super().make_context(*args, ignore_unknown_options=True, **extra)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Raises click.NoSuchOption for what begins with - and is no number."""
        if not ctx.resilient_parsing:
            ctx.ignore_unknown_options = False
            self.make_parser(ctx).parse_args([_BELOW_0.sub("0", word) for word in args])
            ctx.ignore_unknown_options = True
        return super().parse_args(ctx, args)


_BELOW_0 = re.compile(r"-(\.?\d|inf|nan).*", re.IGNORECASE | re.DOTALL)


def read_weight(text: str) -> float:
    """A finite number up to a million, refused before any work is done with it."""
    return _finite(text, "weight")


def _finite(text: str, what: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise click.BadParameter(f"{text[:80]!r} is not a number") from None
    if not abs(value) <= MAX_WEIGHT:  # so put, NaN is refused too
        raise click.BadParameter(f"a {what} is a finite number up to a million, not {value:g}")
    return value + 0.0  # -0.0 becomes 0.0


json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
message_option = click.option("-m", "--message", help="The commit's message.")
name_option = click.option(
    "--as",
    "name",
    required=True,
    metavar="NAME",
    help="Behaviour name. If it exists, this becomes its new version.",
)

term_option = click.option(
    "--as",
    "name",
    required=True,
    metavar="NAME",
    help="Name of the term. If it exists, this becomes its new version.",
)
weight_option = click.option(
    "--weight",
    type=read_weight,
    metavar="NUMBER",
    help="Its weight in the persona. Default: 1 if new, else unchanged.",
)


def threads_choice(help: str) -> Callable[[Command], Command]:
    return click.option("--threads", type=Whole(1, 256), default=os.cpu_count() or 1, help=help)


threads_option = threads_choice("Number of threads; no result depends on it.")
model_threads_option = threads_choice("Number of threads; last digits may depend on it.")
shard_option = click.option(
    "--shard-size",
    "shard_bytes",
    default="5GB",
    type=Size(),
    show_default=True,
    help="Largest weight file: 5GB, 500MB; a plain number is MB. A tensor that is larger has a file of its own.",
)


class Share(click.ParamType[tuple[int, int]]):
    """One of the shards of a build: `3/16` is (3, 16)."""

    name = "share"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        found = re.fullmatch(r"([0-9]{1,18})/([0-9]{1,18})", str(value))
        number, count = (int(found[1]), int(found[2])) if found else (0, 0)
        if found is None:
            self.fail(
                f"{value!r} must be a shard and how many there are: 1/16 is the first of 16", param, ctx
            )
        if not 1 <= number <= count:
            last = f": 1/{count} is the first, {count}/{count} the last" if count else ""
            self.fail(f"there is no shard {number} of {count}{last}", param, ctx)
        return number, count


share_option = click.option(
    "--shards",
    "share",
    type=Share(),
    metavar="K/N",
    help="Write shard K of N only; whoever writes the last one makes DIR.",
)
ray_option = click.option(
    "--ray",
    "address",
    metavar="[ADDRESS]",
    is_flag=False,
    flag_value="",
    help="Build on a Ray cluster, a task for each weight file. Without an address: on one for this machine.",
)
take_option = click.option(
    "--take",
    "takes",
    multiple=True,
    metavar="NAME=CHOICE",
    help="Resolve a conflict: by ours, theirs, ours*0.5, theirs*0.5, or a weight where the sides differ in nothing "
    "else. Can be repeated.",
)


def mainline_options(what_for: str) -> Callable[[Command], Command]:
    """`-m` as git has it, for the parent of a merge, and as every other command has it, for the message.

    The command gets `mainline` and `message`.
    """

    def decorate(command: Command) -> Command:
        @wraps(command)
        def told_apart(*args: Any, either: tuple[str, ...], **rest: Any) -> Any:
            for text in either:
                name = "mainline" if text.isascii() and text.isdigit() else "message"
                if rest[name] is not None:
                    raise UsageError(
                        f"two {name}s: {rest[name]} and {text[:80]}",
                        hint="-m with a number is the mainline, -m with any other text is the message",
                    )
                rest[name] = int(text) if name == "mainline" else text
            return command(*args, **rest)

        for option in (
            click.option("--message", help="The commit's message."),
            click.option(
                "--mainline", type=Whole(1), metavar="N", help="The number of the parent, for a merge."
            ),
            click.option(
                "-m",
                "either",
                multiple=True,
                metavar="N|MESSAGE",
                help=f"A number: the parent to {what_for} when REV is a merge; 1 is the branch that was merged into "
                "(--mainline). Other text: the commit's message (--message). Both may be given.",
            ),
        ):
            told_apart = option(told_apart)
        return told_apart

    return decorate


def dtype_option(help: str, **settings: Any) -> Callable[[Command], Command]:
    return click.option("--dtype", type=Dtype(OUTPUT_CHOICES), help=help, **settings)


def rounding_option(help: str, **settings: Any) -> Callable[[Command], Command]:
    return click.option("--rounding", type=click.Choice(ROUNDINGS), help=help, **settings)


def read_modules(
    name: str, weight: float, texts: Sequence[str], depth: str | None
) -> dict[str, float] | None:
    """`PATTERN=FACTOR`, as in `*.mlp.*=0.5`, each pattern once; {} for `none`, None for nothing. Raises UsageError."""
    if depth == "none":
        raise UsageError(
            "--depth takes points, not none",
            hint=f"`pv scale {name} {weight:g} --modules none` removes all factors, those by depth too",
        )
    if "none" in texts:
        if len(texts) > 1 or depth:
            raise UsageError(
                "--modules none removes factors, and others are given",
                hint=f"`pv scale {name} {weight:g} --modules none` removes them",
            )
        return {}
    found: dict[str, float] = {}
    for text in texts:
        pattern, equals, factor = text.rpartition("=")
        if not equals or not pattern:
            raise UsageError(
                f"{text[:200]!r} is not PATTERN=FACTOR",
                hint="for example: --modules '*.mlp.*=0.5'; --modules none removes all",
            )
        if pattern in found:
            raise UsageError(f"{pattern[:200]!r} is given twice", hint="give each pattern one factor")
        try:
            found[pattern] = _finite(factor, "factor")
        except click.BadParameter as error:
            raise UsageError(
                f"--modules {text[:200]}: {error.message}", hint="for example: --modules '*.mlp.*=0.5'"
            ) from None
    return found if texts else None


def read_takes(takes: Sequence[str]) -> dict[str, Take]:
    """`NAME=ours`, `NAME=theirs*0.5`, `NAME=0.5`; what a choice may be is for the merge to say. Raises UsageError."""
    found: dict[str, Take] = {}
    for text in takes:
        name, equals, choice = text.partition("=")
        if not equals or not name:
            raise UsageError(
                f"--take {text!r} is not NAME=CHOICE", hint="for example: --take brief=theirs, or brief=ours"
            )
        if name in found:
            raise UsageError(f"--take {name} is given twice", hint="choose once for each name")
        found[name] = _number_or_text(choice)
    return found


def _number_or_text(text: str) -> Take:
    try:
        return float(text)
    except ValueError:
        return text
