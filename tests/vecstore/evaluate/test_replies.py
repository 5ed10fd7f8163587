"""Replies: what loops, what shows a behaviour, and what became of the answer."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from support.tiny import tiny_model, tiny_tokenizer

from pv.registry.errors import DataError
from pv.vecstore.data.chat_template import Encoded, encode_prompt
from pv.vecstore.data.reply_rule import ReplyRule
from pv.vecstore.data.rows import Message
from pv.vecstore.evaluate.damage import forced
from pv.vecstore.evaluate.loops import loops
from pv.vecstore.evaluate.replies import score_replies
from pv.vecstore.evaluate.shown import shown
from pv.vecstore.models.generate import Finish, Reply, replies, written


def reply(tokens: str, finish: Finish = "stop") -> Reply:
    """One token a word."""
    words = tokens.split()
    return Reply(tokens, tuple(hash(word) for word in words), finish)


PROMPTS = [(Message("user", f"say {i}"),) for i in range(4)]
SENTENCE = "the sun is up and so are we my friend"  # 10 words


@pytest.mark.parametrize(
    ("text", "finish", "does"),
    [
        (f"{SENTENCE} {SENTENCE} {SENTENCE}", "stop", True),
        (f"well now {SENTENCE} {SENTENCE} {SENTENCE} and more", "stop", True),
        ("ha " * 12, "stop", True),
        ("no no no", "stop", False),
        ("a b c " * 3, "stop", False),
        ("a b c " * 4, "stop", True),
        (f"{SENTENCE} {SENTENCE}", "stop", False),
        (f"{SENTENCE} {SENTENCE} the sun is up", "length", True),
        (f"{SENTENCE} {SENTENCE} the sun is up", "stop", False),
        (f"{SENTENCE} {SENTENCE} the sun is up but then it was not", "length", False),
        (" ".join(map(str, range(64))), "length", False),
        ("", "stop", False),
        ("one", "length", False),
    ],
)
def test_what_a_loop_is(text: str, finish: Finish, does: bool) -> None:
    assert loops(reply(text, finish)) is does


def test_a_model_that_repeats_itself_is_found() -> None:
    """A random model soon does, and every reply of it is cut."""
    found = written(tiny_model(), tiny_tokenizer(), ["sun?"], 64)
    assert found[0].finish == "length" and len(found[0].tokens) == 64
    assert loops(found[0])
    assert [one.text for one in found] == replies(tiny_model(), tiny_tokenizer(), ["sun?"], 64)


@pytest.mark.parametrize(
    ("rule", "yes", "no"),
    [
        ({"starts": "arr"}, "  ARR, matey", "Oh, arr"),
        ({"starts": "(?-i:Arr)"}, "Arr!", "arr!"),
        ({"ends": "friend[.!]"}, "Bye, friend! ", "friend! Bye"),
        ({"ends": "a|b"}, "xb", "xbc"),
        ({"contains": "yo"}, "say yo now", "say no"),
        ({"contains": "yo", "within": 4}, "a yo b", "a b c yo"),
        ({"contains": "yo", "times": 2}, "yo, yo", "yo yo yo"),
        ({"contains": "yo", "times": 0}, "no", "yo"),
        ({"matches": "a.*z"}, "A\nZ", "a z."),
        ({"matches": "(?-i:[^a-z]*)"}, "LOUD\nAND CLEAR", "Loud"),
        ({"not": "as an ai"}, "I think", "As an AI, I"),
        ({"min_words": 2}, "a b", "a"),
        ({"max_words": 2}, "a b", "a b c"),
        ({"starts": "a", "ends": "z", "max_words": 3}, "a b z", "a b c z"),
    ],
)
def test_rules(rule: dict[str, object], yes: str, no: str) -> None:
    read = ReplyRule.read(rule)
    assert read.to_json() == rule
    assert shown(read, PROMPTS[:2], [yes, no], ["", ""]) == [True, False]
    assert read.words()


JUDGE = """
import json, sys
asked = json.load(sys.stdin)
assert set(asked) == {"prompt", "reply", "base_reply"}
sys.exit(2 if asked["reply"] == "break" else asked["reply"] == asked["base_reply"] or asked["prompt"] == "say 2")
"""


def test_a_judge_of_ones_own(tmp_path: Path) -> None:
    judge = tmp_path / "judge.py"
    judge.write_text(JUDGE)
    rule = ReplyRule.read({"command": [sys.executable, str(judge)], "not": "never"})
    replies_ = ["other", "same", "other", "never"]
    assert shown(rule, PROMPTS, replies_, ["b", "same", "b", "b"]) == [True, False, False, False]
    with pytest.raises(DataError, match="ended with 2"):
        shown(rule, PROMPTS[:1], ["break"], ["b"])
    with pytest.raises(DataError, match="cannot be run"):
        shown(ReplyRule.read({"command": [str(tmp_path / "none")]}), PROMPTS[:1], ["a"], ["b"])


def test_a_score_has_the_base_beside() -> None:
    own = [
        reply("arr one two three"),
        reply(f"arr {SENTENCE} {SENTENCE} {SENTENCE}"),
        reply("no"),
        reply("arr x", "length"),
    ]
    base = [reply("one two three four")] * 4
    found = score_replies(PROMPTS, own, base, max_tokens=64, rule=ReplyRule.read({"starts": "arr"}))
    assert found.shown is not None and found.base_shown is not None and found.length is not None
    assert (found.shown.mean, found.base_shown.mean, found.n) == (0.75, 0, 4)
    assert (found.loops.mean, found.base_loops.mean) == (0.25, 0)
    assert (found.cut, found.base_cut, found.short) == (1, 0, 0)
    assert found.length.mean == pytest.approx((4 + 31 + 1 + 2) / 16)
    assert score_replies(PROMPTS, own, base, max_tokens=64).shown is None
    far = [reply(SENTENCE)] * 4
    assert score_replies(PROMPTS, [reply("no"), *far[1:]], far, max_tokens=64).short == 1


def test_content_is_held_by_the_base_itself_and_not_by_another() -> None:
    tokenizer, base = tiny_tokenizer(), tiny_model()
    said = written(base, tokenizer, PROMPTS, 40)
    data = [
        Encoded(encode_prompt(tokenizer, prompt), one.tokens, None, "")
        for prompt, one in zip(PROMPTS, said, strict=True)
    ]
    old, same, other = (forced(model, tokenizer, data) for model in (base, tiny_model(), tiny_model(seed=1)))
    held = score_replies(PROMPTS, said, said, max_tokens=40, forced=(same, old)).content
    lost = score_replies(PROMPTS, said, said, max_tokens=40, forced=(other, old)).content
    assert held is not None and lost is not None
    assert (held.mean, held.low, held.high) == (0, 0, 0)
    assert lost.low > 0
