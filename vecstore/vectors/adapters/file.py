"""A PEFT adapter's folder, opened and understood: which tensors of a base it changes, and how.

An adapter names modules, a base names tensors: every module must be found in the base, under one renaming
for all. Two tensors that the base keeps as one (tied embeddings) must agree. Every shape is checked against
the base before anything is read. What has no meaning here is refused by name; nothing is left out in silence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pv.registry import ids
from pv.registry.disk.closing import Closing
from pv.registry.disk.safetensors import TensorFile
from pv.registry.errors import CheckpointRefused, NotFoundError
from pv.vecstore.checkpoints.align import embedding_of
from pv.vecstore.checkpoints.checkpoint import INDEX
from pv.vecstore.checkpoints.names import is_head, is_vocabulary
from pv.vecstore.tensors.array import F32, Array, storage_dtype
from pv.vecstore.tensors.formats import FLOATS, to_f32
from pv.vecstore.vectors.adapters.config import CONFIG, AdapterConfig, read_config
from pv.vecstore.vectors.base import Base
from pv.vecstore.vectors.encodings import lora

__all__ = [
    "PREFIX",
    "WEIGHTS",
    "Adapter",
    "Change",
    "Low",
    "flipped",
    "is_adapter",
    "is_base",
    "open_adapter",
]

WEIGHTS = "adapter_model.safetensors"
PICKLE = "adapter_model.bin"
PREFIX = "base_model.model."
MAX_PREFIXES = 8  # first words of names that are tried: `model.`, `transformer.`, ...
ROLES = {
    ".lora_A.weight": "a",
    ".lora_B.weight": "b",
    ".lora_B.bias": "bias",
    ".lora_embedding_A": "embedding_a",
    ".lora_embedding_B": "embedding_b",
    ".lora_magnitude_vector": "magnitude",
}


@dataclass(frozen=True, slots=True)
class Low:
    """Low-rank factors of one module: keys in the file. `crossed`: the base keeps the transposed matrix."""

    module: str
    a: str
    b: str
    magnitude: str | None
    crossed: bool


@dataclass(slots=True)
class Change:
    """All that an adapter says about one tensor of the base."""

    low: Low | None = None
    bias: tuple[str, str] | None = None  # (module, key)
    whole: str | None = None  # key


@dataclass(frozen=True, slots=True)
class Adapter(Closing):
    """An opened adapter, resolved against a base: {base tensor: what happens to it}."""

    path: Path
    config: AdapterConfig
    file: TensorFile
    changes: dict[str, Change]
    renamed: tuple[str, str]
    notes: list[str]

    def array(self, key: str) -> Array:
        entry = self.file.entries[key]
        return Array(entry.dtype, entry.shape, np.frombuffer(self.file.read(key), storage_dtype(entry.dtype)))

    def f32(self, key: str) -> F32:
        array = self.array(key)
        return to_f32(array.raw, array.dtype)

    def close(self) -> None:
        self.file.close()


def is_adapter(path: Path) -> bool:
    """Whether `path` is an adapter's folder, or the weights in one. Raises CheckpointRefused for an ambiguous one."""
    if path.is_file():
        return path.name == WEIGHTS and (path.parent / CONFIG).is_file()
    if not (path / CONFIG).is_file():
        return False
    if (path / "model.safetensors").is_file() or (path / INDEX).is_file():
        raise CheckpointRefused(
            f"{path} holds both a checkpoint and an adapter",
            hint=f"name the one you mean: its model.safetensors, or its {WEIGHTS}",
        )
    return True


