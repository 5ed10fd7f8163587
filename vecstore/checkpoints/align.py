"""A checkpoint seen through its base's eyes: the base's tensor names, whatever layout it was saved in.

Two checkpoints of one model may differ in how they are written down. What is only a matter of writing is
undone here, exactly, without touching a number:

- the experts of a mixture, fused or one by one (`moe`)
- tied embeddings: a head that repeats the embedding, where the base has none, is left out; a head that is
  missing, where the base's own repeats its embedding, is the embedding
- buffers that some releases save and others compute (rotary frequencies, causal masks)

Everything else that keeps it from being the same model is refused, with what to do.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pv.registry.errors import CheckpointRefused
from pv.registry.manifest import BaseManifest, Spec
from pv.vecstore.checkpoints.checkpoint import Checkpoint
from pv.vecstore.checkpoints.compare import differences
from pv.vecstore.checkpoints.moe import Piece, relaid, twin
from pv.vecstore.checkpoints.names import is_embedding, is_head, is_vocabulary
from pv.vecstore.checkpoints.object_store import ObjectFolder
from pv.vecstore.checkpoints.pieces import read_pieces
from pv.vecstore.tensors.formats import FLOATS

__all__ = ["Aligned", "align", "embedding_of", "is_buffer"]

_BUFFERS = re.compile(r"(.*\.)?(rotary_emb\.inv_freq|attn\.masked_bias|position_ids)")
_MASKS = re.compile(r"(.*\.)?attn(ention)?\.bias")  # a causal mask has four dimensions, a bias one
_QUANTISED = re.compile(
    r".*[._](absmax|quant_map|quant_state.*|qweight|qzeros|scales|g_idx|weight_scale|weight_scale_inv|blocks|SCB)"
)
_ADAPTED = re.compile(r".*\.(lora_[AB]|lora_embedding_[AB]|base_layer|modules_to_save)\b.*")
_PIECE_BYTES = 4 << 20
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Aligned:
    """Weights under the base's names. `pieces` says for each where its bytes are in the checkpoint."""

    where: Path | ObjectFolder
    specs: Mapping[str, Spec]
    checkpoint: Checkpoint
    pieces: Mapping[str, tuple[Piece, ...]]

    def read(self, name: str, start: int = 0, stop: int | None = None) -> memoryview:
        """Raw bytes `start` to `stop` of a tensor, put together from its pieces."""
        return read_pieces(self.checkpoint, self.pieces[name], start, stop)


def align(checkpoint: Checkpoint, base: BaseManifest) -> Aligned:
    """See `checkpoint` as one of the base's model. Raises CheckpointRefused.

    A float may differ in width from the base's (a trainer that saved fp32); a tensor that the result lacks
    is as in the base.
    """
    found, wanted = checkpoint.specs, {n: Spec(row.dtype, row.shape) for n, row in base.tensors.items()}
    _refuse_kinds(checkpoint.where, found.keys() - wanted.keys())
    pieces = {name: _whole(name, found[name]) for name in found.keys() & wanted.keys()}
    moved = relaid(found, wanted)
    pieces.update(moved)
    for name in wanted.keys() - pieces.keys():
        if (other := twin(name)) is not None and other in found and other not in wanted:
            pieces[name] = _whole(other, found[other])
    used = {piece.name for parts in pieces.values() for piece in parts}
    for name in sorted(wanted.keys() - pieces.keys()):
        if (embedding := _tied_in_base(base, name)) is not None and embedding in pieces:
            pieces[name] = pieces[embedding]
    spare = {name for name in found.keys() - used if not _says_nothing(checkpoint, wanted, name)}
    absent = {name for name in wanted.keys() - pieces.keys() if not is_buffer(name, wanted[name])}

    # Experts laid out anew have the shape that the base gives them: they were cut to fit.
    specs: dict[str, Spec] = {}
    for name, parts in sorted(pieces.items()):
        source = found[parts[0].name]
        specs[name] = Spec(source.dtype, wanted[name].shape) if name in moved else source
    _refuse_misfits(checkpoint, base, specs, absent, spare)
    return Aligned(checkpoint.where, specs, checkpoint, pieces)


def embedding_of(head: str, names: Iterable[str]) -> str | None:
    """The embedding among `names` that a tied head repeats; None if there is none, or a choice."""
    if not head.endswith(".weight"):
        return None
    found = [name for name in names if is_embedding(name)]
    return found[0] if len(found) == 1 else None


