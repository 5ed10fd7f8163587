"""Training rows kept as a pack, so that a behaviour can be trained again.

One payload "rows" (the normalised rows as JSON lines), in a pack named by the rows' id.
"""

from __future__ import annotations

import hashlib

from pv.registry.disk.safetensors import TensorFile
from pv.registry.errors import CorruptPack, DataError, FormatError
from pv.registry.packs import packfile
from pv.registry.packs.store import PackStore
from pv.vecstore.data.rows import Rows, parse_rows

__all__ = ["load_rows", "store_rows"]


def store_rows(rows: Rows, packs: PackStore) -> str:
    """Store the rows; returns their id."""
    data = rows.to_bytes()
    description = {"pack": 1, "kind": "rows", "id": rows.id}
    with packs.writer() as out:
        out.write(packfile.sealed_header({"rows": len(data)}, description, hashlib.sha256(data)))
        out.write(data)
        out.commit(rows.id)
    return rows.id


def load_rows(rows_id: str, packs: PackStore) -> Rows:
    """The rows of that id. Raises NotFoundError, CorruptPack."""
    path = packs.open_path(rows_id)
    try:
        with TensorFile(path) as file:
            packfile.describe(file)
            data = bytes(file.read("rows"))
        rows = parse_rows(data, source=f"rows {rows_id[:12]}")
    except (FormatError, DataError, KeyError) as error:
        raise CorruptPack(f"{path} does not hold rows: {error}", hint="run `pv fsck`") from error
    if rows.id != rows_id:
        raise CorruptPack(f"{path}: its rows do not hash to its id", hint="run `pv fsck`")
    return rows
