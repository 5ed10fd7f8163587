"""What was found, as tables, and as verdicts on what was to be shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from examples.experiments.experiment import Table
from examples.maze.bench import COEFFICIENTS
from examples.maze.effects import GARBAGE
from examples.maze.world import SIDE

__all__ = [
    "Bar",
    "asymmetry",
    "bars",
    "composition",
    "effects",
    "family",
    "garbage",
    "gates",
    "layers",
    "nearness",
    "nonlinearity",
    "outcomes",
    "probe",
    "said",
    "sweep",
    "transfer",
]  # fmt: skip

Found = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Bar:
    """Something that was to be shown, and what was measured."""

    claim: str
    measured: str
    met: bool


def said(one: Found, places: int = 2) -> str:
    """A mean with its interval."""
    return f"{one['mean']:.{places}f} [{one['low']:.{places}f}, {one['high']:.{places}f}]"


def bars(found: Found, main: int) -> list[Bar]:
    nets, key = found["gates"]["nets"], str(main)
    worst = min(nets, key=lambda one: float(nets[one]["accuracy"]["mean"]))
    identity, cheese, corner = found["identity"], found["cheese"], found["corner"]
    beyond = cheese["beyond"]
    rise = corner["rows"]["vector"]["ends_corner_shift"]
    random = corner["rows"]["gaussian"]["ends_corner_shift"]
    mixed = found["composition"]
    at = mixed["steps"].index(-1.0), mixed["steps"].index(1.0)
    pair = [mixed[kind]["table"][at[0]][at[1]] for kind in ("vectors", "random")]
    moved = {
        name: _other_sizes(found["transfer"][goal])
        for goal, name in (("cheese", "cheese"), ("corner", "top-right"))
    }
    return [
        Bar("every net makes the planner's move in 95 % of held-out states",
            f"least: R={worst}, {said(nets[worst]['accuracy'], 4)}", nets[worst]["accuracy"]["low"] >= 0.95),
        Bar(f"cheese anywhere: R={main} goes for it more than R={min(map(int, nets))}, less than all",
            f"+{said(nets[key]['above_lowest'])} and {said(nets[key]['below_highest'])} below",
            nets[key]["above_lowest"]["low"] > 0 and nets[key]["below_highest"]["low"] > 0),
        Bar("at the start, minus the cheese vector = the maze without cheese, to 1e-5",
            f"largest difference of a logit in {identity['mazes']} mazes: {identity['start_largest']:.1e}",
            identity["start_largest"] <= 1e-5),
        Bar("minus the cheese vector: P(to the cheese) falls, and further than by random vectors of its norm",
            f"{said(cheese['shift']['vector'])}, random {said(cheese['shift_random'])}, n = {cheese['mazes']}",
            beyond["gaussian"]["high"] < 0 and cheese["mazes"] >= 200),
        Bar("... and further than by its own values at other squares, or by two other mazes",
            f"{said(beyond['shuffled'])} and {said(beyond['other mazes'])} beyond",
            beyond["shuffled"]["high"] < 0 and beyond["other mazes"]["high"] < 0),
        Bar("plus the top-right vector: more episodes end in the corner",
            f"{said(rise)}, random {said(random)}, n = {corner['mazes']}", rise["low"] > max(0, random["high"])),
        Bar("... and at the decision square it does more than the difference of two other mazes, of its norm",
            f"{said(corner['beyond']['other mazes'])} beyond", corner["beyond"]["other mazes"]["low"] > 0),
        Bar("both vectors add up better than random ones of their norms, over the grid of coefficients",
            f"error {said(mixed['vectors']['mean'])}, random {said(mixed['random']['mean'])}",
            mixed["vectors"]["mean"]["high"] < mixed["random"]["mean"]["low"]),
        Bar("... and where the notes add them: minus cheese, plus top-right, both by 1",
            f"error {said(pair[0])}, random {said(pair[1])}", pair[0]["high"] < pair[1]["low"]),
        Bar("vectors of mazes of another size do at least half of what a maze's own does",
            "; ".join(f"{name} {other:.2f}, own {own:.2f}" for name, (other, own) in moved.items()),
            all(abs(other) >= abs(own) / 2 and other * own > 0 for other, own in moved.values())),
    ]  # fmt: skip


def gates(found: Found) -> Table:
    columns = [
        "net",
        "accuracy",
        "P(to the cheese)",
        "P(to the corner)",
        "no cheese there: to its place",
        "to the corner",
    ]
    rows = [
        [_region(name), said(one["accuracy"], 4), *(said(one[key]) for key in
         ("p_cheese", "p_corner", "p_cheese_bare", "p_corner_bare"))]
        for name, one in found["nets"].items()
    ]  # fmt: skip
    return Table(columns, rows)


def effects(found: Found) -> Table:
    columns = ["policy", "P(to the cheese)", "P(to the corner)", "KL to cheese removed", "mass on walls",
               "ends at cheese", "ends at corner", "greedy: cheese", "greedy: corner",
               "McNemar: cheese, corner"]  # fmt: skip
    names = {"base": "as trained", "vector": "the vector"}
    rows = [
        [names.get(name, name), said(row["p_cheese"]), said(row["p_corner"]), said(row["kl_to_bare"]),
         said(row["invalid"], 3), said(row["ends_cheese"]), said(row["ends_corner"]), said(row["greedy_cheese"]),
         said(row["greedy_corner"]),
         "" if name == "base" else ", ".join(_mcnemar(row[f"greedy_{goal}_mcnemar"]) for goal in ("cheese", "corner"))]
        for name, row in found["rows"].items()
    ]  # fmt: skip
    return Table(columns, rows)


def sweep(found: Found, goal: str) -> Table:
    columns = ["coefficient", "P(to the cheese)", "P(to the corner)", "ends at cheese", "ends at corner",
               "entropy", "mass on walls", "random: P(to the cheese)", "random: mass on walls"]  # fmt: skip
    rows = []
    for c in COEFFICIENTS:
        one, other = (found[goal][kind][f"{c:g}"] for kind in ("vector", "gaussian"))
        rows.append([f"{c:g}", *(said(one[key]) for key in ("p_cheese", "p_corner", "ends_cheese", "ends_corner")),
                     said(one["entropy"]), said(one["invalid"], 3), said(other["p_cheese"]),
                     said(other["invalid"], 3)])  # fmt: skip
    return Table(columns, rows)


def garbage(found: Found, goal: str, kind: str = "vector") -> str:
    """The coefficients nearest to 0 from which on a policy walks into walls."""
    bad = [c for c in COEFFICIENTS if found[goal][kind][f"{c:g}"]["invalid"]["mean"] >= GARBAGE]
    nearest = [*sorted(c for c in bad if c < 0)[-1:], *sorted(c for c in bad if c > 0)[:1]]
    return " and ".join(f"{c:g}" for c in nearest) or "none up to 10"


def asymmetry(found: Found) -> Table:
    columns = ["vector", "c", "unit", "effect of +c", "effect of −c", "their sum"]
    rows = [
        [goal if goal == "cheese" else "top-right", c, "P" if unit == "p" else "logits",
         *(said(one[unit][key]) for key in ("plus", "minus", "sum"))]
        for goal in ("cheese", "corner")
        for c, one in found[goal].items() if c != "mazes"
        for unit in ("p", "logit")
    ]  # fmt: skip
    return Table(columns, rows)


def composition(found: Found, kind: str) -> Table:
    """Error ratios: rows are coefficients of the cheese vector, columns of the top-right vector."""
    steps = found["steps"]
    rows = [
        [f"{s:g}", *(said(one) if s and t else "0" for t, one in zip(steps, row, strict=True))]
        for s, row in zip(steps, found[kind]["table"], strict=True)
    ]
    return Table(["cheese \\ top-right", *(f"{t:g}" for t in steps)], rows)


def outcomes(found: Found) -> Table:
    rows = [[name, said(one["cheese"]), said(one["corner"])]
            for name, one in found["outcomes"].items() if "cheese" in one]  # fmt: skip
    return Table(["vectors", "ends at cheese", "ends at corner"], rows)


def transfer(found: Found, goal: str) -> Table:
    one = found[goal]
    rows = [
        [f"from size {source}", *(said(one["matrix"][f"{source}>{target}"]) for target in one["targets"])]
        for source in one["sources"]
    ]
    rows.append(
        ["its own maze", *(said(one["own"][str(t)]) if str(t) in one["own"] else "" for t in one["targets"])]
    )
    rows.append(["random of its norm", *(said(one["random"][str(t)]) for t in one["targets"])])
    return Table(["vector", *(f"into size {target}" for target in one["targets"])], rows)


def _other_sizes(one: Found) -> tuple[float, float]:
    """The mean shift over pairs of different sizes, and over mazes with their own vectors."""
    others = [one["matrix"][f"{a}>{b}"]["mean"] for a in one["sources"] for b in one["targets"] if a != b]
    return sum(others) / len(others), sum(cell["mean"] for cell in one["own"].values()) / len(one["own"])


def nearness(found: Found) -> Table:
    rows = [[name, str(one["n"]), said(one)] for name, one in found["by_distance"].items()]
    return Table(["squares between the cheeses", "pairs of mazes", "shift of P(to the cheese)"], rows)


def layers(found: Found) -> Table:
    columns = ["module", "numbers", "norm / activation's", "cheese: shift", "random", "top-right: shift", "random",
               "KL to cheese removed", "logits off it", "cosine start : decision"]  # fmt: skip
    rows = [
        [name, str(one["numbers"]), f"{one['norm']:.2f}", said(one["cheese"]), said(one["cheese_random"]),
         said(one["corner"]), said(one["corner_random"]), said(one["kl_to_bare"]), f"{one['off_identity']:.2f}",
         f"{one['same_off_start']:.2f}"]
        for name, one in found["sites"].items()
    ]  # fmt: skip
    return Table(columns, rows)


def nonlinearity(found: Found) -> Table:
    steps = [f"{t:g}" for t in found["steps"] if abs(t) > 0.1]
    rows = [
        ["cheese" if goal == "cheese" else "top-right", site, *(said(one[t]) for t in steps)]
        for goal in ("cheese", "corner")
        for site, one in found[goal].items()
    ]
    return Table(["vector", "read at", *(f"t = {t}" for t in steps)], rows)


def probe(found: Found) -> Table:
    rows = [[name, f"{one['corner']:.2f}", f"{one['cheese']:.2f}"] for name, one in found["sites"].items()]
    return Table(["read off", "R² of the steps to the corner", "R² of the steps to the cheese"], rows)


def family(found: Found) -> Table:
    columns = ["net", "wants the cheese", "−cheese: shift", "random", "where wanted", "random there",
               "ends at cheese: before", "after", "+top-right: shift", "random", "ends at corner: before",
               "after"]  # fmt: skip
    rows = []
    for name, one in found.items():
        wanted = one["cheese"].get("where_wanted")
        rows.append([
            _region(name), said(one["wants"]), said(one["cheese"]["vector"]), said(one["cheese"]["random"]),
            *((said(wanted["vector"]), said(wanted["random"])) if wanted else ("", "")),
            said(one["base_ends"]["cheese"]), said(one["cheese_ends"]["cheese"]), said(one["corner"]["vector"]),
            said(one["corner"]["random"]), said(one["base_ends"]["corner"]), said(one["corner_ends"]["corner"]),
        ])  # fmt: skip
    return Table(columns, rows)


def _region(name: str) -> str:
    return "all" if name == str(SIDE) else f"R = {name}"


def _mcnemar(one: Found) -> str:
    return f"+{one['gained']} −{one['lost']} p {one['p']:.1g}"
