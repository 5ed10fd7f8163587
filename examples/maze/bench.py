"""What a study works with: how much of everything, the nets, and mazes in which cheese and corner lie apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from examples.maze.measures import Floats, at_squares, probabilities, towards
from examples.maze.net import MIDDLE, Policy, Shape
from examples.maze.planner import decision_squares
from examples.maze.train import Recipe
from examples.maze.vectors import logits
from examples.maze.world import SIDE, Bools, Ints, Mazes, draw
from pv.registry.errors import UsageError

__all__ = ["COEFFICIENTS", "PADDED", "REGIONS", "Bench", "Contest", "Plan", "contest", "margin"]

REGIONS = (1, 3, 5, 9, SIDE)
COEFFICIENTS = (-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 5.0, 10.0)
ROOMY = (7, 9, 11, 13)  # a maze of 5 has a handful of layouts
PADDED = (7, 9, 11)  # room for a way to the square's own corner


@dataclass(frozen=True, slots=True)
class Plan:
    """How many mazes of each kind; `main` is the region of the net that is looked at closely."""

    recipe: Recipe = field(default_factory=Recipe)
    regions: tuple[int, ...] = REGIONS
    main: int = 3  # the notes' 5 x 5 was of mazes of up to 25, twice ours
    accuracy: int = 2000
    effect: int = 250
    sweep: int = 120
    grid: int = 100
    layer: int = 100
    transfer: int = 60
    each: int = 12  # mazes a side of the matrix of single mazes
    others: int = 12  # mazes that a vector is added in, its own the first
    family: int = 200
    draws: int = 4  # of random vectors, averaged
    wanted: float = 0.5  # P(move to the cheese) from which a net is said to want it
    quick: bool = False

    def recipes(self) -> dict[int, Recipe]:
        return {region: replace(self.recipe, region=region) for region in self.regions}

    @staticmethod
    def small() -> Plan:
        """Seconds: whether it works here."""
        recipe = Recipe(shape=Shape((2, 3), 8), steps=4, batch=16, mazes=64)
        return Plan(recipe, accuracy=20, effect=4, sweep=3, grid=3, layer=3, transfer=2, each=2, family=3,
                    draws=1, wanted=-1, quick=True)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Bench:
    plan: Plan
    nets: Mapping[int, Policy]
    site: str = MIDDLE

    @property
    def net(self) -> Policy:
        return self.nets[self.plan.main]

    @property
    def wants(self) -> tuple[Policy, float]:
        """For `contest`: mazes in which the net wants the cheese."""
        return self.net, self.plan.wanted


@dataclass(frozen=True, slots=True)
class Contest:
    """Mazes with a decision square, and the moves there that lead to the cheese and to the corner."""

    mazes: Mazes
    squares: Ints
    to_cheese: Ints
    to_corner: Ints

    def __len__(self) -> int:
        return len(self.mazes)

    def __getitem__(self, which: Bools | Ints | slice) -> Contest:
        return Contest(self.mazes[which], self.squares[which], self.to_cheese[which], self.to_corner[which])

    def chances(self, logits: Floats) -> tuple[Floats, Floats]:
        """P(move to the cheese), P(move to the corner) from logits or log-probabilities (B, 4)."""
        found, every = probabilities(logits), np.arange(len(self))
        return found[every, self.to_cheese], found[every, self.to_corner]

    def there(self, field: Floats) -> Floats:
        """A field's values at the decision squares: (B, 4)."""
        return at_squares(field, self.squares)


def margin(one: Contest, logits: Floats) -> Floats:
    """Logit of the move to the cheese minus that of the move to the corner: unlike a probability, it has no end."""
    every = np.arange(len(one))
    found: Floats = logits[every, one.to_cheese] - logits[every, one.to_corner]
    return found


def contest(
    count: int, seed: int, *, sizes: tuple[int, ...] = ROOMY, part: str = "test",
    wants: tuple[Policy, float] | None = None,
) -> tuple[Contest, int]:  # fmt: skip
    """Mazes with a decision square, the cheese anywhere, and of how many they are taken.

    `wants`: only those where P(move to the cheese) of this net is above this. Raises UsageError where it hardly is.
    """
    rng = np.random.Generator(np.random.Philox(key=seed))
    kept: list[Contest] = []
    looked = 0
    while sum(map(len, kept)) < count:
        if looked > 100 * count:
            raise UsageError(
                f"the net wants the cheese in {sum(map(len, kept))} of {looked} mazes: too few to measure",
                hint="it was trained too little, or with the cheese in a region too small",
            )
        mazes = draw(max(64, 2 * count), rng, sizes=sizes, part=part)
        squares, parted = decision_squares(mazes)
        mazes, squares = mazes[parted], squares[parted]
        found = Contest(
            mazes, squares, towards(mazes, mazes.cheese, squares), towards(mazes, mazes.corner, squares)
        )
        looked += len(found)
        if wants is not None:
            net, above = wants
            found = found[found.chances(logits(net, found.mazes, found.squares))[0] > above]
        kept.append(found)
    mazes = Mazes(*(np.concatenate([getattr(one.mazes, name) for one in kept])
                    for name in ("walls", "sizes", "cheese")))  # fmt: skip
    rest = (np.concatenate([getattr(one, name) for one in kept])
            for name in ("squares", "to_cheese", "to_corner"))  # fmt: skip
    return Contest(mazes, *rest)[slice(count)], looked
