"""`pv forecast`, as a person reads it."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.commands import InProcess, World, write_rows
from support.scripting import Answer

from pv.registry import ids
from pv.vecstore.forecast.calibration import TARGETS, Calibration, Model, write_calibration
from pv.vecstore.repo.repo import Repo


@pytest.fixture
def table(world: World, tmp_path: Path) -> Path:
    """Coefficients for the tiny model."""
    with Repo.open(world.folder) as repo:
        shapes = ids.shapes_id((name, row.shape) for name, row in repo.at().base.tensors.items())
    models = dict.fromkeys(TARGETS, Model(0.9, {"gradient_cosine": 0.1}, (-0.1, 0.2), (0.7, 0.4, 0.9)))
    made = Calibration("a tiny model", shapes, "difference", 28, 0.9, models, {}, (0.0, 99.0),
                       dict.fromkeys(TARGETS, (0.1, 0.0, 0.2)))  # fmt: skip
    write_calibration(tmp_path / "table.json", made)
    return tmp_path / "table.json"


def test_a_forecast_and_why_there_is_none(
    world: World, pv: InProcess, answer: Answer, table: Path, tmp_path: Path
) -> None:
    pv.ok(
        "train",
        write_rows(tmp_path / "b.jsonl", 6, first=20),
        "--as",
        "brief",
        "--max-steps",
        "2",
        "--threads",
        "1",
    )
    pv.ok("commit", world.tuned, "--as", "tuned")
    said = pv.ok("forecast", "listening", "brief", "tuned", "--calibration", table)
    assert "listening + brief" in said.out and " % [" in said.out
    assert "listening + tuned: don't know: tuned: it was not trained by pv" in said.out
    assert "calibrated on a tiny model: 28 pairs; intervals held 90 % of them" in said.out
    assert "0.70 [0.40, 0.90]; of the cosine alone: 0.10 [0.00, 0.20]" in said.out
    found = answer("forecast", "listening", "brief", "tuned", "--calibration", table)
    first, *others = found["pairs"]
    assert first["mean"]["kept"] == first["least"]["kept"] and first["unknown"] is None
    assert [pair["mean"] for pair in others] == [None, None] and found["calibration"]["pairs"] == 28
    assert answer("forecast", "listening", "brief")["pairs"][0]["mean"] is None
    plain = pv.ok("forecast", "listening", "brief")
    assert "don't know" in plain.out and " % [" not in plain.out


def test_the_help_has_an_example(pv: InProcess) -> None:
    said = pv.ok("forecast", "--help")
    assert "pv forecast pirate listening" in said.out


def test_what_cannot_be_asked(world: World, pv: InProcess, tmp_path: Path) -> None:
    for words, code, why in (
        (["listening"], 2, "two behaviours or more"),
        (["listening", "listening"], 2, "named twice"),
        (["listening", "listenin"], 5, "listening"),
        (["listening", "nowhere:x"], 5, "nowhere"),
        (
            ["listening", "HEAD:listening", "--calibration", str(tmp_path / "none")],
            5,
            "cannot read the calibration",
        ),
        (["listening", "HEAD:listening", "--calibration", str(world.rows)], 3, "rows.jsonl"),
    ):
        said = pv("forecast", *words)
        assert said.code == code and why in said.err and not said.out, said
    assert "they are the same vector" in pv.ok("forecast", "listening", "HEAD:listening").out
