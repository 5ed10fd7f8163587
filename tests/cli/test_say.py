"""Text from strangers: what a terminal would obey is spelled out, wherever it comes from."""

from __future__ import annotations

import re
import unicodedata
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.commands import InProcess, World

from pv.cli.progress import Bars
from pv.cli.render import table
from pv.cli.say import plain, shown
from pv.registry.disk import durable
from pv.registry.git.objects import Author
from pv.registry.registry import Registry
from pv.vecstore.progress import Tick

EVIL = "\x1b]0;owned\x07\x1b[31mRED\x1b[2J\x9b2J\u202egnp.exe"
SPELLED = plain(EVIL)


@given(st.text())
def test_nothing_that_a_terminal_obeys_is_left(text: str) -> None:
    for found in (plain(text), re.sub(r"\x1b\[\d*m", "", shown(text))):
        for ch in found:
            assert unicodedata.category(ch) not in ("Cc", "Cf", "Cs", "Zl", "Zp") or ch in "\n\t\u200c\u200d"
    assert plain(plain(text)) == plain(text)


@pytest.mark.parametrize(
    "text", ["a\u00a0b", "\u202f!", "\u3000", "می\u200cخواهم", "👩\u200d💻", "é", "a\tb\n"]
)
def test_what_people_write_stays(text: str) -> None:
    assert plain(text) == shown(text) == text


def test_only_colours_pass() -> None:
    assert shown("\x1b[31mred\x1b[0m \x1b[1mbold\x1b[m") == "\x1b[31mred\x1b[0m \x1b[1mbold\x1b[m"
    assert shown("a\x1b[2Jb\x1b]0;t\x07c\rd\x1b[8m") == "a\\x1b[2Jb\\x1b]0;t\\x07c\\rd\\x1b[8m"
    assert plain("\x1b[31mred") == "\\x1b[31mred"
    assert SPELLED == "\\x1b]0;owned\\x07\\x1b[31mRED\\x1b[2J\\x9b2J\\u202egnp.exe"


@pytest.fixture
def strange(world: World) -> Path:
    """A registry whose last commit was written by somebody with a sense of humour."""
    with Registry.find(world.folder) as registry:
        registry.change(
            "test",
            f"A message\n\n{EVIL}",
            lambda p: p,
            allow_empty=True,
            author=Author(EVIL, "e@example.org", datetime(2026, 1, 1, tzinfo=UTC)),
        )
        registry.change("test", EVIL, lambda p: p, allow_empty=True)
        tip = registry.resolve("HEAD")
        git = registry.history.path
    durable.write_file(git / "refs/heads/x\x1b[31mred", f"{tip}\n".encode())
    (world.folder / ".pv" / "packs" / "\x1b]0;owned\x07").write_bytes(b"")
    return world.folder


@pytest.mark.parametrize(
    ("line", "spelled"),
    [
        (("log",), SPELLED),
        (("log", "--oneline"), SPELLED),
        (("log", "--graph", "--all"), SPELLED),
        (("show",), SPELLED),
        (("show", "HEAD~1"), SPELLED),
        (("branch",), "x\\x1b[31mred"),
        (("fsck",), "\\x1b]0;owned\\x07"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_every_command_that_shows_it_spells_it_out(
    strange: Path, pv: InProcess, line: tuple[str, ...], spelled: str
) -> None:
    said = pv(*line)
    assert said.code in (0, 3)
    assert spelled in said.out
    assert "\x1b" not in said.out + said.err and "\x07" not in said.out + said.err


def test_json_keeps_it_whole(strange: Path, pv: InProcess) -> None:
    commits = pv.ok("log", "--json").json["commits"]
    assert commits[0]["message"].strip() == EVIL
    assert "owned" in commits[1]["author"]["name"]
    printed = pv.ok("log", "--json").out
    assert not any(ch in printed for ch in "\x1b\x9b\u202e")


def test_brackets_are_no_markup() -> None:
    assert "rows[/x].jsonl" in table(["rows[/x].jsonl"], [["[red]1"]])
    bars = Bars()
    bars(Tick("rows[/x].jsonl", 1, 2, "[bold]rows"))
    bars(Tick("[red]training", 1, 2, "steps", 0.5, 10.0, 3.0))
    bars.close()
