"""Training rows kept as a pack, so that a behaviour can be trained again.

A safetensors file with one U8 tensor "rows" (the normalised rows as JSON lines), named by the rows' id.
"""

from __future__ import annotations

from pv.registry import canonical
from pv.registry.errors import CorruptPack, DataError, FormatError
from pv.registry.packs import PackStore
from pv.registry.tensorfile import TensorFile, header_bytes
from pv.vecstore.train.rows import Rows, parse_rows

__all__ = ["keep_rows", "load_rows"]


def keep_rows(rows: Rows, packs: PackStore) -> str:
    """Store the rows; returns their id."""
    if packs.has(rows.id):
        return rows.id
    data = rows.to_bytes()
    metadata = {"pv": canonical.dumps({"pack": 1, "kind": "rows", "id": rows.id}).decode()}
    with packs.writer() as out:
        out.write(header_bytes({"rows": ("U8", (len(data),), len(data))}, metadata))
        out.write(data)
        out.commit(rows.id)
    return rows.id


def load_rows(rows_id: str, packs: PackStore) -> Rows:
    """The rows of that id. Raises NotFoundError, CorruptPack."""
    path = packs.open_path(rows_id)
    try:
        with TensorFile(path) as file:
            data = bytes(file.read("rows"))
        rows = parse_rows(data, source=f"rows {rows_id[:12]}")
    except (FormatError, DataError, KeyError) as error:
        raise CorruptPack(f"{path} does not hold rows: {error}", hint="run `pv fsck`") from error
    if rows.id != rows_id:
        raise CorruptPack(f"{path}: its rows do not hash to its id", hint="run `pv fsck`")
    return rows