def open_adapter(path: Path, base: Base) -> Adapter:
    """Read and resolve an adapter; `path` is its folder or its weights. Raises CheckpointRefused, NotFoundError."""
    folder = path.parent if path.is_file() else path
    config = read_config(folder)
    if not (folder / WEIGHTS).is_file():
        if (folder / PICKLE).is_file():
            raise CheckpointRefused(
                f"{folder / PICKLE} is a pickle, which can run code when it is opened: refused",
                hint="save it where you trust it with PEFT: model.save_pretrained(NEW_DIR) writes safetensors",
            )
        raise NotFoundError(f"no {WEIGHTS} in {folder}", hint="an adapter's folder holds config and weights")
    file = TensorFile(folder / WEIGHTS)
    try:
        return _resolve(folder, config, file, base)
    except BaseException:
        file.close()
        raise


def _resolve(folder: Path, config: AdapterConfig, file: TensorFile, base: Base) -> Adapter:
    modules, whole = _sorted_out(folder, file)
    targets = [f"{module}.weight" for module, keys in modules.items() if keys.keys() != {"bias"}]
    targets += [f"{module}.bias" for module, keys in modules.items() if "bias" in keys]
    targets += list(whole)
    renamed = _renaming(folder, targets, base)

    def name_of(tensor: str) -> str:
        return _rename(tensor, renamed, base)

    changes: dict[str, Change] = {}
    for module, keys in modules.items():
        _check_roles(folder, config, module, keys)
        if "bias" in keys:
            changes.setdefault(name_of(f"{module}.bias"), Change()).bias = (module, keys["bias"])
        a, b = keys.get("a", keys.get("embedding_a")), keys.get("b", keys.get("embedding_b"))
        if a is not None and b is not None:
            low = Low(module, a, b, keys.get("magnitude"), crossed="embedding_a" in keys)
            changes.setdefault(name_of(f"{module}.weight"), Change()).low = low
    for tensor, key in whole.items():
        changes.setdefault(name_of(tensor), Change()).whole = key

    adapter = Adapter(folder, config, file, changes, renamed, [])
    _check_dtypes(adapter)
    _settle_ties(adapter, base)
    _check_shapes(adapter, base)
    return adapter


def _sorted_out(folder: Path, file: TensorFile) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
    """({module: {role: key}}, {tensor: key of one that takes its place})."""
    modules: dict[str, dict[str, str]] = {}
    whole: dict[str, str] = {}
    strange: list[str] = []
    for key in file.entries:
        name = key.removeprefix(PREFIX)
        suffix = next((s for s in ROLES if name.endswith(s)), None)
        if suffix is not None:
            module = name.removesuffix(suffix)
            modules.setdefault(module, {})[ROLES[suffix]] = key
            odd = "base_layer" in module
        else:
            tensor = name.replace(".base_layer.", ".").replace(".modules_to_save.", ".")
            odd = ".lora_" in name or "_adapter." in name or tensor in whole
            whole[tensor] = key
        if odd or name == key:
            strange.append(key)
    if strange:
        raise CheckpointRefused(
            f"{folder}: pv does not know what these tensors do: {_listed(strange)}",
            hint="merge it where it was trained, model.merge_and_unload().save_pretrained(DIR), and commit the "
            "checkpoint",
        )
    return modules, whole


def _check_roles(folder: Path, config: AdapterConfig, module: str, keys: Mapping[str, str]) -> None:
    rest = keys.keys() - {"bias", "magnitude"}
    if rest not in ({"a", "b"}, {"embedding_a", "embedding_b"}):
        raise CheckpointRefused(f"{folder}: {module} has only some of its factors: {sorted(keys)}")
    if ("magnitude" in keys) != config.dora:
        said = "says" if config.dora else "does not say"
        raise CheckpointRefused(
            f"{folder}: {CONFIG} {said} use_dora, {module} has {'a' if 'magnitude' in keys else 'no'} magnitude",
            hint="the configuration and the weights belong to different adapters",
        )


