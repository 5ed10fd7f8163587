"""The figures. Each draws on a figure that it sizes itself; `examples.experiments.plots` gives colours and formats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.colors import LinearSegmentedColormap

from examples.experiments.plots import line, ticks
from examples.maze import vectors
from examples.maze.bench import COEFFICIENTS, PADDED, Bench, Contest, contest
from examples.maze.measures import Floats, ends
from examples.maze.vectors import field
from examples.maze.world import MOVES, SIDE
from pv.vecstore.evaluate.statistics import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Views", "composed", "composition", "effects", "family", "layers", "sweep", "transfer", "views"]

GOALS = {"cheese": "minus the cheese vector", "corner": "plus the top-right vector"}
CONTROLS = ("base", "vector", "gaussian", "shuffled", "other mazes", "cheese removed")


class Views:
    """Fields of the first mazes of the test part in which net and vector have something to decide: none is picked."""

    def __init__(self, bench: Bench, count: int) -> None:
        wide = tuple(size for size in PADDED if size > 7)
        self.some: Contest = contest(count, 90, sizes=wide, wants=bench.wants)[0]
        mazes, site = self.some.mazes, bench.site
        cheese, path = vectors.cheese(bench.net, mazes, site), vectors.path(bench.net, mazes, site)
        given = {"as trained": None, GOALS["cheese"]: -cheese, GOALS["corner"]: path, "both": path - cheese}
        self.fields: dict[str, Floats] = {
            name: field(bench.net, mazes, None if one is None else {site: one}) for name, one in given.items()
        }
        self.ends = {name: ends(mazes, one) for name, one in self.fields.items()}


def views(figure: Figure, seen: Views, goal: str) -> None:
    """Policy at every square: as trained, steered, and the difference; a row a maze."""
    figure.set_size_inches(9.6, 3.25 * len(seen.some))
    axes = figure.subplots(len(seen.some), 3, squeeze=False)
    for at, row in enumerate(axes):
        base, other = (np.exp(seen.fields[name][at]) for name in ("as trained", GOALS[goal]))
        for panel, (name, chances) in zip(
            row, (("as trained", base), (GOALS[goal], other), ("the difference", other - base)), strict=True
        ):
            _arrows(panel, seen.some, at, chances, changed=name == "the difference")
            words = _ends(seen, name, at) if name in seen.ends else ""
            panel.set_title(f"{name}{words}", fontsize=9, loc="center")


def composed(figure: Figure, seen: Views) -> None:
    """Neither vector, each, both: a row a maze."""
    figure.set_size_inches(9.6, 2.55 * len(seen.some))
    for at, row in enumerate(figure.subplots(len(seen.some), 4, squeeze=False)):
        for panel, (name, one) in zip(row, seen.fields.items(), strict=True):
            _arrows(panel, seen.some, at, np.exp(one[at]), changed=False)
            panel.set_title(f"{name}\n{_ends(seen, name, at).strip(' :')}", fontsize=7.5, loc="center")


def _ends(seen: Views, name: str, at: int) -> str:
    return f": cheese {seen.ends[name].cheese[at]:.0%}, corner {seen.ends[name].corner[at]:.0%}"


def _arrows(axes: Axes, some: Contest, at: int, chances: Floats, *, changed: bool) -> None:
    """Each free square's mean move: up is up, and the full width of a square is certainty."""
    mazes, ink = some.mazes, matplotlib.rcParams["text.color"]
    faint = matplotlib.rcParams["grid.color"]
    axes.imshow(
        mazes.walls[at],
        cmap=LinearSegmentedColormap.from_list("walls", [(0, 0, 0, 0), faint]),
        vmin=0,
        vmax=1,
    )
    squares = np.argwhere(~mazes.walls[at])
    steps = np.nan_to_num(chances[squares[:, 0], squares[:, 1]]) @ MOVES
    colour = "C1" if changed else "C0"
    long = np.linalg.norm(steps, axis=1) > 0.04
    squares, steps = squares[long], steps[long]
    axes.quiver(
        squares[:, 1], squares[:, 0], steps[:, 1], -steps[:, 0], color=colour, pivot="middle", angles="uv",
        scale_units="x", scale=1.15, width=0.011, headwidth=4.2, headlength=4.2, headaxislength=3.8, minlength=0,
    )  # fmt: skip
    (row, column), (high, right), (low, left) = mazes.cheese[at], mazes.corner[at], mazes.start[at]
    axes.scatter(column, row, s=75, marker="D", color="#F2B632", edgecolor=ink, linewidth=0.8, zorder=3)
    axes.scatter(right, high, s=95, marker="*", facecolor="none", edgecolor="C2", linewidth=1.3, zorder=3)
    axes.scatter(left, low, s=30, marker="o", facecolor="none", edgecolor=ink, linewidth=1, zorder=3)
    where = some.squares[at]
    axes.add_patch(
        matplotlib.patches.Rectangle((where[1] - 0.5, where[0] - 0.5), 1, 1, fill=False, ec="C3", lw=1.4)
    )
    axes.set(xticks=[], yticks=[], xlim=(-0.5, SIDE - 0.5), ylim=(SIDE - 0.5, -0.5))
    axes.grid(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)


