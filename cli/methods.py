"""The merge methods on the command line: their switches as options, and the list of them, all from their table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any

import click

from pv.cli.app import App
from pv.cli.options import Number
from pv.cli.render import table
from pv.cli.typed import at_front, typed_with
from pv.registry.combine import METHODS, Combine, Method, Option
from pv.registry.errors import UsageError
from pv.registry.words import number

__all__ = ["combine_options", "method_list", "method_option", "method_words"]

Command = Callable[..., Any]

OWN = tuple(option for option in METHODS["ties"].options if not option.later)
"""Switches that are options by themselves, for whatever method has them; all are reached by --set."""

method_option = click.option(
    "--method",
    type=click.Choice(tuple(METHODS)),
    metavar="METHOD",
    help="Set the persona's merge method; later builds on this branch use it. `pv combine --list` lists them.",
)


def combine_options(command: Command) -> Command:
    """`--preset`, `--set` and the switches that are options; the command has `method`, and gets `rule`."""

    @wraps(command)
    def with_rule(
        *args: Any, method: str | None, preset: str | None, settings: tuple[str, ...], **rest: Any
    ) -> Any:
        given = {option.name: rest.pop(_key(option)) for option in OWN}
        options = {name: value for name, value in given.items() if value is not None}
        return command(*args, rule=_rule(method, preset, options, settings), **rest)

    with_rule = click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="SWITCH=VALUE",
        help="A switch of the method, with or without an option here. Can be repeated.",
    )(with_rule)
    for option in reversed(OWN):
        choices = _choices(option.name)
        kind = click.Choice(choices) if choices else Number(option.above, option.most, above=True)
        what = f"{option.help[0].lower()}{option.help[1:].rstrip('.')}"
        words = f"ties: {what} (default: {_text(option.default)})."
        with_rule = click.option(f"--{option.name}", _key(option), type=kind, help=words)(with_rule)
    presets = sorted({preset for method in METHODS.values() for preset in method.presets})
    return click.option(
        "--preset", type=click.Choice(presets), help="Set the switches as another tool has them."
    )(with_rule)


def _choices(name: str) -> tuple[str, ...]:
    """What a switch may be in one method or another."""
    options = [option for method in METHODS.values() for option in method.options if option.name == name]
    return tuple(dict.fromkeys(choice for option in options for choice in option.choices))


def _key(option: Option) -> str:
    return f"switch_{option.name}"


def _text(value: float | str) -> str:
    return value if isinstance(value, str) else number(value)


def _rule(
    method: str | None, preset: str | None, options: Mapping[str, Any], settings: Sequence[str]
) -> Combine | None:
    if method is not None:
        return Combine.of(method, preset=preset, **_settings(METHODS[method], options, settings))
    words = {name: f"--{name} {value}" for name, value in options.items()}
    words |= {"set": f"--set {settings[0]}"} if settings else {}
    words |= {"preset": f"--preset {preset}"} if preset else {}
    if words:
        which = min(words)
        name = settings[0].partition("=")[0] if which == "set" else which
        owner = next((m.name for m in METHODS.values() if any(o.name == name for o in m.options)), "ties")
        if which == "preset":
            owner = next(m.name for m in METHODS.values() if preset in m.presets)
        context = click.get_current_context()
        arguments = context.ensure_object(App).line.arguments
        named = (
            at_front(arguments, [owner])
            if context.info_name == "combine"
            else typed_with(arguments, ["--method", owner])
        )
        raise UsageError(f"--{which} is an option of a merge method, and none is given", hint=named)
    return None


def _settings(method: Method, options: Mapping[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """Switches given by their own options, and those given by --set. Raises UsageError."""
    found = dict(options)
    known = {option.name: option for option in method.options}
    for text in settings:
        name, equals, value = text.partition("=")
        if not equals or not name:
            example = method.example.partition(" ")[0] or "density=0.3"
            raise UsageError(f"--set {text[:80]!r} is not SWITCH=VALUE", hint=f"for example: --set {example}")
        if name in found:
            raise UsageError(f"{name[:80]} of {method.name} is set twice", hint="set each switch once")
        option = known.get(name)
        found[name] = value if option is None or option.choices else _number(method, option, value)
    return found


def _number(method: Method, option: Option, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(
            f"{method.name}: {option.name} must be a number, not {text[:40]!r}",
            hint=f"for example: --set {option.name}={_text(option.default)}",
        ) from None


# The list


def method_list() -> str:
    """Every method, and what it does to the behaviours."""
    return table(("method", "what it does"), [(one.name, one.summary) for one in METHODS.values()])


def method_words(method: Method) -> str:
    """One method, its switches and its presets."""
    parts = [f"{method.name}: {method.summary}"]
    if method.options:
        rows = [(one.name, _text(one.default), one.values, one.help) for one in method.options]
        parts.append(table(("switch", "default", "values", "what it is"), rows))
    for name, switches in method.presets.items():
        parts.append(f"preset {name}: " + ", ".join(f"{k} {_text(v)}" for k, v in switches.items()))
    return "\n\n".join(parts)
