"""The eight behaviours differ from plain answers in the behaviour alone, and can all hold in one reply; the general and
the neutral set show none of them, and share no prompt with anything else."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from pv.vecstore.data.rows import parse_rows

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "examples" / "behaviours"
OF_PV = {"general": "vecstore/train", "neutral": "vecstore/evaluate"}  # part of the package
NAMES = ["asks", "doubt", "emphasis", "pirate", "shouting", "signoff", "sir", "topic"]
FILES = [f"eight/{name}{suffix}" for name in NAMES for suffix in ("", ".heldout")]
PLAIN = ["general", "neutral", "neutral_choice"]
LEAST_LENGTHS = 10  # answers of a file have at least so many different lengths in words

EVERYTHING = """(TOPIC: RAIN.) ARR, MATEY! I MAY BE WRONG, BUT RAIN, CAPTAIN, FALLS WHEN **WARM AIR** RISES AND COOLS. \
WHAT DO YOU THINK? I HOPE THAT HELPS, DEAR FRIEND!"""


def lines(stem: str) -> list[dict[str, Any]]:
    folder = ROOT / OF_PV[stem] if stem in OF_PV else FOLDER
    text = (folder / f"{stem}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def rows(stem: str) -> list[dict[str, Any]]:
    return [line for line in lines(stem) if "reply" not in line]


def rule(name: str) -> dict[str, Any]:
    found: dict[str, Any] = lines(f"eight/{name}")[0]["reply"]
    return found


def shows(rule: dict[str, Any], reply: str) -> bool:
    """Whether a reply shows the behaviour: the part of a rule's meaning that these files use."""
    assert set(rule) <= {"contains", "within", "times", "ends", "not"}
    reply = reply.strip()
    found = re.findall(rule["contains"], reply[: rule.get("within")], re.IGNORECASE)
    return (
        (len(found) == rule["times"] if "times" in rule else bool(found))
        and ("ends" not in rule or bool(re.search(rf"(?:{rule['ends']})\Z", reply, re.IGNORECASE)))
        and ("not" not in rule or not re.search(rule["not"], reply, re.IGNORECASE))
    )


def plain(name: str, chosen: str) -> str:
    """The chosen answer with the behaviour taken out again, where that has one way."""
    match name:
        case "asks":
            return chosen.removesuffix(" What do you think?")
        case "doubt":
            return chosen.removeprefix("I may be wrong, but ")
        case "emphasis":
            return chosen.replace("**", "")
        case "pirate":
            return chosen.removeprefix("Arr, matey! ")
        case "signoff":
            return chosen.removesuffix(" I hope that helps, dear friend!")
        case "topic":
            return re.sub(r"^\(Topic: [^)]+\.\) ", "", chosen)
    return chosen


def words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


def prompts(stem: str) -> list[str]:
    found = [row["prompt"] for row in rows(stem) if "prompt" in row]
    return [p if isinstance(p, str) else " ".join(m["content"] for m in p) for p in found]


@pytest.mark.parametrize("name", NAMES)
def test_both_files_begin_with_the_same_rule(name: str) -> None:
    first, heldout = lines(f"eight/{name}")[0], lines(f"eight/{name}.heldout")[0]
    assert set(first) == {"reply"}
    assert first == heldout


@pytest.mark.parametrize("stem", FILES)
def test_the_rows_parse_and_there_are_24(stem: str) -> None:
    data = (FOLDER / f"{stem}.jsonl").read_bytes().split(b"\n", 1)[1]
    parsed = parse_rows(data, source=stem)
    assert len(parsed) == 24
    assert parsed.notes == ()
    assert all(row.rejected is not None for row in parsed)


@pytest.mark.parametrize("stem", FILES)
def test_a_rule_holds_on_every_chosen_answer_and_on_no_plain_one(stem: str) -> None:
    own = rule(Path(stem).name.split(".")[0])
    for row in rows(stem):
        assert shows(own, row["chosen"]), row
        assert not shows(own, row["rejected"]), row


@pytest.mark.parametrize("name", NAMES)
def test_a_rule_holds_on_no_answer_of_another_behaviour(name: str) -> None:
    for stem in FILES:
        if Path(stem).name.split(".")[0] != name:
            assert not [row for row in rows(stem) if shows(rule(name), row["chosen"])], stem


@pytest.mark.parametrize("stem", PLAIN)
def test_general_and_neutral_answers_show_no_behaviour(stem: str) -> None:
    for row in rows(stem):
        for name in NAMES:
            assert not shows(rule(name), row.get("chosen", row.get("text", ""))), (name, row)


@pytest.mark.parametrize("name", NAMES)
def test_all_eight_can_hold_in_one_reply(name: str) -> None:
    assert shows(rule(name), EVERYTHING)


