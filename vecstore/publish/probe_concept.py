"""A probe of a concept as a picture and as a page: scree, effect by components, N95 by pairs, gains, and lengths."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pv.registry.words import size
from pv.vecstore.evaluate.statistics import Interval
from pv.vecstore.probe.concept import OF, Concept, Effects
from pv.vecstore.probe.gain import Gains
from pv.vecstore.probe.length import Length
from pv.vecstore.publish.figures import interval
from pv.vecstore.publish.html_page import Picture, Table, Verdict
from pv.vecstore.publish.html_page import page as page_of
from pv.vecstore.publish.steering_plot import need_matplotlib, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "BOUND",
    "GAIN_HEADER",
    "KIND_HEADER",
    "LAYER_HEADER",
    "LENGTH_HEADER",
    "STEP_HEADER",
    "beside_random",
    "gain_rows",
    "kinds_rows",
    "labels_words",
    "layer_rows",
    "length_rows",
    "page",
    "png",
    "share_words",
    "step_rows",
    "svg",
    "weights_words",
]

BOUND = "an upper bound, with these encodings: not the shortest that there is"
KINDS = ("int8", "ternary", "lowrank", "sparse")
MOST = 24  # components in a scree plot
LAYER_HEADER = (
    "layer",
    "N95",
    "above chance",
    "first component",
    "norm / activations'",
    "effect, choosing rows",
)
STEP_HEADER = ("components", "effect, nats", "of the mean difference's")
GAIN_HEADER = ("random directions drawn", "weights above", "by chance", "matrices above", "by chance")
KIND_HEADER = ("matrix", "role", "mean gain", "weights above", "of")
LENGTH_HEADER = (
    "encoding",
    "size",
    "of the vectors",
    "kept of the effect",
    "extra loss on text",
    "does the same",
)


def layer_rows(found: Concept) -> list[list[str]]:
    return [
        [
            f"{one.layer}{' *' if one.site == found.elbow.site else ''}", str(one.n95), str(one.kept),
            f"{one.first:.0%}", f"{one.relative:.3f}", "-" if one.tried is None else f"{one.tried:+.2f}",
        ]
        for one in found.layers
    ]  # fmt: skip


def step_rows(found: Concept) -> list[list[str]]:
    effects = found.effects
    if effects is None:
        return []
    rows = [[str(one.components), _nats(one.effect), share_words(one.share)] for one in effects.steps]
    rows.append(["the mean difference", _nats(effects.steered), "100 %"])
    if effects.random:
        least, most = min(effects.random), max(effects.random)
        rows.append([f"{len(effects.random)} random directions", f"{least:+.2f} to {most:+.2f}", "-"])
    rows.append([f"{found.b} itself", _nats(effects.whole), "-"])
    return rows


def gain_rows(found: Concept) -> list[list[str]]:
    names = {"even": "evenly", "activations": "as the activations"}
    shares = {} if found.gains is None else found.gains.shares
    return [
        [
            words, f"{one.lines:.1%}", f"{one.lines_null:.1%}, 95 % below {one.lines_high:.1%}",
            f"{one.matrices:.1%}", f"{one.matrices_null:.1%}, 95 % below {one.matrices_high:.1%}",
        ]
        for null, words in names.items()
        if (one := shares.get(null)) is not None
    ]  # fmt: skip


def kinds_rows(found: Concept, null: str = "activations") -> list[list[str]]:
    """By kind of matrix."""
    rows = []
    for kind in found.gains.kinds() if found.gains else ():
        some = [one for one in found.gains.matrices if one.kind == kind] if found.gains else []
        above, lines = sum(one.above[null] for one in some), sum(one.lines for one in some)
        mean = sum(one.gain for one in some) / len(some)
        rows.append([kind, some[0].role, f"{mean:.2f}", f"{above / lines:.1%}", f"{lines:,} rows or columns"])
    return rows


def length_rows(length: Length) -> list[list[str]]:
    """The smallest of each kind that does the same; if none does, the one that comes nearest. Then baselines."""
    rows = [["the vectors as they are", size(length.stored_bytes), "100 %", "100 %", "-", "yes"]]
    for kind in KINDS:
        some = [one for one in length.rungs if one.kind == kind]
        one = length.smallest(kind) or max(
            some, key=lambda one: one.kept.low if one.kept else 0, default=None
        )
        if one is not None:
            more = "-" if one.more_text is None else interval(*_ends(one.more_text), 3)
            rows.append([
                one.encoding, size(one.stored_bytes), f"{one.stored_bytes / max(1, length.stored_bytes):.1%}",
                share_words(one.kept), more, "yes" if one.holds else "no",
            ])  # fmt: skip
    for baseline in length.baselines:
        part = f"{baseline.bytes / max(1, length.stored_bytes):.2g}" if length.stored_bytes else "-"
        rows.append([baseline.name, size(int(baseline.bytes)), f"{100 * float(part):.2g} %",
                     share_words(baseline.kept), "-", "-"])  # fmt: skip
    return rows


def share_words(one: Interval | None) -> str:
    return "-" if one is None else f"{100 * one.mean:.0f} % [{100 * one.low:.0f}, {100 * one.high:.0f}]"


def beside_random(effects: Effects) -> str:
    """What being above so few random directions says."""
    n = len(effects.random)
    above = "above" if effects.steered.mean > max(effects.random, default=0.0) else "not above"
    return f"its effect is {above} those of all {n} random directions: with so few, no p below {effects.chance:.2g}"


def labels_words(found: Concept) -> tuple[str, str]:
    """What the mean difference is held against random signs for, and what came of it."""
    elbow = found.elbow
    p = f"p = {elbow.p:.3g} against random signs"
    if found.of == "change":
        said = "there is one" if elbow.labels_matter else "not surely there"
        return "a common shift", f"{said}, {p}; any change of the weights gives one"
    return "labels", f"they {'matter' if elbow.labels_matter else 'do not matter'}, {p}"


def weights_words(gains: Gains) -> str:
    """Of which weights the shares are."""
    total = max((one.weights for one in gains.shares.values()), default=0)
    return f"of {total:,} weights in {len(gains.matrices)} matrices of the layers, without embeddings and LM head"


def png(found: Concept) -> bytes:
    """Raises UsageError without matplotlib."""
    return _render(found, "png", dark=False)


def svg(found: Concept, *, dark: bool) -> bytes:
    """Raises UsageError without matplotlib."""
    return _render(found, "svg", dark=dark)


def page(found: Concept, command: str | None = None) -> str:
    """`command` measures the same again. Raises UsageError without matplotlib, which draws the picture."""
    elbow, effects = found.elbow, found.effects
    lines = [f"{elbow.pairs} differences at {elbow.site}; {OF[found.of]}."]
    if effects is not None and effects.share is not None:
        lines.append(
            f"Adding their mean to {found.a} gives {share_words(effects.share)} of {found.b}'s effect."
        )
    if effects is not None and effects.random:
        lines.append(f"Added, {beside_random(effects)}.")
    if found.length is not None and (best := found.length.smallest()) is not None:
        lines.append(f"Smallest that does the same: {best.encoding}, {size(best.stored_bytes)}; {BOUND}.")
    alt = "Four panels: the share of each component with the null's; effect by number of components; N95 by pairs; " \
        "size against what is kept of the effect"  # fmt: skip
    return page_of(
        f"Concept: {found.a}..{found.b}",
        f"How many directions it is, which weights read or write it, how few bytes hold it: {found.rows} held-out "
        f"rows of {found.data}, {found.pairs} rows of {found.source} for the directions.",
        verdict=Verdict(found.headline, tuple(lines), elbow.verdict != "none"),
        notes=found.notes,
        pictures=[Picture(svg(found, dark=False), svg(found, dark=True), alt)],
        tables=_tables(found),
        how=_how(found),
        command=command or f"pv probe concept {found.a}..{found.b} --of {found.of} --seed {found.seed}",
        footer=f"probe {found.probe}",
    )


def _tables(found: Concept) -> Iterator[Table]:
    yield Table("Layers", "* has the largest effect on the rows that chose, and is the one shown.", LAYER_HEADER,
                layer_rows(found))  # fmt: skip
    if found.effects is not None:
        yield Table("Effect by components", "The mean difference's part in the first components, added at every token.",
                    STEP_HEADER, step_rows(found))  # fmt: skip
    if found.gains is not None:
        yield Table("Weights that read or write it", "A row or column counts if its gain is above the 99th percentile "
                    f"of 200 random directions; {weights_words(found.gains)}.",
                    GAIN_HEADER, gain_rows(found))  # fmt: skip
        yield Table("By kind of matrix", "Against directions drawn as the activations.", KIND_HEADER,
                    kinds_rows(found), folded=True)  # fmt: skip
    if found.length is not None:
        yield Table("Length", f"Each kind at its smallest that keeps 95 %: {BOUND}.", LENGTH_HEADER,
                    length_rows(found.length))  # fmt: skip
        rows = [[one.encoding, size(one.stored_bytes), size(int(one.ideal_bytes)) if one.ideal_bytes else "-",
                 share_words(one.kept), "yes" if one.holds else "no"]
                for one in found.length.rungs]  # fmt: skip
        yield Table("Everything tried", "Ideal: with the positions of kept elements at their entropy.",
                    ("encoding", "size", "ideal", "kept", "does the same"), rows, folded=True)  # fmt: skip


def _how(found: Concept) -> Iterator[tuple[str, str]]:
    elbow = found.elbow
    yield "Differences", f"of each row's mean activation over its answer, not centred; {OF[found.of]}"
    yield "Above chance", "components whose share of what is left is above the 95th percentile of Horn's null (each " \
        "coordinate permuted by itself, with random signs)"  # fmt: skip
    term, said = labels_words(found)
    yield term.capitalize(), f"{said}; length of the mean difference {elbow.norm:.3g}"
    if elbow.same is not None:
        yield (
            "Within a label",
            f"{elbow.same.kept} components are above differences of texts with the same label",
        )
    yield (
        "N95",
        "fewest components with 95 % of the second moment; if it still grows with the pairs, there is no elbow",
    )
    yield (
        "Effect",
        f"change of the margin in nats, coefficient {found.coefficient:g}, 95 % bootstrap intervals",
    )
    if found.effects is not None and found.effects.random:
        yield "Random directions", f"{len(found.effects.random)}, of the mean difference's length, with the " \
            f"activations' covariance: with so few, no p below {found.effects.chance:.2g}"  # fmt: skip
    if found.gains is not None:
        yield "Gain", "d |W v|^2 / |W|_F^2: what reads and writes the direction, not what for; directions of the " \
            "layer before for what reads, not of the first; of the layer itself for what writes"  # fmt: skip
        if found.gains.left_out:
            yield "Left out of the gains", ", ".join(found.gains.left_out)
    if found.length is not None:
        yield "Length", BOUND


def _render(found: Concept, form: str, *, dark: bool) -> bytes:
    need_matplotlib()
    from matplotlib.figure import Figure

    with style(dark=dark):
        figure = Figure(figsize=(11, 7.4), layout="constrained")
        figure.suptitle(f"{found.a}..{found.b}: {found.elbow.site}", x=0.01, ha="left", weight="bold")
        axes = figure.subplots(2, 2)
        _scree(axes[0, 0], found)
        _effect(axes[0, 1], found)
        _growth(axes[1, 0], found)
        _length(axes[1, 1], found)
        out = io.BytesIO()
        metadata = {"Software": None} if form == "png" else {"Date": None}
        figure.savefig(out, format=form, dpi=150, metadata=metadata)
    return out.getvalue()


def _scree(axes: Axes, found: Concept) -> None:
    """On a scale by powers of ten, whose ticks are plain text."""
    shares = [100 * one for one in found.elbow.shares[:MOST]]
    limits = [100 * one for one in found.elbow.horn[:MOST]]
    floor = 0.5 * min(one for one in [*shares, *limits] if one > 1e-6)
    axes.fill_between(range(1, len(limits) + 1), [floor] * len(limits), limits, color="C1", alpha=0.25,
                      label="null, 95th percentile of what is left")  # fmt: skip
    axes.plot(range(1, len(shares) + 1), [max(one, floor) for one in shares], color="C0", marker="o",
              label="differences")  # fmt: skip
    axes.set_title(f"share of each component, %: {found.elbow.kept} above chance")
    axes.set_xlabel("component")
    axes.set_yscale("log")
    ticks = [one for one in (0.001, 0.01, 0.1, 1, 10, 100) if floor <= one]
    axes.set_yticks(ticks, [f"{one:g}" for one in ticks])
    axes.minorticks_off()
    axes.set_ylim(floor, 130)
    axes.legend(frameon=False)


def _effect(axes: Axes, found: Concept) -> None:
    axes.set_title("effect of the first N components, nats")
    if found.effects is None:
        _nothing(axes)
        return
    steps = found.effects.steps
    _bars(axes, [one.components for one in steps], [one.effect for one in steps], "steered")
    axes.axhline(
        found.effects.steered.mean, color="C0", linewidth=0.8, linestyle=(0, (4, 3)), label="whole mean"
    )
    axes.axhline(found.effects.whole.mean, color="C2", linewidth=0.8, linestyle=(0, (1, 2)), label=found.b)
    if found.effects.random:
        axes.axhspan(min(found.effects.random), max(found.effects.random), color="C1", alpha=0.25,
                     label="random directions")  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.set_xticks([one.components for one in steps], [str(one.components) for one in steps])
    axes.minorticks_off()
    axes.set_xlabel("components")
    axes.legend(frameon=False)


def _growth(axes: Axes, found: Concept) -> None:
    growth = found.elbow.growth
    x = [one.pairs for one in growth]
    axes.plot(x, [one.noise for one in growth], color="C1", marker="s", label="noise of the same size")
    axes.errorbar(
        x, [one.mean for one in growth],
        [[one.mean - one.low for one in growth], [one.high - one.mean for one in growth]],
        color="C0", marker="o", capsize=2.5, elinewidth=1, label="differences, least to most",
    )  # fmt: skip
    axes.set_title("N95 by number of pairs" + (": it still grows" if found.elbow.rises else ""))
    axes.set_xlabel("pairs")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)


def _length(axes: Axes, found: Concept) -> None:
    axes.set_title("kept of the effect, %, by size in bytes")
    if found.length is None:
        _nothing(axes)
        return
    for at, kind in enumerate(KINDS):
        some = [one for one in found.length.rungs if one.kind == kind and one.kept is not None]
        kept = [one.kept for one in some if one.kept is not None]
        if some:
            _bars(axes, [one.stored_bytes for one in some], kept, kind, at, 100)
    for baseline in found.length.baselines:
        if baseline.kept is not None:
            axes.plot(
                [baseline.bytes], [100 * baseline.kept.mean], marker="x", linestyle="none", color="grey"
            )
            axes.annotate(baseline.name, (baseline.bytes, 100 * baseline.kept.mean), fontsize=7)
    axes.axhline(95, linewidth=0.8, linestyle=(0, (4, 3)), color="grey")
    axes.set_xscale("log")
    ticks = [10.0**k for k in range(3, 10)]
    low, high = axes.get_xlim()
    axes.set_xticks(ticks, [size(int(one)) for one in ticks])
    axes.set_xlim(low, high)
    axes.minorticks_off()
    axes.legend(frameon=False)


def _bars(
    axes: Axes, x: Sequence[float], values: Sequence[Interval], label: str, at: int = 0, scale: float = 1
) -> None:
    ends: Any = [
        [scale * (one.mean - one.low) for one in values], [scale * (one.high - one.mean) for one in values]
    ]  # fmt: skip
    axes.errorbar(x, [scale * one.mean for one in values], ends, label=label, marker="osD^"[at], capsize=2.5,
                  elinewidth=1, color=f"C{at}" if at < 3 else "grey")  # fmt: skip


def _nothing(axes: Axes) -> None:
    axes.text(0.5, 0.5, "not measured", ha="center", va="center", transform=axes.transAxes)


def _ends(one: Interval) -> tuple[float, float, float]:
    return one.mean, one.low, one.high


def _nats(one: Interval) -> str:
    return interval(*_ends(one))
