"""Behaviours by arithmetic, as a person types them: `a - b`, `0.5*a + v1:b`, `tsv(a, b - c)`.

    expression   sum, or METHOD(sum, sum, ...), or METHOD(sum, ..., OPTION=NUMBER, ...)
    sum          [-] operand, then + or - and another operand, ...
    operand      [NUMBER *] NAME, or [NUMBER *] REV:NAME

Names may have a minus in them (`house-style`): one in a word without spaces is a sign only where the word cannot be
read otherwise. What can be read in two ways is refused, as is everything else, with the place where it is.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from difflib import get_close_matches
from fractions import Fraction

from pv.registry.combine import json_number
from pv.registry.errors import UnknownBehaviour, UsageError

__all__ = ["Call", "Operand", "Sum", "at_revisions", "parse"]

MAX_CHARS = 2000
MAX_FACTOR = 10**6
_NUMBER = r"(?:\d{1,40}(?:\.\d{0,40})?|\.\d{1,40})(?:[eE][+-]?\d{1,3})?"
_TOKEN = re.compile(
    rf"\s*(?:(?P<number>{_NUMBER})(?=\s*\*)|(?P<option>[a-z_]+\s*=\s*[^\s(),=]*)|(?P<sign>[-+*(),])|(?P<word>[^\s+*(),]+))"
)
_TAIL = re.compile(rf"(?P<word>.+?)-(?P<number>{_NUMBER})")
_OPTION_EXAMPLE = "for example: pv add NAME='svc(a, b, alpha=0.5)'"
_EXAMPLE = "for example: pv add NAME='a - b', pv add NAME='0.5*a + v1:b'"


@dataclass(frozen=True, slots=True)
class Operand:
    """`coefficient` times a behaviour; of the current commit where there is no `revision`."""

    coefficient: Fraction
    name: str
    revision: str | None = None

    @property
    def source(self) -> str:
        return self.name if self.revision is None else f"{self.revision}:{self.name}"


@dataclass(frozen=True, slots=True)
class Sum:
    operands: tuple[Operand, ...]

    @property
    def alone(self) -> Operand | None:
        """The operand, if there is one, as it is."""
        (first, *others) = self.operands
        return first if not others and first.coefficient == 1 else None

    def __str__(self) -> str:
        """`a - 0.5*b`"""
        said = ""
        for operand in self.operands:
            sign = "-" if operand.coefficient < 0 else "+"
            size = abs(operand.coefficient)
            factor = "" if size == 1 else f"{json_number(float(size))}*"
            said += f" {sign} {factor}{operand.source}"
        return said[3:] if said.startswith(" + ") else f"-{said[3:]}"


@dataclass(frozen=True, slots=True)
class Call:
    """A method that makes one vector of several sums."""

    method: str
    sums: tuple[Sum, ...]
    options: tuple[tuple[str, float], ...] = ()

    def __str__(self) -> str:
        options = (f"{name}={json_number(value)}" for name, value in self.options)
        return f"{self.method}({', '.join([*map(str, self.sums), *options])})"


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str  # "number", "name", "option", a sign, or "end"
    text: str
    at: int


def parse(text: str, known: Collection[str]) -> Sum | Call:
    """Read an expression, where `known` are the behaviours that HEAD has. Raises UsageError, UnknownBehaviour."""
    if len(text) > MAX_CHARS:
        raise UsageError(f"an expression has at most {MAX_CHARS} characters, this one {len(text)}")
    return _Parser(text, _Tokens(text, known).all).expression()


class _Tokens:
    def __init__(self, text: str, known: Collection[str]) -> None:
        self.text, self.known, self.all = text, known, list[_Token]()
        at = 0
        while found := _TOKEN.match(text, at):
            kind = found.lastgroup or ""
            word, start, at = found[kind], found.start(kind), found.end()
            if kind == "word":
                self._word(word, start, followed=text[at:].lstrip()[:1])
            else:
                self.all.append(_Token(word if kind == "sign" else kind, word, start))
        self.all.append(_Token("end", "", len(text)))

    def _word(self, word: str, at: int, followed: str) -> None:
        if followed == "*" and (tail := _TAIL.fullmatch(word)):  # a-0.5*b
            self._word(tail["word"], at, "")
            self.all.append(_Token("-", "-", at + tail.end("word")))
            self.all.append(_Token("number", tail["number"], at + tail.start("number")))
            return
        if followed == "(" or ":" in word:
            self.all.append(_Token("name", word, at))
            return
        names = self._names(word, at)
        for place, name in enumerate(names):
            if place:
                self.all.append(_Token("-", "-", at - 1))
            if name:
                self.all.append(_Token("name", name, at))
            at += len(name) + 1

    def _names(self, word: str, at: int) -> list[str]:
        """The behaviours that a word names, with a minus between each two; one that ends in a minus ends in ""."""
        bare = word.rstrip("-")
        whole = [[word]] if word in self.known else []
        parts = bare.split("-")
        ways = [*whole, *self._ways(parts, [""] * (len(word) > len(bare)))]
        if len(word) - len(bare) > 1 and not whole:
            ways = []
        if len(ways) > 1:
            readings = ", or ".join(repr(" - ".join(filter(None, way))) for way in ways[:2])
            raise UsageError(
                f"{word[:80]!r} can be read in two ways, {readings}{_place(self.text, at)}",
                hint=f"write minus with spaces around it; HEAD:{bare} is the behaviour of that name",
            )
        if not ways:
            if re.fullmatch(_NUMBER, word):
                raise UsageError(
                    f"the number {word[:20]} stands where a behaviour goes{_place(self.text, at)}",
                    hint=f"a factor goes before what it multiplies, with a star: {word[:20]}*NAME",
                )
            near = get_close_matches(word, sorted(self.known), 3)
            raise UnknownBehaviour(
                f"no behaviour {word[:80]!r} in this persona{_place(self.text, at)}",
                hint=f"did you mean {' or '.join(near)}?"
                if near
                else f"it has: {', '.join(sorted(self.known)) or 'none'}; REV:NAME is one of another revision",
            )
        return ways[0]

    def _ways(self, parts: list[str], tail: list[str]) -> list[list[str]]:
        """Up to two ways of joining parts into known names: each place keeps as many."""
        ways: list[list[list[str]]] = [[[]], *([] for _ in parts)]
        for end in range(1, len(parts) + 1):
            for start in range(end):
                name = "-".join(parts[start:end])
                if name in self.known:
                    ways[end] += [[*before, name] for before in ways[start]]
                    del ways[end][2:]
        if not tail:
            return [way for way in ways[-1] if len(way) > 1]  # the whole word is looked at apart
        return [[*way, *tail] for way in ways[-1]]


class _Parser:
    def __init__(self, text: str, tokens: list[_Token]) -> None:
        self.text, self.tokens = text, tokens
        self.next = 0

    @property
    def token(self) -> _Token:
        return self.tokens[self.next]

    def expression(self) -> Sum | Call:
        made: Sum | Call
        if self.token.kind == "name" and self.tokens[self.next + 1].kind == "(":
            made = self._call()
        else:
            made = self._sum()
        if self.token.kind != "end":
            raise self._error(
                "a method makes one vector and stands alone" if isinstance(made, Call) else "expected + or -"
            )
        return made

    def _call(self) -> Call:
        method = self._take().text
        self._take()
        sums, options = [self._sum()], dict[str, float]()
        while self.token.kind == ",":
            self._take()
            if self.token.kind == "option":
                self._option(options)
            elif options:
                raise self._error("an option comes after the operands")
            else:
                sums.append(self._sum())
        if self.token.kind != ")":
            raise self._error("expected , or )")
        self._take()
        return Call(method, tuple(sums), tuple(sorted(options.items())))

    def _option(self, options: dict[str, float]) -> None:
        token = self._take()
        name, _, text = (part.strip() for part in token.text.partition("="))
        place = _place(self.text, token.at)
        if name in options:
            raise UsageError(f"{name[:40]} is set twice{place}", hint="set each option once")
        if not re.fullmatch(rf"-?{_NUMBER}", text):
            raise UsageError(f"{name[:40]} must be a number, not {text[:40]!r}{place}", hint=_OPTION_EXAMPLE)
        options[name] = float(text)

    def _sum(self) -> Sum:
        operands = [self._operand()]
        while self.token.kind in ("+", "-"):
            operands.append(self._operand())
        return Sum(tuple(operands))

    def _operand(self) -> Operand:
        sign = 1
        if self.token.kind in ("+", "-"):
            sign = -1 if self._take().kind == "-" else 1
        factor = Fraction(sign)
        while self.token.kind == "number":
            factor *= self._number()
            if self.token.kind == "*":
                self._take()
        token = self.token
        if token.kind != "name":
            raise self._error("expected a behaviour")
        self._take()
        if self.token.kind == "(":
            raise self._error("a method makes one vector and stands alone")
        revision, colon, name = token.text.rpartition(":")
        if colon and not (revision and name):
            raise UsageError(
                f"{token.text[:80]!r} is not REV:NAME{_place(self.text, token.at)}", hint=_EXAMPLE
            )
        return Operand(factor, name, revision or None)

    def _number(self) -> Fraction:
        token = self._take()
        value = Fraction(token.text)
        if value == 0 or value > MAX_FACTOR:
            raise UsageError(
                f"a factor is above 0 and at most a million, not {token.text[:20]}{_place(self.text, token.at)}",
                hint=_EXAMPLE,
            )
        return value

    def _take(self) -> _Token:
        self.next += 1
        return self.tokens[self.next - 1]

    def _error(self, expected: str) -> UsageError:
        found = repr(self.token.text[:40]) if self.token.text else "the end"
        return UsageError(f"{expected}, not {found}{_place(self.text, self.token.at)}", hint=_EXAMPLE)


def _place(text: str, at: int) -> str:
    shown = text if len(text) <= 80 else f"{text[:77]}..."
    return f", at character {at + 1} of {shown!r}"


def at_revisions(made: Sum | Call, revisions: dict[str, str]) -> Sum | Call:
    """The same, with each revision as it can be written down."""
    if isinstance(made, Call):
        return replace(made, sums=tuple(_lasting(one, revisions) for one in made.sums))
    return _lasting(made, revisions)


def _lasting(one: Sum, revisions: dict[str, str]) -> Sum:
    return Sum(
        tuple(
            replace(o, revision=None if o.revision is None else revisions[o.revision]) for o in one.operands
        )
    )
