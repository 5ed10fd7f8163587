"""Small unsigned integers under a static model per context, by interleaved rANS: within a percent or two
of their conditional entropy. Slower than `graded` by some times; the packer's `max` level.

    tokens     v < 16 is its own token; above, token 16 + 2 (e - 4) + b says that v has e + 1 binary digits
               (the highest, then b, then e - 1 more that are stored as they are)
    model      per context, or class of contexts, the tokens' frequencies, summing to 4096
    states     one a lane, 32 bits, in [2^16, 2^32); element i is in lane i mod lanes

Everything is integer arithmetic, so every reader decodes alike. After J. Duda, "Asymmetric numeral
systems" (arXiv:1311.2540); interleaving after F. Giesen, "Interleaved entropy coders" (arXiv:1402.3392).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pv.registry.errors import CorruptPack
from pv.vecstore.packs.codecs.frames import pack_block, unpack_block
from pv.vecstore.tensors.array import Raw

__all__ = ["count", "pack", "tokens_of", "unpack"]

PRECISION = 12
TOTAL = 1 << PRECISION
LOW = 1 << 16  # states stay at or above it
ELEMENTS_PER_LANE = 2048
MOST_LANES = 4096
LITERALS = 16
TOKENS = 256

U32 = NDArray[np.uint32]
Contexts = NDArray[np.intp]


def pack(values: Raw, contexts: Contexts, models: int) -> bytes:
    """Pack (n,) values, each under the model of its context: (n,) numbers below `models`. n is not 0."""
    tokens = tokens_of(values)
    frequency = np.stack([_normalise(row) for row in count(tokens, contexts, models)])  # (models, TOKENS)
    words, states = _encode(tokens, contexts, frequency)
    model = _pack_model(frequency)
    extra = _pack_extra(values, tokens)
    head = b"".join(len(part).to_bytes(4, "little") for part in (model, words, extra))
    return head + pack_block(np.frombuffer(model, np.uint8)) + states.tobytes() + words + extra


def count(tokens: Raw, contexts: Contexts, models: int) -> NDArray[np.int64]:
    """(models, TOKENS): how often each token stands in each context."""
    counts = np.bincount(contexts * TOKENS + tokens, minlength=models * TOKENS)
    return counts.astype(np.int64).reshape(models, TOKENS)


def unpack(data: memoryview, contexts: Contexts, models: int, itemsize: int) -> Raw:
    """The inverse. Raises CorruptPack if anything does not fit, is missing or is left over."""
    n = len(contexts)
    if len(data) < 12:
        raise CorruptPack("a chunk ends before its model")
    model_bytes, word_bytes, extra_bytes = (int.from_bytes(data[i : i + 4], "little") for i in (0, 4, 8))
    if model_bytes > models * (1 + 3 * TOKENS) or word_bytes > 2 * n or word_bytes % 2:
        raise CorruptPack("a chunk claims a model or a code that is too large")
    model, rest = unpack_block(data[12:], model_bytes)
    lanes = _lanes(n)
    if len(rest) != 4 * lanes + word_bytes + extra_bytes:
        raise CorruptPack("a chunk is shorter or longer than it says")
    states = np.frombuffer(rest[: 4 * lanes], "<u4").astype(np.uint32)
    words = np.frombuffer(rest[4 * lanes : 4 * lanes + word_bytes], "<u2")
    tokens = _decode(states, words, contexts, _unpack_model(model, models))
    return _unpack_extra(rest[4 * lanes + word_bytes :], tokens, itemsize)


def _lanes(count: int) -> int:
    return min(max(1, count // ELEMENTS_PER_LANE), MOST_LANES)


def _encode(tokens: Raw, contexts: Contexts, frequency: U32) -> tuple[bytes, U32]:
    """Code backwards, so that decoding runs forwards. Returns the 16-bit words and the states to start from."""
    start = np.cumsum(frequency, axis=1, dtype=np.uint32) - frequency  # (contexts, TOKENS)
    where = contexts * TOKENS + tokens
    f_all, c_all = frequency.reshape(-1)[where], start.reshape(-1)[where]  # (n,) each
    lanes = _lanes(len(tokens))
    states = np.full(lanes, LOW, np.uint32)
    words: list[Raw] = []
    for begin in reversed(range(0, len(tokens), lanes)):
        f, c = f_all[begin : begin + lanes], c_all[begin : begin + lanes]
        x = states[: len(f)]
        full = (x >> np.uint32(32 - PRECISION)) >= f
        words.append((x[full] & np.uint32(0xFFFF)).astype("<u2"))
        np.right_shift(x, 16, out=x, where=full)
        quotient = (x.astype(np.float64) / f).astype(np.uint32)  # exact: 32 bits by 12 leave no doubt in 53
        x[:] = (quotient << np.uint32(PRECISION)) + (x - quotient * f) + c
    return b"".join(w.tobytes() for w in reversed(words)), states.astype("<u4")


def _decode(states: U32, words: Raw, contexts: Contexts, frequency: U32) -> Raw:
    token_at, f_at, b_at = _lookup(frequency)
    row = contexts * TOTAL
    lanes = len(states)
    tokens = np.empty(len(contexts), np.uint8)
    position = 0
    for begin in range(0, len(contexts), lanes):
        at = row[begin : begin + lanes]
        x = states[: len(at)]
        at = at + (x & np.uint32(TOTAL - 1))
        tokens[begin : begin + lanes] = token_at[at]
        x[:] = f_at[at] * (x >> np.uint32(PRECISION)) + b_at[at]
        empty = x < LOW
        need = int(np.count_nonzero(empty))
        if position + need > len(words):
            raise CorruptPack("a chunk's code ends too early")
        x[empty] = (x[empty] << np.uint32(16)) | words[position : position + need]
        position += need
    if position != len(words) or (states != LOW).any():
        raise CorruptPack("a chunk's code does not end where it should")
    return tokens


def _lookup(frequency: U32) -> tuple[Raw, U32, U32]:
    """For each context and slot: the token, its frequency, and the slot's place within it."""
    contexts = len(frequency)
    token_at = np.repeat(np.tile(np.arange(TOKENS, dtype=np.uint8), contexts), frequency.reshape(-1))
    f_at = np.repeat(frequency.reshape(-1), frequency.reshape(-1))
    start = np.cumsum(frequency, axis=1, dtype=np.uint32) - frequency
    slots = np.tile(np.arange(TOTAL, dtype=np.uint32), contexts)
    return token_at, f_at, slots - np.repeat(start.reshape(-1), frequency.reshape(-1))


