"""What is written: a PNG a figure, results.json, and one page that needs nothing beside it."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from examples.experiments.page import CSS, table_html
from examples.experiments.plots import render
from examples.maze.bench import Bench
from examples.maze.chapters import Chapter, chapters
from examples.maze.tables import Bar
from examples.maze.tables import bars as verdicts_on

__all__ = ["write"]

MORE = """
h2 { font-size: 1.2rem; margin: 3rem 0 .4rem; letter-spacing: -.01em }
nav { font-size: .9rem; color: var(--soft); columns: 3 14rem; margin: 1.5rem 0 }
nav a { color: inherit; display: block }
details { margin: 1rem 0 } summary { cursor: pointer; color: var(--soft); font-size: .9rem }
.bars { list-style: none; padding: 0; max-width: 60rem }
.bars li { padding: .4rem 0; border-bottom: 1px solid var(--line) }
.bars b { display: inline-block; width: 4.2rem } .bars .no { color: #c2410c } .bars .yes { color: #0a7d54 }
.bars span { color: var(--soft); font-size: .9rem; display: block; margin-left: 4.2rem }
"""


def write(
    folder: Path, results: Mapping[str, Any], bench: Bench, facts: str, command: str
) -> tuple[list[Path], list[Bar]]:
    """All files, and the verdicts."""
    folder.mkdir(parents=True, exist_ok=True)
    found = results["found"]
    verdicts = verdicts_on(found, bench.plan.main)
    parts, files = chapters(found, bench), {}
    drawn = {part.name: render(part.draw) for part in parts if part.draw is not None}
    for name, plots in drawn.items():
        files[f"{name}.png"] = plots["png"]
    bars = [{"claim": bar.claim, "measured": bar.measured, "met": bool(bar.met)} for bar in verdicts]
    files["results.json"] = (json.dumps({"bars": bars, **results}, indent=1, allow_nan=False) + "\n").encode()
    files["maze.html"] = _page(parts, drawn, verdicts, facts, command).encode()
    for name, data in files.items():
        part = folder / f".{name}.part"
        part.write_bytes(data)
        part.replace(folder / name)
    return [folder / name for name in files], verdicts


def _page(
    parts: Sequence[Chapter],
    drawn: Mapping[str, Mapping[str, bytes]],
    verdicts: Sequence[Bar],
    facts: str,
    command: str,
) -> str:
    title = "A mouse, a cheese, and two vectors"
    nav = "".join(f'<a href="#{part.name}">{escape(part.title)}</a>' for part in parts)
    bars = "".join(
        f'<li><b class="{"yes" if bar.met else "no"}">{"shown" if bar.met else "not so"}</b>{escape(bar.claim)}'
        f"<span>{escape(bar.measured)}</span></li>"
        for bar in verdicts
    )
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{CSS}{MORE}</style>
<main>
<h1>{title}</h1>
<p class="question">A net learned to fetch cheese near the top right of its mazes. What becomes of it when activations
are added to, halfway through, and nothing is trained?</p>
<ul class="bars">{bars}</ul>
<nav>{nav}</nav>
{"".join(_chapter(part, drawn.get(part.name)) for part in parts)}
<footer><code>{escape(command)}</code><br>{escape(facts)}</footer>
</main>
</html>
"""


def _chapter(part: Chapter, plots: Mapping[str, bytes] | None) -> str:
    picture = ""
    if plots is not None:
        light, dark = (
            f"data:image/svg+xml;base64,{b64encode(plots[tone]).decode()}" for tone in ("light", "dark")
        )
        picture = (
            f'<picture><source media="(prefers-color-scheme: dark)" srcset="{dark}">'
            f'<img src="{light}" alt="Plot: {escape(part.title)}"></picture>'
        )
    shown = "".join(
        f"<details{'' if plots else ' open'}><summary>{escape(name or 'The table')}</summary>"
        f'<div class="table">{table_html(table)}</div></details>'
        for name, table in part.tables.items()
    )
    words = f"<h2>{escape(part.title)}</h2><p>{escape(part.words)}</p>"
    return f'<section id="{part.name}">{words}{picture}{shown}</section>'
