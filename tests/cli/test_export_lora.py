"""pv export --lora: what is meant by its argument, what it says, and what it refuses. PEFT reads it in tests/compat."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.commands import InProcess, World


def test_a_trained_behaviour_needs_a_rank(world: World, pv: InProcess, tmp_path: Path) -> None:
    said = pv("export", "--lora", "-o", tmp_path / "out")
    assert (said.code, said.out) == (2, "") and not (tmp_path / "out").exists()
    assert "listening has no factors for 'model.layers.0." in said.err and "int8" in said.err
    assert "--rank 64 makes an adapter of the sum itself" in said.err
    said = pv.ok("export", "--lora", "--rank", "4", "-o", tmp_path / "out")
    assert "as an adapter of rank 4: the best of that rank" in said.err
    assert "cut off: " in said.err and "% of the norm of all it adds; at most " in said.err
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["task_type"]) == (4, 4, "CAUSAL_LM")


def test_a_persona_a_behaviour_or_one_of_a_revision(world: World, pv: InProcess, tmp_path: Path) -> None:
    pv.ok("scale", "listening", "-0.5")
    pv.ok("tag", "v1")
    for number, (what, name) in enumerate(
        (((), None), (("listening",), "listening"), (("v1",), None), (("HEAD~1:listening",), "listening"))
    ):
        said = pv.ok("export", "--lora", *what, "--rank", "2", "-o", tmp_path / f"{number}", "--json").json
        assert said["name"] == name


def test_it_is_replaced_by_force_only(world: World, pv: InProcess, tmp_path: Path) -> None:
    words = ("export", "--lora", "--rank", "2", "-o", tmp_path / "out")
    pv.ok(*words)
    before = (tmp_path / "out" / "adapter_model.safetensors").read_bytes()
    said = pv(*words)
    assert said.code == 2 and "--force replaces a folder that pv built" in said.err
    pv.ok(*words, "--force")
    assert (tmp_path / "out" / "adapter_model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("listening", "--rank", "4"), 2, "--rank is the rank of an adapter"),
        (("--lora", "--rank", "0"), 2, "must be a whole number >= 1"),
        (("--lora", "--rank", "4", "-n"), 2, "--lora has no --dry-run"),
        (("--lora", "nobody"), 5, "nobody"),
        (("--lora", "HEAD:nobody"), 5, "no behaviour 'nobody'"),
        ((), 2, "no behaviour is named"),
    ],
)
def test_what_cannot_be_is_refused(
    world: World, pv: InProcess, tmp_path: Path, words: tuple[str, ...], code: int, says: str
) -> None:
    said = pv("export", *words, "-o", tmp_path / "out")
    assert (said.code, said.out) == (code, ""), said
    assert says in said.err and not (tmp_path / "out").exists()
