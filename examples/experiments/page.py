"""What is written of an experiment: Markdown, a PNG, and one HTML file that needs nothing beside it."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from examples.experiments.experiment import Experiment, Table

__all__ = ["CSS", "Page", "table_html"]

CSS = """
:root { color-scheme: light dark; --ink: #1f2430; --soft: #5b6272; --line: #d9dce3; --paper: #fff; --edge: #f4f5f8 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8ee; --soft: #a2a9b8; --line: #313745; --paper: #171a21; --edge: #1f232c } }
* { box-sizing: border-box }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, sans-serif }
main { max-width: 74rem; margin: 0 auto; padding: 3rem 1.25rem 4rem }
h1 { font-size: 1.65rem; line-height: 1.25; margin: 0 0 .4rem; letter-spacing: -.01em }
.question { font-size: 1.1rem; color: var(--soft); margin: 0 0 1.75rem }
p, dl { max-width: 46rem } img { width: 100%; height: auto; display: block; margin: 1.5rem 0 }
.table { overflow-x: auto; margin: 1.5rem 0 }
table { border-collapse: collapse; font-size: .82rem; width: 100% }
th, td { text-align: right; padding: .35rem .5rem; white-space: nowrap; font-variant-numeric: tabular-nums }
th { color: var(--soft); font-weight: 600; border-bottom: 1px solid var(--ink) }
td { border-bottom: 1px solid var(--line) } th.word, td.word { text-align: left }
tbody tr:hover { background: var(--edge) }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.2rem; font-size: .9rem; color: var(--soft) }
dt { font-weight: 600; color: var(--ink) } dd { margin: 0 }
.note { border-left: 3px solid var(--line); padding-left: .9rem; color: var(--soft) }
footer { margin-top: 2.5rem; padding-top: 1rem; border-top: 1px solid var(--line); color: var(--soft);
  font-size: .85rem }
code { font: .9em ui-monospace, monospace; background: var(--edge); padding: .1em .35em; border-radius: 3px }
"""


@dataclass(frozen=True, slots=True)
class Page:
    name: str
    experiment: Experiment
    table: Table
    plots: Mapping[str, bytes]
    notes: Sequence[str]
    command: str
    facts: str

    def write(self, folder: Path) -> list[Path]:
        folder.mkdir(parents=True, exist_ok=True)
        files = {
            f"{self.name}.md": self.markdown().encode(),
            f"{self.name}.png": self.plots["png"],
            f"{self.name}.html": self.html().encode(),
        }
        for name, data in files.items():
            (folder / name).write_bytes(data)
        return [folder / name for name in files]

    def markdown(self) -> str:
        one, words = self.experiment, _words(self.table)
        rule = ["---" if word else "---:" for word in words]
        rows = [self.table.columns, rule, *self.table.rows]
        lines = [
            f"# {one.TITLE}", "", f"**{one.QUESTION}** {one.HOW}", "", *(f"> {note}\n" for note in self.notes),
            f"![{one.TITLE}]({self.name}.png)", "",
            *("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows), "",
            *(f"- {what}: {meaning}" for what, meaning in one.LEGEND.items()), "",
            f"`{self.command}`: {self.facts}", "",
        ]  # fmt: skip
        return "\n".join(lines)

    def html(self) -> str:
        one = self.experiment
        light, dark = (
            f"data:image/svg+xml;base64,{b64encode(self.plots[tone]).decode()}" for tone in ("light", "dark")
        )
        legend = "".join(f"<dt>{escape(a)}</dt><dd>{escape(b)}</dd>" for a, b in one.LEGEND.items())
        return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(one.TITLE)}</title>
<style>{CSS}</style>
<main>
<h1>{escape(one.TITLE)}</h1>
<p class="question">{escape(one.QUESTION)}</p>
<p>{escape(one.HOW)}</p>
{"".join(f'<p class="note">{escape(note)}</p>' for note in self.notes)}
<picture><source media="(prefers-color-scheme: dark)" srcset="{dark}">
<img src="{light}" alt="Plot: {escape(one.TITLE)}; its numbers are in the table"></picture>
<div class="table">{table_html(self.table)}</div>
<dl>{legend}</dl>
<footer><code>{escape(self.command)}</code><br>{escape(self.facts)}</footer>
</main>
</html>
"""


def table_html(table: Table) -> str:
    kinds = [' class="word"' if word else "" for word in _words(table)]

    def row(cells: Sequence[str], tag: str) -> str:
        pairs = zip(cells, kinds, strict=True)
        return "<tr>" + "".join(f"<{tag}{kind}>{escape(cell)}</{tag}>" for cell, kind in pairs) + "</tr>"

    body = "".join(row(cells, "td") for cells in table.rows)
    return f"<table><thead>{row(table.columns, 'th')}</thead><tbody>{body}</tbody></table>"


def _words(table: Table) -> list[bool]:
    """Which columns are words, and stand at the left."""
    return [
        any(row[at][:1].isalpha() for row in table.rows)
        and not any(row[at][:1].isdigit() for row in table.rows)
        for at in range(len(table.columns))
    ]
