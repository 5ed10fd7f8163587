"""pv add"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import click

from pv.cli.app import App, pass_app, short
from pv.cli.options import json_option, message_option, read_weight, threads_option
from pv.cli.render import persona_line, size
from pv.cli.report import report
from pv.registry.errors import UsageError

if TYPE_CHECKING:
    from pv.vecstore.repo.derive import DerivedBehaviour
    from pv.vecstore.repo.edit import Committed
    from pv.vecstore.repo.repo import Repo

__all__ = ["command"]


@click.command("add", short_help="Bring a behaviour from another revision, or make one of others.")
@click.argument("what", metavar="[NAME=]REV:BEHAVIOUR | NAME=EXPRESSION")
@click.option(
    "--weight",
    type=read_weight,
    metavar="NUMBER",
    help="Its weight here. Default: its weight in REV; of an expression, 1.",
)
@click.option(
    "--match-norm", is_flag=True, help="Of a METHOD: scale the result to the norm of the plain sum."
)
@click.option(
    "--to",
    metavar="ENCODING",
    help="Of a METHOD: how the new vector is kept. Default: lora if all are adapters, else float, which is bf16.",
)
@message_option
@threads_option
@json_option
@pass_app
def command(
    app: App,
    what: str,
    weight: float | None,
    match_norm: bool,
    to: str | None,
    message: str | None,
    threads: int,
    as_json: bool,
) -> None:
    """Bring one behaviour from another branch, tag or commit, under its own name or a new one.

    Or add behaviours up: an EXPRESSION is a sum of behaviours (NAME, or REV:NAME), each with a factor if need be.
    The new one has their terms, with their weights multiplied in, and weight 1.

    METHOD(EXPRESSION, ...) makes one new vector of several, now and once: tsv, iso_c, iso_cts, svc, sum, negmerge.

    \b
    pv add experiments:pirate
    pv add brief=v1:concise --weight 0.5
    pv add kinder=polite-rude                        # a contrast
    pv add formal-pirate='pirate - casual + formal'  # an analogy
    pv add softer='0.5*v2:style - 0.25*rude'
    pv add all='tsv(pirate, formal, brief)' --match-norm
    """
    repo = app.repo()
    name, equals, source = what.partition("=")
    if equals and name and "(" in source:
        with app.progress() as progress:
            derived = repo.derive(
                name, source, match_norm=match_norm, to=to, weight=weight,
                message=message, threads=threads, progress=progress,
            )  # fmt: skip
        app.json(derived) if as_json else _say(app, derived)
        return
    if match_norm or to:
        raise UsageError(
            f"{'--match-norm' if match_norm else '--to'} is for METHOD(...), which makes a new vector",
            hint="for example: pv add all='tsv(a, b)' --match-norm",
        )
    report(app, _committed(repo, what, weight, message), as_json=as_json)


def _committed(repo: Repo, what: str, weight: float | None, message: str | None) -> Committed:
    """A sum, or a behaviour that is brought: no new vector."""
    name, equals, source = what.partition("=")
    if equals and name and source.strip():
        return repo.define(name, source, weight=weight, message=message)
    revision, colon, behaviour = what.rpartition(":")
    if equals or not (colon and revision and behaviour):
        raise UsageError(
            f"{what!r} is not [NAME=]REV:BEHAVIOUR",
            hint="for example: pv add brief=v1:concise, or pv add kinder='polite - rude'",
        )
    return repo.add(behaviour, revision, weight=weight, message=message)


def _say(app: App, made: DerivedBehaviour) -> None:
    origin = made.origin
    app.done(
        f"{short(made.commit)} {made.name} is {origin.said}: vector {short(made.vector)}, {origin.encoding}, "
        f"{size(made.stored_bytes)}, on branch {made.branch}"
    )
    ratio = origin.norm / origin.sum_norm if origin.sum_norm else math.inf
    scaled = f"; its coefficient {made.factor:g} makes them equal" if made.factor != 1 else ""
    app.note(
        f"  norm {origin.norm:.3g}, {ratio:.2f} times that of the plain sum, {origin.sum_norm:.3g}{scaled}"
    )
    app.note(f"  as {origin.encoding} its relative L2 error is {origin.relative_l2:.1e}")
    app.note(f"  {persona_line(made.persona)}")
    for note in made.notes:
        app.note(f"note: {note}")