def _whole(name: str, spec: Spec) -> tuple[Piece, ...]:
    return (Piece(name, 0, spec.nbytes),)


def _tied_in_base(base: BaseManifest, name: str) -> str | None:
    """The base's embedding, if the base's head `name` is nothing but a second copy of it."""
    embedding = embedding_of(name, base.tensors) if is_head(name) else None
    return embedding if embedding is not None and base.tensors[embedding] == base.tensors[name] else None


def _says_nothing(checkpoint: Checkpoint, wanted: Mapping[str, Spec], name: str) -> bool:
    """Whether an extra tensor may be left out: a buffer, or a head that repeats the embedding."""
    if is_buffer(name, checkpoint.specs[name]):
        return True
    embedding = embedding_of(name, wanted) if is_head(name) else None
    return embedding is not None and embedding in checkpoint.specs and _same(checkpoint, name, embedding)


def is_buffer(name: str, spec: Spec) -> bool:
    return bool(_BUFFERS.fullmatch(name)) or (bool(_MASKS.fullmatch(name)) and len(spec.shape) == 4)


def _same(checkpoint: Checkpoint, a: str, b: str) -> bool:
    spec = checkpoint.specs[a]
    if spec != checkpoint.specs[b]:
        return False
    nbytes = spec.nbytes
    return all(
        checkpoint.read(a, start, min(start + _PIECE_BYTES, nbytes))
        == checkpoint.read(b, start, min(start + _PIECE_BYTES, nbytes))
        for start in range(0, nbytes, _PIECE_BYTES)
    )


def _refuse_kinds(path: Path | ObjectFolder, extra: Iterable[str]) -> None:
    extra = sorted(extra)
    if adapted := [name for name in extra if _ADAPTED.fullmatch(name)]:
        raise CheckpointRefused(
            f"{path} has an adapter inside that was never merged: {_listed(adapted)}",
            hint="merge it before saving, model.merge_and_unload().save_pretrained(DIR), "
            "or commit the folder that PEFT saved: it has an adapter_config.json beside the weights",
        )
    if quantised := [name for name in extra if _QUANTISED.fullmatch(name)]:
        raise CheckpointRefused(
            f"{path} is quantised: {_listed(quantised)}",
            hint="save it dequantised, in the base's dtype: model.dequantize().save_pretrained(DIR)",
        )


def _refuse_misfits(
    checkpoint: Checkpoint, base: BaseManifest, specs: Mapping[str, Spec], absent: set[str], spare: set[str]
) -> None:
    path = checkpoint.where
    for name, spec in specs.items():
        own = base.tensors[name].shape
        if is_vocabulary(name) and spec.shape != own and spec.shape[1:] == own[1:]:
            raise CheckpointRefused(
                f"{path} has a vocabulary of {spec.shape[0]} tokens, base {base.id[:12]} one of {own[0]} ({name})",
                hint=f"if the new tokens do not matter: model.resize_token_embeddings({own[0]}) and save; if they do: "
                f"resize the base to {spec.shape[0]} and begin with `pv init --base` on that",
            )
    heads = {name for name in absent | spare if is_head(name)}
    if heads and absent | spare == heads:
        ours, theirs = (
            ("a head of its own", "none") if absent else ("none", "one that differs from its embedding")
        )
        raise CheckpointRefused(
            f"the base has {ours}, {path} has {theirs}: {_listed(sorted(heads))}",
            hint="their embeddings are tied in one and not in the other: untie the base, save it with its head, "
            "and begin with `pv init --base` on that",
        )
    found = {name: _as_wide(base.tensors[name], spec) for name, spec in specs.items()}
    found.update({name: checkpoint.specs[name] for name in spare})
    kept = {name: row for name, row in base.tensors.items() if name in specs or name in absent}
    if lines := differences(kept, found):
        more = f" (and {len(lines) - _SHOWN} more)" if len(lines) > _SHOWN else ""
        raise CheckpointRefused(
            f"{path} does not fit base {base.id[:12]}: {'; '.join(map(str, lines[:_SHOWN]))}{more}",
            hint="a vector is the difference of two checkpoints of one architecture: was it fine-tuned from this base?",
        )


def _as_wide(own: Spec, found: Spec) -> Spec:
    """A float of another width counts as the base's."""
    return Spec(own.dtype, found.shape) if {own.dtype, found.dtype} <= FLOATS else found


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(repr(name) for name in names[:3]) + more
