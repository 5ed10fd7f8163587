"""A diff as text: tables by layer, module and class, and the short form of --stat."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import click

from pv.cli.render import change_lines, columns, counted, interval, table
from pv.cli.terminal import cells
from pv.registry.dtypes import DTYPES
from pv.vecstore.publish.figures import last_part

if TYPE_CHECKING:
    from pv.vecstore.merge.diff import Movement, WeightDiff
    from pv.vecstore.merge.heads import Head
    from pv.vecstore.merge.interference import Pair
    from pv.vecstore.merge.spectrum import Spectrum
    from pv.vecstore.publish.words import Effect
    from pv.vecstore.repo.diff import Diff
    from pv.vecstore.repo.diff_checkpoints import CheckpointDiff

__all__ = ["checkpoint_lines", "diff_lines", "matrix", "stat_lines"]

ALIKE = 0.1  # cosines that are worth a line of their own
MOST = 5
APART = 10  # lines of what could not be compared
BAR = 40


def diff_lines(found: Diff, *, top: int | None = None) -> list[str]:
    """Two revisions: the recipes, and the weights if they were compared."""
    lines = change_lines(found.changes)
    if found.old.base != found.new.base:
        lines.append("the bases differ: weights cannot be compared")
    lines += _measured(found)
    if found.weights is None:
        return lines
    if not found.weights:
        return [*lines, "", "no weight differs", *matrix(found.pairs)]
    header = ["where", "norm of change", "relative", "changed, before rounding"]
    lines += ["", *_tables(found.weights, header, top)]
    return [*lines, *_heads(found.heads), *_spectra(found.spectra), *matrix(found.pairs)]


def _measured(found: Diff) -> list[str]:
    """Effect and damage of both, where they were measured: on the same rows in one line."""
    sides: list[dict[str, Effect]] = [{one.data: one for one in side} for side in found.effects]
    if not any(sides):
        return []
    rows = []
    for data in sorted(sides[0].keys() | sides[1].keys()):
        both = [side.get(data) for side in sides]
        figures = [interval(one.mean, one.low, one.high) if one else "not measured" for one in both]
        damages = [one.damage.brief().removeprefix("damage ") if one and one.damage else "-" for one in both]
        rows.append([last_part(data), *figures, *damages])
    header = ["held-out rows", "effect of a", "effect of b", "damage of a", "damage of b"]
    title = (
        "effect in nats, 95 % interval; damage in nats a token, plain answers after token 16 and plain text"
    )
    return ["", table(header, rows, title=title)]


def checkpoint_lines(found: CheckpointDiff, *, top: int | None = None) -> list[str]:
    """Two checkpoints: what was compared, and what could not be."""
    lines = [f"a  {found.a}", f"b  {found.b}", *_dtypes(found)]
    lines += _listed("not compared, or not wholly", [str(one) for one in found.apart])
    lines += _listed("not finite", [str(one) for one in found.strange])
    lines += _listed("beside the weights", [f"{one.name} {one.what}" for one in found.files])
    if not found.sums.changed:
        return [*lines, "", _none(found)]
    header = ["where", "norm of change", "relative to a", "changed"]
    lines += ["", *_tables(found.weights, header, top, classes=True)]
    lines += [*_heads(found.heads), *_spectra(found.spectra), "", *_whole(found)]
    return lines


def stat_lines(found: Diff | CheckpointDiff) -> list[str]:
    """As `git diff --stat`: a bar for each layer, and a line about all."""
    moved = found.weights
    rest = _rest(found)
    if moved is None or not moved.total.changed:
        return [_none(found), *rest]
    rows = [one for one in moved.by_layer() if one.changed]
    most = max(one.relative for one in rows) or 1.0
    name = max(cells(one.where) for one in rows)
    shares = [f"{100 * one.relative:.3f} %" for one in rows]
    wide = max(map(len, shares))
    room = max(1, min(BAR, columns() - name - wide - 6))
    lines = [
        f" {one.where}{' ' * (name - cells(one.where))} | {share:>{wide}} "
        + click.style("+" * max(1, round(room * one.relative / most)), fg="green")
        for one, share in zip(rows, shares, strict=True)
    ]
    whole = moved.total
    tensors = sum(1 for one in moved.tensors if one.changed)
    lines.append(
        f" {counted(tensors, 'tensor')} changed, {whole.changed:,} of {whole.elements:,} elements; norm of change "
        f"{whole.norm:.4f}, {100 * whole.relative:.3f} % of that of the weights"
    )
    return lines + rest


def _none(found: Diff | CheckpointDiff) -> str:
    left = getattr(found, "apart", ()) or getattr(found, "strange", ())
    if left and found.weights is not None and not found.weights.total.elements:
        return "no weight was compared"
    return "no weight that was compared differs" if left else "no weight differs"


def _rest(found: Diff | CheckpointDiff) -> list[str]:
    """What a line about weights does not say, in numbers."""
    counts = [
        (len(getattr(found, "apart", ())), "not compared, or not wholly"),
        (len(getattr(found, "strange", ())), "not finite"),
        (getattr(found, "converted", 0), "of another dtype"),
    ]
    return [f" {counted(count, 'tensor')} {what}" for count, what in counts if count]


def _tables(
    moved: WeightDiff, header: Sequence[str], top: int | None, *, classes: bool = False
) -> Iterator[str]:
    yield table(header, [_row(one) for one in (*moved.by_layer(), moved.total)], title="by layer")
    yield ""
    yield table(header, [_row(one) for one in moved.by_module()], title="by module")
    if classes:
        yield ""
        yield table(header, [_row(one) for one in moved.by_class()], title="by class of module")
    if top:
        yield ""
        yield table(
            header, [_row(one) for one in moved.largest(top)], title="the tensors that moved furthest"
        )


def _row(one: Movement) -> list[str]:
    share = 100 * one.changed / one.elements if one.elements else 0
    return [one.where, f"{one.norm:.4f}", f"{100 * one.relative:.3f} %", f"{share:.1f} %"]


def _dtypes(found: CheckpointDiff) -> list[str]:
    if not found.converted:
        return []
    kinds: dict[str, list[str]] = {"values were compared in fp32": [], "bytes were compared": []}
    for (a, b), n in found.dtypes.items():
        if a != b:
            floats = all(name in DTYPES and DTYPES[name].is_float for name in (a, b))
            kinds["values were compared in fp32" if floats else "bytes were compared"].append(
                f"{counted(n, 'tensor')} {a} in a, {b} in b"
            )
    return [f"dtypes differ, {how}: {'; '.join(which)}" for how, which in kinds.items() if which]


def _listed(title: str, lines: Sequence[str]) -> list[str]:
    if not lines:
        return []
    more = [f"  and {len(lines) - APART} more: --json has them all"] if len(lines) > APART else []
    return ["", f"{title}:", *(f"  {line}" for line in lines[:APART]), *more]


def _whole(found: CheckpointDiff) -> list[str]:
    sums, norms = found.sums, (found.sums.a2**0.5, found.sums.b2**0.5)
    return [
        f"{sums.changed:,} of {sums.elements:,} elements differ; norm of change {sums.step2**0.5:.4f}, norms of a "
        f"and b {norms[0]:.4f} and {norms[1]:.4f}, cosine of their weights {sums.cosine:.6f}",
        "norms are L2, of fp32 values and differences",
    ]


def _heads(heads: Sequence[Head]) -> list[str]:
    moved = sorted((one for one in heads if one.moved.changed), key=lambda one: -one.moved.norm)
    if not moved:
        return []
    rows = [
        [one.where, f"{one.moved.norm:.4f}", f"{100 * one.moved.relative:.3f} %"] for one in moved[: 2 * MOST]
    ]
    title = f"the heads that moved furthest, of {len(heads)}"
    return ["", table(["head", "norm of change", "relative"], rows, title=title)]


def _spectra(spectra: Sequence[Spectrum]) -> list[str]:
    if not spectra:
        return []
    rows = [
        [
            one.where.removesuffix(".weight"), f"{one.norm2**0.5:.4f}", f"{one.values[0]:.4f}",
            f"{one.stable_rank:.1f}", f"{100 * one.energy:.1f} %", "exact" if one.exact else "approximate",
        ]
        for one in sorted(spectra, key=lambda one: -one.norm2)[: 4 * MOST]
    ]  # fmt: skip
    header = ["tensor", "norm", "largest", "stable rank", "energy", ""]
    first = max(len(one.values) for one in spectra)
    title = (
        f"spectra of the change, {len(rows)} of {len(spectra)} tensors: the largest singular value, the stable rank, "
        f"and the share of the squares that the first {first} have"
    )
    return ["", title, table(header, rows)]


def matrix(pairs: Iterable[Pair]) -> list[str]:
    """The cosine of every two behaviours, and what the most alike of them do to each other."""
    pairs = list(pairs)
    if not pairs:
        return []
    names = sorted({name for pair in pairs for name in (pair.a, pair.b)})
    norms = {name: norm for pair in pairs for name, norm in ((pair.a, pair.norm_a), (pair.b, pair.norm_b))}
    cosines = {frozenset((pair.a, pair.b)): pair.cosine for pair in pairs}
    rows = []
    for at, name in enumerate(names):
        below = [f"{cosines[frozenset((name, other))]:+.3f}" for other in names[:at]]
        rows.append([str(at + 1), name, f"{norms[name]:.3f}", *below, *[""] * (len(names) - 1 - at)])
    header = ["", "behaviour", "norm", *map(str, range(1, len(names)))]
    lines = ["", table(header, rows, title="cosine similarity of behaviours, each at its weight")]
    alike = sorted((p for p in pairs if abs(p.cosine) >= ALIKE), key=lambda p: -abs(p.cosine))[:MOST]
    lines += [
        f"{p.a} and {p.b}: cosine {p.cosine:+.3f}, same sign in {100 * p.sign_agreement:.1f} % of the weights "
        "that both change" for p in alike
    ]  # fmt: skip
    return lines
