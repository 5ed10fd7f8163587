"""One vector in two behaviours is remarked on once: when it becomes so, and only where it is counted twice."""

from __future__ import annotations

import pytest

from pv.registry.persona import Behaviour, Persona, Term
from pv.vecstore.repo.twice import counted_twice

A, B, C = "a" * 64, "b" * 64, "c" * 64


def persona(**behaviours: Behaviour) -> Persona:
    return Persona("0" * 64, behaviours)


def one(*terms: tuple[float, str], weight: float = 1.0) -> Behaviour:
    return Behaviour(weight, tuple(Term(*term) for term in terms or ((1.0, A),)))


BEFORE = persona(house=one(), other=one((1.0, B)))


@pytest.mark.parametrize(
    ("added", "said"),
    [
        ({"more": one()}, ["more is the same vector as house: together they count it twice"]),
        ({"more": one(weight=0.5)}, ["more is the same vector as house: together they count it twice"]),
        (
            {"more": one(), "most": one()},
            [
                "more is the same vector as house: together they count it twice",
                "most is the same vector as house and more: together they count it 3 times",
            ],
        ),
        (
            {"more": one((1.0, A), (-1.0, B))},
            ["more is the same vector as house: together they count it twice"],
        ),
        (
            {"x": one((1.0, C)), "y": one((1.0, C))},
            ["y is the same vector as x: together they count it twice"],
        ),
        ({"more": one(weight=0)}, []),
        ({"more": one(weight=-1)}, []),  # it takes the other off
        ({"more": one((-1.0, A))}, []),
        ({"more": one((1.0, C), (-1.0, A))}, []),  # trained on a build of house, which is subtracted
        ({"more": one((1.0, C), (1.0, A))}, []),
    ],
)
def test_a_vector_in_two_behaviours(added: dict[str, Behaviour], said: list[str]) -> None:
    after = persona(**BEFORE.behaviours, **added)
    assert list(counted_twice(BEFORE, after)) == said
    assert counted_twice(after, after) == ()
