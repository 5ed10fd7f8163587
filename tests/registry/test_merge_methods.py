"""The table of merge methods, and the page that tells people of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pv.registry.combine import Combine
from pv.registry.errors import UsageError
from pv.registry.merge_methods import METHODS, Option
from pv.registry.words import number

DOCS = Path(__file__).parents[2] / "docs"


def rows(page: str) -> dict[str, list[str]]:
    """The first row of a table that begins with each method's name."""
    found: dict[str, list[str]] = {}
    for line in (DOCS / page).read_text("utf-8").splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if line.startswith("| `"):
            found.setdefault(cells[0].strip("*").strip("`"), cells)
    return found


def test_the_page_has_every_method_with_its_switches_and_defaults() -> None:
    table = rows("merging.md")
    for name, method in METHODS.items():
        said = table[name][2]
        defaults = (
            f"`{one.name}` {one.default if isinstance(one.default, str) else number(one.default)}"
            for one in method.options
        )
        assert said == ", ".join(defaults), name


def test_the_format_names_every_method_and_switch() -> None:
    table = rows("FORMAT.md")
    for name, method in METHODS.items():
        if name != "add":
            for option in method.options:
                assert f"`{option.name}`" in table[name][1], (name, option.name)


@pytest.mark.parametrize("name", METHODS)
def test_a_summary_is_a_clause(name: str) -> None:
    summary = METHODS[name].summary
    assert summary[0].islower() and not summary.endswith(".") and len(summary) < 150


def test_what_a_switch_may_be_in_words() -> None:
    assert Option("x", 1.0, "").values == "a number"
    assert Option("x", 1.0, "", above=0, most=1).values == "above 0, at most 1"
    assert Option("x", 0, "", least=0, whole=True).values == "whole, at least 0"
    assert Option("x", "a", "", ("a", "b")).values == "a, b"


def test_a_default_is_a_value_that_may_be() -> None:
    for name, method in METHODS.items():
        rule = Combine.of(name)
        for option in method.options:
            assert rule.options[option.name] == option.default
            assert option.help.endswith(".") and len(option.help) < 110
        for preset, switches in method.presets.items():
            assert switches.keys() <= rule.options.keys(), preset
        if method.options:
            with pytest.raises(UsageError, match="needs"):
                Combine.from_json({"method": name})


def test_what_came_later_is_not_written_at_its_default() -> None:
    """Personas of before have neither switch, and their ids stay."""
    plain, paper = Combine.of("ties"), Combine.of("ties", preset="paper")
    assert plain.to_json() == {
        "method": "ties",
        "density": 0.2,
        "elect": "unweighted",
        "merge": "mean",
        "lambda": 1,
    }
    assert Combine.from_json(plain.to_json()) == plain and plain.options["trim"] == "tensor"
    assert paper.to_json() == {**plain.to_json(), "trim": "model", "undecided": "none"}
    assert Combine.from_json(paper.to_json()) == paper
    with pytest.raises(UsageError, match="trim tensor is what it is without a word"):
        Combine.from_json({**plain.to_json(), "trim": "tensor"})  # one persona, one spelling
    with pytest.raises(UsageError, match="trim must be one of tensor, model"):
        Combine.from_json({**plain.to_json(), "trim": "layer"})
    with pytest.raises(UsageError, match="takes no option 'trim'"):
        Combine.of("breadcrumbs", trim="model")
