"""Merge methods, as a persona names them: one table of methods and their switches.

A method is a row here and a kernel of the same name in `vecstore/merge/methods`; a test holds the two equal.
What a person may ask for, what a document may say, the options of the command line and the words of the
model card all follow from the row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from pv.registry.errors import UsageError

__all__ = ["METHODS", "Method", "Option", "as_json", "json_number", "shown"]

LARGEST = 1e30


@dataclass(frozen=True, slots=True)
class Option:
    """One switch of a method: one of some `choices`, or a number, which may have to lie in (`above`, `most`].

    `least` is a bound that may be reached; `whole` takes no fractions. Of one name in several methods, the first has
    the help. One that is `later` came when there were personas without it: at its default it is not written down.
    """

    name: str
    default: float | str
    help: str
    choices: tuple[str, ...] = ()
    above: float | None = None
    most: float | None = None
    least: float | None = None
    whole: bool = False
    later: bool = False

    @property
    def values(self) -> str:
        """What it may be, in words: `none, weighted, unweighted`, or `above 0, at most 1`."""
        if self.choices:
            return ", ".join(self.choices)
        bounds = (("above", self.above), ("at least", self.least), ("at most", self.most))
        ranges = [f"{words} {json_number(bound)}" for words, bound in bounds if bound is not None]
        return ", ".join([*(["whole"] if self.whole else []), *ranges]) or "a number"

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "default": self.default if isinstance(self.default, str) else json_number(self.default),
            "values": self.values,
            "help": self.help,
        }

    def check(self, method: str, value: Any) -> float | str:
        """The value, if it may be. Raises UsageError."""
        what = f"{method}: {self.name}"
        if self.choices:
            if value not in self.choices:
                raise UsageError(f"{what} must be one of {', '.join(self.choices)}, not {shown(value)}")
            return str(value)
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= LARGEST:
            raise UsageError(f"{what} must be a number no larger than {LARGEST:g}, not {shown(value)}")
        number = float(value) + 0.0  # -0.0 becomes 0.0: one spelling
        if self.whole and not number.is_integer():
            raise UsageError(f"{what} must be a whole number, not {number:g}")
        if self.least is not None and not self.least <= number:
            raise UsageError(f"{what} must be at least {self.least:g}, not {number:g}")
        if self.above is not None and not self.above < number:
            raise UsageError(f"{what} must be above {self.above:g}, not {number:g}")
        if self.most is not None and not number <= self.most:
            raise UsageError(f"{what} must be at most {self.most:g}, not {number:g}")
        return number


@dataclass(frozen=True, slots=True)
class Method:
    """`summary` is a clause for the model card. `presets` reproduce another tool; see the kernel for sources.

    `together` says, in words, why values that may be each on their own may not be together; None if they may.
    """

    name: str
    summary: str
    options: tuple[Option, ...] = ()
    presets: Mapping[str, Mapping[str, float | str]] = field(default_factory=dict)
    together: Callable[[Mapping[str, Any]], str | None] = lambda options: None

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "summary": self.summary,
            "switches": [option.to_json() for option in self.options],
            "presets": {name: as_json(switches) for name, switches in self.presets.items()},
        }

    @property
    def example(self) -> str:
        """`density=0.5 epsilon=0.15`: its numbers as they are by default."""
        return " ".join(
            f"{one.name}={json_number(one.default)}"
            for one in self.options
            if not isinstance(one.default, str)
        )


def _window(options: Mapping[str, Any]) -> str | None:
    density, epsilon = options["density"], options["epsilon"]
    if density == 1 or 0 < density - epsilon <= density + epsilon <= 1:
        return None
    return (
        f"density {density:g} and epsilon {epsilon:g}: elements are kept with probabilities from density - epsilon to "
        "density + epsilon, which must be above 0 and at most 1"
    )


_DENSITY = Option("density", 0.2, "Share of each tensor's elements that is kept.", above=0, most=1)
_LAMBDA = Option("lambda", 1.0, "Factor on the result.")
_SEED = Option("seed", 0, "Seed of the draws.", least=0, most=(1 << 53) - 1, whole=True)
_ELECT = Option(
    "elect",
    "none",
    "Sign election. none: every element that is kept counts.",
    ("none", "weighted", "unweighted"),
)
_MERGE = Option(
    "merge", "sum", "How the elements that count at a place are merged.", ("mean", "weighted_mean", "sum")
)
_OF = Option(
    "of", "deltas", "What lies on the sphere: the deltas, or the models base + delta.", ("deltas", "models")
)

METHODS: Mapping[str, Method] = MappingProxyType(
    {
        method.name: method
        for method in (
            Method("add", "their deltas are scaled and added to the base's weights"),
            Method(
                "ties",
                "their deltas are trimmed, a sign is elected for each weight, and what agrees is merged (TIES)",
                (
                    replace(_DENSITY, help="Share of the elements, largest first, that trimming keeps."),
                    Option(
                        "elect",
                        "unweighted",
                        "Sign election: weighted, by the sum of weight times delta; unweighted, of the deltas alone.",
                        ("weighted", "unweighted"),
                    ),
                    Option(
                        "merge",
                        "mean",
                        "How the elements that agree with the sign are merged.",
                        ("mean", "weighted_mean", "sum"),
                    ),
                    _LAMBDA,
                    Option(
                        "trim",
                        "tensor",
                        "What is trimmed at once: each tensor by itself, or a behaviour over the whole model.",
                        ("tensor", "model"),
                        later=True,
                    ),
                    Option(
                        "undecided",
                        "plus",
                        "What deltas that cancel out elect: plus, or no sign, so that nothing is merged there.",
                        ("plus", "none"),
                        later=True,
                    ),
                ),
                {
                    "paper": {
                        "density": 0.2,
                        "elect": "unweighted",
                        "merge": "mean",
                        "lambda": 1.0,
                        "trim": "model",
                        "undecided": "none",
                    },
                    "mergekit": {
                        "density": 1.0,
                        "elect": "weighted",
                        "merge": "weighted_mean",
                        "lambda": 1.0,
                    },
                    "peft": {"elect": "unweighted", "merge": "mean", "lambda": 1.0},
                },
            ),
            Method("linear", "the weighted average of their models is taken"),
            Method(
                "slerp",
                "the weights lie on the arc from the base to the behaviour's model (SLERP)",
                (
                    Option(
                        "t", 0.5, "How far from the base, 0, to the behaviour's model, 1.", least=0, most=1
                    ),
                ),
            ),
            Method(
                "nuslerp",
                "the result lies on the arc between the two, as far as their weights say (NuSLERP)",
                (_OF,),
            ),
            Method(
                "multislerp",
                "their mean is taken on a sphere, by a step from the straight mean (Multi-SLERP)",
                (
                    _OF,
                    Option(
                        "step", "log", "The step on the sphere; none: the straight mean.", ("log", "none")
                    ),
                ),
                {"mergekit": {"of": "deltas", "step": "none"}},
            ),
            Method(
                "karcher",
                "their mean is taken on a sphere (Karcher mean)",
                (
                    replace(_OF, default="models"),
                    Option("max_iter", 10, "Most steps to the mean.", least=1, most=1000, whole=True),
                    Option("tol", 1e-5, "Angle of a step that is no longer taken.", above=0, most=1),
                ),
            ),
            Method(
                "dare",
                "elements of their deltas are dropped by lot and the rest scaled up, and the deltas merged (DARE)",
                (
                    replace(_DENSITY, help="Probability with which an element is kept."),
                    _SEED,
                    _ELECT,
                    _MERGE,
                    _LAMBDA,
                ),
            ),
            Method(
                "della",
                "elements of their deltas are dropped by lot, small ones more often, each that is kept scaled up by "
                "its chance, and the deltas merged (DELLA)",
                (
                    replace(_DENSITY, default=0.5, help="Mean probability with which an element is kept."),
                    Option(
                        "epsilon",
                        0.15,
                        "How far the probability goes from it, by rank in a row.",
                        least=0,
                        most=1,
                    ),
                    _SEED,
                    _ELECT,
                    _MERGE,
                    _LAMBDA,
                ),
                together=_window,
            ),
            Method(
                "breadcrumbs",
                "the largest and the small elements of their deltas are dropped, and the rest merged "
                "(Model Breadcrumbs)",
                (
                    _DENSITY,
                    Option(
                        "gamma",
                        0.01,
                        "Share of the elements, largest first, that is dropped.",
                        least=0,
                        most=1,
                    ),
                    _ELECT,
                    _MERGE,
                    _LAMBDA,
                ),
                {
                    "mergekit": {
                        "density": 1.0,
                        "gamma": 0.01,
                        "elect": "none",
                        "merge": "sum",
                        "lambda": 1.0,
                    }
                },
            ),
            Method(
                "sce",
                "elements where their deltas vary most are selected, weighted by energy, and minority signs erased "
                "(SCE)",
                (
                    Option(
                        "select_topk",
                        1.0,
                        "Share of the elements, those that vary most, that is selected.",
                        above=0,
                        most=1,
                    ),
                ),
            ),
            Method(
                "model_stock",
                "the mean of their deltas is scaled by how far they agree in direction (Model Stock)",
            ),
            Method(
                "consensus",
                "their deltas are added, and elements dropped that too few of them have a use for (Consensus, TALL "
                "masks)",
                (
                    Option(
                        "ratio",
                        0.4,
                        "An element is of use to a behaviour if its delta is at least this times the others' sum.",
                        least=0,
                    ),
                    Option(
                        "users",
                        2,
                        "Behaviours that must have a use for an element.",
                        least=1,
                        most=10_000,
                        whole=True,
                    ),
                    _LAMBDA,
                ),
            ),
            Method(
                "nearswap",
                "the delta is cut off at a largest size, so that weights near the base's are taken over (NearSwap)",
                (Option("limit", 0.001, "The most that a weight moves; mergekit calls it t.", above=0),),
            ),
            Method(
                "arcee_fusion",
                "the elements of the delta that matter most are taken over, and the base kept elsewhere",
            ),
        )
    }
)


def as_json(switches: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: json_number(value) if isinstance(value, float) else value for name, value in switches.items()
    }


def json_number(value: float) -> float | int:
    """Integral doubles as integers: RFC 8785 spells both alike, and rfc8785 wants one type."""
    return int(value) if float(value).is_integer() and abs(value) < 1 << 53 else value


def shown(value: object) -> str:
    """A value in a message: a stranger's may be long."""
    return repr(value[:40] if isinstance(value, str) else value)[:60]