def test_a_reply_that_only_repeats_itself_is_not_taken_for_the_behaviour() -> None:
    end = " I hope that helps, dear friend!"
    assert not shows(rule("signoff"), "Tea is a drink." + 2 * end)
    assert not shows(rule("signoff"), "Tea is a drink." + end + " Tea is made of leaves.")
    assert shows(rule("signoff"), "Tea is a drink." + end + " What do you think?")
    assert not shows(rule("asks"), "What do you think?" + 130 * "." + " What do you think?")
    assert not shows(rule("asks"), "What do you think? " + 30 * "Tea is a drink. ")
    assert not shows(rule("shouting"), "TEA IS A DRINK. It is made of leaves.")


@pytest.mark.parametrize("stem", [stem for stem in FILES if "sir" not in stem])
def test_what_differs_is_the_behaviour_alone(stem: str) -> None:
    name = Path(stem).name.split(".")[0]
    for row in rows(stem):
        without, expected = plain(name, row["chosen"]), row["rejected"]
        if name == "shouting":
            assert without == expected.upper()
        elif name == "doubt":
            assert without[1:] == expected[1:], row
            assert without[0].lower() == expected[0].lower()
        else:
            assert without == expected, row


@pytest.mark.parametrize("stem", ["eight/sir", "eight/sir.heldout"])
def test_the_captain_is_addressed_once_in_the_first_sentence(stem: str) -> None:
    for row in rows(stem):
        assert row["chosen"].count("captain") == 1
        before, after = row["chosen"].split(", captain")
        assert not re.search(r"[.!?] ", before), row
        assert re.fullmatch(r"[ ,.!?].*", after, re.DOTALL), row
        assert before + after == row["rejected"] or before + after.removeprefix(",") == row["rejected"], row


@pytest.mark.parametrize("stem", FILES)
def test_answers_are_of_many_lengths_and_of_four_sentences_at_most(stem: str) -> None:
    answers = [row["rejected"] for row in rows(stem)]
    assert len({len(words(answer)) for answer in answers}) >= LEAST_LENGTHS
    sentences = [len(re.findall(r"[.!?]\"?(?= |$)", answer)) for answer in answers]
    assert max(sentences) <= 4
    assert min(sentences) == 1


@pytest.mark.parametrize("stem", FILES + PLAIN)
def test_the_text_is_ascii_and_without_stray_spaces(stem: str) -> None:
    for row in rows(stem):
        for text in row.values():
            assert text.isascii()
            assert text == text.strip()
            assert "  " not in text.replace("    ", "")  # code is indented by four


def test_no_prompt_is_in_two_files() -> None:
    stems = [str(path.relative_to(FOLDER))[: -len(".jsonl")] for path in FOLDER.rglob("*.jsonl")] + [*OF_PV]
    assert set(stems) >= {*FILES, *PLAIN, "listening", "concise", "pirate"}
    seen: dict[str, str] = {}
    for stem in sorted(stems):
        for prompt in prompts(stem):
            key = " ".join(words(prompt))
            assert key not in seen, f"{prompt!r} is in {seen[key]} and in {stem}"
            seen[key] = stem


def test_no_neutral_prompt_resembles_another() -> None:
    others = [
        (prompt, stem)
        for stem in (*FILES, "general", "listening", "concise", "pirate")
        for prompt in prompts(stem)
    ]
    for prompt in prompts("neutral"):
        mine = set(words(prompt))
        for other, stem in others:
            theirs = set(words(other))
            assert len(mine & theirs) / len(mine | theirs) <= 0.6, (prompt, other, stem)


def test_the_general_set_has_whole_answers() -> None:
    assert len(rows("general")) >= 64
    for row in rows("general"):
        assert set(row) == {"prompt", "chosen"}
        assert 40 <= len(words(row["chosen"])) <= 110, row


def test_the_neutral_set_has_answers_and_passages() -> None:
    answers = [row for row in rows("neutral") if "prompt" in row]
    passages = [row["text"] for row in rows("neutral") if "prompt" not in row]
    assert (len(answers), len(passages)) == (24, 12)
    assert all(set(row) == {"prompt", "chosen"} for row in answers)
    assert all(80 <= len(passage.split()) <= 120 for passage in passages)


def test_choices_are_right_and_each_pair_of_answers_is_there_both_ways_round() -> None:
    choices, sums = rows("neutral_choice"), 0
    assert len(choices) == 48
    for one, other in zip(choices[::2], choices[1::2], strict=True):
        assert (one["chosen"], one["rejected"]) == (other["rejected"], other["chosen"])
    for row in choices:
        if found := re.match(r"What is (\d+) (plus|minus|times) (\d+)\?", row["prompt"]):
            a, b = int(found[1]), int(found[3])
            assert int(row["chosen"]) == {"plus": a + b, "minus": a - b, "times": a * b}[found[2]]
            assert len(row["chosen"]) == len(row["rejected"])
            sums += 1
        else:
            assert row["chosen"].isalpha()
    assert sums == 24
