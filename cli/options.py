"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from pv.registry.combine import METHODS, Combine, Option
from pv.registry.dtypes import OUTPUT_CHOICES
from pv.registry.errors import UsageError
from pv.registry.persona import ROUNDINGS
from pv.registry.words import number

if TYPE_CHECKING:
    from pv.registry.history.threeway import Take

__all__ = [
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
Command = Callable[..., Any]


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
    help="Its weight in the persona; 1 if it is new, else as it was.",
)


def threads_choice(help: str) -> Callable[[Command], Command]:
    return click.option("--threads", type=click.IntRange(1, 256), default=os.cpu_count() or 1, help=help)


threads_option = threads_choice("Threads; no result depends on it.")
shard_option = click.option(
    "--shard-size",
    "shard_bytes",
    default=5000.0,
    type=click.FloatRange(0, min_open=True),
    show_default=True,
    callback=lambda ctx, option, megabytes: _bytes(megabytes),
    help="Largest weight file, in MB.",
)
take_option = click.option(
    "--take",
    "takes",
    multiple=True,
    metavar="NAME=CHOICE",
    help="Resolve a conflict: by ours, theirs, ours*0.5, theirs*0.5, or a weight where the sides differ in nothing "
    "else. Can be repeated.",
)


def _bytes(megabytes: float) -> int:
    if not math.isfinite(megabytes):
        raise UsageError("--shard-size is a number of megabytes", hint="without it, files hold up to 5000 MB")
    return max(1, int(megabytes * 1e6))


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
            click.option("--mainline", type=click.IntRange(1), metavar="N", help="The parent."),
            click.option(
                "-m",
                "either",
                multiple=True,
                metavar="N|MESSAGE",
                help=f"A number: of a merge, the parent to {what_for}, 1 being the branch that was merged into "
                "(--mainline). Other text: the commit's message (--message). Both may be given.",
            ),
        ):
            told_apart = option(told_apart)
        return told_apart

    return decorate


def dtype_option(help: str, **settings: Any) -> Callable[[Command], Command]:
    return click.option("--dtype", type=click.Choice(OUTPUT_CHOICES), help=help, **settings)


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
    return click.option("--preset", type=click.Choice(presets), help="Another tool's switches.")(with_rule)


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
    if option.above is None and option.most is None:
        return click.FLOAT
    return click.FloatRange(option.above, option.most, min_open=True)


def _text(option: Option) -> str:
    return option.default if isinstance(option.default, str) else number(option.default)


def _rule(method: str | None, preset: str | None, given: dict[str, Any]) -> Combine | None:
    options = {name: value for name, value in given.items() if value is not None}
    if method is not None:
        return Combine.of(method, preset=preset, **options)
    if options or preset:
        which = min(options) if options else "preset"
        owner = next((methods[0] for name, (methods, _) in _switches().items() if name == which), "ties")
        value = options.get(which, preset)
        method = owner if click.get_current_context().info_name == "combine" else f"--method {owner}"
        raise UsageError(
            f"--{which} belongs to a merge method, and none is named", hint=f"{method} --{which} {value}"
        )
    return None
