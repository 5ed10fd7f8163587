"""The picture of a sweep and its page: drawn from the numbers alone, with nothing beside them."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from io import BytesIO

from support.sweeps import made_sweep

from pv.vecstore.evaluate.steering_sweep import Place, Sweep
from pv.vecstore.publish.steering_page import command_of, page
from pv.vecstore.publish.steering_plot import best_places, png, svg

SMALL = made_sweep((3, 15), (-1, 1, 4, 8))


class Tags(HTMLParser):
    """Every tag is closed in its turn, and what it loads is in it."""

    EMPTY = ("meta", "img", "br", "source", "!doctype")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loaded: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.EMPTY:
            self.open.append(tag)
        self.loaded += [value or "" for name, value in attrs if name in ("src", "srcset", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@cache
def html(sweep: Sweep) -> str:
    return page(sweep)


def read(sweep: Sweep) -> Tags:
    found = Tags()
    found.feed(html(sweep))
    assert found.open == []
    return found


def test_the_page_needs_nothing_beside_it() -> None:
    found = read(SMALL)
    assert len(found.loaded) == 2 and all(
        one.startswith("data:image/svg+xml;base64,") for one in found.loaded
    )
    text = re.sub(r"base64,[A-Za-z0-9+/=]+", "", html(SMALL))
    assert "http" not in text and "<script" not in text and "prefers-color-scheme: dark" in text


def test_the_page_says_what_was_found() -> None:
    found = read(SMALL).text
    assert SMALL.suggestion is not None
    cell = SMALL.suggestion.cell
    for said in (
        f"{cell.place.site}, coefficient {cell.coefficient:g}",
        "8 (replies, damage)",
        "a part of pv's neutral set, 12 rows",
        f"{cell.second.mean:+.2f}",
        "no say in the choice",
        command_of(SMALL),
        "the same model without any steering term",
    ):
        assert said in found
    assert "No suggestion" in read(made_sweep((3,), (-2, -1))).text


def test_the_command_measures_the_same() -> None:
    assert command_of(made_sweep((3, 15), (-1, 0.5), limit=0.1)) == (
        "pv steer sweep formal --data formal.heldout.jsonl --layers 3,15 --coefficients -1,0.5 --damage 0.1"
    )


def test_names_are_only_text() -> None:
    nasty = replace(SMALL, name="<b>$x_1$&", data='"><script>.jsonl', notes=("a < b",))
    found = read(nasty)
    assert "<b>$x_1$&" in found.text and "a < b" in found.text and "<script>" not in html(nasty)


def test_the_same_sweep_gives_the_same_picture() -> None:
    assert svg(SMALL, dark=True) == svg(SMALL, dark=True) != svg(SMALL, dark=False)


def test_more_layers_make_a_taller_picture() -> None:
    from matplotlib.image import imread

    small, large = (imread(BytesIO(png(made_sweep(layers, (1,))))) for layers in ((3,), tuple(range(16))))
    assert small.shape[1] == large.shape[1] and small.shape[0] < large.shape[0]
    assert small.std() > 0.05


def test_one_cell_and_long_names_can_be_drawn() -> None:
    one = made_sweep((14,), (1,))
    place = Place("model.layers.14.self_attn.o_proj:input[3/9]", 14)
    assert png(replace(one, cells=(replace(one.cells[0], place=place),))).startswith(b"\x89PNG")
    assert png(replace(one, limit=0.0)).startswith(b"\x89PNG")


def test_the_best_three_layers() -> None:
    assert [place.layer for place in best_places(made_sweep())] == [9, 15, 21]
    assert [place.layer for place in best_places(SMALL)] == [3, 15]
