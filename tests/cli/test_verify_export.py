"""`pv verify` of what `pv export` wrote: whose it is, and whether it is that bit for bit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.commands import InProcess, World, tensors, write_tensors


@pytest.fixture
def out(world: World, pv: InProcess) -> Path:
    pv.ok("commit", world.tuned, "--as", "house")
    pv.ok("export", "house", "-o", "out", "--shard-size", "0.03")
    return world.folder / "out"


def vector(pv: InProcess, name: str) -> str:
    found: str = pv.ok("status", "--json").json["persona"]["behaviours"][name]["terms"][0][1]
    return found


def test_an_export_of_a_captured_checkpoint(out: Path, pv: InProcess) -> None:
    said = pv.ok("verify", out)
    whose = f"the export of house (vector {vector(pv, 'house')[:12]}, the captured checkpoint) of HEAD ("
    assert whose in said.err and "weights and files, bit for bit" in said.err
    found = pv.ok("verify", out, "--json").json
    assert found["export"] == {"behaviours": ["house"], "vectors": [vector(pv, "house")], "captured": True}
    assert (found["same"], found["found"] == found["expected"], found["known"]) == (True, True, [])
    pv.ok("drop", "house")
    assert "of HEAD~1 (" in pv.ok("verify", out, "--weights-only").err


def test_an_export_that_was_changed(out: Path, world: World, pv: InProcess) -> None:
    table = tensors(out)
    name, (dtype, shape, raw) = max(table.items(), key=lambda item: len(item[1][2]))
    for file in out.glob("model*"):
        file.unlink()
    write_tensors(out / "model.safetensors", {**table, name: (dtype, shape, bytes(len(raw)))})
    (out / "config.json").write_text("{}")
    said = pv("verify", out)
    assert said.code == 1
    assert said.out.startswith("not the export of house (vector ")
    assert f"1 of {len(table)} tensors and 1 file differ" in said.out and "config.json differs" in said.out
    assert pv("verify", out, "--json").json["same"] is False
    (out / "export.json").write_text(json.dumps({"schema": 1, "vector": "0" * 64}, separators=(",", ":")))
    assert pv("verify", out).out.startswith("not a known build; compared with HEAD (")
    for text in ("", "[]", '{"vector":7}', '{"vector":"x"}'):
        (out / "export.json").write_text(text)
        assert pv("verify", out).out.startswith("not a known build; compared with HEAD (")


def test_an_export_that_is_a_build_of_one_behaviour(out: Path, world: World, pv: InProcess) -> None:
    pv.ok("rename", "listening", "soft")  # under this name it was never the only one
    pv.ok("scale", "soft", "0.25")
    pv.ok("config", "output.seed", "3")
    pv.ok("export", "soft", "-o", "alone")
    whose = f"the export of soft (vector {vector(pv, 'soft')[:12]}, built alone at weight 1) of HEAD ("
    assert whose in pv.ok("verify", "alone").err
    assert pv.ok("verify", "alone", "--json").json["export"]["captured"] is False
    (world.folder / "alone" / "added.py").write_text("")
    assert pv("verify", "alone").out.startswith("not the export of soft (")


def test_an_export_that_is_the_build_of_a_persona_too(world: World, pv: InProcess) -> None:
    """The files are the same: both are said."""
    pv.ok("build", "-o", "built")
    pv.ok("export", "listening", "-o", "alone")
    for folder in ("alone", "built"):
        said = pv.ok("verify", folder)
        assert "the build of HEAD (" in said.err
        whose = (
            f"and the export of listening (vector {vector(pv, 'listening')[:12]}, built alone at weight 1)"
        )
        assert whose in said.err
        found = pv.ok("verify", folder, "--json").json
        assert found["export"]["behaviours"] == ["listening"] and found["known"]
    pv.ok("scale", "listening", "0.5")
    pv.ok("build", "-o", "half")
    assert "the export of" not in pv.ok("verify", "half").err
    (world.folder / "alone" / "extra.bin").write_bytes(b"")
    assert pv("verify", "alone").out.startswith("not the build of ")