def effects(figure: Figure, found: Mapping[str, Any]) -> None:
    """Both vectors beside their controls: the move at the decision square, and where episodes end."""
    figure.set_size_inches(9.6, 4.8)
    panels = figure.subplots(2, 2, sharey="row", sharex=True)
    for row, goal in zip(panels, ("cheese", "corner"), strict=True):
        rows = found[goal]["rows"]
        words = {
            "vector": GOALS[goal],
            "base": "as trained",
            "gaussian": "Gaussian",
            "other mazes": "two other mazes",
        }
        keys = {
            f"p_{goal}": f"P(move to the {goal}) at the decision square",
            f"ends_{goal}": f"episodes that end at the {goal}",
        }
        for axes, (key, title) in zip(row, keys.items(), strict=True):
            for at, name in enumerate(CONTROLS):
                one = _interval(rows[name][key])
                colour = "C1" if name == "vector" else "C0" if name in ("base", "cheese removed") else "0.55"
                ink = matplotlib.rcParams["text.color"]
                axes.barh(at, one.mean, color=colour, height=0.62)
                axes.errorbar(
                    one.mean,
                    at,
                    xerr=[[one.mean - one.low], [one.high - one.mean]],
                    color=ink,
                    lw=1,
                    capsize=2.5,
                )
            axes.set(xlim=(0, 1.02), ylim=(len(CONTROLS) - 0.5, -0.5), title=title)
            axes.set_yticks(range(len(CONTROLS)), [words.get(name, name) for name in CONTROLS])
            axes.grid(False, axis="y")
            axes.grid(True, axis="x")


def sweep(figure: Figure, found: Mapping[str, Any]) -> None:
    """Rows: the vectors. Columns: what it does, entropy, mass on walls."""
    figure.set_size_inches(9.6, 5.6)
    places = list(range(len(COEFFICIENTS)))
    panels = figure.subplots(2, 3, sharex=True)
    labels = {"p_cheese": "P(to the cheese)", "p_corner": "P(to the corner)"}
    columns = {
        ("p_cheese", "p_corner"): "the move at the decision square", ("entropy",): "entropy, all squares (nats)",
        ("invalid",): "mass on walls, all squares",
    }  # fmt: skip
    for row, goal in zip(panels, ("cheese", "corner"), strict=True):
        kinds = {kind: [found[goal][kind][f"{c:g}"] for c in COEFFICIENTS] for kind in ("vector", "gaussian")}
        for axes, keys in zip(row, columns, strict=True):
            for at, key in enumerate(keys):
                for kind, style in (("vector", "-"), ("gaussian", ":")):
                    label = labels.get(key, "the vector") + (", Gaussian" if kind == "gaussian" else "")
                    label = label.replace("the vector, ", "")
                    colour = at if len(keys) > 1 else 2
                    line(
                        axes, places, [_interval(one[key]) for one in kinds[kind]], label, colour, style=style
                    )
            axes.set_ylim(bottom=0)
            axes.axvline(COEFFICIENTS.index(0.0), color=matplotlib.rcParams["grid.color"], zorder=0)
            ticks(axes, places, [f"{c:g}" for c in COEFFICIENTS])
        row[0].set_ylim(0, 1)
        row[0].set_ylabel("cheese vector" if goal == "cheese" else "top-right vector")
    for axes, title in zip(panels[0], columns.values(), strict=True):
        axes.set_title(title)
    for axes in panels[1]:
        axes.set_xlabel("coefficient")


def composition(figure: Figure, found: Mapping[str, Any]) -> None:
    figure.set_size_inches(9.6, 4.4)
    panels = figure.subplots(1, 2)
    steps = [f"{step:g}" for step in found["steps"]]
    for axes, (kind, title) in zip(
        panels,
        (("vectors", "cheese and top-right vectors"), ("random", "random vectors of their norms")),
        strict=True,
    ):
        values = np.array([[one["mean"] for one in row] for row in found[kind]["table"]])
        _heat(axes, values, steps, steps, top=0.8)
        mean = found[kind]["mean"]
        axes.set(title=f"{title}: mean {mean['mean']:.2f} [{mean['low']:.2f}, {mean['high']:.2f}]",
                 xlabel="coefficient of the top-right vector", ylabel="coefficient of the cheese vector")  # fmt: skip


