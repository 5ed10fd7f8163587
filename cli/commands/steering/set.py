"""pv steer set"""

from __future__ import annotations

from typing import Any

import click

from pv.cli.app import App, pass_app
from pv.cli.options import TakesNumbers, Whole, json_option, message_option, read_weight
from pv.cli.report import report
from pv.registry.steering import POSITIONS, RULES

__all__ = ["command"]


@click.command("set", cls=TakesNumbers, short_help="Set the strength, place or condition of a steering term.")
@click.argument("name", metavar="[TERM]", required=False)
@click.argument("coefficient", type=read_weight, required=False)
@click.option("--site", "sites", multiple=True, metavar="SITE", help="Apply it there alone. Can be repeated.")
@click.option("--layer", "layers", type=Whole(0), multiple=True, help="The same, by layer. Can be repeated.")
@click.option("--all-sites", is_flag=True, help="Apply it at all sites of its vector.")
@click.option("--positions", type=click.Choice(POSITIONS), help="Which tokens are steered.")
@click.option(
    "--when", metavar="[VECTOR@]SITE>NUMBER", help="Only in replies to prompts whose cosine is above."
)
@click.option("--always", is_flag=True, help="For every prompt.")
@click.option("--rule", type=click.Choice(RULES), help="How all terms together are applied.")
@message_option
@json_option
@pass_app
def command(
    app: App,
    /,
    name: str | None,
    sites: tuple[str, ...],
    all_sites: bool,
    when: str | None,
    always: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Set the coefficient of a steering term, its sites, positions or condition. What is not given stays as it is.

    A coefficient of 1 adds the vector as it was extracted; 0 adds nothing; below 0 it steers the other way. What
    was measured of the term is dropped with the change: it was measured of something else.

    \b
    pv steer set formal 0.5
    pv steer set formal --layer 14 --positions reply
    pv steer set formal 2 --when 'model.layers.14>0.2'
    pv steer set --rule preserve-norm
    """
    if ((sites or given["layers"]) and all_sites) or (when is not None and always):
        raise click.UsageError(
            "--site or --layer and --all-sites exclude each other, and so do --when and --always"
        )
    where: Any = "all" if all_sites else sites or None
    condition: Any = when if when is not None else None if always else ...
    made = app.repo().steer.set(name, sites=where, when=condition, **given)
    report(app, made, as_json=as_json)
