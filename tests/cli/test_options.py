"""Values on the command line: as people write them, and refused in words that say what they must be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from support.commands import InProcess, World

from pv.cli.main import COMMANDS, cli
from pv.cli.options import Dtype, Number, Size, Whole

DTYPES = Dtype(("base", "bf16", "fp16", "fp32"))


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (Size(), "5GB", 5_000_000_000),
        (Size(), "50MB", 50_000_000),
        (Size(), "50 mb", 50_000_000),
        (Size(), "1.5GiB", 3 << 29),
        (Size(), "0.05", 50_000),
        (Size(), "5000", 5_000_000_000),
        (Size(), "7B", 7),
        (Size(), "0.0000001", 1),
        (DTYPES, "bfloat16", "bf16"),
        (DTYPES, "float16", "fp16"),
        (DTYPES, "float32", "fp32"),
        (DTYPES, "base", "base"),
        (Whole(1), "3", 3),
        (Whole(), "-3", -3),
        (Number(0, above=True), "1e-4", 1e-4),
        (Number(0, 1, above=True), "1", 1.0),
    ],
)
def test_what_is_understood(kind: Any, text: str, value: object) -> None:
    assert kind.convert(text, None, None) == value


@pytest.mark.parametrize(
    ("kind", "text", "says"),
    [
        (Size(), "big", "'big' must be a size: 5GB, 500MB, or a number of megabytes"),
        (Size(), "5XB", "must be a size"),
        (Size(), "0", "must be a size"),
        (Size(), "-5GB", "must be a size"),
        (Size(), "nan", "must be a size"),
        (Size(), "9" * 400, "must be a size"),
        (DTYPES, "int4", "is not one of"),
        (Whole(1), "x", "'x' must be a whole number >= 1"),
        (Whole(1), "0", "'0' must be a whole number >= 1"),
        (Whole(1), "1.5", "must be a whole number >= 1"),
        (Whole(1, 256), "257", "must be a whole number >= 1 and <= 256"),
        (Whole(), "hi", "'hi' must be a whole number"),
        (Number(0, above=True), "0", "'0' must be a number > 0"),
        (Number(0), "-1", "must be a number >= 0"),
        (Number(0), "nan", "must be a number >= 0"),
        (Number(0), "inf", "must be a number >= 0"),
        (Number(0, 1, above=True), "1.1", "must be a number > 0 and <= 1"),
    ],
)
def test_what_is_not(kind: Any, text: str, says: str) -> None:
    with pytest.raises(click.BadParameter) as caught:
        kind.convert(text, None, None)
    assert says in caught.value.message


def test_where_there_are_no_bounds_the_help_names_none(world: World, pv: InProcess) -> None:
    for name in ("train", "chat", "combine", "merge"):
        assert "None" not in pv.ok(name, "--help").out, name
    assert "x>=1" in pv.ok("train", "--help").out
    page = Path(__file__).parents[2] / "docs" / "cli.md"
    assert "None" not in page.read_text("utf-8")


def test_every_command_has_them() -> None:
    """click's own say `is not a valid integer range`."""
    plain = (click.IntRange, click.FloatRange, type(click.INT), type(click.FLOAT))
    for name in (name for names in COMMANDS.values() for name in names):
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        below = list(command.commands.values()) if isinstance(command, click.Group) else []
        for parameter in (one for inner in (command, *below) for one in inner.params):
            own = isinstance(parameter.type, Whole | Number)
            assert own or not isinstance(parameter.type, plain), f"{name}: {parameter.name}"


def test_they_reach_the_commands(world: World, pv: InProcess) -> None:
    plan = pv.ok("build", "-n", "-o", "out", "--shard-size", "50KB", "--dtype", "bfloat16", "--json").json
    assert plan["sizes"] == pv.ok("build", "-n", "-o", "out", "--shard-size", "0.05", "--json").json["sizes"]
    (world.folder / "afile").touch()
    for words, says in (
        (("build", "./o3"), "pv build -o ./o3"),
        (("build",), "pv build -o DIR"),
        (("build", "v1"), "pv build v1 -o DIR"),
        (("build", "-o", "afile"), "afile is a file, not a folder"),
        (("build", "-o", "out", "--shard-size", "huge"), "must be a size"),
        (("compress", "listening", "--to", "lowrank:0"), "the rank is a whole number from 1 to 65536"),
        (("compress", "listening", "--to", "sparse:2"), "the share is above 0 and at most 1"),
        (("compress", "listening", "--to", "int8:3"), "nothing stands after its name"),
        (("log", "-n", "x"), "must be a whole number >= 1"),
        (("revert", "HEAD", "--mainline", "hi"), "must be a whole number >= 1"),
    ):
        said = pv(*words)
        assert (said.code, said.out) == (2, ""), said
        assert says in said.err, said.err


def test_status_is_aligned(world: World, pv: InProcess) -> None:
    """A long name, or a factor, does not push its vector out of the column."""
    for name in ("a", "a-behaviour-with-a-rather-long-name-indeed"):
        pv.ok("add", f"{name}=HEAD:listening")
    pv.ok("scale", "a", "1", "--module", "*.mlp.*=0.5")
    lines = pv.ok("status").out.partition("behaviours\n")[2].splitlines()
    assert len({line.rindex("  ") for line in lines}) == 1
