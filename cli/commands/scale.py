"""pv scale"""

from __future__ import annotations

import click

from pv.cli.app import App, pass_app
from pv.cli.options import TakesNumbers, json_option, message_option, read_modules, read_weight
from pv.cli.report import report

__all__ = ["command"]


@click.command("scale", cls=TakesNumbers, short_help="Set the weight of a behaviour.")
@click.argument("name")
@click.argument("weight", type=read_weight)
@click.option(
    "--modules",
    "--module",
    "modules",
    multiple=True,
    metavar="PATTERN=FACTOR",
    help="Multiply tensors whose names match PATTERN by FACTOR as well. Can be repeated; `none` removes the factors.",
)
@click.option(
    "--depth",
    metavar="DEPTH:FACTOR,...",
    help="Multiply layers by a factor that depends on their depth: 0 is the first layer, 1 the last.",
)
@message_option
@json_option
@pass_app
def command(
    app: App,
    name: str,
    weight: float,
    modules: tuple[str, ...],
    depth: str | None,
    message: str | None,
    as_json: bool,
) -> None:
    """Set the weight of a behaviour. 0 builds as if it were absent; below 0 it is reversed.

    With --modules, some tensors get more or less of it than others; a PATTERN is matched as a file name is in a
    shell. With --depth, some layers do: between two points the factor is on a straight line, and what is in no
    layer (embeddings, the last norm, the head) keeps its weight. Where several patterns match, their factors are
    multiplied. What is given replaces all factors that there were; a bare `pv scale NAME WEIGHT` keeps them.

    \b
    pv scale listening 0.5
    pv scale listening -0.5
    pv scale listening 1 --modules '*.mlp.*=0.5' --modules '*.layers.0.*=0'
    pv scale listening 1 --depth 0:0.5,1:1
    pv scale listening 1 --modules none
    """
    factors = read_modules(name, weight, modules, depth)
    made = app.repo().scale(name, weight, modules=factors, depth=depth, message=message)
    report(app, made, as_json=as_json)