def _normalise(counts: Raw) -> U32:
    """Frequencies that sum to TOTAL, at least 1 for what occurs."""
    total = int(counts.sum())
    frequency = np.where(counts > 0, np.maximum(1, counts * TOTAL // max(total, 1)), 0).astype(np.int64)
    if total == 0:
        frequency[0] = TOTAL
    excess = int(frequency.sum()) - TOTAL
    while excess > 0:  # many rare tokens were rounded up: take it from the most frequent
        most = int(frequency.argmax())
        taken = min(excess, int(frequency[most]) - 1)
        frequency[most] -= taken
        excess -= taken
    frequency[int(frequency.argmax())] -= excess
    return frequency.astype(np.uint32)


def _pack_model(frequency: U32) -> bytes:
    """Per context: how many tokens occur (0 means 256), the tokens, their frequencies less one in 16 bits."""
    out = []
    for row in frequency:
        tokens = np.flatnonzero(row)
        out.append(
            bytes([len(tokens) % 256])
            + tokens.astype(np.uint8).tobytes()
            + (row[tokens] - 1).astype("<u2").tobytes()
        )
    return b"".join(out)


def _unpack_model(model: Raw, contexts: int) -> U32:
    frequency = np.zeros((contexts, TOKENS), np.uint32)
    position = 0
    for row in frequency:
        size = int(model[position]) or 256 if position < len(model) else 256
        end = position + 1 + 3 * size
        if end > len(model):
            raise CorruptPack("a chunk's model ends too early")
        tokens = model[position + 1 : position + 1 + size]
        row[tokens] = model[position + 1 + size : end].view("<u2").astype(np.uint32) + 1
        if int(row.sum()) != TOTAL or np.count_nonzero(row) != size:
            raise CorruptPack("a chunk's model does not add up")
        position = end
    if position != len(model):
        raise CorruptPack("a chunk's model is too long")
    return frequency


def tokens_of(values: Raw) -> Raw:
    """(n,) values -> (n,) uint8 tokens."""
    tokens = np.minimum(values, LITERALS).astype(np.uint8)
    large = np.flatnonzero(values >= LITERALS)
    if len(large):
        v = values[large].astype(np.uint64)
        digits = _highest(v)
        next_digit = (v >> (digits - np.uint64(1))) & np.uint64(1)
        tokens[large] = np.uint64(LITERALS) + np.uint64(2) * (digits - np.uint64(4)) + next_digit
    return tokens


def _highest(v: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Position of the highest set bit."""
    place = np.zeros(len(v), np.uint64)
    for shift in (32, 16, 8, 4, 2, 1):
        step = np.uint64(shift)
        more = (v >> (place + step)) > 0
        place[more] += step
    return place


def _width(token: int) -> int:
    """How many digits of a token's values are stored as they are."""
    return (token - LITERALS) // 2 + 3


def _pack_extra(values: Raw, tokens: Raw) -> bytes:
    """For each token from 16 up: the low digits of its values in order, least first, padded to a byte."""
    out = []
    for token in np.unique(tokens[tokens >= LITERALS]):
        width = _width(int(token))
        low = values[tokens == token]
        bits = np.empty((len(low), width), np.uint8)  # (values, digits)
        for place in range(width):
            bits[:, place] = (low >> low.dtype.type(place)) & low.dtype.type(1)
        out.append(np.packbits(bits.reshape(-1), bitorder="little").tobytes())
    return b"".join(out)


def _unpack_extra(data: memoryview, tokens: Raw, itemsize: int) -> Raw:
    values = tokens.astype(f"<u{itemsize}")
    for token in np.unique(tokens[tokens >= LITERALS]):
        width = _width(int(token))
        if width + 2 > 8 * itemsize:
            raise CorruptPack("a chunk holds a step that its dtype cannot")
        places = np.flatnonzero(tokens == token)
        size = -(-len(places) * width // 8)
        if len(data) < size:
            raise CorruptPack("a chunk's digits end too early")
        bits = np.unpackbits(
            np.frombuffer(data[:size], np.uint8), bitorder="little", count=len(places) * width
        )
        digits = bits.reshape(-1, width)  # (values, digits)
        whole = np.full(len(places), (2 + (int(token) - LITERALS) % 2) << width, values.dtype)
        for place in range(
            width
        ):  # one digit at a time: all of a chunk's as integers would be half a gigabyte
            whole |= digits[:, place].astype(values.dtype) << values.dtype.type(place)
        values[places] = whole
        data = data[size:]
    if len(data):
        raise CorruptPack("a chunk has digits after its last step")
    return values
