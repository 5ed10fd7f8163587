"""What a fine-tune is from: what --on says is believed where the numbers allow it, and no hint leads astray."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from support.commands import InProcess, World, tensors, write_tensors


def moved(source: Path, to: Path, *, by: float, only: str, seed: int = 5) -> Path:
    """The checkpoint in `source`, with the tensors named so moved by about so much."""
    shutil.copytree(source, to)
    (to / "persona.json").unlink(missing_ok=True)
    random, table = np.random.default_rng(seed), tensors(source)
    for name, (dtype, shape, raw) in table.items():
        if only in name:
            assert dtype == "BF16", name
            before = (np.frombuffer(raw, np.uint16).astype(np.uint32) << 16).view(np.float32)
            after = (before + random.standard_normal(before.size) * by).astype(np.float32)
            half = ((after.view(np.uint32) + 0x8000) >> 16).astype(np.uint16)
            table[name] = (dtype, shape, half.tobytes())
    write_tensors(to / "model.safetensors", table)
    return to


@pytest.fixture
def both(world: World, pv: InProcess, tmp_path: Path) -> Path:
    """A fine-tune of the build of tag `both`; on main it is committed as `further`, at weight 0.5."""
    pv.ok("commit", world.tuned, "--as", "style")
    pv.ok("tag", "both")
    pv.ok("build", "both", "-o", tmp_path / "out")
    further = moved(tmp_path / "out", tmp_path / "further", by=1e-3, only="layers.0.mlp.up_proj")
    pv.ok("commit", further, "--on", "HEAD", "--as", "further", "--weight", "0.5")
    pv.ok("switch", "-c", "side", "both")
    return further


def test_what_on_says_is_taken_if_the_numbers_allow_it(both: Path, pv: InProcess, tmp_path: Path) -> None:
    """Half of it is in a later persona, which therefore resembles it more than what it was tuned from."""
    pv.ok("switch", "main")
    pv.ok("scale", "further", "1")  # its build is that checkpoint
    pv.ok("build", "-o", tmp_path / "known")
    pv.ok("switch", "side")
    made = pv.ok("commit", both, "--on", "both", "--as", "again", "--json").json
    assert made["subtracted"] == ["listening", "style"]
    pv.ok("build", "-o", tmp_path / "whole")
    assert tensors(tmp_path / "whole") == tensors(both)


def test_no_hint_names_a_persona_that_has_this_very_checkpoint_in_it(both: Path, pv: InProcess) -> None:
    said = pv("commit", both, "--as", "again")
    assert said.code == 2 and "would count listening, style twice" in said.err, said
    assert (
        "fine-tuned from the build of side (" in said.err or "fine-tuned from the build of HEAD (" in said.err
    )
    hint = said.err.split("`")[1]
    pv.ok(*hint.split()[1:])
    assert [term[0] for term in pv.ok("show", "--json").json["persona"]["behaviours"]["again"]["terms"]] == [
        1,
        -1,
        -1,
    ]


def test_with_on_force_is_said_to_subtract(both: Path, pv: InProcess, tmp_path: Path) -> None:
    further = moved(both, tmp_path / "all", by=3e-4, only="layers")
    said = pv("commit", further, "--on", "both~1", "--as", "again")  # listening alone
    assert said.code == 2 and "`--force` subtracts what both~1 (" in said.err, said
    assert "keeps the whole difference" not in said.err
    made = pv.ok("commit", further, "--on", "both~1", "--as", "again", "--force", "--json").json
    assert made["subtracted"] == ["listening"]


def test_a_later_epoch_may_be_on_the_same_build(both: Path, pv: InProcess, tmp_path: Path) -> None:
    later = moved(both, tmp_path / "later", by=1e-4, only="layers.0.mlp.up_proj", seed=9)
    said = pv.ok("commit", later, "--on", "both", "--as", "again", "--json").json
    assert said["subtracted"] == ["listening", "style"]


def test_only_what_is_in_it_is_named(world: World, pv: InProcess, tmp_path: Path) -> None:
    """`house` moves one layer far, and `listening` all a little: of another `house`, only that one is in it."""
    house = moved(world.base, tmp_path / "house", by=3e-2, only="layers.0.mlp")
    pv.ok("commit", house, "--as", "house")
    other = moved(house, tmp_path / "other", by=3e-3, only="layers.0.mlp", seed=6)
    notes = pv.ok("commit", other, "--as", "house2", "--json").json["notes"]
    (note,) = [note for note in notes if "is in it too" in note]
    assert "% of what house adds to the base in HEAD (" in note and "listening" not in note, note
    assert "commit it with --on" in note
