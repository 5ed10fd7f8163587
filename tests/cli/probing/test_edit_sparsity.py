"""`pv probe edit` and `pv probe sparsity`: options in, tables and JSON out, shown again by their ids."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from support.commands import InProcess, isolate
from support.pirate import pirate_registry, pirate_rows
from support.scripting import keeps_to_it


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as monkeypatch:
        isolate(folder, monkeypatch)
        pirate_registry(folder)
    (folder / "r" / "reworded.jsonl").write_bytes(pirate_rows("So, what of {}?", "s").to_bytes())
    (folder / "r" / "short.jsonl").write_bytes(pirate_rows(count=3).to_bytes())
    texts = ("The harbour was quiet, and the boats lay still.", "Bread is flour, water, salt and time.")
    for at, text in enumerate(texts):
        (folder / "r" / f"text{at}.jsonl").write_text(f'{{"text": "{text}"}}\n{{"text": "{text[::-1]}"}}\n')
    return folder / "r"


@pytest.fixture
def pv(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> InProcess:
    isolate(tmp_path, monkeypatch)
    shutil.copytree(made, tmp_path / "r")
    return InProcess(tmp_path / "r")


def json_of(pv: InProcess, *words: str) -> dict[str, Any]:
    said = pv("-q", *words, "--json")
    assert said.code == 0, said
    assert keeps_to_it(said, " ".join(words[:2])) == [], said
    return said.json


def words_of(text: str) -> str:
    """A long line may be broken elsewhere."""
    return " ".join(text.split())


def test_an_edit_beside_what_was_trained(pv: InProcess) -> None:
    words = (
        "probe", "edit", "pirate", "--paraphrases", "reworded.jsonl", "--neighbours", "text0.jsonl", "--neighbours",
        "text1.jsonl", "--noise", "2", "--threads", "1",
    )  # fmt: skip
    found = json_of(pv, *words)
    assert found["data"]["neighbours"]["n"] == 4
    said = pv.ok(*words, "--plot", "edit.png", "--page", "edit.html")
    assert "edit at its best" in said.out and "at equal effect: " in said.out
    assert (pv.at / "edit.png").is_file()
    assert "--neighbours text1.jsonl --noise 2" in (pv.at / "edit.html").read_text()
    assert words_of(said.out) in words_of(pv.ok("show", found["probe"][:12]).out)


def test_a_pull_beside_plain_training(pv: InProcess) -> None:
    words = (
        "probe", "sparsity", "pirate", "--neighbours", "text0.jsonl", "--strength", "0.8", "--threads", "1",
    )  # fmt: skip
    found = json_of(pv, *words)
    assert [run["strength"] for run in found["runs"]] == [0.0, 0.8]
    said = pv.ok(*words)
    assert "Training with a penalty needs fewer neurons" in said.out
    assert words_of(said.out) in words_of(pv.ok("show", found["probe"][:12]).out)


@pytest.mark.parametrize(
    ("words", "code", "hint"),
    [
        (("edit", "pirate", "--layer", "7"), 2, "a number from 0 to 1"),
        (("edit", "pirate", "--data", "short.jsonl"), 2, "at least 8"),
        (("edit", "nobody"), 5, ""),
        (("sparsity", "pirate", "--strength", "0"), 2, ""),
        (("sparsity", "pirate", "--penalty", "rows"), 2, ""),
        (("sparsity", "base..HEAD~1"), 2, ""),
    ],
)
def test_what_is_refused(pv: InProcess, words: tuple[str, ...], code: int, hint: str) -> None:
    said = pv("probe", *words, "--threads", "1")
    assert said.code == code and hint in said.err, said
