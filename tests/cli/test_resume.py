"""`pv train` that was stopped, or killed, and `--resume`: the same vector, whatever another terminal did meanwhile."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from pathlib import Path

from support.commands import InProcess, Processes, World, behaviours, write_rows

LINE = ("--held-out", "none", "--threads", "1", "--epochs", "40", "--batch", "2")

METRICS = ("--metrics", "metrics.jsonl")


def begun(world: World) -> Callable[[], bool]:
    """Whether two steps were made."""
    file = world.folder / METRICS[1]
    return lambda: file.is_file() and file.read_bytes().count(b"\n") > 2


def states(world: World) -> list[Path]:
    return sorted(world.folder.glob(".pv/trainings/*/state.safetensors"))


def whole(pv: InProcess, world: World) -> str:
    vector: str = pv.ok("train", world.rows, "--as", "whole", *LINE, "--json").json["vector"]
    assert not (world.folder / ".pv/trainings").exists() or not any(
        (world.folder / ".pv/trainings").iterdir()
    )
    return vector


def test_interrupted_and_gone_on_with(world: World, process: Processes, pv: InProcess) -> None:
    line = ("train", world.rows, "--as", "x", *LINE)
    said = process.interrupted(*line, *METRICS, when=begun(world))
    found = re.search(
        r"interrupted; step (\d+) of 120 is saved: the same command with --resume goes on", said.err
    )
    assert said.code == 130 and found, said
    assert len(states(world)) == 1

    pv.ok("switch", "-c", "elsewhere")  # a second terminal
    refused = pv(*line, "--resume", "--json")
    assert refused.code == 5 and "nothing to resume" in refused.error["message"]
    pv.ok("switch", "main")
    pv.ok("scale", "listening", "0.5")
    pv.ok("gc")
    assert len(states(world)) == 1, "younger than the grace period"

    other = write_rows(world.folder / "other.jsonl", 7)
    refused = pv("train", other, "--as", "x", *LINE, "--resume", "--json")
    assert refused.code == 2 and "began with other rows (rows.jsonl)" in refused.error["message"]
    refused = pv(*line, "--resume", "--lr", "1e-3", "--json")
    assert refused.code == 2 and "lr 0.0001 then, 0.001 now" in refused.error["message"]
    general = world.folder / "general.jsonl"
    general.write_text('{"prompt": "Why?", "chosen": "An answer that is a good deal longer than others."}\n')
    refused = pv(*line, "--resume", "--general", general, "--json")
    assert refused.code == 2 and "began with other general answers" in refused.error["message"]

    made = pv.ok(*line, "--resume", "--json").json
    assert made["provenance"]["settings"]["resumed"] == [int(found[1])]
    assert states(world) == []
    assert made["vector"] == whole(pv, world)
    assert behaviours(pv)["listening"] == 0.5


def test_a_damaged_state(world: World, process: Processes, pv: InProcess) -> None:
    line = ("train", world.rows, "--as", "x", *LINE)
    process.interrupted(*line, *METRICS, when=begun(world))
    (state,) = states(world)
    data = state.read_bytes()
    state.write_bytes(data[: len(data) // 2])
    before = world.state()
    refused = pv(*line, "--resume", "--json")
    assert refused.code == 3 and "is damaged" in refused.error["message"]
    assert world.state() == before
    assert pv.ok("fsck").code == 0
    pv.ok(*line)  # starts again
    assert states(world) == []


def test_what_is_killed_goes_on_and_what_is_forgotten_goes(
    world: World, process: Processes, pv: InProcess
) -> None:
    line = ("train", world.rows, "--as", "x", *LINE, "--save-every", "0")
    with process.frozen(*line, when=lambda: states(world)) as answer:
        refused = pv("train", world.rows, "--as", "x", *LINE, "--resume", "--json")
        assert refused.code == 2 and "another process is training x" in refused.error["message"]
        (state,) = states(world)
        os.utime(state, (1, 1))
        assert pv.ok("gc", "--json", "--grace", "0").json["trainings"] == []
        kept = state.read_bytes()
    assert answer[0].code == 0
    vector = pv.ok("show", "x", "--json").json
    state.parent.mkdir()  # as a kill would have left it
    (state.parent / "lock").touch()
    state.write_bytes(kept)
    pv.ok("drop", "x")
    made = pv.ok("train", world.rows, "--as", "x", *LINE, "--resume", "--json").json
    assert made["vector"] in str(vector)

    state.parent.mkdir()
    (state.parent / "lock").touch()
    state.write_bytes(kept)
    assert pv.ok("gc", "--json").json["trainings"] == []
    old = time.time() - 15 * 86400
    os.utime(state, (old, old))
    (gone,) = pv.ok("gc", "--json").json["trainings"]
    assert gone["nbytes"] == len(kept) and gone["name"] == state.parent.name
    assert not state.parent.exists()
