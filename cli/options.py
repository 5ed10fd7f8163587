"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, ClassVar

import click

from pv.cli.app import App
from pv.cli.typed import at_front, typed_with
from pv.registry.combine import METHODS, Combine, Option
from pv.registry.dtypes import OUTPUT_CHOICES, output_name
from pv.registry.errors import UsageError
from pv.registry.persona import ROUNDINGS
from pv.registry.words import number

if TYPE_CHECKING:
    from pv.registry.history.threeway import Take

__all__ = [
    "Dtype",
    "Number",
    "Size",
    "TakesNumbers",
    "Whole",
    "combine_options",
    "dtype_option",
    "json_option",
    "mainline_options",
    "message_option",
    "method_option",
    "name_option",
    "read_factor",
    "read_takes",
    "read_weight",
    "rounding_option",
    "shard_option",
    "take_option",
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
    try:
        value = float(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a number") from None
    if not abs(value) <= MAX_WEIGHT:  # so put, NaN is refused too
        raise click.BadParameter(f"a weight is a finite number up to a million, not {value:g}")
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
weight_option = click.option(
    "--weight",
    type=read_weight,
    metavar="NUMBER",
    help="Its weight in the persona. Default: 1 if new, else unchanged.",
)


def threads_choice(help: str) -> Callable[[Command], Command]:
    return click.option("--threads", type=Whole(1, 256), default=os.cpu_count() or 1, help=help)


threads_option = threads_choice("Number of threads; no result depends on it.")
shard_option = click.option(
    "--shard-size",
    "shard_bytes",
    default="5GB",
    type=Size(),
    show_default=True,
    help="Largest weight file: 5GB, 500MB; a plain number is MB. A tensor that is larger has a file of its own.",
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


method_option = click.option(
    "--method",
    type=click.Choice(tuple(METHODS)),
    help="Set the persona's merge method; later builds on this branch use it.",
)


def read_factor(text: str) -> tuple[str, float]:
    """`PATTERN=FACTOR`, as in `*.mlp.*=0.5`."""
    pattern, equals, factor = text.rpartition("=")
    if not equals or not pattern:
        raise click.BadParameter(f"{text!r} is not PATTERN=FACTOR, as in '*.mlp.*=0.5'")
    return pattern, read_weight(factor)


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


# The switches of the merge methods, from their table


def combine_options(command: Command) -> Command:
    """`--preset` and one option for each switch of any method; the command has `method`, and gets `rule`."""

    @wraps(command)
    def with_rule(*args: Any, method: str | None, preset: str | None, **rest: Any) -> Any:
        given = {name: rest.pop(_key(name)) for name in _switches()}
        return command(*args, rule=_rule(method, preset, given), **rest)

    for name, (methods, option) in reversed(_switches().items()):
        kind = click.Choice(option.choices) if option.choices else _number(option)
        what = f"{option.help[0].lower()}{option.help[1:].rstrip('.')}"
        words = f"{', '.join(methods)}: {what} (default: {_text(option)})."
        with_rule = click.option(f"--{name}", _key(name), type=kind, help=words)(with_rule)
    presets = sorted({preset for method in METHODS.values() for preset in method.presets})
    return click.option(
        "--preset", type=click.Choice(presets), help="Set the options as another tool has them."
    )(with_rule)


def _switches() -> dict[str, tuple[list[str], Option]]:
    """{name: (methods that have it, the option)}"""
    found: dict[str, tuple[list[str], Option]] = {}
    for method in METHODS.values():
        for option in method.options:
            found.setdefault(option.name, ([], option))[0].append(method.name)
    return found


def _key(name: str) -> str:
    return f"switch_{name}"


def _number(option: Option) -> click.ParamType[Any]:
    return Number(option.above, option.most, above=True)


def _text(option: Option) -> str:
    return option.default if isinstance(option.default, str) else number(option.default)


def _rule(method: str | None, preset: str | None, given: dict[str, Any]) -> Combine | None:
    options = {name: value for name, value in given.items() if value is not None}
    if method is not None:
        return Combine.of(method, preset=preset, **options)
    if options or preset:
        which = min(options) if options else "preset"
        owner = next((methods[0] for name, (methods, _) in _switches().items() if name == which), "ties")
        context = click.get_current_context()
        arguments = context.ensure_object(App).line.arguments
        named = (
            at_front(arguments, [owner])
            if context.info_name == "combine"
            else typed_with(arguments, ["--method", owner])
        )
        raise UsageError(f"--{which} is an option of a merge method, and none is given", hint=named)
    return None
