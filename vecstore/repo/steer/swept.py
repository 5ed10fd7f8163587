"""What a sweep is asked for: the layers of a vector, coefficients, and a neutral set."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from itertools import chain

from pv.registry.errors import UsageError
from pv.vecstore.activations.sites import layer_of
from pv.vecstore.data.rows import Rows
from pv.vecstore.evaluate.neutral_set import neutral_set
from pv.vecstore.evaluate.steering_sweep import Place
from pv.vecstore.repo.steer.one_term import MOST, at_layer

__all__ = ["COEFFICIENTS", "LAYERS", "coefficients_of", "part_of_neutral_set", "places_of"]

LAYERS = 8  # that are swept where none are named
COEFFICIENTS = (-2.0, -1.0, 0.5, 1.0, 2.0, 4.0, 8.0)
EVERY_ANSWER, EVERY_TEXT = 4, 2
LAYER_HINT = "numbers, as in 3,9,15; all; or every:3"
_EVERY = re.compile(r"every:([1-9]\d{0,3})")


def places_of(sites: Iterable[str], layers: str | Sequence[int] | None, name: str) -> list[Place]:
    """Sites of a vector, in the order of the model: those of `layers` (`3,9,15`, `all`, `every:3`, or numbers).

    None: all, or of many layers some that are spread evenly. Raises UsageError.
    """
    known = sorted(sites, key=lambda site: (layer_of(site) is None, layer_of(site) or 0, site))
    numbered = sorted({layer for site in known if (layer := layer_of(site)) is not None})
    if layers is None and len(numbered) > LAYERS:
        step = (len(numbered) - 1) / (LAYERS - 1)
        wanted = [numbered[round(i * step)] for i in range(LAYERS)]
    elif layers is None or layers == "all":
        return [Place(site, layer_of(site)) for site in known]
    elif isinstance(layers, str) and (match := _EVERY.fullmatch(layers.strip())):
        wanted = numbered[:: int(match[1])]
    else:
        wanted = _whole_numbers(layers)
    chosen = set(chain.from_iterable(at_layer(known, layer, name) for layer in wanted))
    return [Place(site, layer_of(site)) for site in known if site in chosen]


def coefficients_of(given: str | Sequence[float]) -> tuple[float, ...]:
    """Numbers, or a text with commas between them: sorted, each once. Raises UsageError."""
    found = set()
    for one in given.split(",") if isinstance(given, str) else given:
        try:
            number = float(one)
        except (TypeError, ValueError):
            raise UsageError(
                f"{str(one)[:80]!r} is not a coefficient", hint="numbers, as in -1,0.5,1,2,4"
            ) from None
        if not math.isfinite(number) or abs(number) > MOST:
            raise UsageError(
                f"a coefficient is a finite number up to a million, not {number:g}", hint="as in -1,0.5,1,2,4"
            )
        if number == 0:
            raise UsageError(
                "coefficient 0 adds nothing", hint="leave it out: everything is measured without the term too"
            )
        found.add(number)
    if not found:
        raise UsageError("no coefficients to sweep", hint="numbers, as in -1,0.5,1,2,4")
    return tuple(sorted(found))


def part_of_neutral_set() -> Rows:
    """A third of pv's own: every other plain text, and every fourth plain answer."""
    whole = neutral_set()
    answers = [row for row in whole if row.prompt][::EVERY_ANSWER]
    texts = [row for row in whole if not row.prompt][::EVERY_TEXT]
    return Rows((*answers, *texts), f"a part of {whole.source}")


def _whole_numbers(given: str | Sequence[int]) -> list[int]:
    found = []
    for one in given.split(",") if isinstance(given, str) else given:
        if not re.fullmatch(r"\d{1,6}", str(one).strip()):
            raise UsageError(f"{str(one)[:80]!r} is no layer", hint=LAYER_HINT)
        found.append(int(one))
    if not found:
        raise UsageError("no layers to sweep", hint=LAYER_HINT)
    return found