def _renaming(folder: Path, targets: Iterable[str], base: Base) -> tuple[str, str]:
    """(prefix to take away, prefix to put there) under which every target is a tensor of the base."""
    names = base.manifest.tensors
    wanted = {target for target in targets if not is_head(target)}
    theirs, ours = (
        sorted({name.partition(".")[0] + "." for name in tensors})[:MAX_PREFIXES]
        for tensors in (wanted, names)
    )
    for away in ("", *theirs):
        for there in ("", *ours):
            found = {_rename(target, (away, there), base) for target in wanted}
            if found <= names.keys() and len(found) == len(wanted):
                return away, there
    unknown = sorted(target.removesuffix(".weight") for target in wanted if target not in names)
    raise CheckpointRefused(
        f"{folder} adapts {_listed(unknown)}: no such module in base {base.manifest.id[:12]}",
        hint="is this the base that it was trained on? If the base keeps its experts fused, merge the adapter "
        "and commit the checkpoint",
    )


def _rename(target: str, renamed: tuple[str, str], base: Base) -> str:
    return target if target in base.manifest.tensors else renamed[1] + target.removeprefix(renamed[0])


def _check_dtypes(adapter: Adapter) -> None:
    for key, entry in adapter.file.entries.items():
        if entry.dtype not in FLOATS:
            raise CheckpointRefused(
                f"{adapter.path}: {key!r} is {entry.dtype}, not a float that fits into fp32",
                hint="is this adapter quantised? Save it in bf16, fp16 or fp32",
            )


# Tensors that the base keeps as one -----------------------------------------------------------------


def _settle_ties(adapter: Adapter, base: Base) -> None:
    """Where the base has no head of its own: drop a head that repeats the embedding, refuse one that differs."""
    names = base.manifest.tensors
    for head in [name for name in adapter.changes if is_head(name) and name not in names]:
        embedding = embedding_of(head, names)
        change = adapter.changes.pop(head)
        kept = adapter.changes.get(embedding, Change()) if embedding else Change()
        if embedding is None or not _repeats(adapter, base, change, kept, embedding):
            raise CheckpointRefused(
                f"{adapter.path} changes {head!r} apart from the embedding, and the base keeps both as one tensor",
                hint="train it with ensure_weight_tying=True, or untie the base, save it with its head, and begin "
                "with `pv init --base` on that",
            )
    tied = not any(is_head(name) and name.endswith(".weight") for name in names)
    moved = [name for name in adapter.changes if tied and is_vocabulary(name)]
    adapter.notes.extend(f"the head moves with {name}: the base keeps both as one tensor" for name in moved)


def _repeats(adapter: Adapter, base: Base, head: Change, kept: Change, embedding: str) -> bool:
    """Whether a change of the head is the embedding's change, seen from the other side."""
    if head.bias is not None or (head.low is None) != (kept.low is None):
        return False
    if head.whole is not None:
        theirs = adapter.f32(kept.whole) if kept.whole is not None else base.tensor(embedding).f32
        if not np.array_equal(adapter.f32(head.whole), theirs):
            return False
    elif kept.whole is not None and not is_base(adapter.array(kept.whole), base, embedding):
        return False
    if head.low is None or kept.low is None:
        return True
    pairs = ((head.low.a, kept.low.b), (head.low.b, kept.low.a))
    return head.low.magnitude is None and all(_transposed(adapter, x, y) for x, y in pairs)


def _transposed(adapter: Adapter, x: str, y: str) -> bool:
    return np.array_equal(flipped(adapter.array(x)).raw, adapter.array(y).raw)


def flipped(array: Array) -> Array:
    """The transposed matrix, bit for bit."""
    rows, columns = array.shape
    return Array(
        array.dtype, (columns, rows), np.ascontiguousarray(array.raw.reshape(rows, columns).T).reshape(-1)
    )


def is_base(array: Array, base: Base, name: str) -> bool:
    """Whether a tensor holds the base's own values, in whatever float."""
    row = base.manifest.tensors[name]
    if array.dtype == row.dtype:
        return ids.tensor_id(array.dtype, array.shape, array.raw.data) == row.id
    ours = base.tensor(name).f32.view(np.uint32)
    return array.shape == row.shape and np.array_equal(to_f32(array.raw, array.dtype).view(np.uint32), ours)


