"""pv chat"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from pv.cli.app import App, pass_app
from pv.cli.options import Number, Whole, json_option, threads_option
from pv.cli.render import persona_line
from pv.cli.say import echo, plain

if TYPE_CHECKING:
    from pv.vecstore.repo.chat import Chat

__all__ = ["command"]


@click.command("chat", short_help="Talk to a persona.")
@click.argument("rev", default="HEAD")
@click.option("-p", "--prompt", "prompts", multiple=True, help="Say this, print the reply, and end.")
@click.option("--max-tokens", type=Whole(1), default=256, show_default=True, help="Longest reply.")
@click.option("--temperature", type=Number(0), default=0.0, show_default=True, help="0 is greedy.")
@click.option("--seed", type=Whole(), default=0, help="Seed for a temperature above 0.")
@click.option("--base", is_flag=True, help="Talk to the bare base instead.")
@threads_option
@json_option
@pass_app
def command(
    app: App,
    /,
    rev: str,
    prompts: tuple[str, ...],
    max_tokens: int,
    base: bool,
    threads: int,
    as_json: bool,
    **sampling: Any,
) -> None:
    """Talk to a revision of the persona. An empty line or Ctrl-D ends.

    \b
    pv chat
    pv chat v1 -p "Let's use SQLite for this."
    pv chat --base -p "Let's use SQLite for this."
    """
    from contextlib import ExitStack

    revision = app.repo().at(rev)
    with ExitStack() as stack:
        with app.progress() as progress:
            chat = stack.enter_context(revision.chat(base=base, threads=threads, progress=progress))
        if not prompts and sys.stdin.isatty():
            app.note(
                f"talking to {'the base' if base else persona_line(revision.persona)}; an empty line ends"
            )
        answers = list(_answers(chat, prompts, max_tokens, quiet=as_json, **sampling))
    if as_json:
        app.json({"commit": revision.commit, "replies": answers})


def _answers(
    chat: Chat, prompts: tuple[str, ...], max_tokens: int, *, quiet: bool, **sampling: Any
) -> Iterator[dict[str, str]]:
    """Ask, and print the answers as they come. Prompts given beforehand are asked one by one, afresh."""
    from pv.vecstore.repo.chat import Message

    history: list[Message] = []
    for text in prompts or _typed():
        if prompts:
            history = []
        history.append(Message("user", text))
        pieces = []
        for piece in chat.stream(history, max_tokens, **sampling):
            pieces.append(piece)
            if not quiet:
                echo(plain(piece), nl=False)
        if not quiet:
            echo()
        history.append(Message("assistant", "".join(pieces)))
        yield {"prompt": text, "reply": history[-1].content}


def _typed() -> Iterator[str]:
    person = sys.stdin.isatty()
    while True:
        if person:
            click.echo("> ", nl=False, err=True)  # stdout is for replies
        try:
            text = input().strip()
        except EOFError:
            return
        if not text:
            return
        yield text
