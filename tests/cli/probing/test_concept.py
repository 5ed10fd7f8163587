"""`pv probe concept` on the command line: what it says, as JSON, shown again and compared, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.commands import InProcess, World
from support.scripting import keeps_to_it

from pv.registry.exit_codes import ExitCode


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    lines = [
        json.dumps({"prompt": f"{a}{b}?", "chosen": f"I hear you, {a}.", "rejected": f"{b} No."})
        for a in "abcd"
        for b in "efgh"
    ]
    file = tmp_path / "held.jsonl"
    file.write_text("\n".join(lines) + "\n")
    return file


QUICK = ("--no-length", "--threads", "1")


def test_it_is_said_shown_and_compared(pv: InProcess, world: World, rows: Path, tmp_path: Path) -> None:
    asked = ("probe", "concept", "listening", "--data", rows, "--from", rows, *QUICK)
    said = pv.ok(*asked)
    for words in (
        "base..listening: 16 differences", "N95", "random directions drawn", "probe ", "a common shift: ",
        "no p below 0.2", "without embeddings and LM head", "or what the first layer reads",
    ):  # fmt: skip
        assert words in said.out
    assert "16 of 16 rows that directions are from have the prompt of a held-out row" in said.err
    pytest.importorskip("matplotlib")
    pv.ok(*asked, "--page", tmp_path / "a.html")
    assert f"probe concept listening --data {rows} --from {rows}" in (tmp_path / "a.html").read_text()
    typed = pv("-q", *asked, "--json")
    assert keeps_to_it(typed, "probe concept") == []
    answer = typed.json
    assert answer["a"] == "base" and answer["elbow"]["verdict"] in ("elbow", "none", "directions, no elbow")
    shown = pv.ok("show", answer["probe"][:12]).out
    assert answer["headline"] in shown and "kind     concept" in shown
    other = pv.ok(*asked, "--json", "--seed", "1").json
    compared = pv.ok("diff", answer["probe"][:12], other["probe"][:12], "--json").json
    assert compared["probe"] == "concept"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("--layers", "99"), "no layer 99"),
        (("--layers", "x"), "names no layers"),
        (("--coefficient", "0"), "steers nothing"),
        (("--plot", "no/where.png"), "no folder"),
    ],
)
def test_what_it_refuses(pv: InProcess, world: World, rows: Path, given: tuple[str, ...], words: str) -> None:
    said = pv("probe", "concept", "listening", "--data", rows, *given, *QUICK)
    assert said.code == ExitCode.USAGE and words in said.err and "hint:" in said.err


def test_too_few_rows_and_none_kept(pv: InProcess, world: World, rows: Path) -> None:
    few = rows.with_name("few.jsonl")
    few.write_text("\n".join(rows.read_text().splitlines()[:5]))
    assert "too few" in pv("probe", "concept", "listening", "--data", few, *QUICK).err
    assert "too few" in pv("probe", "concept", "listening", *QUICK).err
