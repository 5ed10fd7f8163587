"""pv scale"""

from __future__ import annotations

import click

from pv.cli.app import App, pass_app
from pv.cli.options import TakesNumbers, json_option, message_option, read_factor, read_weight
from pv.cli.report import report
from pv.registry.errors import UsageError

__all__ = ["command"]


@click.command("scale", cls=TakesNumbers, short_help="Set the weight of a behaviour.")
@click.argument("name")
@click.argument("weight", type=read_weight)
@click.option(
    "--module",
    "modules",
    type=read_factor,
    multiple=True,
    metavar="PATTERN=FACTOR",
    help="Multiply tensors whose names match PATTERN by FACTOR as well; replaces the earlier factors.",
)
@click.option("--no-modules", is_flag=True, help="Remove its module factors.")
@message_option
@json_option
@pass_app
def command(
    app: App,
    name: str,
    weight: float,
    modules: tuple[tuple[str, float], ...],
    no_modules: bool,
    message: str | None,
    as_json: bool,
) -> None:
    """Set the weight of a behaviour. 0 builds as if it were absent; below 0 it is reversed.

    With --module, some tensors get more or less of it than others; where several patterns match, their factors are
    multiplied.
    Module factors stay until other ones are given, or --no-modules.

    \b
    pv scale listening 0.5
    pv scale listening -0.5
    pv scale listening 1 --module '*.mlp.*=0.5' --module '*.layers.0.*=0'
    pv scale listening 1 --no-modules
    """
    if modules and no_modules:
        raise UsageError(
            "--module sets factors, --no-modules removes them",
            hint=f"`pv scale {name} {weight:g} --no-modules` removes them",
        )
    factors = dict(modules) if modules or no_modules else None
    report(app, app.repo().scale(name, weight, modules=factors, message=message), as_json=as_json)