def transfer(figure: Figure, found: Mapping[str, Any]) -> None:
    figure.set_size_inches(9.6, 7.4)
    panels = figure.subplots(2, 2, height_ratios=(1, 1.35))
    for column, goal in zip(panels.T, ("cheese", "corner"), strict=True):
        one = found[goal]
        sign = -1 if goal == "cheese" else 1
        values = np.array([
            [sign * one["matrix"][f"{source}>{target}"]["mean"] for target in one["targets"]]
            for source in one["sources"]
        ])  # fmt: skip
        _heat(
            column[0], values, [str(size) for size in one["targets"]], [str(size) for size in one["sources"]]
        )
        fall = "fall of P(to the cheese)" if goal == "cheese" else "rise of P(to the corner)"
        column[0].set(title=f"{GOALS[goal]}: {fall}", xlabel="size of the maze it is added in",
                      ylabel="size of its own maze")  # fmt: skip
        single = sign * np.array(one["single"]["table"])
        sizes = [str(size) for size in one["single"]["sizes"]]
        _heat(column[1], single, sizes, sizes, digits=1)
        own, others = sign * one["single"]["own"], sign * one["single"]["others"]
        column[1].set(title=f"single mazes: own {own:.2f}, others {others:.2f}", xlabel="added in (size)",
                      ylabel="taken from (size)")  # fmt: skip


def layers(figure: Figure, found: Mapping[str, Any]) -> None:
    """Where the net's whole state passes, in its order; the other modules are in the table."""
    order = [
        f"block{at}.{part}"
        for at in (1, 2)
        for part in ("conv", "pool", "res1.resadd_out", "res2.resadd_out")
    ]
    sites = [one for one in (*order, "relu1", "fc", "relu2", "policy") if one in found["sites"]]
    sites.remove("block1.pool")  # there is none
    figure.set_size_inches(9.6, 4.6)
    places = list(range(len(sites)))
    left, right = figure.subplots(1, 2, width_ratios=(1.5, 1))
    shown = {
        ("cheese", "-"): "−cheese: P(to the cheese)", ("cheese_random", ":"): "its Gaussian",
        ("corner", "-"): "+top-right: P(to the corner)", ("corner_random", ":"): "that one's Gaussian",
    }  # fmt: skip
    for at, ((key, style), label) in enumerate(shown.items()):
        found_there = [_interval(found["sites"][one][key]) for one in sites]
        line(left, places, found_there, label, at // 2, style=style)
    left.axhline(0, color=matplotlib.rcParams["text.color"], linewidth=0.8)
    left.set_title("shift at the decision square, by module")
    right.plot(places, [found["sites"][one]["same_off_start"] for one in sites], color="C2", marker="^")
    right.set_ylim(0, 1.03)
    right.set_title("cheese vector: cosine, start : decision")
    for axes in (left, right):
        axes.set_xticks(
            places, [one.replace("resadd_out", "add") for one in sites], rotation=50, ha="right", fontsize=8
        )


def family(figure: Figure, found: Mapping[str, Any], gates: Mapping[str, Any]) -> None:
    figure.set_size_inches(9.6, 3.9)
    regions = list(found)
    places, names = list(range(len(regions))), [f"R={one}" if one != str(SIDE) else "all" for one in regions]
    first, second, third = figure.subplots(1, 3)
    for at, (key, label) in enumerate((("p_cheese", "P(to the cheese)"), ("p_corner", "P(to the corner)"))):
        line(first, places, [_interval(gates["nets"][one][key]) for one in regions], label, at)
    first.set_title("as trained, cheese anywhere", fontsize=9.5)
    for axes, goal in ((second, "cheese"), (third, "corner")):
        for at, (key, label) in enumerate(
            (("vector", "the vector itself"), ("random", "random of its norm"))
        ):
            line(axes, places, [_interval(found[one][goal][key]) for one in regions], label, at + 2)
        axes.axhline(0, color=matplotlib.rcParams["text.color"], linewidth=0.8)
        axes.set_title(f"{GOALS[goal]}:\nshift of P(to the {goal})", fontsize=9.5)
    for axes in (first, second, third):
        ticks(axes, places, names)
    first.set_ylim(0, 1)


def _heat(axes: Axes, values: Floats, across: Sequence[str], down: Sequence[str], *, digits: int = 2,
          top: float | None = None) -> None:  # fmt: skip
    paper, ink = matplotlib.rcParams["axes.facecolor"], matplotlib.rcParams["text.color"]
    deep = matplotlib.rcParams["axes.prop_cycle"].by_key()["color"][0]
    colours = LinearSegmentedColormap.from_list("heat", [paper, deep])
    top = max(float(np.nanmax(values)), 1e-6) if top is None else top
    axes.imshow(values, cmap=colours, vmin=0, vmax=top, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        axes.text(column, row, f"{round(value, digits) + 0.0:.{digits}f}", ha="center", va="center", fontsize=7.5,
                  color=paper if value > 0.62 * top else ink)  # fmt: skip
    axes.set_xticks(range(len(across)), across)
    axes.set_yticks(range(len(down)), down)
    axes.tick_params(length=0)
    axes.grid(False)


def _interval(found: Mapping[str, Any]) -> Interval:
    return Interval(found["mean"], found["low"], found["high"], found["n"])
