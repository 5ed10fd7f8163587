"""The two layouts that mixture-of-experts checkpoints come in, and how one is read as the other.

transformers keeps the experts of a layer in two fused tensors and writes them, by default, one by one:

    each     P.experts.N.gate_proj.weight (I, H), .up_proj.weight (I, H), .down_proj.weight (H, I)
             (in some families w1, w3 and w2)
    fused    P.experts.gate_up_proj (E, 2I, H): for each expert gate, then up;  P.experts.down_proj (E, H, I)

P ends in `mlp` or `block_sparse_moe`, and a family may use one in each layout. Both hold the same numbers
in the same row-major order, so a tensor of one layout is a list of byte ranges of the other: exact, and
read without copying a layer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from pv.registry.dtypes import DTYPES
from pv.registry.errors import CheckpointRefused
from pv.registry.manifest import Spec

__all__ = ["Piece", "relaid", "twin"]

_EACH = re.compile(r"(.*\.)experts\.(\d{1,6})\.(gate_proj|up_proj|down_proj|w1|w2|w3)\.weight")
_FUSED = re.compile(r"(.*\.)experts\.(gate_up_proj|down_proj)")
_ROLES = {"gate_proj": "gate", "w1": "gate", "up_proj": "up", "w3": "up", "down_proj": "down", "w2": "down"}


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes `start` to `start + nbytes` of a tensor called `name` in the checkpoint."""

    name: str
    start: int
    nbytes: int


@dataclass(slots=True)
class _Layer:
    """One layer's experts, in whichever layouts they are there: names of tensors."""

    each: dict[tuple[int, str], str] = field(default_factory=dict)
    fused: dict[str, str] = field(default_factory=dict)


def twin(name: str) -> str | None:
    """What a tensor of a sparse layer (its router) is called where the layer has its other name."""
    if ".block_sparse_moe." in name:
        return name.replace(".block_sparse_moe.", ".mlp.")
    return name.replace(".mlp.", ".block_sparse_moe.") if ".mlp." in name else None


def relaid(found: Mapping[str, Spec], wanted: Mapping[str, Spec]) -> dict[str, tuple[Piece, ...]]:
    """The experts in `wanted` whose layer has the other layout in `found`, as pieces of what was found.

    Raises CheckpointRefused if a layer's other layout does not hold the same experts.
    """
    theirs = _layers(found)
    pieces: dict[str, tuple[Piece, ...]] = {}
    for place, ours in _layers(wanted).items():
        other = theirs.get(place)
        if other is None:
            continue
        if ours.each and other.fused and not other.each:
            pieces.update(_split(place, ours, other, found, wanted))
        elif ours.fused and other.each and not other.fused:
            pieces.update(_fuse(place, ours, other, found, wanted))
    return pieces


def _layers(specs: Mapping[str, Spec]) -> dict[str, _Layer]:
    layers: dict[str, _Layer] = {}
    for name in specs:
        if each := _EACH.fullmatch(name):
            layer = layers.setdefault(_place(each[1]), _Layer())
            layer.each[int(each[2]), _ROLES[each[3]]] = name
        elif fused := _FUSED.fullmatch(name):
            layers.setdefault(_place(fused[1]), _Layer()).fused[fused[2].removesuffix("_proj")] = name
    return layers


def _place(prefix: str) -> str:
    return prefix.replace(".block_sparse_moe.", ".mlp.")


def _split(
    place: str, ours: _Layer, other: _Layer, found: Mapping[str, Spec], wanted: Mapping[str, Spec]
) -> dict[str, tuple[Piece, ...]]:
    """Single experts out of fused ones."""
    inner, outer = _check(place, ours, other, wanted, found)
    pieces: dict[str, tuple[Piece, ...]] = {}
    for (number, role), name in ours.each.items():
        source = other.fused["down" if role == "down" else "gate_up"]
        size = inner * outer * DTYPES[found[source].dtype].itemsize
        index = number if role == "down" else 2 * number + (role == "up")
        pieces[name] = (Piece(source, index * size, size),)
    return pieces


def _fuse(
    place: str, ours: _Layer, other: _Layer, found: Mapping[str, Spec], wanted: Mapping[str, Spec]
) -> dict[str, tuple[Piece, ...]]:
    """Fused experts out of single ones."""
    inner, outer = _check(place, other, ours, found, wanted)
    experts = range(len(other.each) // 3)
    size = inner * outer * DTYPES[found[other.each[0, "gate"]].dtype].itemsize

    def whole(number: int, role: str) -> Piece:
        return Piece(other.each[number, role], 0, size)

    return {
        ours.fused["gate_up"]: tuple(whole(n, role) for n in experts for role in ("gate", "up")),
        ours.fused["down"]: tuple(whole(n, "down") for n in experts),
    }


def _check(
    place: str, single: _Layer, fused: _Layer, in_single: Mapping[str, Spec], in_fused: Mapping[str, Spec]
) -> tuple[int, int]:
    """(I, H), if both layouts hold the same experts. Every tensor is checked: a size that is off is a wrong cut."""
    count = len(single.each) // 3
    complete = set(single.each) == {(n, role) for n in range(count) for role in ("gate", "up", "down")}
    if not complete or set(fused.fused) != {"gate_up", "down"}:
        raise _refused(place, "some experts are missing")
    inner, outer = (*in_single[single.each[0, "gate"]].shape, 0, 0)[:2]
    shapes = {"gate": (inner, outer), "up": (inner, outer), "down": (outer, inner)}
    for (_, role), name in single.each.items():
        if in_single[name].shape != shapes[role]:
            raise _refused(place, f"{name!r} has shape {list(in_single[name].shape)}")
    sizes = {"gate_up": (count, 2 * inner, outer), "down": (count, outer, inner)}
    for role, name in fused.fused.items():
        if in_fused[name].shape != sizes[role]:
            raise _refused(place, f"{name!r} has shape {list(in_fused[name].shape)}, not {list(sizes[role])}")
    for names, specs in ((single.each.values(), in_single), (fused.fused.values(), in_fused)):
        if len({specs[name].dtype for name in names}) > 1:
            raise _refused(place, "they are of several dtypes")
    return inner, outer


def _refused(place: str, why: str) -> CheckpointRefused:
    return CheckpointRefused(
        f"the experts of {place.rstrip('.')} are laid out otherwise than the base's, and do not fit: {why}",
        hint="save the fine-tune in the base's own layout: save_pretrained(DIR, save_original_format=True) "
        "writes single experts, False fused ones",
    )
