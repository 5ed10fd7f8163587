"""pv commit"""

from __future__ import annotations

from typing import Any

import click

from pv.cli.app import App, json_option, pass_app, short, threads_option, weight_option
from pv.cli.render import counted, size

__all__ = ["command"]


@click.command("commit", short_help="Commit a fine-tuned checkpoint or an adapter as a behaviour.")
@click.argument("checkpoint", metavar="CHECKPOINT")
@click.option(
    "--as", "name", required=True, metavar="NAME", help="The behaviour's name; known: its next version."
)
@weight_option
@click.option("-m", "--message", help="The commit's message.")
@click.option(
    "--level",
    type=click.Choice(["default", "max"]),
    default="default",
    show_default=True,
    help="max: a tenth smaller, some twenty times slower.",
)
@threads_option
@json_option
@pass_app
def command(
    app: App,
    checkpoint: str,
    name: str,
    weight: float | None,
    message: str | None,
    level: str,
    threads: int,
    as_json: bool,
) -> None:
    """Keep a checkpoint that was fine-tuned from this base, bit for bit, as a behaviour.

    CHECKPOINT is a folder of safetensors (one file or shards), whatever trained it. What is kept is its
    difference to the base; frozen tensors cost nothing. The folder of a PEFT adapter is taken too: the
    factors of LoRA and rsLoRA as they are, what DoRA does as a difference.

    \b
    pv commit ./my-sft-run --as helpful -m "SFT on 500 rows"
    pv commit ./my-lora --as brief
    """
    from pv.registry.errors import UsageError
    from pv.registry.persona import Behaviour, Persona, Term, check_name
    from pv.vecstore.checkpoints.checkpoint import Checkpoint
    from pv.vecstore.checkpoints.hub import fetch
    from pv.vecstore.vectors.adapters.capture import capture_adapter
    from pv.vecstore.vectors.adapters.file import is_adapter
    from pv.vecstore.vectors.base import open_base
    from pv.vecstore.vectors.vector import capture

    check_name(name)
    registry = app.registry()
    head = registry.resolve("HEAD")
    path = app.file(checkpoint)
    known = registry.persona(head).behaviours.get(name)
    lost = (
        {term.vector for term in known.terms if not registry.packs.is_whole(term.vector)} if known else set()
    )
    strange: list[str] = []
    provenance: dict[str, Any] = {"kind": "captured", "source": path.name}
    hold = click.get_current_context().with_resource
    hold(registry.writing())  # gc waits until a commit names the pack
    with open_base(registry.base(head), registry.packs, fetch=fetch) as base:
        if is_adapter(path):
            with app.progress("capturing") as update:
                manifest, provenance["adapter"] = capture_adapter(
                    path, base, registry.packs, threads=threads, progress=update
                )
        else:
            with Checkpoint(path) as opened, app.progress("capturing") as update:
                manifest = capture(
                    opened,
                    base,
                    registry.packs,
                    smallest=level == "max",
                    strange=strange.append,
                    threads=threads,
                    progress=update,
                )
    if strange:
        more = f" and {len(strange) - 1} more tensors" if len(strange) > 1 else ""
        app.note(f"  {strange[0]}{more}: not all numbers are finite. It is kept, but no build can hold them")
    for note in provenance.get("adapter", {}).get("notes", ()):
        app.note(f"  {note}")

    terms = (Term(1.0, manifest.id),)

    def edit(persona: Persona) -> Persona:
        known = persona.behaviours.get(name)
        kept = known or Behaviour(1.0, ())
        behaviour = Behaviour(kept.weight if weight is None else weight, terms, kept.modules)
        return persona.with_behaviour(name, behaviour)

    now = registry.persona(head)
    if edit(now) == now and manifest.id in lost:
        if as_json:
            app.json({"commit": head, "vector": manifest.id, "put_back": True})
        else:
            app.done(f"put back: the pack of {name}, vector {short(manifest.id)}; nothing else has changed")
        return
    if edit(now) == now:
        raise UsageError(f"nothing changed: {name} is vector {short(manifest.id)} already")
    commit = registry.change(
        app.command_line, message or f"Commit {name}", edit, vectors={manifest.id: (manifest, provenance)}
    )
    stored = registry.packs.size(manifest.id)
    if as_json:
        app.json(
            {
                "commit": commit,
                "vector": manifest.id,
                "tensors": len(manifest.tensors),
                "stored_bytes": stored,
            }
        )
    else:
        tensors = counted(len(manifest.tensors), "tensor")
        app.done(f"{short(commit)} {name} is vector {short(manifest.id)}: {tensors}, {size(stored)}")
