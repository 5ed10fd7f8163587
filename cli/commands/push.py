"""pv push"""

from __future__ import annotations

import click

from pv.cli.app import App, json_option, pass_app, short, threads_option
from pv.cli.render import persona_line, size
from pv.cli.say import echo
from pv.registry.errors import UsageError

__all__ = ["command"]


@click.command("push", short_help="Build, and publish to a Hub repository.")
@click.argument("what", nargs=-1, required=True, metavar="[REV] hf://USER/NAME")
@click.option("-m", "--message", help="The Hub commit's message.")
@click.option("--private", is_flag=True, help="Make a new repository private.")
@click.option("--parent", metavar="SHA", help="Refuse unless the Hub branch is still at this commit.")
@click.option("--force", is_flag=True, help="Go over commits, or a model, that pv did not push.")
@click.option("--endpoint", metavar="URL", help="Another Hub; HF_ENDPOINT by default.")
@click.option("-n", "--dry-run", is_flag=True, help="Build and write the card, send nothing.")
@threads_option
@json_option
@pass_app
def command(
    app: App,
    what: tuple[str, ...],
    message: str | None,
    private: bool,
    parent: str | None,
    force: bool,
    endpoint: str | None,
    dry_run: bool,
    threads: int,
    as_json: bool,
) -> None:
    """Build a revision and publish it: weights, config, tokenizer, persona.json and a model card.

    It is one commit on the Hub: readers see the old model or the new one. The card carries the recipe in
    words, the ids, and the scores that `pv eval` measured on exactly this build.

    \b
    pv push hf://me/my-persona
    pv push v1 hf://me/my-persona -m "First release"
    """
    from pv.registry.remote.push import parse_target, push_folder
    from pv.vecstore.merge.build import build
    from pv.vecstore.publish.card import CardFacts, model_card
    from pv.vecstore.repo.opening import opened, record_build

    if len(what) > 2:
        raise UsageError("push takes a revision and an address", hint="pv push [REV] hf://USER/NAME")
    rev, address = ("HEAD", what[0]) if len(what) == 1 else what
    target = parse_target(address)
    registry = app.registry()
    commit = registry.resolve(rev)
    persona = registry.persona(commit)
    with registry.packs.scratch("push") as tmp:
        folder = tmp / "model"
        with opened(registry, commit, [persona]) as at, app.progress("building") as update:
            made = build(
                persona,
                at.base,
                at.vectors,
                folder,
                side_files=registry.base_files(commit),
                threads=threads,
                progress=update,
            )
            base = at.base.manifest
        record_build(registry, made)
        facts = CardFacts(
            persona=persona,
            base=base,
            build_id=made.build,
            weights_id=made.weights,
            provenance={vector: registry.provenance(commit, vector) for vector in persona.vectors},
            scores=list(registry.record(made.build).get("scores", {}).values()),
            sums=made.files,
            repo=target.repo,
        )
        (folder / "README.md").write_text(model_card(facts), encoding="utf-8")
        if dry_run:
            card = (folder / "README.md").read_text(encoding="utf-8")
            if as_json:
                sizes = {file.name: file.stat().st_size for file in sorted(folder.iterdir())}
                app.json({"commit": commit, "build": made.build, "files": sizes, "card": card})
            else:
                echo(card)
            return
        with app.progress("sending") as update:
            pushed = push_folder(
                folder,
                target,
                message=message or f"{persona_line(persona)} (pv {short(commit)})",
                endpoint=endpoint,
                parent_commit=parent,
                private=private,
                force=force,
                progress=lambda path, done, total: update(done, total),
            )
    if as_json:
        app.json(
            {
                "commit": commit,
                "build": made.build,
                "weights": made.weights,
                "hub_commit": pushed.commit,
                "url": pushed.url,
                "uploaded": list(pushed.uploaded),
                "skipped": list(pushed.skipped),
                "deleted": list(pushed.deleted),
                "uploaded_bytes": pushed.uploaded_bytes,
            }
        )
        return
    if pushed.changed:
        app.done(f"pushed {persona_line(persona)} to {pushed.url} ({size(pushed.uploaded_bytes)} sent)")
    else:
        app.done(f"{pushed.url} holds exactly this already")
    for note in pushed.notes:
        app.note(f"  the Hub remarks: {note}")
