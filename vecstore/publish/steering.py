"""Of a model card: what is steered, which of it is in the weights, and how the rest is applied."""

from __future__ import annotations

from collections.abc import Mapping

from pv.registry.persona import Persona
from pv.registry.provenance import Provenance, Unknown
from pv.registry.steering import SteeringTerm
from pv.registry.words import number
from pv.vecstore.publish.lineage import lineage
from pv.vecstore.publish.markdown import code, plain, table

__all__ = ["steering_section"]

MOST = 3


def steering_section(
    persona: Persona, unbaked: Mapping[str, str], provenance: Mapping[str, Provenance], folder: str
) -> str:
    """Markdown; empty for a persona that steers nothing. `unbaked` says of terms why they are not in the weights."""
    active = persona.steering.active
    if not active:
        return ""
    rows = [
        (
            code(name),
            f"{number(term.coefficient)} × {code(term.vector[:12])}",
            _where(term),
            lineage(provenance.get(term.vector, Unknown()), code),
            f"no: {plain(unbaked[name])}" if name in unbaked else "yes, as biases",
        )
        for name, term in active.items()
    ]
    head = ("term", "vector", "where", "from", "in the weights")
    said = (
        "## Steering\n\nA steering term adds a direction to activations while the model runs. "
        "A bias that adds exactly the same is in the weights: any runtime that loads them applies it.\n\n"
        + table(head, rows)
    )
    if not unbaked:
        return said
    return (
        f"{said}\n\nThe others are in `steering.json` and `steering.safetensors`, combined by the rule "
        f"{code(persona.steering.rule)}. With pv (personavec), on the model as it was loaded:\n\n"
        "```python\n"
        "from pv.vecstore.activations.listed import listed\n\n"
        f'with listed(model, "{folder}"):  # a folder on this machine\n'
        "    reply = model.generate(**prompt, max_new_tokens=64)\n"
        "```"
    )


def _where(term: SteeringTerm) -> str:
    sites = term.sites or ()
    more = f" and {len(sites) - MOST} more" if len(sites) > MOST else ""
    at = ", ".join(map(code, sites[:MOST])) + more if sites else "all its sites"
    asked = "" if term.when is None else f", if the prompt is near {code(term.when.vector[:12])}"
    return f"{at}; {'all positions' if term.positions == 'all' else f'the {term.positions}'}{asked}"
