"""pv init"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from pv.cli.app import App, json_option, pass_app, short, threads_option
from pv.cli.render import counted

__all__ = ["command"]


@click.command("init", short_help="Begin a registry on a base checkpoint.")
@click.option(
    "--base", "base", required=True, metavar="DIR_OR_HUB_ID", help="A checkpoint folder, or user/name."
)
@click.option("--reference", is_flag=True, help="Do not keep a copy of a local base: note where it is.")
@click.option(
    "--dtype",
    type=click.Choice(["base", "bf16", "fp16", "fp32"]),
    default="base",
    show_default=True,
    help="What builds are written in.",
)
@click.option(
    "--rounding",
    type=click.Choice(["stochastic", "nearest"]),
    default="stochastic",
    show_default=True,
    help="How builds round to half precision.",
)
@click.option("--seed", type=click.IntRange(0, (1 << 53) - 1), default=0, help="Seed of the rounding.")
@threads_option
@json_option
@pass_app
def command(
    app: App, base: str, reference: bool, dtype: str, rounding: str, seed: int, threads: int, as_json: bool
) -> None:
    """Begin a registry in this folder, on a base checkpoint.

    The base is hashed tensor by tensor: every vector is tied to exactly these bytes. A base that exists
    only as a folder is copied into the registry (compressed), so that it cannot get lost; --reference
    leaves it where it is. A base on a Hub is noted at its full commit.

    \b
    pv init --base ./SmolLM2-135M-Instruct
    pv init --base HuggingFaceTB/SmolLM2-135M-Instruct
    """
    from pv.registry.layout import FOLDER
    from pv.registry.persona import Output, Persona
    from pv.registry.registry import Registry
    from pv.vecstore.checkpoints.checkpoint import Checkpoint, side_files
    from pv.vecstore.vectors.base import base_manifest, pin

    with Registry.creating(app.path) as registry:  # `.pv` appears when all of it is there
        folder, origin = _found(app, base)
        pinned = origin["kind"] == "path" and not reference
        with Checkpoint(folder) as checkpoint:
            files = side_files(folder)
            with app.progress("hashing the base") as update:
                manifest = base_manifest(
                    checkpoint, origin, tuple(sorted(files)), pinned=pinned, threads=threads, progress=update
                )
            if pinned:
                with app.progress("keeping a copy of it") as update:
                    total = sum(row.nbytes for row in manifest.tensors.values())
                    pin(
                        checkpoint, manifest, registry.packs, threads=threads, progress=_adding(update, total)
                    )
        persona = Persona(manifest.id, output=Output(dtype, rounding, seed))
        name = Path(origin.get("path") or origin["repo"]).name
        commit = registry.start(persona, manifest, files, f"Begin on {name}", command=app.command_line)
    root = app.path / FOLDER
    if as_json:
        app.json(
            {
                "registry": str(root),
                "base": manifest.id,
                "commit": commit,
                "tensors": len(manifest.tensors),
            }
        )
    else:
        app.done(
            f"a registry in {root} on base {short(manifest.id)} ({counted(len(manifest.tensors), 'tensor')})"
        )
        app.note("  next: pv train ROWS.jsonl --as NAME")


def _found(app: App, base: str) -> tuple[Path, dict[str, str]]:
    """Where the base's files are, and where they come from."""
    from pv.vecstore.checkpoints.hub import fetch, is_hub_id, pin_revision

    folder = app.file(base)
    if folder.exists() or not is_hub_id(base):
        return folder, {"kind": "path", "path": str(folder)}
    repo, revision = pin_revision(base)
    app.note(f"fetching {repo} at {short(revision)}")
    return fetch(repo, revision), {"kind": "hub", "repo": repo, "revision": revision}


def _adding(update: Callable[[int, int], None], total: int) -> Callable[[int], None]:
    """A function that is given how much was done since the last time."""
    done = 0

    def add(count: int) -> None:
        nonlocal done
        done += count
        update(done, total)

    return add
