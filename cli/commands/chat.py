"""pv chat"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from pv.cli.app import App, pass_app
from pv.cli.options import Number, Whole, json_option, model_threads_option
from pv.cli.render import persona_line
from pv.cli.talk import Talk, Voice, typed
from pv.registry.errors import UsageError

if TYPE_CHECKING:
    from pv.vecstore.repo.repo import Repo
    from pv.vecstore.repo.revision import Revision

__all__ = ["command"]


@click.command("chat", short_help="Talk to a persona.")
@click.argument("revs", nargs=-1, metavar="[A [B]]")
@click.option(
    "-p",
    "--prompt",
    "prompts",
    multiple=True,
    help="Send this prompt, print the reply, and exit (can be repeated).",
)
@click.option("--max-tokens", type=Whole(1), default=256, show_default=True, help="Longest reply, in tokens.")
@click.option(
    "--temperature",
    type=Number(0),
    default=0.0,
    show_default=True,
    help="Sampling temperature; 0 is greedy decoding.",
)
@click.option("--seed", type=Whole(), default=0, help="Seed of the sampling.")
@click.option("--system", metavar="TEXT", help="System prompt.")
@click.option("--base", is_flag=True, help="Talk to the base: alone, or beside a revision.")
@model_threads_option
@json_option
@pass_app
def command(
    app: App,
    /,
    revs: tuple[str, ...],
    prompts: tuple[str, ...],
    system: str | None,
    max_tokens: int,
    base: bool,
    threads: int,
    as_json: bool,
    **sampling: Any,
) -> None:
    """Talk to a revision (default HEAD), or to two: each answers every prompt, and remembers its own replies.

    Each -p is a conversation of its own. Without -p, lines are typed, or read from stdin; at a terminal /help lists
    the commands, Ctrl-C ends a reply, and Ctrl-D the chat.

    \b
    pv chat
    pv chat v1 -p "Let's use SQLite for this."
    pv chat main style -p "Let's use SQLite for this."
    pv chat --base style -p "Let's use SQLite for this."
    pv chat --base --system "Answer in French."
    """
    from contextlib import ExitStack

    if len(revs) > (1 if base else 2):
        raise UsageError(
            "chat takes up to two revisions, or --base and one",
            hint="`pv chat A B`; `pv chat --base A` is the base beside A",
        )
    asked = _asked(app.repo(), revs, base)
    with ExitStack() as stack:
        with app.progress() as progress:
            voices = [
                Voice(rev, stack.enter_context(rev.chat(base=bare, threads=threads, progress=progress)), bare)
                for rev, bare in asked
            ]
        person = not prompts and sys.stdin.isatty()
        _run(Talk(app, voices, system, max_tokens, sampling, quiet=as_json, person=person), prompts)
    if as_json:
        found = [one.to_json() for one in voices]
        app.json(found[0] if len(found) == 1 else dict(zip("ab", found, strict=True)))


def _asked(repo: Repo, revs: tuple[str, ...], base: bool) -> list[tuple[Revision, bool]]:
    """Who answers: revisions, and whether it is the bare base of one."""
    revisions = [repo.at(rev) for rev in revs or ("HEAD",)]
    bare = [(revisions[0], True)] if base else []
    return bare + [(revision, False) for revision in revisions if revs or not base]


def _run(talk: Talk, prompts: tuple[str, ...]) -> None:
    if talk.person:
        names = ("the base" if voice.base else persona_line(voice.revision.persona) for voice in talk.voices)
        talk.app.note(f"talking to {' and '.join(names)}; /help lists commands, Ctrl-D ends")
    for text in prompts:
        talk.afresh()
        talk.ask(text)
    for text in () if prompts else typed(talk.app, talk.person):
        if not talk.person or not text.startswith("/") or text.startswith("//"):
            talk.ask(text[1:] if talk.person and text.startswith("//") else text)
        elif not talk.command(text):
            return
