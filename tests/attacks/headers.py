"""Weight files that lie: kind `weights`, and `large weights` for those of some megabytes."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

from attacks.case import TENSORS, Case, one_file, safetensors
from support.vectors import nudged

from pv.registry.disk.safetensors import MAX_HEADER_BYTES, MAX_TENSORS, header_bytes

__all__ = ["cases"]

KIND = "weights"
MIB = 1 << 20
LARGE = MAX_HEADER_BYTES - 200
PICKLE = b"\x80\x02cposix\nsystem\nX\x04\x00\x00\x00true\x85R."


def spec(begin: int = 0, end: int = 8, dtype: Any = "F32", shape: Any = (2,)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def one(name: str = "a", **changes: Any) -> bytes:
    """A file with one tensor of eight bytes, and one thing about it changed."""
    return safetensors({name: {**spec(), **changes}}, bytes(8))


def text(body: str, data: bytes = bytes(8)) -> bytes:
    return safetensors(body.encode("utf-8", "surrogatepass"), data)


def honest() -> bytes:
    """A fine-tune of the base, for comparison: there is nothing to refuse in it."""
    tensors = nudged(TENSORS, 1, share=1)
    entries = {name: (t.dtype, t.shape, t.raw.nbytes) for name, t in tensors.items()}
    return header_bytes(entries, {"format": "pt"}) + b"".join(t.raw.tobytes() for t in tensors.values())


def cases() -> Iterator[Case]:
    everyone = ("tensor file", "checkpoint", "init", "commit")
    yield one_file(KIND, "an honest fine-tune", honest(), taken=everyone)
    for name, content in (lengths() | syntax() | tables() | shapes() | contents()).items():
        yield one_file(KIND, name, content)
    for name, made in bulk().items():
        yield one_file("large weights", name, made)
    for name, content in odd_but_true().items():
        yield one_file(KIND, name, content, taken=("tensor file", "checkpoint", "init"))
    # Whole bytes in all, yet elements that share them: a true file that pv cannot work on.
    yield one_file(KIND, "sub-byte dtype", one(dtype="F4", shape=[16]), taken=("tensor file",))


def lengths() -> dict[str, bytes]:
    good = one()
    return {
        "length 0": safetensors(b"", bytes(8)),
        "length 1": safetensors(b"{", bytes(8)),
        "length one too long": safetensors(good[8:], length=len(good) - 7),
        "length 2^40": safetensors(good[8:], length=1 << 40),
        "length 2^63": safetensors(good[8:], length=1 << 63),
        "length 2^64 - 1": safetensors(good[8:], length=(1 << 64) - 1),
        "empty file": b"",
        "seven bytes": good[:7],
        "cut in the header": good[:30],
        "cut in the data": good[:-1],
    }


def syntax() -> dict[str, bytes]:
    inner = json.dumps(spec())
    return {
        "not UTF-8": safetensors(b'{"\xff\xfe":' + inner.encode() + b"}", bytes(8)),
        "UTF-16": safetensors(json.dumps({"a": spec()}).encode("utf-16"), bytes(8)),
        "overlong UTF-8": safetensors(b'{"\xc0\xaf":' + inner.encode() + b"}", bytes(8)),
        "byte order mark": safetensors(b"\xef\xbb\xbf" + one()[8:-8], bytes(8)),
        "white space in front": safetensors(b"  " + one()[8:-8], bytes(8)),
        "something after the object": safetensors(one()[8:-8] + b"{}", bytes(8)),
        "a list": text("[]", b""),
        "a number": text("1", b""),
        "null": text("null", b""),
        "two keys alike": text(f'{{"a":{inner},"a":{inner}}}'),
        "two keys alike, one escaped": text(f'{{"a":{inner},"\\u0061":{inner}}}'),
        "two data_offsets": text(
            '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4],"data_offsets":[0,8]}}'
        ),
        "NaN": text('{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,8]}}'),
        "Infinity": text('{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,Infinity]}}'),
        "minus Infinity": text('{"a":{"dtype":"F32","shape":[2],"data_offsets":[-Infinity,8]}}'),
        "1e400": text('{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,1e400]}}'),
        "1e1 for a size": text('{"a":{"dtype":"U8","shape":[1e1],"data_offsets":[0,10]}}', bytes(10)),
        "a number of 5000 digits": text(
            f'{{"a":{{"dtype":"U8","shape":[{"1" * 5000}],"data_offsets":[0,8]}}}}'
        ),
        "minus nought": text('{"a":{"dtype":"F32","shape":[2],"data_offsets":[-0,8]}}'),
        "NUL bytes after the object": safetensors(one()[8:-8] + bytes(8), bytes(8)),
        "lists in lists, 60000 deep": text("[" * 60_000, b""),
        "objects in objects, 900 deep": text('{"a":' * 900 + "1" + "}" * 900, b""),
        "lists in metadata, 65 deep": text('{"__metadata__":{"a":' + "[" * 65 + "]" * 65 + "}}", b""),
    }


def tables() -> dict[str, bytes]:
    two = bytes(16)
    return {
        "overlap": safetensors({"a": spec(), "b": spec(4, 12)}, bytes(12)),
        "the same bytes twice": safetensors({"a": spec(), "b": spec()}, bytes(8)),
        "a hole": safetensors({"a": spec(), "b": spec(12, 20)}, bytes(20)),
        "a hole in front": safetensors({"a": spec(8, 16)}, two),
        "bytes after the last": safetensors({"a": spec()}, two),
        "bytes and no tensor": safetensors({}, PICKLE),
        "offsets beyond the file": safetensors(
            {"a": spec(0, 8), "b": spec(8, 1 << 40, shape=[1 << 38])}, two
        ),
        "offsets backwards": one(data_offsets=[8, 0]),
        "negative offsets": one(data_offsets=[-8, 0]),
        "float offsets": one(data_offsets=[0.0, 8.0]),
        "true for an offset": one(data_offsets=[False, 8]),
        "text for offsets": one(data_offsets="08"),
        "three offsets": one(data_offsets=[0, 8, 8]),
        "offsets of 2^63": one(data_offsets=[1 << 63, (1 << 63) + 8]),
        "one key more": safetensors({"a": {**spec(), "strides": [1]}}, bytes(8)),
        "one key less": safetensors({"a": {"dtype": "F32", "shape": [2]}}, bytes(8)),
        "a list for a tensor": safetensors({"a": [1, 2, 3]}, bytes(8)),
        "metadata of numbers": safetensors({"__metadata__": {"a": 1}, "a": spec()}, bytes(8)),
        "metadata that is a list": safetensors({"__metadata__": ["a"], "a": spec()}, bytes(8)),
        "metadata that is a tensor": safetensors({"__metadata__": spec()}, bytes(8)),
        "half a surrogate in metadata": text(
            '{"__metadata__":{"a":"\\ud83d"},"a":' + json.dumps(spec()) + "}"
        ),
    }


def shapes() -> dict[str, bytes]:
    return {
        "2^32 by 2^32": one(shape=[1 << 32, 1 << 32], data_offsets=[0, 0]),
        "2^31 by 2^31 by 4 by 4": one(shape=[1 << 31, 1 << 31, 4, 4], data_offsets=[0, 0]),
        "2^61 floats": one(shape=[1 << 61], data_offsets=[0, 1 << 63]),
        "a product that wraps to 8": one(shape=[(1 << 62) + 2], dtype="U8"),
        "minus two": one(shape=[-2]),
        "minus two, twice": one(shape=[-1, -2]),
        "two halves": one(shape=[0.5, 4]),
        "true": one(shape=[True, 2]),
        "17 dimensions": one(shape=[1] * 16 + [2]),
        "a shape of text": one(shape="2"),
        "a scalar of eight bytes": one(shape=[]),
        "nothing by 2^47": safetensors({"a": spec(0, 0, shape=[1 << 47, 0])}),
        "nothing, with bytes": one(shape=[0]),
        "unknown dtype": one(dtype="F31"),
        "a dtype in lower case": one(dtype="f32"),
        "dtype a list": one(dtype=["F32"]),
        "dtype null": one(dtype=None),
        "half a byte": one(dtype="F4", shape=[1], data_offsets=[0, 1]),
        "six bits": one(dtype="F6_E2M3", shape=[3], data_offsets=[0, 2]),
    }


def contents() -> dict[str, bytes]:
    """Other things under the name, and names that are more than data."""
    return {
        "a pickle": PICKLE,
        "a zip": b"PK\x03\x04\x14\x00\x00\x00\x00\x00" + bytes(20) + b"archive/data.pkl" + PICKLE,
        "an LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:"
        + b"0" * 64
        + b"\nsize 12345\n",
        "a web page": b"<!DOCTYPE html><html><body>401 Unauthorized</body></html>",
        "a GGUF": b"GGUF\x03\x00\x00\x00" + bytes(64),
        "a name with NUL": one("a\0b"),
        "a name with a line feed": one("a\nb"),
        "a name that clears the screen": one("\x1b[2J"),
        "a name with DEL": one("a\x7f"),
        "a name with C1 controls": one("\x9b2J"),
        "a name with half a surrogate": text('{"\\udc80":' + json.dumps(spec()) + "}"),
        "a name of 1025": one("n" * 1025),
    }


def odd_but_true() -> dict[str, bytes]:
    """Nothing in them breaks the format: names are data. They are no fine-tune of the base, that is all."""
    return {
        "name ../../etc/passwd": one("../../etc/passwd"),
        "name /etc/passwd": one("/etc/passwd"),
        "name C:\\Windows\\win.ini": one("C:\\Windows\\win.ini"),
        "name .git/config": one(".git/config"),
        "name empty": one(""),
        "name that turns the line round": one("\u202eweight"),
        "no tensor at all": safetensors({}),
        "more to the file than the name": one("persona.json"),
    }


def bulk() -> dict[str, Callable[[], bytes]]:
    """Large ones: a few bytes of JSON that stand for many more of memory."""

    def fill(piece: bytes, front: bytes = b'{"a":[', back: bytes = b"0]}") -> Callable[[], bytes]:
        return lambda: safetensors(front + piece * ((LARGE - len(front) - len(back)) // len(piece)) + back)

    def keys() -> bytes:
        body = b",".join(b'"%x":0' % i for i in range(1_300_000))
        return safetensors(b"{" + body + b"}")

    def small_objects() -> bytes:
        body = b",".join(b'{"%x":"%xy"}' % (i, i) for i in range(700_000))
        return safetensors(b'{"a":[' + body + b"]}")

    def real_names() -> bytes:
        names = itertools.cycle(TENSORS)
        header = {f"{next(names)}.{i}": spec(0, 0, "U8", [0]) for i in range(MAX_TENSORS + 1)}
        return safetensors(header)

    return {
        "16 MiB of spaces": lambda: safetensors(b" " * MAX_HEADER_BYTES),
        "16 MiB of spaces after an object": lambda: safetensors(
            one()[8:-8].ljust(MAX_HEADER_BYTES), bytes(9)
        ),
        "one byte above 16 MiB": lambda: safetensors(one()[8:-8].ljust(MAX_HEADER_BYTES + 1), bytes(8)),
        "empty objects": fill(b"{},"),
        "empty lists": fill(b"[],"),
        "a million keys": keys,
        "small objects": small_objects,
        "short texts": fill(b'"ab",'),
        "numbers": fill(b"9e9,"),
        "digits": fill(b"1", b'{"a":[', b"]}"),
        "fraction digits": fill(b"1", b'{"a":[0.', b"]}"),
        "an astral text": fill(b"a", b'{"__metadata__":{"a":"\xf0\x9d\x84\x9e', b'"},"a":1}'),
        "quotes": fill(b'"', b"{", b"}"),
        "backslashes": fill(b"\\\\", b'{"', b'":1}'),
        "opening brackets": fill(b"[", b"", b""),
        "one key of 8 MiB, twice": lambda: safetensors(b'{"%b":1,"%b":1}' % ((b"k" * (7 * MIB),) * 2)),
        "too many tensors": real_names,
    }
