"""Where a vector came from and what was measured of it, in words: for the terminal, the model card and a notebook.

A measurement belongs to the vector that was measured: of a vector in another encoding, its own effect is given, or that
there is none; that of the vector before is said to be that one's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pv.registry.provenance import Captured, Derived, Extracted, Imported, Merged, Provenance, Trained
from pv.registry.provenance_ways import also, ways
from pv.registry.words import number
from pv.vecstore.publish.words import Quote, effect, last_part, share
from pv.vecstore.train.options import Extent

__all__ = [
    "NOTHING",
    "brief",
    "extent",
    "first",
    "lineage",
    "losses",
    "measured",
    "original",
    "others",
    "ran",
    "taught",
]

NOTHING = "not recorded"
MOST_VECTORS = 4
SETTINGS = ("optimizer", "lr", "batch", "seed")


def lineage(known: Provenance, quote: Quote = str) -> str:
    """One line: `trained on 66 rows of pirate.jsonl, 18 steps, 2 epochs, ...; kept as int8`."""
    match known:
        case Trained():
            return f"{taught(known, quote)}, {ran(known, quote)}" if ran(known) else taught(known, quote)
        case Captured(source=source, on=on):
            trained_on = f", trained on the build of {quote(on.commit[:12])}" if on else ""
            return f"captured from {quote(last_part(source))}{trained_on}"
        case Derived():
            return f"{lineage(known.original, quote)}; kept as {quote(known.encoding)}"
        case Merged(method=method, of=of):
            operands = f"{len(of)} operand{_s(len(of))}"
            vectors = ", ".join(quote(vector[:12]) for vector in known.vectors[:MOST_VECTORS])
            more = ", …" if len(known.vectors) > MOST_VECTORS else ""
            return (
                f"made by {quote(method)} of {operands} ({vectors}{more}){_what(known)}; its norm "
                f"{known.norm:.3g}, that of their sum {known.sum_norm:.3g}; kept as {quote(known.encoding)}"
            )
        case Extracted(pairs=pairs):
            return (
                f"extracted by {quote(known.method)} from {pairs.n} pair{_s(pairs.n)} of "
                f"{quote(last_part(pairs.data))}, read at {quote(known.read)}"
            )
        case Imported(format=form, source=source):
            return f"imported from {quote(last_part(source))} ({quote(form)})"
    if known.document.get("kind") in ("captured", "derived", "extracted", "imported", "merged", "trained"):
        return "where it comes from is noted in a form that this pv does not know"
    return NOTHING


def _what(made: Merged) -> str:
    """`: their sum, with ..., alpha 1 (arXiv:2602.05536)`; nothing for the method of a later pv."""
    from pv.vecstore.merge.derived import METHODS  # numpy, which looking does not need

    if made.method not in METHODS:
        return ""
    module = METHODS[made.method]
    settings = "".join(f", {name} {number(value)}" for name, value in made.settings.items())
    return f": {module.SUMMARY}{settings} ({module.SOURCE})"


def brief(known: Provenance, quote: Quote = str) -> str:
    """The same in a few words, where `lineage` is too long: `trained on pirate.jsonl`. Every way that there was."""
    return ", also ".join(dict.fromkeys(_brief(way, quote) for way in ways(known)))


def others(known: Provenance, quote: Quote = str) -> tuple[str, ...]:
    """Other ways in which the same vector came about: `also captured from run-2, as house`."""
    named: dict[str, str | None] = {}
    for way in also(known):
        named.setdefault(lineage(way.origin, quote), way.behaviour)
    return tuple(f"also {words}{f', as {quote(name)}' if name else ''}" for words, name in named.items())


def _brief(known: Provenance, quote: Quote) -> str:
    match known:
        case Trained(data=data):
            return f"trained on {quote(last_part(data.name))}"
        case Captured(source=source):
            return f"captured from {quote(last_part(source))}"
        case Derived(encoding=encoding, derived_from=source):
            return f"compressed to {quote(encoding)} from {source[:12]}"
        case Merged(method=method, of=of):
            return f"made by {quote(method)} of {len(of)} operand{_s(len(of))}"
        case Extracted(pairs=pairs):
            return f"extracted from {quote(last_part(pairs.data))}"
        case Imported(source=source):
            return f"imported from {quote(last_part(source))}"
    return "by other means"


def taught(trained: Trained, quote: Quote = str) -> str:
    """`trained on 32 of 67 rows of listening.jsonl`"""
    rows, run = trained.data.rows, extent(trained)
    seen = "" if run is None or run.rows_seen == rows else f"{run.rows_seen} of "
    on = f", on the build of {quote(trained.on.commit[:12])}" if trained.on else ""
    return (
        f"trained on {seen}{rows} row{'' if rows == 1 else 's'} of {quote(last_part(trained.data.name))}{on}"
    )


def ran(trained: Trained, quote: Quote = str) -> str:
    """`4 of 18 steps (--max-steps 4), 0.48 epochs, apollo, lr 0.0001, batch 8, seed 0`: what was run."""
    run, options = extent(trained), trained.options
    if run is not None:
        found = [_steps(run, options.get("max_steps")), f"{_number(run.epochs)} epoch{_s(run.epochs)}"]
    else:
        found = [f"{quote(_plain(options['epochs']))} epochs"] if "epochs" in options else []
    if "optimizer" in options:
        found.append(quote(str(options["optimizer"])))
    return ", ".join(found + [f"{k} {quote(_plain(options[k]))}" for k in SETTINGS[1:] if k in options])


def losses(trained: Trained) -> str:
    """`loss 4.913 at step 1, 2.261 at step 18`: each of one batch, before its update. Empty if it was not noted."""
    if trained.loss is None:
        return ""
    first, last = trained.loss
    steps = _count(trained.settings.get("steps"))
    if steps == 1:
        return f"loss {first:.3f} at step 1"
    return f"loss {first:.3f} at step 1, {last:.3f} at {f'step {steps}' if steps else 'the last'}"


def extent(trained: Trained) -> Extent | None:
    """How far the run got; None if that is not noted."""
    told = [trained.settings.get(key, trained.options.get(key)) for key in ("epochs", "batch", "steps")]
    epochs, batch, steps = map(_count, told)
    if not epochs or not batch or steps is None or trained.data.rows < 1:
        return None
    return Extent.of(trained.data.rows, epochs, batch, steps)


def measured(known: Provenance, quote: Quote = str) -> tuple[str, ...]:
    """The vector's own effect, alone at weight 1, and what to know of it; if one was measured, that one."""
    found: tuple[str, ...] = ()
    for way in ways(known):
        match way:
            case Trained(held_out=score) if told := effect(score or {}, quote):
                return told[0], *told[1]
            case Derived(measured=score):
                if effect(score or {}, quote):
                    return _in_this_encoding(way, quote)
                found = found or _in_this_encoding(way, quote)
    return found


