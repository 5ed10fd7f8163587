"""pv steer apply"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pv.cli.app import App, pass_app
from pv.cli.options import TakesNumbers, Whole, json_option, model_threads_option, read_weight
from pv.cli.render import number, table
from pv.cli.say import echo, plain
from pv.registry.steering import POSITIONS
from pv.registry.words import site_words

if TYPE_CHECKING:
    from pv.vecstore.repo.steer.apply import Applied

__all__ = ["command"]

CUT = {"length": " […]", "context": " [the context is full]"}


@click.command("apply", cls=TakesNumbers, short_help="Try a steering term out, and commit nothing.")
@click.argument("name", metavar="TERM")
@click.argument("coefficient", type=read_weight, required=False)
@click.option("-p", "--prompt", "prompts", multiple=True, required=True, help="Ask this. Can be repeated.")
@click.option("--layer", type=Whole(0), metavar="N", help="Apply it in this layer, whatever the term says.")
@click.option("--site", "sites", multiple=True, metavar="SITE", help="Apply it there alone. Can be repeated.")
@click.option("--positions", type=click.Choice(POSITIONS), help="Which tokens are steered.")
@click.option("--max-tokens", type=Whole(1), default=64, show_default=True, help="Longest reply, in tokens.")
@model_threads_option
@json_option
@pass_app
def command(
    app: App,
    /,
    name: str,
    coefficient: float | None,
    prompts: tuple[str, ...],
    layer: int | None,
    sites: tuple[str, ...],
    positions: str | None,
    max_tokens: int,
    threads: int,
    as_json: bool,
) -> None:
    """Reply to prompts with a steering term and without it, side by side. Nothing is committed.

    The term is applied as the persona has it, but for what is given here, and alone: without the persona's other
    steering terms. Replies are greedy.

    \b
    pv steer apply formal -p "What should I cook tonight?"
    pv steer apply formal 4 --layer 12 -p "Hi!" -p "Tell me a joke."
    pv steer apply formal -2 --positions reply -p "Hi!" --json
    """
    with app.progress() as progress:
        found = app.repo().steer.apply(
            name, prompts, coefficient, layer=layer, sites=sites or None, positions=positions,
            max_tokens=max_tokens, threads=threads, progress=progress,
        )  # fmt: skip
    app.json(found) if as_json else _say(app, found)


def _say(app: App, found: Applied) -> None:
    term = found.term
    app.note(
        f"{found.name} {number(term.coefficient)} × at {site_words(term.sites)}, {term.positions} positions; "
        "nothing is committed"
    )
    header = ("without", f"with {found.name} × {number(term.coefficient)}")
    for prompt, without, steered in zip(found.prompts, found.plain, found.replies, strict=True):
        echo(click.style(f"\n> {plain(prompt)}", bold=True))
        echo(table(header, [[f"{one.text}{CUT.get(one.finish, '')}" for one in (without, steered)]]))
    if "length" in {one.finish for one in (*found.plain, *found.replies)}:
        app.note(f"  […] cut at {max(len(one.tokens) for one in (*found.plain, *found.replies))} tokens")
