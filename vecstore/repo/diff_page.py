"""A diff as a page: one HTML file with everything in it, for light and dark screens.

Nothing is fetched, nothing runs. Every text is escaped.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pv.registry.disk import durable
from pv.registry.errors import StorageError, UsageError
from pv.registry.words import change_line
from pv.vecstore.merge.diff import Movement, WeightDiff, place
from pv.vecstore.merge.module_class import CLASSES, module_class

if TYPE_CHECKING:
    from pv.vecstore.merge.heads import Head
    from pv.vecstore.merge.interference import Pair
    from pv.vecstore.merge.spectrum import Spectrum
    from pv.vecstore.repo.diff import Diff
    from pv.vecstore.repo.diff_checkpoints import CheckpointDiff

__all__ = ["check_page", "fragment", "page", "write_page"]

Names = tuple[str, str] | None
MARK = "<!doctype html>\n<!-- a page of pv diff -->\n"
META = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
OUTSIDE = "outside the layers"
STYLE = """
:root { color-scheme: light dark; --ink: #1d2128; --soft: #5d6673; --paper: #fff; --line: #d9dee5; --heat: 235 110 40 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e7eaef; --soft: #98a2b0; --paper: #14171c; --line: #333a45; --heat: 196 78 20 } }
body { margin: 2rem auto; max-width: 76rem; padding: 0 1rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif }
h1 { font-size: 1.35rem; margin: 0 0 .2rem; overflow-wrap: anywhere } h2 { font-size: 1.05rem; margin: 2rem 0 .5rem }
p, li { color: var(--soft); margin: .2rem 0; overflow-wrap: anywhere }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .85rem }
th, td { padding: .22rem .6rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap }
th { color: var(--soft); font-weight: 500 } th:first-child, td:first-child { text-align: left }
.map { border-collapse: separate; border-spacing: 2px } .map td, .map th { border: 0; padding: .15rem .45rem }
.map td { background: rgb(var(--heat) / var(--v)); border-radius: 3px; text-align: center; min-width: 3.2rem }
.map td.none { background: none; color: var(--soft) }
.wide th:first-child, .wide td:first-child { position: sticky; left: 0; background: var(--paper) }
.maps { display: flex; flex-wrap: wrap; gap: 0 2rem; align-items: flex-start } .maps > * { max-width: 100% }
.track { display: inline-block; width: 8em; text-align: left; vertical-align: middle; line-height: 0 }
.bar { display: inline-block; height: .7em; background: rgb(var(--heat) / .75); border-radius: 2px }
"""


def write_page(found: Diff | CheckpointDiff, file: Path, *, names: Names = None, top: int = 20) -> None:
    """The page as a file, whole or not at all; `names` are what the two were called, beside their ids.

    Raises UsageError as `check_page` does, StorageError.
    """
    check_page(file)
    try:
        durable.write_file(file, page(found, names=names, top=top).encode())
    except OSError as error:
        raise StorageError(f"cannot write {file}: {error.strerror}", hint="name another file") from error


def check_page(file: Path) -> None:
    """Whether a page may be written there: before work is done for it. Only a page is replaced. Raises UsageError."""
    if not file.parent.is_dir():
        raise UsageError(f"no folder {file.parent}", hint="make it, or name another file with --html")
    if file.is_dir():
        raise UsageError(f"{file} is a folder", hint=f"name a file in it: --html {file / 'diff.html'}")
    if file.exists():
        try:
            with file.open("rb") as there:
                ours = there.read(len(MARK)) == MARK.encode()
        except OSError:
            ours = False
        if not ours:
            raise UsageError(
                f"{file} exists, and is no page of pv diff", hint="name another file with --html"
            )


def page(found: Diff | CheckpointDiff, *, names: Names = None, top: int = 20) -> str:
    """The whole document."""
    title = f"pv diff {_side(found.a, names and names[0])} {_side(found.b, names and names[1])}"
    head = f"{META}<title>{escape(title)}</title><style>{STYLE}</style>"
    body = fragment(found, names=names, top=top)
    return f'{MARK}<html lang="en"><head>{head}</head><body>{body}</body></html>\n'


def fragment(found: Diff | CheckpointDiff, *, names: Names = None, top: int = 20) -> str:
    """What is in the body."""
    from pv.vecstore.repo.diff import Diff

    ends = _side(found.a, names and names[0]), _side(found.b, names and names[1])
    parts = [f"<h1>{' → '.join(map(escape, ends))}</h1>"]
    if isinstance(found, Diff):
        parts += _list("Recipe", map(change_line, found.changes))
        whose = "the base's weights"
    else:
        parts += _list("", found.notes)
        whose = "a's weights"
    if found.weights is None:
        return "".join([*parts, "<p>weights were not compared</p>"])
    parts += _weights(found.weights, whose, top)
    parts += [*_head_maps(found.heads, whose), *_spectra(found.spectra)]
    if isinstance(found, Diff):
        parts += _pairs(found.pairs)
    else:
        parts += _list("Not compared, or not wholly", map(str, found.apart))
        parts += _list("Not finite", map(str, found.strange))
        parts += _list("Files beside the weights", (f"{one.name} {one.what}" for one in found.files))
    return "".join(parts)


def _weights(moved: WeightDiff, whose: str, top: int) -> Iterator[str]:
    whole = moved.total
    share = _share(whole.changed, whole.elements)
    yield (
        f"<p>{whole.changed:,} of {whole.elements:,} elements ({share}) differ in fp32. "
        f"The norm of the change is {_size(whole.norm)}, {_percent(whole.relative)} of that of {whose}; "
        f"the largest change of one element is {_size(whole.largest)}.</p>"
    )
    if not whole.changed:
        return
    yield (
        f"<h2>Layer by module</h2><p>Norm of the change over the norm of {whose} there, in percent. The colour is of "
        "its square root, up to the largest.</p>"
    )
    yield _map(moved)
    header = ("class", "norm of change", "relative", "share of the squared change", "changed")
    yield f"<h2>By class of module</h2>{_table(header, (_row(one, whole) for one in moved.by_class()))}"
    largest = moved.largest(top)
    yield f"<h2>The {len(largest)} tensors that moved furthest</h2>"
    yield _table(("tensor", *header[1:]), (_row(one, whole) for one in largest))


def _row(one: Movement, whole: Movement) -> tuple[str, ...]:
    share = one.step2 / whole.step2 if whole.step2 else 0.0
    bar = f'<span class="bar" style="width:{100 * share:.1f}%"></span>'
    bar = f'<span class="track">{bar}</span> {100 * share:.1f} %'
    return (
        escape(one.where), _size(one.norm), _percent(one.relative), bar, _share(one.changed, one.elements),
    )  # fmt: skip


def _map(moved: WeightDiff) -> str:
    cells = moved.cells()
    modules = sorted(
        {module for layer, module in cells if layer is not None},
        key=lambda module: (CLASSES.index(module_class(f"layers.0.{module}")), module),
    )
    layers = sorted({layer for layer, _ in cells if layer is not None})
    most = max((one.relative for one in cells.values() if math.isfinite(one.relative)), default=0.0)
    outside = {(OUTSIDE, module): one for (layer, module), one in cells.items() if layer is None}
    inner = _grid("layer", modules, layers, cells, most) if layers else ""
    return inner + (_grid("", sorted(m for _, m in outside), [OUTSIDE], outside, most) if outside else "")


def _grid(
    corner: str, columns: Sequence[str], rows: Sequence[Any], cells: Mapping[Any, Movement], most: float
) -> str:
    """`cells` by (row, column)."""
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    lines = []
    for row in rows:
        drawn = (_cell(cells.get((row, one)), f"{corner} {row} {one}".strip(), most) for one in columns)
        lines.append(f"<tr><th>{escape(str(row))}</th>{''.join(drawn)}</tr>")
    return (
        f'<div class="wide"><table class="map"><tr><th>{corner}</th>{head}</tr>{"".join(lines)}</table></div>'
    )


def _cell(one: Movement | None, where: str, most: float) -> str:
    if one is None:
        return '<td class="none"></td>'
    heat = math.sqrt(one.relative / most) if most and math.isfinite(one.relative) else 0.0
    title = f"{where}: norm of change {_size(one.norm)}, {one.changed:,} of {one.elements:,} elements"
    return f'<td style="--v:{0.85 * min(heat, 1):.3f}" title="{escape(title)}">{_digits(one.relative)}</td>'


def _pairs(pairs: Iterable[Pair]) -> Iterator[str]:
    rows = [
        (
            escape(f"{p.a} · {p.b}"), f"{p.cosine:+.3f}", f"{100 * p.sign_agreement:.1f} %", f"{p.overlap:,}",
            _size(p.norm_a), _size(p.norm_b),
        )
        for p in sorted(pairs, key=lambda p: -abs(p.cosine))
    ]  # fmt: skip
    if rows:
        yield "<h2>Behaviours</h2><p>Unrelated ones have cosine 0, and the same sign in 50 % of what both move.</p>"
        yield _table(
            ("pair", "cosine", "same sign", "elements both move", "norm of the first", "of the second"), rows
        )


def _head_maps(heads: Sequence[Head], whose: str) -> Iterator[str]:
    if not heads:
        return
    yield (
        f"<h2>Attention heads</h2><p>Norm of the change over the norm of {whose} of that head, in percent. The "
        "colour is of its square root, up to the largest of all projections.</p>"
    )
    most = max((one.moved.relative for one in heads if math.isfinite(one.moved.relative)), default=0.0)
    yield '<div class="maps">'
    for projection in "qkvo":
        cells: dict[tuple[int, str], Movement] = {}
        for one in heads:
            if one.projection == projection and (layer := place(one.moved.where)[0]) is not None:
                key = layer, str(one.head)
                cells[key] = cells.get(key, Movement(one.where)).plus(one.moved)
        layers = sorted({layer for layer, _ in cells})
        numbers = sorted({head for _, head in cells}, key=int)
        if cells:
            yield _grid(f"{projection}, layer", numbers, layers, cells, most)
    yield "</div>"


def _spectra(spectra: Sequence[Spectrum]) -> Iterator[str]:
    if not spectra:
        return
    rows = [
        (
            escape(one.where), f"{one.stable_rank:.1f}", f"{100 * one.energy:.1f} %",
            " ".join(f"{v:.3g}" for v in one.values), "exact" if one.exact else "approximate",
        )
        for one in sorted(spectra, key=lambda one: -one.norm2)
    ]  # fmt: skip
    yield "<h2>Spectra of the change</h2><p>Stable rank: squared norm over the largest squared singular value.</p>"
    yield _table(("tensor", "stable rank", "energy of those shown", "largest singular values", ""), rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Cells are HTML already, heads are text."""
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _list(title: str, lines: Iterable[str]) -> Iterator[str]:
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    if items:
        yield (f"<h2>{escape(title)}</h2>" if title else "") + f"<ul>{items}</ul>"


def _short(side: str) -> str:
    """A commit's id is shortened, a folder's path is not."""
    return side[:12] if len(side) == 40 and set(side) <= set("0123456789abcdef") else side


def _side(commit_or_path: str, name: str | None) -> str:
    """`main (1fa69c1ae151)`: what it was called, and what that is."""
    short = _short(commit_or_path)
    if name is None or short == commit_or_path or short.startswith(name):
        return short
    return f"{name} ({short})"


def _size(norm: float) -> str:
    """Four digits, zeros at the end too."""
    return f"{norm:#.4g}".rstrip(".")


def _percent(share: float) -> str:
    return f"{_digits(share)} %"


def _digits(share: float) -> str:
    """Three digits of a share in percent, zeros at the end too: columns are read downwards."""
    return f"{100 * share:#.3g}".rstrip(".") if math.isfinite(share) else "–"


def _share(some: int, all_: int) -> str:
    return f"{100 * some / all_ if all_ else 0:.1f} %"
