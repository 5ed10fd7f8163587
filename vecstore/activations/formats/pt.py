"""What `torch.save` wrote, read without unpickling: dicts, lists, texts, numbers and tensors, and nothing else.

A `.pt` file is a zip that is not compressed: `data.pkl`, and the bytes of every storage under `data/`. A pickle is a
program for a stack machine; here is a machine of the few instructions that `torch.save` uses for such values, on
which a global is a word, of which five mean something. A file that wants more is refused before anything is built.
Sizes are checked against the bytes that are there.
"""

from __future__ import annotations

import io
import math
import pickletools
import struct
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pv.registry.errors import FormatError
from pv.vecstore.activations.formats.values import F32, as_f32
from pv.vecstore.tensors.formats import to_f32

__all__ = ["Tensor", "is_zip", "load"]

MAX_PICKLE = 1 << 20
MAX_MEMBERS = 20_000
MAX_DIMENSIONS = 8

STORAGES = {"FloatStorage": ("F32", 4), "HalfStorage": ("F16", 2), "BFloat16Storage": ("BF16", 2),
            "DoubleStorage": ("F64", 8)}  # fmt: skip
DTYPES = {"F32": "<u4", "F16": "<u2", "BF16": "<u2", "F64": "<f8"}
_BROKEN = (
    zipfile.BadZipFile,
    struct.error,
    EOFError,
    OSError,
    RuntimeError,
    ValueError,
    LookupError,
    OverflowError,
)
_HINT = "save it where you trust it: torch.save({name: tensor.float()}, FILE), or safetensors"


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor of the file; `raw` is a view of its bytes, in the shape it was saved in."""

    dtype: str
    raw: NDArray[Any]

    def f32(self, what: str) -> F32:
        """Raises FormatError for what is not finite in fp32."""
        values = self.raw if self.dtype == "F64" else to_f32(np.ascontiguousarray(self.raw), self.dtype)
        return as_f32(values, what)


@dataclass(frozen=True, slots=True)
class _Global:
    module: str
    name: str


@dataclass(frozen=True, slots=True)
class _Storage:
    dtype: str
    values: NDArray[Any]


class _Mark:
    pass


def is_zip(data: bytes) -> bool:
    return data.startswith(b"PK\x03\x04")


def load(data: bytes, what: str) -> Any:
    """The value that was saved, tensors as `Tensor`. Raises FormatError."""
    if not is_zip(data):
        raise FormatError(f"{what} is not what torch.save writes (since 1.6: a zip)", hint=_HINT)
    if data.count(b"PK\x01\x02") > MAX_MEMBERS:
        raise FormatError(f"{what}: a zip of more than {MAX_MEMBERS} members")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as opened:
            members = {info.filename: info for info in opened.infolist()}
            programs = [name for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
            if len(programs) != 1:
                raise FormatError(
                    f"{what} is a zip, and not one of torch.save's: it has no data.pkl", hint=_HINT
                )
            root = programs[0].removesuffix("data.pkl")

            def member(name: str, most: int) -> bytes:
                info = members.get(root + name)
                if info is None:
                    raise FormatError(f"{what}: {name[:80]!r} is missing")
                if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
                    raise FormatError(
                        f"{what}: {name[:80]!r} is compressed or encrypted, which torch.save never does"
                    )
                if info.file_size != info.compress_size or info.file_size > most:
                    raise FormatError(f"{what}: {name[:80]!r} claims {info.file_size} bytes")
                return opened.read(info)

            if root + "byteorder" in members and member("byteorder", 16) != b"little":
                raise FormatError(f"{what} was written on a big-endian machine", hint=_HINT)
            return _Machine(what, lambda key: member(f"data/{key}", len(data)), len(data)).run(
                member("data.pkl", MAX_PICKLE)
            )
    except _BROKEN as error:
        raise FormatError(f"{what} is a broken zip: {str(error)[:120]}", hint="fetch it again") from error


class _Machine:
    """The stack, the memo, and what is left of the bytes that tensors, and storages, may stand for."""

    def __init__(self, what: str, storage: Callable[[str], bytes], budget: int) -> None:
        self.what, self.storage, self.budget, self.stored_budget = what, storage, budget, budget
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, bytes] = {}

    def run(self, program: bytes) -> Any:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore", DeprecationWarning
                )  # of a text whose instruction is refused anyway
                for code, argument, _ in pickletools.genops(program):
                    if code.name == "STOP":
                        if len(self.stack) != 1:
                            break
                        return self.stack[0]
                    self.step(code.name, argument)
        except FormatError:
            raise
        except (ValueError, LookupError, TypeError, OverflowError, RecursionError) as error:
            raise FormatError(f"{self.what}: data.pkl is broken", hint="fetch it again") from error
        raise FormatError(f"{self.what}: data.pkl is broken", hint="fetch it again")

    def step(self, name: str, argument: Any) -> None:
        match name:
            case "PROTO" | "FRAME":
                return
            case "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = self.stack[-1]
            case "BINGET" | "LONG_BINGET":
                self.stack.append(self.memo[argument])
            case "GLOBAL":
                self.stack.append(self.word(argument))
            case "MARK":
                self.stack.append(_Mark)
            case "BINUNICODE" | "SHORT_BINUNICODE" | "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT":
                self.stack.append(argument)
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                self.stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[name])
            case "EMPTY_TUPLE" | "EMPTY_LIST" | "EMPTY_DICT":
                self.stack.append({"EMPTY_TUPLE": (), "EMPTY_LIST": [], "EMPTY_DICT": {}}[name])
            case "TUPLE" | "TUPLE1" | "TUPLE2" | "TUPLE3":
                items = self.marked() if name == "TUPLE" else self.last(int(name[-1]))
                self.stack.append(tuple(items))
            case "APPEND" | "APPENDS":
                items = self.marked() if name == "APPENDS" else self.last(1)
                self.onto(list).extend(items)
            case "SETITEM" | "SETITEMS":
                items = self.marked() if name == "SETITEMS" else self.last(2)
                self.onto(dict).update(zip(items[::2], items[1::2], strict=True))
            case "BINPERSID":
                self.stack.append(self.stored(*self.last(1)))
            case "REDUCE":
                called, arguments = self.last(2)
                self.stack.append(self.call(called, arguments))
            case _:
                raise self.foreign(f"the instruction {name}")

    def last(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise IndexError
        items = self.stack[-count:]
        del self.stack[-count:]
        return items

    def marked(self) -> list[Any]:
        at = max(i for i, item in enumerate(self.stack) if item is _Mark)
        items = self.stack[at + 1 :]
        del self.stack[at:]
        return items

    def onto(self, kind: type) -> Any:
        if type(self.stack[-1]) is not kind:
            raise TypeError
        return self.stack[-1]

    def word(self, argument: str) -> _Global:
        module, _, name = argument.partition(" ")
        if (module, name) not in _CALLED and not (module == "torch" and name in STORAGES):
            raise self.foreign(repr(f"{module[:60]}.{name[:60]}"))
        return _Global(module, name)

    def foreign(self, found: str) -> FormatError:
        return FormatError(
            f"{self.what} is a pickle that holds more than tensors and plain values ({found}), and could run code when "
            "it is opened: refused",
            hint=_HINT,
        )

    def stored(self, identity: Any) -> _Storage:
        """A storage, whose record in the file must have the size that is claimed."""
        kind, of, key, _, count = identity
        if (
            kind != "storage"
            or not isinstance(of, _Global)
            or of.name not in STORAGES
            or not isinstance(key, str)
        ):
            raise TypeError
        dtype, size = STORAGES[of.name]
        if key not in self.storages:
            self.storages[key] = self.storage(key)
            self.stored_budget -= len(self.storages[key])
            if self.stored_budget < 0:
                raise FormatError(f"{self.what}: its storages overlap")
        if count * size != len(self.storages[key]):
            raise FormatError(
                f"{self.what}: a storage of {len(self.storages[key])} bytes claims {count} numbers"
            )
        return _Storage(dtype, np.frombuffer(self.storages[key], DTYPES[dtype]))

    def call(self, called: Any, arguments: Any) -> Any:
        if not isinstance(called, _Global) or (called.module, called.name) not in _CALLED:
            raise TypeError
        if called.name == "OrderedDict":
            if arguments:
                raise TypeError
            return {}
        if called.name == "_rebuild_parameter":
            (tensor, *_) = arguments
            if not isinstance(tensor, Tensor):
                raise TypeError
            return tensor
        return self.tensor(*arguments[:4])

    def tensor(self, storage: Any, offset: Any, shape: Any, strides: Any) -> Tensor:
        if not isinstance(storage, _Storage) or len(shape) != len(strides) or len(shape) > MAX_DIMENSIONS:
            raise TypeError
        if not all(type(n) is int and 0 <= n < 1 << 40 for n in (offset, *shape, *strides)):
            raise TypeError
        values, width = storage.values, storage.values.itemsize
        count = math.prod(shape)
        last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
        self.budget -= count * width
        if count == 0 or last >= values.size or self.budget < 0:
            raise FormatError(f"{self.what}: a tensor of {list(shape)} has no room in its storage")
        view = np.lib.stride_tricks.as_strided(
            values[offset:], shape, [step * width for step in strides], writeable=False
        )
        return Tensor(storage.dtype, view)


_CALLED = {
    ("collections", "OrderedDict"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"),
}
