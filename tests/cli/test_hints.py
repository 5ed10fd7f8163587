"""Errors that had no hint have one, which is a complete thing to do."""

from __future__ import annotations

import pytest
from support.commands import InProcess, World


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("config", "output.seed", "x"), "for example: `pv config output.seed 0`"),
        (("config", "output.seed", "-1"), "`pv config output.seed 0` sets it"),
        (("config", "engine", "1.5"), "for example: `pv config engine 2`"),
        (
            ("scale", "listening", "1", "--modules", "*=2", "--modules", "none"),
            "`pv scale listening 1 --modules none` removes them",
        ),
        (("scale", "listening", "1"), None),  # no error: nothing changes
        (
            ("compress", "listening", "--keep", "0.95"),
            "pv compress listening --keep 0.95 --data HELD_OUT.jsonl",
        ),
        (("compress", "listening", "--to", "int8"), "name another encoding with --to"),
        (("undo", "-n", "1"), None),
    ],
)
def test_what_to_do_is_said(world: World, pv: InProcess, words: tuple[str, ...], hint: str | None) -> None:
    said = pv(*words, "--json")
    assert (said.code, said.error["hint"] if said.code else None) == ((2, hint) if hint else (0, None)), said


def test_a_switch_that_is_no_number(world: World, pv: InProcess) -> None:
    pv.ok("combine", "ties")
    said = pv("config", "combine.density", "x", "--json")
    assert said.error["hint"] == "for example: `pv config combine.density 0.2`"


def test_nothing_left_to_undo(world: World, pv: InProcess) -> None:
    while (said := pv("undo", "--json")).code == 0:
        pass
    assert said.error["hint"], said


def test_a_checkpoint_that_is_there_already(world: World, pv: InProcess) -> None:
    said = pv("commit", world.base, "--as", "same", "--json")
    assert (said.code, said.error["hint"]) == (2, "name the fine-tuned checkpoint: pv commit DIR --as NAME")
    pv.ok("commit", world.tuned, "--as", "style")
    said = pv("commit", world.tuned, "--as", "style", "--json")
    assert said.error["hint"] == "`pv show style` shows it; `pv scale style WEIGHT` sets its weight"


@pytest.mark.parametrize("command", ["train", "chat"])
def test_a_number_without_bounds_has_none_in_the_help(pv: InProcess, command: str) -> None:
    said = pv.ok(command, "--help").out
    assert "None" not in said and "x>=1" in said
