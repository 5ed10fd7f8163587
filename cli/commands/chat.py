"""pv chat"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import click

from pv.cli.app import App, json_option, pass_app, threads_option
from pv.cli.render import persona_line
from pv.cli.say import echo
from pv.cli.say import plain as spelled

__all__ = ["command"]


@click.command("chat", short_help="Talk to a persona.")
@click.argument("rev", default="HEAD")
@click.option("-p", "--prompt", "prompts", multiple=True, help="Say this, print the reply, and end.")
@click.option("--max-tokens", type=click.IntRange(1), default=256, show_default=True, help="Longest reply.")
@click.option("--temperature", type=click.FloatRange(0), default=0.0, show_default=True, help="0 is greedy.")
@click.option("--seed", type=int, default=0, help="Seed for a temperature above 0.")
@click.option("--base", "plain", is_flag=True, help="Talk to the bare base instead.")
@threads_option
@json_option
@pass_app
def command(
    app: App,
    rev: str,
    prompts: tuple[str, ...],
    max_tokens: int,
    temperature: float,
    seed: int,
    plain: bool,
    threads: int,
    as_json: bool,
) -> None:
    """Talk to a revision of the persona. An empty line or Ctrl-D ends.

    \b
    pv chat
    pv chat v1 -p "Let's use SQLite for this."
    pv chat --base -p "Let's use SQLite for this."
    """
    from dataclasses import replace

    from pv.vecstore.data.rows import Message
    from pv.vecstore.models.generate import stream
    from pv.vecstore.models.load import load
    from pv.vecstore.repo.opening import checkpoint_of

    registry = app.registry()
    commit = registry.resolve(rev)
    persona = registry.persona(commit)
    if plain:
        persona = replace(persona, behaviours={})
    with (
        app.progress("building") as update,
        checkpoint_of(registry, commit, persona, threads=threads, progress=update) as folder,
    ):
        import torch

        torch.set_num_threads(threads)
        model, tokenizer = load(folder)
    answers = []
    if not prompts and sys.stdin.isatty():
        app.note(f"talking to {persona_line(persona)}; an empty line ends")
    history: list[Message] = []
    for text in prompts or _typed():
        if prompts:
            history = []
        history.append(Message("user", text))
        pieces = []
        for piece in stream(model, tokenizer, tuple(history), max_tokens, temperature=temperature, seed=seed):
            pieces.append(piece)
            if not as_json:
                echo(spelled(piece), nl=False)
        reply = "".join(pieces)
        history.append(Message("assistant", reply))
        answers.append({"prompt": text, "reply": reply})
        if not as_json:
            echo()
    if as_json:
        app.json({"commit": commit, "replies": answers})


def _typed() -> Iterator[str]:
    prompt = "> " if sys.stdin.isatty() else ""
    while True:
        try:
            text = input(prompt).strip()
        except EOFError:
            return
        if not text:
            return
        yield text
