"""Rows in, from what people have, and rows out again."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

from support.commands import InProcess, Processes, World

QUICK = ("--max-steps", "1", "--threads", "1")


def data_id(pv: InProcess, name: str) -> str:
    shown = pv.ok("show", "--json").json
    ((_, vector),) = shown["persona"]["behaviours"][name]["terms"]
    found: str = shown["provenance"][vector]["data"]["id"]
    return found


def test_rows_come_back_as_they_were_trained_on(world: World, pv: InProcess) -> None:
    """What is kept can be had again."""
    said = pv.ok("rows", "listening")
    again = [json.loads(line) for line in said.out.splitlines()]
    given = [json.loads(line) for line in world.rows.read_text().splitlines()]
    assert [(row["chosen"], row["rejected"]) for row in again] == [
        (r["chosen"], r["rejected"]) for r in given
    ]
    pv.ok("compress", "listening", "--to", "sparse:0.3")
    assert pv.ok("rows", "HEAD:listening").out == pv.ok("rows", "HEAD~1:listening").out == said.out
    note = pv.ok("rows", "listening", "-o", "again.jsonl").err
    assert "6 rows of rows.jsonl" in note
    found = pv.ok("rows", "listening", "--json").json
    pv.ok("train", "again.jsonl", "--as", "again", *QUICK)
    assert data_id(pv, "again") == found["data_id"]
    assert found["output"] is None and found["rows"] == again
    pv.ok("train", "-", "--as", "piped", *QUICK, stdin=said.out)
    assert data_id(pv, "piped") == found["data_id"]


def test_held_out_rows_come_back_too(world: World, pv: InProcess, tmp_path: Path) -> None:
    held_out = world.rows.with_name("rows.heldout.jsonl")
    found = pv.ok("rows", "listening", "--held-out", "--json").json
    assert (found["held_out"], found["data"]) == (True, held_out.name)
    pv.ok("rows", "HEAD:listening", "--held-out", "-o", tmp_path / "again.jsonl")
    again = pv.ok("eval", tmp_path / "again.jsonl", "--json").json
    assert again["data_id"] == found["data_id"] == pv.ok("eval", held_out, "--json").json["data_id"]
    pv.ok("commit", world.tuned, "--as", "tuned")
    assert pv("rows", "tuned", "--held-out").code == 5
    pv.ok("train", world.rows, "--as", "bare", "--max-steps", "1", "--held-out", "none", "--threads", "1")
    said = pv("rows", "bare", "--held-out")
    assert (said.code, "no held-out rows were kept" in said.err) == (5, True)


def test_rows_that_are_not_there(world: World, pv: InProcess) -> None:
    pv.ok("train", world.rows, "--as", "lost", *QUICK, "--no-data", "--held-out", "none")
    pv.ok("commit", world.tuned, "--as", "tuned")
    for name, words in (
        ("lost", "its 6 rows of rows.jsonl were not kept (--no-data)"),
        ("tuned", "it was captured from tuned, not trained here"),
        ("nobody", "no behaviour 'nobody'"),
        ("", "no behaviour ''"),
        ("HEAD:lost:", "no such revision"),
    ):
        said = pv("rows", name)
        assert (said.code, said.out) == (5, ""), said
        assert words in said.err or name == "HEAD:lost:"
    kept = pv.ok("rows", "listening", "--json").json["data_id"]
    (world.folder / ".pv" / "packs" / kept[:2] / kept).unlink()
    said = pv("rows", "listening")
    assert (said.code, "the pack of its 6 rows of rows.jsonl is gone" in said.err) == (5, True)


def test_a_file_is_written_once(world: World, pv: InProcess) -> None:
    (world.folder / "mine.jsonl").write_text("precious")
    for name, words in (("mine.jsonl", "exists already"), ("no/where.jsonl", "no folder")):
        said = pv("rows", "listening", "-o", name)
        assert (said.code, words in said.err) == (2, True)
    assert (world.folder / "mine.jsonl").read_text() == "precious"


def test_no_row_is_a_command_to_the_terminal(world: World, pv: InProcess, process: Processes) -> None:
    row = {"prompt": "Hi\x9b2J", "chosen": "Yo\x1b[2J\u202e", "rejected": "é"}
    (world.folder / "odd.jsonl").write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    pv.ok("train", "odd.jsonl", "--as", "odd", *QUICK)
    said = process("rows", "odd", env={"PYTHONIOENCODING": "utf-8"})
    assert not set("\x9b\x1b\u202e") & set(said.out) and "é" in said.out
    assert json.loads(said.out)["chosen"] == row["chosen"]
    ascii = process("rows", "odd", env={"PYTHONIOENCODING": "ascii"}).out
    assert json.loads(ascii) == json.loads(said.out)


def test_other_columns_are_named_before_the_training(world: World, pv: InProcess) -> None:
    """One column too many does not refuse the whole file."""
    lines = [{**json.loads(line), "id": 7} for line in world.rows.read_text().splitlines()]
    (world.folder / "wide.json").write_text(json.dumps(lines))
    said = pv.ok("train", "wide.json", "--as", "wide", *QUICK, "--held-out", "none", "--json")
    assert said.err.splitlines()[0] == "  wide.json: ignored columns: id"
    assert said.json["notes"] == ["wide.json: ignored columns: id"]
    said = pv.ok("train", "wide.json", "--as", "wide", *QUICK, "--seed", "2", "--held-out", "wide.json")
    assert said.err.count("ignored columns") == 2, "once for each file"
    assert "ignored columns: id" in pv.ok("eval", "wide.json").err


def test_plain_text_and_verdicts_are_trained_on(world: World, pv: InProcess) -> None:
    (world.folder / "text.jsonl").write_text('{"text": "Once upon a time"}\n{"text": "The end"}\n')
    said = pv.ok("train", "text.jsonl", "--as", "tale", *QUICK)
    assert "2 of 2 rows are plain text without a prompt" in said.err
    assert json.loads(pv.ok("rows", "tale").out.splitlines()[0]) == {"text": "Once upon a time"}
    said = pv("eval", "text.jsonl")
    assert (said.code, "(2 of 2 rows have none)" in said.err) == (2, True)
    (world.folder / "kto.csv").write_text("prompt,completion,label\nHi,Yo,True\nHi,No,False\n")
    said = pv.ok("train", "kto.csv", "--as", "kto", *QUICK)
    assert "1 of 2 rows have label false and are left out" in said.err


def test_hints_fit_what_was_given(world: World, pv: InProcess) -> None:
    """None of these is answered with the format of a row."""
    write = (world.folder / "packed.jsonl.gz").write_bytes
    write(gzip.compress(world.rows.read_bytes()))
    (world.folder / "rows.jsonl").write_bytes(world.rows.read_bytes())
    (world.folder / "empty.jsonl").touch()
    before = world.state()
    for words, says, hint in (
        (("eval", "HEAD"), "'HEAD' is a revision, not a file of rows", "pv eval HEAD ROWS.jsonl"),
        (("eval", "row.jsonl"), "no file", f"did you mean {world.folder / 'rows.jsonl'}?"),
        (("eval", "."), "is a folder, not a file of rows", "holds empty.jsonl, rows.jsonl"),
        (("eval", "empty.jsonl"), "no rows: the file is empty", "one row"),
        (("eval", "packed.jsonl.gz"), "is gzip", "gunzip -k"),
        (("eval", "-"), "no rows on stdin", "only one `-`"),
        (("train", "rows.jsonl", "--as", "x", "--held-out", "nope"), "no file", "holds empty.jsonl"),
        (("train", "none/rows.jsonl", "--as", "x"), "no file", "no folder"),
        (("compress", "listening", "--to", "int8", "--data", "main"), "'main' is a revision", "ROWS.jsonl"),
    ):
        said = pv(*words)
        assert (said.code, said.out) == (2, ""), said
        assert says in said.err and hint in said.err, said.err
    assert world.state() == before


def test_a_file_that_does_not_fit_is_not_left_cut(world: World) -> None:
    """As on a full disk: the file may be no longer than a few bytes."""
    lines = "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
    lines += "resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64));"
    lines += "from pv.cli.main import run; sys.exit(run(['rows', 'listening', '-o', 'cut.jsonl']))"
    done = subprocess.run([sys.executable, "-c", lines], cwd=world.folder, capture_output=True, text=True)
    assert done.returncode == 74, done.stderr
    assert not list(world.folder.glob("cut.jsonl*"))


def test_training_the_same_again_is_known_as_this_training_too(world: World, pv: InProcess) -> None:
    """The vector is there already: the later behaviour has its rows, file and effect, and no other loses its own."""
    rows = world.rows.with_name("other.jsonl")
    rows.write_text(world.rows.read_text())
    held_out = world.rows.with_name("rows.heldout.jsonl")
    pv.ok("train", world.rows, "--as", "bare", *QUICK, "--no-data", "--held-out", "none")
    pv.ok("train", rows, "--as", "kept", *QUICK, "--held-out", held_out)
    shown = pv.ok("show", "--json").json["persona"]["behaviours"]
    assert shown["bare"]["terms"] == shown["kept"]["terms"]
    said = pv.ok("log", "kept").out
    assert "made     trained on other.jsonl" in said and "not measured" not in said
    assert pv.ok("rows", "kept").out
    (known,) = [one for one in pv.ok("vectors", "--json").json["vectors"] if one["behaviour"] == "bare"]
    assert known["provenance"]["data"]["name"] == "rows.jsonl" and known["effect"], (
        "the first, and what is known"
    )
    assert [one["as"] for one in known["provenance"]["also"]] == ["kept"]
    assert pv("rows", "HEAD~1:bare").code == 5, "what was committed before stays as it was"
    pv.ok("train", world.rows, "--as", "again", *QUICK, "--no-data", "--held-out", "none")
    assert "trained on rows.jsonl" in pv.ok("log", "again").out
    pv.ok("gc")
    assert pv.ok("rows", "HEAD~1:kept").out, "gc keeps the rows that an earlier commit lists"
    pv.ok("fsck", "--deep")
