"""pv train"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click

from pv.cli.app import App, json_option, pass_app, short, threads_option, weight_option
from pv.cli.render import interval, size

__all__ = ["command"]


@click.command("train", short_help="Train a behaviour from rows and commit it.")
@click.argument("data", metavar="DATA.jsonl")
@click.option(
    "--as", "name", required=True, metavar="NAME", help="The behaviour's name; known: its next version."
)
@weight_option
@click.option(
    "--held-out", metavar="FILE", help="Rows to measure on; DATA.heldout.jsonl if it lies beside; 'none'."
)
@click.option("--lr", type=click.FloatRange(0, min_open=True), help="Learning rate, as AdamW's.")
@click.option("--epochs", type=click.IntRange(1), help="Passes over the rows.")
@click.option("--batch", type=click.IntRange(1), help="Rows a step.")
@click.option("--rank", type=click.IntRange(1), help="Rank of Apollo's projection.")
@click.option("--max-steps", type=click.IntRange(1), help="Stop after so many steps.")
@click.option("--optimizer", type=click.Choice(["apollo", "adamw"]), help="Default: apollo.")
@click.option(
    "--preference", type=click.FloatRange(0), help="Weight of telling chosen from rejected; 0: only imitate."
)
@click.option("--train-embeddings", is_flag=True, default=None, help="Train embeddings and head too.")
@click.option("--full-context", is_flag=True, help="Let the gradient through the prompt as well.")
@click.option(
    "--encoding",
    type=click.Choice(["int8", "float"]),
    default="int8",
    show_default=True,
    help="How the vector is kept.",
)
@click.option("--no-data", is_flag=True, help="Do not keep the rows in the registry.")
@click.option("--seed", type=int, help="Seed of order and projections.")
@click.option("-m", "--message", help="The commit's message.")
@threads_option
@json_option
@pass_app
def command(
    app: App,
    /,
    data: str,
    name: str,
    weight: float | None,
    held_out: str | None,
    full_context: bool,
    encoding: str,
    no_data: bool,
    message: str | None,
    threads: int,
    as_json: bool,
    **chosen: Any,
) -> None:
    """Train a behaviour on the persona's base, from rows of prompt, chosen and rejected answers.

    The base alone is trained on, in fp32, by Apollo; what it learned is kept as a vector of its own and
    added to the persona. Rows are JSON lines: {"prompt": "...", "chosen": "...", "rejected": "..."}.
    Held-out rows give its effect: how much the margin of chosen over rejected grew against the base.

    \b
    pv train examples/behaviours/listening.jsonl --as listening
    pv train rows.jsonl --as brief --epochs 2 --lr 5e-5 --held-out other-rows.jsonl
    """
    from pv.registry.persona import Behaviour, Persona, Term, check_name
    from pv.vecstore.data.pack import keep_rows
    from pv.vecstore.data.rows import read_rows
    from pv.vecstore.repo.opening import checkpoint_of
    from pv.vecstore.repo.score import measure, score
    from pv.vecstore.train.loop import TrainOptions, train
    from pv.vecstore.vectors.vector import keep

    check_name(name)
    registry = app.registry()
    branch, head = registry.head().branch, registry.resolve("HEAD")
    now = registry.persona(head)
    rows = read_rows(app.file(data))
    held_rows, held_name = _held_out(app, data, held_out)
    settings = {key: value for key, value in chosen.items() if value is not None}
    options = TrainOptions(**settings, frozen_context=not full_context)

    control = Persona(now.base, output=now.output, engine=now.engine)
    if held_rows is not None:  # the base first: rows that cannot be measured stop us before the training
        with app.progress(f"measuring the base on {held_name}", "answers") as update:
            measure(registry, head, control, held_rows, threads=threads, progress=update)
    plain = Persona(now.base, engine=now.engine)
    with checkpoint_of(registry, head, plain, threads=threads) as folder, _training(app, name) as step:
        trained = train(folder, rows, options, progress=step, threads=threads)
    app.note(
        f"  trained {name} on {len(rows)} rows: loss {trained.loss[0]:.3f} to {trained.loss[-1]:.3f}, "
        f"{trained.tokens / max(trained.seconds, 1e-9):.0f} tokens/s, {trained.seconds:.0f} s"
    )
    hold = click.get_current_context().with_resource  # gc leaves alone what we hold, until a commit names it
    with registry.writing():
        with app.progress("keeping the vector") as update:
            manifest = keep(
                trained.deltas,
                registry.base(head),
                registry.packs,
                encoding=encoding,
                threads=threads,
                progress=update,
            )
        hold(registry.packs.holding(manifest.id))
        if not no_data:
            hold(registry.packs.holding(keep_rows(rows, registry.packs)))
    provenance: dict[str, Any] = {
        "kind": "trained",
        "data": {"name": Path(data).name, "id": rows.id, "rows": len(rows), "kept": not no_data},
        "options": asdict(trained.options),
        "loss": [trained.loss[0], trained.loss[-1]],
        "tokens": trained.tokens,
        "settings": dict(trained.settings),
        "packs": [] if no_data else [rows.id],
    }
    terms = (Term(1.0, manifest.id),)
    alone = replace(control, behaviours={name: Behaviour(1.0, terms)})
    found = None
    if held_rows is not None:
        with app.progress(f"measuring on {held_name}", "answers") as update:
            found = score(
                registry,
                head,
                alone,
                held_rows,
                held_name,
                threads=threads,
                progress=update,
            )
        provenance["held_out"] = found.to_json()

    def edit(persona: Persona) -> Persona:
        known = persona.behaviours.get(name)
        kept = known or Behaviour(1.0, ())
        behaviour = Behaviour(kept.weight if weight is None else weight, terms, kept.modules)
        return persona.with_behaviour(name, behaviour)

    commit = registry.change(
        app.command_line,
        message or f"Train {name}",
        edit,
        vectors={manifest.id: (manifest, provenance)},
        branch=branch,
    )
    if as_json:
        app.json({"commit": commit, "vector": manifest.id, "provenance": provenance})
        return
    app.done(
        f"{short(commit)} {name} is vector {short(manifest.id)}, {size(registry.packs.size(manifest.id))}"
    )
    if found is not None:
        e = found.effect
        app.note(
            f"  held-out effect {interval(e.mean, e.low, e.high)} nats, 95 %, n={e.n}: {e.verdict} ({held_name})"
        )


def _held_out(app: App, data: str, held_out: str | None) -> tuple[Any, str]:
    from pv.vecstore.data.rows import read_rows

    if held_out == "none":
        return None, ""
    path = app.file(held_out or data)
    if held_out is None:
        path = path.with_name(f"{path.stem}.heldout{path.suffix}")
        if not path.is_file():
            return None, ""
    return read_rows(path), path.name


def _training(app: App, name: str) -> Any:
    """A context manager whose value takes a `Step`."""
    import sys
    import time
    from collections.abc import Callable, Iterator
    from contextlib import contextmanager

    from pv.cli.app import LINE_EVERY_S
    from pv.vecstore.train.loop import Step

    @contextmanager
    def show() -> Iterator[Callable[[Step], None] | None]:
        if app.quiet:
            yield None
        elif sys.stderr.isatty():
            from pv.cli.progress import training_bar

            with training_bar(f"training {name}") as update:
                yield lambda s: update(s.step, s.steps, s.loss, s.tokens_per_s, s.seconds_left)
        else:
            last = time.monotonic() - LINE_EVERY_S

            def line(s: Step) -> None:
                nonlocal last
                if time.monotonic() - last >= LINE_EVERY_S or s.step == s.steps:
                    last = time.monotonic()
                    app.note(
                        f"  training {name}: step {s.step}/{s.steps}, loss {s.loss:.3f}, "
                        f"{s.tokens_per_s:.0f} tokens/s, {s.seconds_left:.0f} s left"
                    )

            yield line

    return show()
