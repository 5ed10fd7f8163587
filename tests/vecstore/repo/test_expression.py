"""Behaviours by arithmetic: how a text is read, and what of it is refused, with the place."""

from __future__ import annotations

from fractions import Fraction

import pytest

from pv.registry.errors import UnknownBehaviour, UsageError
from pv.vecstore.repo.expression import Call, Sum, parse

KNOWN = {"a", "b", "c", "a2", "house-style", "house", "style", "x-y", "x", "y", "e-", "2b"}


def operands(text: str) -> list[tuple[Fraction, str]]:
    made = parse(text, KNOWN)
    assert isinstance(made, Sum)
    return [(o.coefficient, o.source) for o in made.operands]


@pytest.mark.parametrize(
    ("text", "means", "said"),
    [
        ("a", [(1, "a")], "a"),
        ("a-b", [(1, "a"), (-1, "b")], "a - b"),
        (" a - b + c ", [(1, "a"), (-1, "b"), (1, "c")], "a - b + c"),
        ("a-b+c", [(1, "a"), (-1, "b"), (1, "c")], "a - b + c"),
        ("-a+b", [(-1, "a"), (1, "b")], "-a + b"),
        ("+a", [(1, "a")], "a"),
        ("0.5*a", [(0.5, "a")], "0.5*a"),
        ("a-0.5*b", [(1, "a"), (-0.5, "b")], "a - 0.5*b"),
        ("a - 1e-3 * b", [(1, "a"), (Fraction("0.001"), "b")], None),
        ("a-1e-3*b", [(1, "a"), (-Fraction("0.001"), "b")], "a - 0.001*b"),
        ("2*3*a", [(6, "a")], "6*a"),
        ("v1:a", [(1, "v1:a")], "v1:a"),
        ("a - HEAD~1:b", [(1, "a"), (-1, "HEAD~1:b")], "a - HEAD~1:b"),
        ("2*origin/a-b:c-d", [(2, "origin/a-b:c-d")], "2*origin/a-b:c-d"),
        ("a-house-style", None, None),
        ("a - house-style", None, None),
        ("HEAD:house-style - a", [(1, "HEAD:house-style"), (-1, "a")], "HEAD:house-style - a"),
        ("a- b", [(1, "a"), (-1, "b")], "a - b"),
        ("a -b", [(1, "a"), (-1, "b")], "a - b"),
        ("e- + a", [(1, "e-"), (1, "a")], "e- + a"),
        ("2b-a", [(1, "2b"), (-1, "a")], "2b - a"),
        ("a + a", [(1, "a"), (1, "a")], "a + a"),
    ],
)
def test_what_it_means(text: str, means: list[tuple[float, str]] | None, said: str | None) -> None:
    if means is None:
        with pytest.raises(UsageError, match="can be read in two ways"):
            parse(text, KNOWN)
        return
    found = operands(text)
    assert [name for _, name in found] == [name for _, name in means]
    assert [abs(c) for c, _ in found] == [abs(Fraction(c)) for c, _ in means]
    if said is not None:
        assert str(parse(text, KNOWN)) == said and operands(said) == found


def test_a_minus_in_a_name_is_a_name() -> None:
    only = {"house-style", "a"}
    assert str(parse("a-house-style", only)) == "a - house-style"
    assert str(parse("house-style", only)) == "house-style"


def test_a_method_of_sums() -> None:
    made = parse("tsv(a, 0.5*b - c,HEAD:x)", KNOWN)
    assert isinstance(made, Call) and made.method == "tsv"
    assert str(made) == "tsv(a, 0.5*b - c, HEAD:x)"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "expected a behaviour, not the end, at character 1 of ''"),
        ("a -", "expected a behaviour, not the end, at character 4"),
        ("a + + b", "expected a behaviour, not '+', at character 5"),
        ("a b", "expected + or -, not 'b', at character 3"),
        ("a * b", "expected + or -, not '*', at character 3"),
        ("0.5*", "expected a behaviour, not the end"),
        ("0*a", "a factor is above 0 and at most a million, not 0, at character 1"),
        ("1e9*a", "a factor is above 0 and at most a million"),
        ("nobody", "no behaviour 'nobody' in this persona, at character 1"),
        ("a - hose-style", "no behaviour 'hose-style' in this persona, at character 5"),
        ("a--b", "no behaviour 'a--b'"),
        ("0.5", "the number 0.5 stands where a behaviour goes"),
        (":a", "':a' is not REV:NAME"),
        ("a + v1:", "'v1:' is not REV:NAME, at character 5"),
        ("tsv(a, b", "expected , or ), not the end"),
        ("tsv()", "expected a behaviour, not ')'"),
        ("tsv(a) - b", "a method makes one vector and stands alone, not '-'"),
        ("a - tsv(b)", "a method makes one vector and stands alone, not '('"),
        ("(a - b)", "expected a behaviour, not '('"),
        ("x" * 3000, "at most 2000 characters"),
        ("-".join("xy" * 300), "no behaviour|two ways|can be read"),
    ],
)
def test_what_cannot_be_read(text: str, says: str) -> None:
    with pytest.raises((UsageError, UnknownBehaviour)) as raised:
        parse(text, KNOWN)
    assert any(part in str(raised.value) for part in says.split("|")), raised.value
    assert raised.value.hint or "at most" in says


def test_a_name_that_is_close_is_offered() -> None:
    with pytest.raises(UnknownBehaviour) as raised:
        parse("a - hose-style", KNOWN)
    assert raised.value.hint == "did you mean house-style or style?"


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        ("svc(a, b, alpha=0.5)", (("alpha", 0.5),), "svc(a, b, alpha=0.5)"),
        ("svc(a,b , alpha = 2)", (("alpha", 2.0),), "svc(a, b, alpha=2)"),
        (
            "svc(a - b, beta=-1e-3, alpha=1)",
            (("alpha", 1.0), ("beta", -0.001)),
            "svc(a - b, alpha=1, beta=-0.001)",
        ),
        ("svc(a, b)", (), "svc(a, b)"),
    ],
)
def test_a_method_has_options(text: str, options: tuple[tuple[str, float], ...], said: str) -> None:
    made = parse(text, KNOWN)
    assert isinstance(made, Call) and made.options == options
    assert str(made) == said and parse(said, KNOWN) == made


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("svc(a, alpha=much)", "alpha must be a number, not 'much', at character 8"),
        ("svc(a, alpha=)", "alpha must be a number, not ''"),
        ("svc(a, alpha=nan)", "alpha must be a number, not 'nan'"),
        ("svc(a, alpha=1, alpha=2)", "alpha is set twice"),
        ("svc(a, alpha=1, b)", "an option comes after the operands, not 'b'"),
        ("svc(alpha=1)", "expected a behaviour, not 'alpha=1'"),
        ("svc(a, alpha=1", "expected , or ), not the end"),
        ("a + alpha=1", "expected a behaviour, not 'alpha=1'"),
    ],
)
def test_an_option_that_cannot_be(text: str, says: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse(text, KNOWN)
    assert says in str(raised.value) and raised.value.hint