def original(known: Derived, quote: Quote = str) -> tuple[str, ...]:
    """What was measured before the vector was re-encoded, and of which vector."""
    for way in ways(known.original):
        if isinstance(way, Trained) and (found := effect(way.held_out or {}, quote)):
            return f"{found[0]}, of {first(known)}, before compression", *found[1]
    return ()


def first(known: Derived) -> str:
    """The vector that training or capture gave. pv did not always note which it was."""
    return known.original_vector[:12] if known.original_vector else "the first vector"


def _in_this_encoding(known: Derived, quote: Quote) -> tuple[str, ...]:
    score: Mapping[str, Any] = known.measured or {}
    found = effect(score, quote)
    if found is None:
        if known.max_abs == 0:
            return (f"effect: that of {known.derived_from[:12]}, which has exactly these numbers",)
        return ("effect not measured in this encoding",)
    vectors = _count(score.get("vectors")) or 1
    together = f" of {vectors} vectors together" if vectors > 1 else ""
    try:
        kept = f"; {share(score['kept'])} of that before"
    except (LookupError, TypeError, ValueError):
        kept = ""
    return (f"in this encoding{together}: {found[0]}{kept}", *found[1])


def _steps(run: Extent, most: Any) -> str:
    if run.steps >= run.planned:
        return f"{run.steps} step{_s(run.steps)}"
    why = f"--max-steps {most}" if _count(most) == run.steps else "stopped"
    return f"{run.steps} of {run.planned} steps ({why})"


def _number(value: float) -> str:
    return f"{value:.2g}" if value < 1 else f"{round(value, 2):g}"


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _s(value: float) -> str:
    return "" if value == 1 else "s"


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
