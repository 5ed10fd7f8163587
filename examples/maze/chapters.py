"""The chapters of the page: what each says, shows and lists."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from examples.experiments.experiment import Table
from examples.maze import pictures, tables
from examples.maze.bench import Bench
from examples.maze.tables import said

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Chapter", "chapters"]


@dataclass(frozen=True, slots=True)
class Chapter:
    name: str
    title: str
    words: str
    draw: Callable[[Figure], None] | None = None
    tables: Mapping[str, Table] = field(default_factory=dict)


def chapters(found: Mapping[str, Any], bench: Bench) -> list[Chapter]:
    seen, main = pictures.Views(bench, 1 if bench.plan.quick else 3), bench.plan.main
    cheese, corner, mixed, gates = (found[name] for name in ("cheese", "corner", "composition", "gates"))
    asked = f"on {cheese['mazes']} held-out mazes, of {cheese['looked']}, where the net wants the cheese"
    marks = (
        "The diamond is the cheese, the star the corner, the circle the start, the frame the decision square."
    )

    def garbage(goal: str, kind: str = "vector") -> str:
        return tables.garbage(found["sweep"], goal, kind)

    return [
        Chapter(
            "cheese_fields", "Minus the cheese vector",
            "One vector a maze, taken with the mouse at the start, subtracted at every square. An arrow is the mean "
            f"move. The first held-out mazes in which the net wants the cheese, none picked. {marks}",
            lambda figure: pictures.views(figure, seen, "cheese"),
        ),
        Chapter(
            "corner_fields", "Plus the top-right vector",
            "The vector is what a way to the corner of the whole square changes, seen from the start. "
            f"The way is not in these mazes. {marks}",
            lambda figure: pictures.views(figure, seen, "corner"),
        ),
        Chapter(
            "effects", "Beside controls of the same norm",
            f"Above: minus the cheese vector, {asked}. Below: plus the top-right vector, on {corner['mazes']} mazes "
            "with padding and the cheese off the way to the corner. At the decision square the ways to both part. "
            "Episodes are sampled from the policy; their ends are computed exactly. The controls: Gaussian vectors, "
            "the vector's own columns at other squares, and the difference of two mazes without cheese. "
            f"The vectors are {cheese['norm']:.0%} and {corner['norm']:.0%} as long as the activations.",
            lambda figure: pictures.effects(figure, found),
            {"Minus the cheese vector": tables.effects(cheese), "Plus the top-right vector": tables.effects(corner)},
        ),
        Chapter(
            "sweep", "How much is too much",
            "A policy is called garbage from a mean mass of 10 % on moves into walls. For the cheese vector that is "
            f"{garbage('cheese')}; for the top-right vector {garbage('corner')}; for random vectors of their norms "
            f"{garbage('cheese', 'gaussian')} and {garbage('corner', 'gaussian')}.",
            lambda figure: pictures.sweep(figure, found["sweep"]),
            {"Cheese vector": tables.sweep(found["sweep"], "cheese"),
             "Top-right vector": tables.sweep(found["sweep"], "corner")},
        ),
        Chapter(
            "asymmetry", "Adding and subtracting",
            "For a linear net effect(+c) + effect(−c) is 0. A probability also has an end that a logit has not, so "
            "both are given: of the move that the vector is about, and of its logit minus the other's.",
            None, {"": tables.asymmetry(found["asymmetry"])},
        ),
        Chapter(
            "composed", "Both at once", "Neither vector, each, and both, in the same mazes.",
            lambda figure: pictures.composed(figure, seen),
            {f"Where episodes end, {mixed['mazes']} mazes": tables.outcomes(mixed)},
        ),
        Chapter(
            "composition", "Do they add up?",
            "The error ratio |Δ(s,t) − Δ(s,0) − Δ(0,t)| / (|Δ(s,0)| + |Δ(0,t)|) of the logits at the decision square: "
            "0 is a plain sum. In episodes that end at the corner, both together are "
            f"{said(mixed['outcomes']['corner_beyond_sum'])} from the sum of their shifts.",
            lambda figure: pictures.composition(figure, mixed),
            {"Cheese and top-right vectors": tables.composition(mixed, "vectors"),
             "Random vectors of their norms": tables.composition(mixed, "random")},
        ),
        Chapter(
            "transfer", "From one maze to another",
            "Above, by size, many mazes a cell; below, single vectors in single mazes.",
            lambda figure: pictures.transfer(figure, found["transfer"]),
            {"Minus the cheese vector: shift of P(to the cheese)": tables.transfer(found["transfer"], "cheese"),
             "Plus the top-right vector: shift of P(to the corner)": tables.transfer(found["transfer"], "corner"),
             "Minus the cheese vector of another maze, by where its cheese is": tables.nearness(found["transfer"])},
        ),
        Chapter(
            "layers", "Every module",
            f"On {found['layers']['mazes']} mazes kept apart from all others. Before the first ReLU the vector takes "
            "the cheese out of the observation, everywhere: that is only algebra. The later the module, the more the "
            "vector depends on where the mouse is, and the less it should work elsewhere.",
            lambda figure: pictures.layers(figure, found["layers"]),
            {"All named modules": tables.layers(found["layers"]),
             "How far f(x + tv) − f(x) is from a straight line": tables.nonlinearity(found["nonlinearity"]),
             "Linear probes, other mazes": tables.probe(found["probe"])},
        ),
        Chapter(
            "family", "The family: where the cheese was in training",
            "In training the cheese was in the R × R squares at the top right of the maze; here it is anywhere, in "
            f"the same mazes for all nets. All above is of R = {main}.",
            lambda figure: pictures.family(figure, found["family"], gates),
            {"As trained": tables.gates(gates), "Steered": tables.family(found["family"])},
        ),
    ]  # fmt: skip
