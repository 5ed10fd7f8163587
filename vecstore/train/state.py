"""The state of a training that is not finished: one safetensors file, from which it goes on bit for bit.

    weights/<parameter>            what is trained, in fp32: masters, not differences, which could round
    optimizer/<parameter>/<key>    the optimizer's state; tensors only
    random/cpu, random/<device>    torch's generators
    loss                           of every step so far
    gradient/<part>                the sketch of the first step's, once that was made
    sha256                         32 bytes, over all that is before them in the file: a torn one is known

`__metadata__` has, under `pv`, one canonical JSON object: what the run is (`Run`), and how far it is. No pickle: a file
that holds code is no safetensors file, and is refused as one.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pv.registry import canonical
from pv.registry.disk import durable
from pv.registry.disk.safetensors import TensorFile, header_bytes
from pv.registry.errors import FormatError, IntegrityError

if TYPE_CHECKING:
    import torch

__all__ = ["SCHEMA", "State", "read_state", "write_state"]

SCHEMA = 1
_DIGEST = "sha256"
_AGAIN = "start again without --resume"


@dataclass(frozen=True, slots=True)
class State:
    """`run` says what is trained from what, and how; `tensors` are as above, without the digest."""

    run: Mapping[str, Any]
    step: int
    tokens: int
    seconds: float
    went_on: tuple[int, ...]
    tensors: Mapping[str, torch.Tensor]

    def under(self, folder: str) -> dict[str, torch.Tensor]:
        """The tensors `<folder>/<name>`, by the rest of their name."""
        return {
            key.removeprefix(f"{folder}/"): tensor
            for key, tensor in self.tensors.items()
            if key.startswith(f"{folder}/")
        }


def write_state(path: Path, state: State) -> None:
    """Whole and durable under `path`, or what was there stays. Raises StorageError."""
    import torch

    names = {dtype: name for name, dtype in _dtypes().items()}
    tensors = {key: t.detach().to("cpu").contiguous() for key, t in state.tensors.items()}
    table = {key: (names[t.dtype], tuple(t.shape), t.nbytes) for key, t in tensors.items()}
    said = {
        "schema": SCHEMA, "run": state.run, "step": state.step, "tokens": state.tokens,
        "seconds": state.seconds, "went_on": list(state.went_on),
    }  # fmt: skip
    header = header_bytes({**table, _DIGEST: ("U8", (32,), 32)}, {"pv": canonical.dumps(said).decode()})
    views = (memoryview(t.reshape(-1).view(torch.uint8).numpy().data) for t in tensors.values() if t.numel())
    tmp = path.with_name(durable.tmp_name(path.name))
    with durable.storage_errors(path):
        fd = os.open(tmp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)  # held while we live: a sweep leaves the file alone
            _write(fd, (memoryview(header), *views))
            durable.fsync_file(fd)
            durable.rename(tmp, path)
        except BaseException:
            tmp.unlink(missing_ok=True)
            raise
        finally:
            os.close(fd)


def _write(fd: int, pieces: Iterable[memoryview]) -> None:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
        _all(fd, piece)
        durable.step("write state")
    _all(fd, memoryview(digest.digest()))
    durable.step("write state's digest")


def _all(fd: int, view: memoryview) -> None:
    while view:
        view = view[os.write(fd, view[: 1 << 30]) :]


def read_state(path: Path) -> State:
    """Raises IntegrityError for a file that is damaged, or none of pv's; FileNotFoundError if there is none."""
    import torch

    dtypes = _dtypes()
    try:
        with TensorFile(path) as file:
            digest = hashlib.sha256(file.header)
            tensors: dict[str, torch.Tensor] = {}
            for key, entry in sorted(file.entries.items(), key=lambda item: item[1].begin):
                data = file.read(key)
                if key == _DIGEST:
                    if digest.digest() != bytes(data):
                        raise FormatError("its checksum is wrong")
                    break
                digest.update(data)
                empty = torch.empty(entry.shape, dtype=dtypes[entry.dtype])
                tensors[key] = (
                    torch.frombuffer(data, dtype=empty.dtype).reshape(entry.shape) if empty.numel() else empty
                )
            else:
                raise FormatError("it has no checksum")
            said = canonical.loads(file.metadata["pv"].encode(), what="its metadata")
    except FileNotFoundError:
        raise
    except (FormatError, KeyError, OSError) as error:
        raise IntegrityError(
            f"the saved training in {path} is damaged: {_why(error)}", hint=_AGAIN
        ) from error
    return _state(path, said, tensors)


def _state(path: Path, said: Any, tensors: Mapping[str, torch.Tensor]) -> State:
    match said:
        case {
            "schema": 1, "run": dict(run), "step": int(step), "tokens": int(tokens),
            "seconds": int() | float() as seconds, "went_on": list(went_on),
        } if step >= 0:  # fmt: skip
            return State(run, step, tokens, float(seconds), tuple(map(int, went_on)), tensors)
        case {"schema": int(schema)} if schema != SCHEMA:
            raise IntegrityError(
                f"the saved training in {path} has schema {schema}, this pv knows {SCHEMA}", hint=_AGAIN
            )
    raise IntegrityError(f"the saved training in {path} is damaged: its metadata", hint=_AGAIN)


def _why(error: Exception) -> str:
    return f"no {error.args[0]!r}" if isinstance(error, KeyError) else str(error)


def _dtypes() -> dict[str, torch.dtype]:
    import torch

    return {
        "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
        "I64": torch.int64, "I32": torch.int32, "U8": torch.uint8, "BOOL": torch.bool,
    }  # fmt: skip
