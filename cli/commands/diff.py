"""pv diff"""

from __future__ import annotations

import click

from pv.cli.app import App, json_option, pass_app, short
from pv.cli.render import behaviour_line, table
from pv.registry.persona import Persona

__all__ = ["command"]


@click.command("diff", short_help="What moved between two revisions.")
@click.argument("a", default="HEAD~1")
@click.argument("b", default="HEAD")
@click.option("--recipe", is_flag=True, help="Only the recipes: read no weights.")
@click.option("--exit-code", is_flag=True, help="Exit 1 if they differ.")
@json_option
@pass_app
def command(app: App, a: str, b: str, recipe: bool, exit_code: bool, as_json: bool) -> None:
    """Compare two revisions: their recipes, which layers and modules moved and how far, and how the
    behaviours of both lie to each other.

    Step is the norm of the difference in weights, relative is that over the norm of the base's weights.
    Cosine is 0 and sign agreement 50 % for unrelated behaviours.

    \b
    pv diff                    what the last commit did
    pv diff main terse
    pv diff v1 v2 --recipe
    """
    registry = app.registry()
    ids = registry.resolve(a), registry.resolve(b)
    old, new = registry.persona(ids[0]), registry.persona(ids[1])
    document: dict[str, object] = {"a": ids[0], "b": ids[1], "same": old == new}
    lines = _recipe(old, new)
    document["recipe"] = {"a": old.to_json(), "b": new.to_json()}
    if old.base != new.base:
        lines.append(f"the bases differ: {short(old.base)} and {short(new.base)}; weights cannot be compared")
    elif not recipe and (old.behaviours or new.behaviours):
        more, measured = _weights(app, ids[1], old, new, a)
        lines += more
        document |= measured
    if as_json:
        app.json(document)
    else:
        app.page("\n".join(lines) if lines else "no difference")
    if exit_code and old != new:
        raise click.exceptions.Exit(1)


def _recipe(old: Persona, new: Persona) -> list[str]:
    lines = []
    for name in sorted(old.behaviours.keys() | new.behaviours.keys()):
        before, after = old.behaviours.get(name), new.behaviours.get(name)
        if before == after:
            continue
        if before is not None:
            lines.append(click.style(f"- {behaviour_line(name, before)}", fg="red"))
        if after is not None:
            lines.append(click.style(f"+ {behaviour_line(name, after)}", fg="green"))
    fields = [(f, getattr(old, f), getattr(new, f)) for f in ("combine", "output")]
    return lines + [f"~ {f}: {a.to_json()} to {b.to_json()}" for f, a, b in fields if a != b]


def _weights(
    app: App, commit: str, old: Persona, new: Persona, a: str
) -> tuple[list[str], dict[str, object]]:
    from pv.vecstore.merge.diff import Change, diff, interference
    from pv.vecstore.repo.opening import opened

    gone = {n: b for n, b in old.behaviours.items() if new.behaviours.get(n) != b}
    together = {**{f"{name} ({a})": b for name, b in gone.items()}, **new.behaviours}
    with opened(app.registry(), commit, [old, new]) as at:
        with app.progress("comparing weights", "tensors") as update:
            moved = diff(old, new, at.base, at.vectors, progress=update)
        with app.progress("comparing behaviours", "tensors") as update:
            pairs = (
                interference(together, at.vectors, base_id=new.base, progress=update)
                if len(together) > 1
                else ()
            )

    def row(change: Change) -> list[str]:
        share = 100 * change.changed / change.elements if change.elements else 0
        return [change.where, f"{change.norm:.4f}", f"{100 * change.relative:.3f} %", f"{share:.1f} %"]

    header = ["where", "step", "relative", "elements moved"]
    lines = [""]
    if moved:
        lines += [table(header, [row(c) for c in (*moved.by_layer(), moved.total)], title="by layer"), ""]
        lines += [table(header, [row(c) for c in moved.by_module()], title="by module"), ""]
    else:
        lines += ["no weight differs", ""]
    if pairs:
        rows = [
            [
                f"{p.a} · {p.b}",
                f"{p.cosine:+.3f}",
                f"{100 * p.sign_agreement:.1f} %",
                f"{p.norm_a:.3f}",
                f"{p.norm_b:.3f}",
            ]
            for p in pairs
        ]
        lines.append(
            table(["behaviours", "cosine", "same sign", "norm 1st", "norm 2nd"], rows, title="interference")
        )
    document: dict[str, object] = {
        "total": _change(moved.total),
        "layers": [_change(c) for c in moved.by_layer()],
        "modules": [_change(c) for c in moved.by_module()],
        "interference": [
            {
                "a": p.a,
                "b": p.b,
                "cosine": p.cosine,
                "sign_agreement": p.sign_agreement,
                "overlap": p.overlap,
                "norm_a": p.norm_a,
                "norm_b": p.norm_b,
            }
            for p in pairs
        ],
    }
    return lines, document


def _change(change: object) -> dict[str, object]:
    from pv.vecstore.merge.diff import Change

    assert isinstance(change, Change)
    return {
        "where": change.where,
        "elements": change.elements,
        "changed": change.changed,
        "step": change.norm,
        "relative": change.relative,
        "largest": change.largest,
    }