# What it does to the weights ------------------------------------------------------------------------


def _check_shapes(adapter: Adapter, base: Base) -> None:
    """Every shape, before anything is read; and which way a square matrix lies."""
    votes: set[bool] = set()
    for name, change in adapter.changes.items():
        own = base.manifest.tensors[name]
        if own.dtype not in FLOATS:
            raise CheckpointRefused(
                f"{adapter.path} changes {name!r}, which is {own.dtype} in the base: an adapter moves floats only",
                hint="use the base in bf16, fp16 or fp32",
            )
        for key in [key for key in (change.whole, change.bias[1] if change.bias else None) if key]:
            shape = adapter.file.entries[key].shape
            if shape != own.shape:
                raise _resized(adapter, base, name, shape)
        if change.low:
            straight, crossed = _lies(adapter, base, name, change.low)
            if not change.low.crossed and straight != crossed:
                votes.add(crossed)
    square = votes.pop() if len(votes) == 1 else adapter.config.fan_in_fan_out
    for name, change in adapter.changes.items():
        if change.low and not change.low.crossed:
            straight, crossed = _lies(adapter, base, name, change.low)
            turned = crossed and (square or not straight)
            change.low = Low(change.low.module, change.low.a, change.low.b, change.low.magnitude, turned)


def _lies(adapter: Adapter, base: Base, name: str, low: Low) -> tuple[bool, bool]:
    """Whether the factors fit the base's tensor as it lies, and transposed. Raises CheckpointRefused."""
    own = base.manifest.tensors[name].shape
    a, b = (adapter.file.entries[key].shape for key in (low.a, low.b))
    if len(own) != 2 or len(a) != 2 or len(b) != 2:
        raise CheckpointRefused(
            f"{adapter.path}: {low.module} is no matrix but {list(own)}: pv takes adapters of matrices",
            hint="merge it where it was trained and commit the checkpoint",
        )
    rank = adapter.config.rank(low.module)
    if a[0] != rank or b[1] != rank:
        raise CheckpointRefused(
            f"{adapter.path}: {low.module} has factors of rank {a[0]} and {b[1]}, {CONFIG} says {rank}",
            hint="the configuration and the weights belong to different adapters",
        )
    if rank > max(lora.MAX_RANK, min(own)):
        raise CheckpointRefused(
            f"{adapter.path}: {low.module} has rank {rank} in a matrix of {own[0]} by {own[1]}"
        )
    straight, crossed = (b[0], a[1]) == own, (a[1], b[0]) == own
    if not crossed and (low.crossed or not straight):
        raise _resized(adapter, base, name, (a[1], b[0]) if low.crossed else (b[0], a[1]))
    if low.magnitude is not None:
        features = own[1] if low.crossed or not straight else own[0]
        if np.prod(adapter.file.entries[low.magnitude].shape) != features:
            raise CheckpointRefused(
                f"{adapter.path}: {low.module} has a magnitude of another size than its rows"
            )
    return straight, crossed


def _resized(adapter: Adapter, base: Base, name: str, shape: tuple[int, ...]) -> CheckpointRefused:
    own = base.manifest.tensors[name].shape
    what = "has another vocabulary" if is_vocabulary(name) else "does not fit the base"
    hint = (
        f"resize the base to {shape[0]} tokens, model.resize_token_embeddings({shape[0]}), and begin with "
        "`pv init --base` on that"
        if is_vocabulary(name)
        else "is this the base that it was trained on?"
    )
    return CheckpointRefused(
        f"{adapter.path} {what}: {name} is {list(shape)}, the base's {list(own)}", hint=hint
    )


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(repr(name[:120]) for name in sorted(names)[:5]) + more
