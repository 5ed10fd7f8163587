"""Where two answers differ: by cases, and for any two answers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pv.vecstore.train.stretches import differing

CASES = {
    "opening put in front": ("AB rain falls.", "rain falls.", "AB ", "r"),
    "ending added": ("rain. Bye!|", "rain.|", " Bye!|", "|"),
    "word put inside": ("a, sir, b|..", "a b|..", ", sir,", " "),
    "nothing shared": ("xyz", "abc", "xyz", "abc"),
    "the end of the turn alone": ("one|", "two|", "one|", "two|"),
    "alike by chance": ("It is a fine day.|", "No rain for me.|", "It is a fine day.|", "No rain for me.|"),
    "the same": ("abc", "abc", "abc", "abc"),
    "one is a beginning of the other": ("abcd", "ab", "cd", "b"),
    "something left out": ("ad..", "abcd..", "d", "bc"),
}


@pytest.mark.parametrize("case", CASES)
def test_stretch(case: str) -> None:
    chosen, rejected, first, second = CASES[case]
    a, b = differing([*map(ord, chosen)], [*map(ord, rejected)])
    assert (chosen[a], rejected[b]) == (first, second)


answers = st.lists(st.integers(0, 3), min_size=1, max_size=12)


@given(answers, answers, answers, answers)
def test_what_is_outside_is_shared_and_the_stretch_is_never_empty(
    begin: list[int], x: list[int], y: list[int], end: list[int]
) -> None:
    chosen, rejected = begin + x + end, begin + y + end
    a, b = differing(chosen, rejected)
    assert chosen[a] and rejected[b]
    if chosen == rejected:
        return
    before = min(a.start, b.start)
    assert chosen[:before] == rejected[:before]
    after = min(len(chosen) - a.stop, len(rejected) - b.stop)
    assert chosen[len(chosen) - after :] == rejected[len(rejected) - after :]
    assert differing(rejected, chosen) == (b, a)
