"""A probe of neurons as text: the four claims, k50 by ranking, and the curve of delta x gradient."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pv.cli.app import short
from pv.cli.render import counted, table
from pv.cli.say import plain
from pv.cli.scores import nats
from pv.vecstore.publish.probe_neurons import METHOD_WORDS, claim_figure, half_words, scope_words

if TYPE_CHECKING:
    from pv.vecstore.evaluate.statistics import Interval
    from pv.vecstore.probe.neurons_found import Neurons, ScopeFound

__all__ = ["lines"]

NAMED = 8


def lines(found: Neurons) -> Iterator[str]:
    yield plain(
        f"neurons of {found.a}..{found.b} on {counted(found.n, 'row')} of {found.data}; probe {short(found.probe)}"
    )
    yield (
        f"margin at the deciding token, nats: A {nats(found.margin_a)}, B {nats(found.margin_b)}; "
        f"flipped: A {_share(found.flips_a)}, B {_share(found.flips_b)}"
    )
    yield ""
    yield table(
        ["ceiling: all patched to B's values", "neurons", "effect, nats", "flips"],
        [
            [scope_words(one), f"{one.size:,}", nats(one.ceiling.effect), _share(one.ceiling.flips)]
            for one in found.scopes
        ],
    )
    yield ""
    yield from _halves(found)
    yield ""
    for scope in found.scopes:
        yield from _curve(scope)
        yield ""
    yield from _directions(found)
    yield ""
    yield from _claims(found)
    yield from _named(found.scope("all"))


def _halves(found: Neurons) -> Iterator[str]:
    rows = []
    for curve in found.scopes[0].shared:
        cells = []
        for scope in found.scopes:
            own = [one.k50 for one in scope.by_row if one.method == curve.method]
            cells += [
                half_words(own[0]) if own else "",
                half_words(scope.curve(curve.method, shared=True).k50),
            ]
        rows.append([METHOD_WORDS[curve.method], *cells])
    header = [f"{one.name}{kind}" for one in found.scopes for kind in (", by row", ", shared")]
    yield table(["k50: neurons for half of the ceiling", *header], rows)
    yield (
        f"by row: each row has its own ranking; shared: one ranking, by {counted(found.chosen_on, 'row')}, on the "
        f"other {found.n - found.chosen_on}"
    )


def _curve(scope: ScopeFound) -> Iterator[str]:
    steps = {one.k: one for one in scope.iterative}
    rows = []
    for one in scope.curve("delta*grad").points:
        step = steps.get(one.k)
        rows.append([
            str(one.k),
            nats(one.margin),
            "-" if one.share is None else f"{100 * one.share.mean:.0f} %",
            _share(one.flips),
            "-" if one.linear is None else f"{one.linear.mean:.2f}",
            "-" if one.moved is None else f"{one.moved:.2f}",
            "-" if step is None else f"{step.margin.mean:+.2f}",
            "-" if step is None or step.moved is None else f"{step.moved:.2f}",
        ])  # fmt: skip
    step_by_step = ["step by step: margin", "moved"]
    header = [
        f"k, {scope_words(scope)}",
        "margin, nats",
        "of ceiling",
        "flips",
        "/ predicted",
        "moved",
        *step_by_step,
    ]
    yield table(header, rows)


def _directions(found: Neurons) -> Iterator[str]:
    rows = [
        [scope_words(scope), str(one.rank), f"{one.alpha:g}", _percent(one.share), _percent(one.plain),
         f"{100 * one.variance:.0f} %", _share(one.flips)]
        for scope in found.scopes
        for one in scope.directions
        if one.rank in (1, 2, 5, 10) or one == scope.directions[-1]
    ]  # fmt: skip
    yield table(["directions", "r", "alpha", "of ceiling", "at alpha 1", "of delta's square", "flips"], rows)


def _claims(found: Neurons) -> Iterator[str]:
    rows = [
        [claim.says, claim.scope, claim.verdict, claim_figure(claim)]
        for says in dict.fromkeys(one.says for one in found.claims)
        for claim in found.claims
        if claim.says == says
    ]
    yield table(["claim", "neurons", "verdict", "figure, 95 % interval"], rows)
    yield f"{counted(len(rows), 'comparison')}, not corrected for multiple testing; the best layer is not judged"


def _named(scope: ScopeFound) -> Iterator[str]:
    if scope.neurons:
        named = ", ".join(f"{one.layer}:{one.index}" for one in scope.neurons[:NAMED])
        yield f"first neurons of the shared ranking, LAYER:NEURON: {named}"
    for k, both, chance in scope.overlap:
        yield f"of its first {k}, {100 * both:.0f} % are in the other half's too; by chance {100 * chance:.1f} %"
    for one in scope.off_target:
        if one.k in (None, 50):
            what = METHOD_WORDS[one.what] + ("" if one.k is None else f", k {one.k}")
            yield f"KL(A || patched) at neutral prompts, nats, {what}: {nats(one.kl, 4)}"


def _share(one: Interval | float) -> str:
    """A mean of several draws has no interval."""
    if isinstance(one, float):
        return f"{100 * one:.0f} %"
    return f"{round(one.mean * one.n)} of {one.n}, {100 * one.low:.0f} to {100 * one.high:.0f} %"


def _percent(one: Interval | None) -> str:
    return "-" if one is None else f"{100 * one.mean:.0f} % [{100 * one.low:.0f}, {100 * one.high:.0f}]"
