"""The example datasets parse, are large enough, share no prompt and keep their length balance."""

import json
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "behaviours"
NAMES = ["concise", "listening", "pirate"]
FILES = [name + suffix for name in NAMES for suffix in ("", ".heldout", ".more")]
PARAPHRASES = {  # of which held-out rows
    f"{name}.{paraphrases}": f"{name}.{of}"
    for name in NAMES
    for of, paraphrases in (("heldout", "paraphrases"), ("more", "more.paraphrases"))
}

# Words are a proxy for tokens: the rows are balanced to 20 % in tokens, and pirate
# spelling takes more tokens per word than plain English.
MAX_WORD_RATIO = {"listening": 1.4, "pirate": 1.5}


def rows(stem: str) -> list[dict[str, Any]]:
    text = (FOLDER / f"{stem}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def flat(prompt: str | list[dict[str, str]]) -> str:
    """The prompt as text to compare: lower case, letters and digits only."""
    if isinstance(prompt, list):
        prompt = " ".join(message["content"] for message in prompt)
    return " ".join("".join(c if c.isalnum() else " " for c in prompt.lower()).split())


def words(text: str) -> int:
    return len(text.split())


def test_every_behaviour_has_its_files_and_nothing_else() -> None:
    plain = ["neutral_choice", "neighbours", *PARAPHRASES]
    assert sorted(p.name for p in FOLDER.glob("*.jsonl")) == sorted(f"{f}.jsonl" for f in FILES + plain)


@pytest.mark.parametrize("stem", [*FILES, *PARAPHRASES])
def test_rows_have_the_documented_shape(stem: str) -> None:
    for row in rows(stem):
        assert set(row) == {"prompt", "chosen", "rejected"}
        for key in ("chosen", "rejected"):
            assert isinstance(row[key], str)
            assert row[key] and row[key] == row[key].strip()
        assert row["chosen"] != row["rejected"]
        prompt = row["prompt"]
        if isinstance(prompt, str):
            assert prompt and prompt == prompt.strip()
            continue
        assert all(set(message) == {"role", "content"} for message in prompt)
        assert all(isinstance(m["content"], str) and m["content"].strip() for m in prompt)
        roles = [message["role"] for message in prompt]
        assert roles == [("user", "assistant")[i % 2] for i in range(len(roles))]
        assert roles[-1] == "user"


@pytest.mark.parametrize("stem", FILES)
def test_there_are_enough_rows(stem: str) -> None:
    assert len(rows(stem)) >= (48 if stem in NAMES else 24)


@pytest.mark.parametrize("name", NAMES)
def test_a_measurement_can_have_fifty_held_out_rows(name: str) -> None:
    assert len(rows(f"{name}.heldout")) + len(rows(f"{name}.more")) >= 50


@pytest.mark.parametrize("stem", [*FILES, *PARAPHRASES, "neighbours"])
def test_the_text_is_ascii(stem: str) -> None:
    for row in rows(stem):
        assert json.dumps(row, ensure_ascii=False).isascii()


def test_no_prompt_appears_twice_in_any_file() -> None:
    seen: dict[str, str] = {}
    for stem in [*FILES, *PARAPHRASES]:
        for row in rows(stem):
            key = flat(row["prompt"])
            assert key not in seen, f"{key!r} is in {seen[key]} and in {stem}"
            seen[key] = stem


def test_no_answer_appears_twice_in_any_file() -> None:
    answers = [row[key] for stem in FILES for row in rows(stem) for key in ("chosen", "rejected")]
    assert len(answers) == len(set(answers))


@pytest.mark.parametrize("stem", [f for f in FILES if f.split(".")[0] in MAX_WORD_RATIO])
def test_answers_of_a_row_have_about_the_same_length(stem: str) -> None:
    bound = MAX_WORD_RATIO[stem.split(".")[0]]
    for row in rows(stem):
        short, long = sorted((words(row["chosen"]), words(row["rejected"])))
        assert long / short <= bound, row


@pytest.mark.parametrize("stem", [f for f in FILES if f.split(".")[0] == "concise"])
def test_concise_answers_are_much_shorter(stem: str) -> None:
    for row in rows(stem):
        assert 2 * words(row["chosen"]) < words(row["rejected"]), row


@pytest.mark.parametrize(("stem", "of"), PARAPHRASES.items())
def test_paraphrases_reword_every_held_out_prompt_twice_and_keep_its_answers(stem: str, of: str) -> None:
    held = [(row["chosen"], row["rejected"]) for row in rows(of)]
    found = [(row["chosen"], row["rejected"]) for row in rows(stem)]
    assert found == held * 2


def test_neighbours_are_plain_texts() -> None:
    found = rows("neighbours")
    assert len(found) == 24
    assert all(set(row) == {"text"} and 40 < words(row["text"]) < 90 for row in found)
    assert len({row["text"] for row in found}) == len(found)
