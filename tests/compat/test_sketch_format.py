"""A second writer of sketches, from docs/FORMAT.md alone: Philox and all, nothing of ours and nothing of numpy's."""

from __future__ import annotations

import base64
import hashlib
import struct
from collections.abc import Iterator

import numpy as np

from pv.vecstore.forecast.sketch import Sketching

WORD = 1 << 64
TENSORS = {
    "model.embed_tokens.weight": [0.5, -3.0],
    **{f"model.layers.{i}.mlp.weight": [(-1.0) ** j * (i + j / 4) for j in range(11)] for i in range(5)},
    "model.norm.weight": [2.0],
}


def philox(key: tuple[int, int]) -> Iterator[int]:
    """Philox4x64-10 (Salmon et al. 2011), 64 bits at a time."""
    counter = 0
    while True:
        counter += 1
        c, (k0, k1) = [counter, 0, 0, 0], key
        for _ in range(10):
            one, other = 0xD2E7470EE14C6C93 * c[0], 0xCA5A826395121157 * c[2]
            c = [other // WORD ^ c[1] ^ k0, other % WORD, one // WORD ^ c[3] ^ k1, one % WORD]
            k0, k1 = (k0 + 0x9E3779B97F4A7C15) % WORD, (k1 + 0xBB67AE8584CAA73B) % WORD
        yield from c


def lots(name: str) -> Iterator[int]:
    key = struct.unpack("<2Q", hashlib.sha256(b"pv:sketch:1\n" + name.encode()).digest()[:16])
    for word in philox(key):
        yield from (word >> shift & 0xFFFF for shift in (0, 16, 32, 48))


def band(name: str) -> int:
    if "layers" in name:
        return 8 * int(name.split(".")[2]) // 5
    return 0 if "embed" in name else 7


def test_a_sketch_is_what_the_document_says() -> None:
    sums, squares = [[0.0] * 512 for _ in range(8)], [0.0] * 8
    sketching = Sketching(TENSORS)
    for name, values in TENSORS.items():
        for value, lot in zip(values, lots(name), strict=False):
            sums[band(name)][lot % 512] += -value if lot >= 1 << 15 else value
            squares[band(name)] += value * value
        sketching.add(name, np.array(values, np.float32))
    document = sketching.done().to_json()
    assert document.keys() == {"algorithm", "sums", "largest", "squares"} and document["algorithm"] == 1
    assert document["squares"] == squares
    assert document["largest"] == [max(map(abs, one)) for one in sums]
    stored = struct.unpack("4096b", base64.b64decode(document["sums"]))
    for i, one in enumerate(sums):
        for x, byte in zip(one, stored[512 * i : 512 * (i + 1)], strict=True):
            assert abs(byte * document["largest"][i] / 127 - x) <= document["largest"][i] / 254 + 1e-9
