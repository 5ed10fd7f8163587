"""What was measured as one HTML file that needs nothing beside it: verdict, pictures, tables, how it was measured."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Picture", "Table", "Verdict", "frame", "page", "table"]

CSS = """
:root { color-scheme: light dark; --ink: #1f2430; --soft: #5b6272; --line: #d9dce3; --paper: #fff; --edge: #f4f5f8;
  --good: #0a7d54; --shade: #0003 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8ee; --soft: #a2a9b8; --line: #313745; --paper: #171a21; --edge: #1f232c; --good: #46c796;
    --shade: #fff4 } }
* { box-sizing: border-box }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, sans-serif;
  overflow-wrap: anywhere }
main { max-width: 70rem; margin: 0 auto; padding: 3rem 1.25rem 4rem }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .3rem; letter-spacing: -.01em }
h2 { font-size: 1.05rem; margin: 2.4rem 0 .3rem }
.what { font-size: 1.05rem; color: var(--soft); margin: 0 0 1.6rem }
p, ul { max-width: 46rem } .soft { color: var(--soft); font-size: .88rem; margin: .2rem 0 .6rem }
picture { display: block; overflow-x: auto }
img { width: 100%; min-width: 42rem; height: auto; display: block; margin: 1.2rem 0 }
.verdict { border: 1px solid var(--line); border-left: 4px solid var(--good); border-radius: 6px;
  background: var(--edge); padding: .9rem 1.2rem; margin: 1.4rem 0 } .verdict.none { border-left-color: var(--soft) }
.verdict p { margin: .2rem 0 } .verdict b { font-size: 1.15rem }
/* a shade at the edge beyond which a table goes on; at its end, paper that scrolls along covers it */
.table { overflow-x: auto; background: linear-gradient(90deg, var(--paper) 40%, #0000) 0 0 / 2rem 100% local no-repeat,
  linear-gradient(270deg, var(--paper) 40%, #0000) 100% 0 / 2rem 100% local no-repeat,
  linear-gradient(90deg, var(--shade), #0000) 0 0 / .7rem 100% scroll no-repeat,
  linear-gradient(270deg, var(--shade), #0000) 100% 0 / .7rem 100% scroll no-repeat }
table { border-collapse: collapse; font-size: .86rem }
th, td { text-align: right; padding: .34rem .7rem; white-space: nowrap; font-variant-numeric: tabular-nums }
th { color: var(--soft); font-weight: 600; border-bottom: 1px solid var(--ink) }
td { border-bottom: 1px solid var(--line) } th:first-child, td:first-child { text-align: left }
details { margin: 1rem 0 } summary { cursor: pointer; color: var(--soft) }
li { margin: .25rem 0; font-size: .92rem; color: var(--soft) } li b { color: var(--ink) }
footer { margin-top: 2.5rem; padding-top: 1rem; border-top: 1px solid var(--line); color: var(--soft);
  font-size: .85rem }
code { font: .9em ui-monospace, monospace; background: var(--edge); padding: .1em .35em; border-radius: 3px }
"""


@dataclass(frozen=True, slots=True)
class Verdict:
    """`settled`: it says something; False for what is inconclusive."""

    headline: str
    lines: tuple[str, ...] = ()
    settled: bool = True


@dataclass(frozen=True, slots=True)
class Picture:
    """An SVG for a light page and one for a dark one; `alt` says what is in it."""

    light: bytes
    dark: bytes
    alt: str


@dataclass(frozen=True, slots=True)
class Table:
    """`legend` says what the columns are; `folded`: shown when it is asked for."""

    title: str
    legend: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    folded: bool = False


def page(
    title: str,
    what: str,
    *,
    verdict: Verdict | None = None,
    notes: Iterable[str] = (),
    pictures: Iterable[Picture] = (),
    tables: Iterable[Table] = (),
    how: Iterable[tuple[str, str]] = (),
    command: str,
    footer: str = "",
) -> str:
    """All texts are plain, and escaped here. `command` measures the same again."""
    return frame(
        title, what, "".join(map(_table, tables)), verdict=verdict, notes=notes, pictures=pictures, how=how,
        command=command, footer=footer,
    )  # fmt: skip


def frame(
    title: str,
    what: str,
    tables: str,
    *,
    verdict: Verdict | None = None,
    notes: Iterable[str] = (),
    pictures: Iterable[Picture] = (),
    how: Iterable[tuple[str, str]] = (),
    command: str,
    footer: str = "",
    css: str = "",
) -> str:
    """A page whose `tables` are HTML already, with the `css` that they need."""
    said = "".join(f'<p class="soft">Note: {escape(note)}.</p>' for note in notes)
    listed = "".join(f"<li><b>{escape(term)}</b>: {escape(text)}</li>" for term, text in how)
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{CSS}{css}</style>
<main>
<h1>{escape(title)}</h1>
<p class="what">{escape(what)}</p>
{_verdict(verdict)}
{said}
{"".join(map(_picture, pictures))}
{tables}
<h2>How it was measured</h2>
<ul>{listed}</ul>
<footer><code>{escape(command)}</code><br>
{escape(footer)}</footer>
</main>
</html>
"""


def _verdict(found: Verdict | None) -> str:
    if found is None:
        return ""
    lines = "".join(f"<p>{escape(line)}</p>" for line in found.lines)
    kind = "verdict" if found.settled else "verdict none"
    return f'<div class="{kind}"><b>{escape(found.headline)}</b>{lines}</div>'


def _picture(one: Picture) -> str:
    light, dark = (f"data:image/svg+xml;base64,{b64encode(svg).decode()}" for svg in (one.light, one.dark))
    return f"""<picture><source media="(prefers-color-scheme: dark)" srcset="{dark}">
<img src="{light}" alt="{escape(one.alt)}"></picture>
"""


def _table(one: Table) -> str:
    made = table(one.header, one.rows)
    legend = f'<p class="soft">{escape(one.legend)}</p>' if one.legend else ""
    if one.folded:
        return f"<details><summary>{escape(one.title)}</summary>{legend}{made}</details>\n"
    return f"<h2>{escape(one.title)}</h2>{legend}{made}\n"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
