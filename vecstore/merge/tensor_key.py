"""What one tensor of a build is made from, as one id: with the same key, another build holds the very same bytes.

Everything that `compute` looks at has a part in it: the rules (engine), the base's tensor, the vectors' parts and their
weights in the order in which they are added, the combine rule, and how it is written. A rule that is no plain sum may
draw at random for a vector, by its id; then that counts too. Where it trims over the whole model, so do the tensors of
all behaviours.
"""

from __future__ import annotations

from collections.abc import Mapping

from pv.registry import ids
from pv.registry.manifest import BaseManifest, VectorManifest
from pv.registry.persona import Persona
from pv.vecstore.merge.baked import NOTHING, Baked
from pv.vecstore.merge.methods import is_linear
from pv.vecstore.merge.model_trim import reach
from pv.vecstore.merge.plan import Operand, plan
from pv.vecstore.merge.shards import Shard

__all__ = ["tensor_keys"]


def tensor_keys(
    persona: Persona,
    base: BaseManifest,
    vectors: Mapping[str, VectorManifest],
    shards: tuple[Shard, ...],
    baked: Baked = NOTHING,
) -> dict[str, str]:
    """{tensor: key}"""
    held = {vector_id: manifest.tensors.keys() for vector_id, manifest in vectors.items()}
    trimmed = reach(persona, base, vectors)

    def key(name: str, dtype: str) -> str:
        return _key(persona, base, vectors, name, dtype, plan(persona, held, name), trimmed)

    def bias_key(name: str, dtype: str) -> str:
        bias = baked.biases[name]
        used = [name] if bias.through is None else [name, bias.weight]
        made_from = [key(one, dtype) for one in used if one in base.tensors]
        return ids.tensor_key({"bias": bias.words, "from": made_from, "name": name, "written": dtype})

    return {
        name: bias_key(name, spec.dtype) if name in baked.biases else key(name, spec.dtype)
        for shard in shards
        for name, spec in shard.tensors.items()
    }


def _key(
    persona: Persona,
    base: BaseManifest,
    vectors: Mapping[str, VectorManifest],
    name: str,
    dtype: str,
    operands: tuple[Operand, ...],
    trimmed: str | None,
) -> str:
    own, draws = base.tensors[name], not is_linear(persona.combine)

    def term(vector: str) -> list[object]:
        manifest = vectors[vector]
        parts = {part: row.to_json() for part, row in manifest.tensors[name].items()}
        return [manifest.encoding, dict(manifest.options), parts, *([vector] if draws else [])]

    added = [
        [operand.weight, [[coefficient, term(vector)] for coefficient, vector in operand.terms]]
        for operand in operands
    ]
    written = [dtype, persona.output.rounding, persona.output.seed]
    if not added and dtype == own.dtype:
        return ids.tensor_key({"base": own.to_json(), "engine": persona.engine, "name": name})
    return ids.tensor_key({
        "added": added,
        "base": own.to_json(),
        "engine": persona.engine,
        "name": name,
        "rule": persona.combine.to_json() if added else None,
        "written": written,
        **({"trimmed": trimmed} if added and trimmed else {}),
    })  # fmt: skip
