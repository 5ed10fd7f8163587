"""What an edit did beside the trained change: effects, how far they carry over, damage, and how sharp each is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pv.vecstore.evaluate.statistics import Interval
from pv.vecstore.probe.edit_read import interval, items, mapping, maybe, number, rows, text, verdict, whole
from pv.vecstore.probe.edit_verdict import Claim

__all__ = ["Arm", "Edits", "Sharp", "counted"]


@dataclass(frozen=True, slots=True)
class Arm:
    """One change at one strength. Effects in nats, damage and KL in nats a token of the neighbours.

    `paraphrases` is the mean over rows of the mean over their paraphrases, `transfer` that share of the effect on these
    rows; None without paraphrases, and `transfer` also where the effect is not above 0 for certain. `opening` is what
    the first 16 tokens of neighbouring answers lost: None where they have no answers.
    """

    name: str
    change: str  # "trained" or "edit"
    strength: float
    effect: Interval
    paraphrases: Interval | None
    transfer: Interval | None
    damage: Interval
    kl: Interval
    opening: Interval | None

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "change": self.change,
            "strength": self.strength,
            "effect": self.effect.to_json(),
            **{
                key: _json(getattr(self, key))
                for key in ("paraphrases", "transfer", "damage", "kl", "opening")
            },
        }

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> Arm:
        return Arm(
            text(document["name"]), text(document["change"]), number(document["strength"]),
            interval(document["effect"]), maybe(interval, document["paraphrases"]),
            maybe(interval, document["transfer"]), interval(document["damage"]),
            interval(document["kl"]), maybe(interval, document["opening"]),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sharp:
    """Noise of `share` times the change's norm beside it: the effect that is left, and the share that was lost."""

    name: str
    share: float
    effect: Interval
    lost: Interval | None

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "share": self.share,
            "effect": self.effect.to_json(),
            "lost": _json(self.lost),
        }

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> Sharp:
        return Sharp(
            text(document["name"]),
            number(document["share"]),
            interval(document["effect"]),
            maybe(interval, document["lost"]),
        )


@dataclass(frozen=True, slots=True)
class Edits:
    """`claims` by at which strengths the two are compared; none without paraphrases.

    `tried`: the layers of a sweep, each with the edit's effect on training rows. `norms` and `loss` are of the change
    and of the gradient that found the edit's value.
    """

    probe: str
    what: str
    layer: int
    layers: int
    tried: tuple[tuple[int, float], ...]
    data: Mapping[str, Mapping[str, Any]]  # rows, training, paraphrases, neighbours: name, id, n, of
    norms: Mapping[str, float]
    loss: tuple[float, float]
    arms: tuple[Arm, ...]
    claims: Mapping[str, Claim]
    sharpness: tuple[Sharp, ...]
    notes: tuple[str, ...] = ()

    def arm(self, name: str) -> Arm | None:
        return next((arm for arm in self.arms if arm.name == name), None)

    def to_json(self) -> dict[str, Any]:
        return {
            "probe": self.probe,
            "what": self.what,
            "layer": self.layer,
            "layers": self.layers,
            "tried": [list(one) for one in self.tried],
            "data": {name: dict(one) for name, one in self.data.items()},
            "norms": dict(self.norms),
            "loss": list(self.loss),
            "arms": [arm.to_json() for arm in self.arms],
            "claims": {name: claim.to_json() for name, claim in self.claims.items()},
            "sharpness": [one.to_json() for one in self.sharpness],
            "notes": list(self.notes),
        }

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> Edits:
        """Raises KeyError, TypeError or ValueError for what is none."""
        (first, last), norms = items(document["loss"]), mapping(document["norms"])
        return Edits(
            text(document["probe"]),
            text(document["what"]),
            whole(document["layer"]),
            whole(document["layers"]),
            tuple((whole(layer), number(effect)) for layer, effect in map(items, items(document["tried"]))),
            rows(document["data"]),
            {name: number(norms[name]) for name in ("edit", "trained")},
            (number(first), number(last)),
            tuple(Arm.from_json(arm) for arm in items(document["arms"])),
            {text(name): _claim(claim) for name, claim in mapping(document["claims"]).items()},
            tuple(Sharp.from_json(one) for one in items(document["sharpness"])),
            tuple(text(note) for note in items(document["notes"])),
        )


def counted(data: Mapping[str, Mapping[str, Any]]) -> str:
    """Which rows there were, in words: in one order, also of a record, whose keys are sorted."""
    order = ("rows", "training", "paraphrases", "neighbours")
    return ", ".join(_counted(name, data[name]) for name in order if name in data)


def _counted(name: str, one: Mapping[str, Any]) -> str:
    """Paraphrases with the number of the held-out rows that they re-word."""
    of = f" of {one['of']} rows," if "of" in one else " of"
    return f"{one['n']} {name}{of} {one['name']}"


def _claim(document: Mapping[str, Any]) -> Claim:
    return Claim(verdict(document["verdict"]), maybe(interval, document["difference"]), text(document["why"]))


def _json(one: Interval | None) -> dict[str, Any] | None:
    return None if one is None else one.to_json()
