"""pv probe neurons on the command line: answers, what is kept, refusals, and Ctrl-C."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.commands import InProcess, Processes, World
from support.scripting import keeps_to_it

from pv.vecstore.repo.repo import Repo

QUICK = ("--draws", "1", "--steps", "1", "--threads", "1")


@pytest.fixture
def rows(world: World) -> str:
    """Twelve rows whose answers part at once."""
    file = world.folder / "asked.jsonl"
    lines = ({"prompt": f"Say {i}", "chosen": f"Ahoy {i}", "rejected": f"Hello {i}"} for i in range(12))
    file.write_text("".join(json.dumps(one) + "\n" for one in lines))
    return str(file)


def test_what_it_finds_is_said_drawn_kept_and_shown_again(rows: str, world: World, pv: InProcess) -> None:
    words = ("probe", "neurons", "listening", "--data", rows, *QUICK)
    said = pv.ok(*words, "--plot", "n.png", "--page", "n.html")
    assert "base..listening on 12 rows of asked.jsonl" in said.out and "delta x gradient" in said.out
    assert "wrote n.png" in said.err and "intervals of so few are wide" in said.err
    assert (world.folder / "n.png").read_bytes().startswith(b"\x89PNG")
    typed = " ".join((*words, "--plot", "n.png", "--page", "n.html"))
    assert f"{typed}</code>" in (world.folder / "n.html").read_text()
    first = pv("-q", *words, "--json")
    assert keeps_to_it(first, "probe neurons") == []
    assert first.code == 0 and len(first.json["claims"]) == 8 and first.json["n"] == 12
    anew = pv("-q", *words, "--again", "--json")
    assert anew.json == first.json
    assert "12 of asked.jsonl" in pv.ok("probe", "list").out
    shown = pv.ok("show", first.json["probe"][:12])
    assert "k50: neurons for half of the ceiling" in " ".join(shown.out.split())
    assert pv("-q", *words, "--prompts", "8", "--json").json["n"] == 8
    other = pv("-q", *words, "--seed", "1", "--json")
    assert other.json["probe"] != first.json["probe"]
    assert "seed" in pv.ok("diff", first.json["probe"][:12], other.json["probe"][:12]).out
    with Repo.open(world.folder) as repo:
        repo.registry.update_record(other.json["probe"], {"found": None, "parts": {"rows": {}}})
    odd = pv("-q", *words, "--seed", "1")
    assert odd.code == 3 and "--again" in odd.err, odd


@pytest.mark.slow
def test_ctrl_c_keeps_what_was_measured(rows: str, world: World, process: Processes, pv: InProcess) -> None:
    words = ("probe", "neurons", "listening", "--data", rows, *QUICK)
    folder = world.folder / ".pv" / "records"

    def parts() -> dict[str, object]:
        for path in folder.rglob("*.json"):
            facts = json.loads(path.read_text()).get("facts", {})
            if facts.get("probe", {}).get("kind") == "neurons":
                return dict(facts["parts"])
        return {}

    said = process.interrupted(*words, when=lambda: len(parts()) > 3)
    assert said.code == 130 and "what was measured is kept" in said.err
    kept = parts()
    assert 3 < len(kept) < 50
    found = pv("-q", *words, "--json").json
    assert parts().items() >= kept.items()
    assert pv("-q", *words, "--again", "--json").json == found


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("listening",), 2, "too few"),  # four held-out rows were kept
        (("nobody", "--data", "{rows}"), 5, "nobody"),
        (("HEAD..HEAD", "--data", "{rows}"), 2, "same build"),
        (("listening", "--data", "nowhere.jsonl"), 2, "no file"),
        (("listening", "--data", "{same}"), 2, "'chosen' and 'rejected' are"),
        (("listening", "--data", "{alone}"), 2, "no 'rejected'"),
        (("listening", "--data", "{rows}", "--draws", "0"), 2, "--draws"),
        (("listening", "--data", "{rows}", "--draws", "51"), 2, "--draws"),
        (("listening", "--data", "{rows}", "--prompts", "49"), 2, "--prompts"),
        (("listening", "--data", "{rows}", "--prompts", "7"), 2, "--prompts"),
        (("listening", "--data", "{rows}", "--plot", "no/n.png"), 2, "no folder"),
        ((), 2, "WHAT"),
    ],
)
def test_what_is_refused(
    words: tuple[str, ...], code: int, says: str, rows: str, world: World, pv: InProcess, tmp_path: Path
) -> None:
    files = {"rows": rows, "same": str(tmp_path / "same.jsonl"), "alone": str(tmp_path / "alone.jsonl")}
    for name, more in (("same", {"rejected": "Yes"}), ("alone", {})):
        Path(files[name]).write_text(
            "".join(json.dumps({"prompt": f"{i}", "chosen": "Yes", **more}) + "\n" for i in range(9))
        )
    records = sorted((world.folder / ".pv" / "records").rglob("*"))
    said = pv("probe", "neurons", *(word.format(**files) for word in words))
    assert said.code == code and says in said.err, said
    assert sorted((world.folder / ".pv" / "records").rglob("*")) == records
