"""A checkpoint that lies in an object store or on a web server: its files, by ranges, through the library obstore.

Nothing is fetched but what is asked for. What is read in order is asked for in blocks, a few ahead, so that several
requests are under way while a tensor is computed; each block is fetched once. obstore repeats a request that failed.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from threading import Lock
from typing import Any
from urllib.parse import quote, urlsplit

from pv.registry.disk.closing import Closing
from pv.registry.errors import FormatError, NotFoundError, PvError, RemoteError, UsageError

__all__ = ["BLOCK", "KNOWN_FILES", "ObjectFolder", "ObjectRanges", "is_store_url"]

BLOCK = 4 << 20
"""Bytes of one request."""
AHEAD = 3  # blocks that are asked for before they are needed
IN_FLIGHT = 8  # requests at a time, for each folder
_HELD = 32  # blocks of a file that wait to be read
_STREAM = 128 << 10  # a first read of fewer bytes is a look, not the beginning of a whole tensor
_RETRY: dict[str, Any] = {
    "max_retries": 6,
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=5), "base": 2},
    "retry_timeout": timedelta(minutes=2),
}
_CLIENT: dict[str, Any] = {"allow_http": True, "connect_timeout": "10s", "timeout": "2min"}
_URL = re.compile(r"(s3a?|gs|az|azure|abfss?|adl|https?|file|memory|ftp)://.*", re.DOTALL)
_WEB = ("http", "https")
KNOWN_FILES = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "tokenizer.model", "spiece.model",
    "chat_template.jinja", "preprocessor_config.json", "adapter_config.json",
)  # fmt: skip
"""What is looked for where a server cannot say which files it has."""


def is_store_url(text: object) -> bool:
    """Whether this is `s3://bucket/folder` or the like. A page of the Hub is one too: ask `is_hub_id` first."""
    return isinstance(text, str) and _URL.fullmatch(text) is not None


class ObjectFolder(Closing):
    """A folder in a store, or one weight file of it (`file`). `url` is what the user named."""

    def __init__(self, url: str) -> None:
        """Asks nobody yet. Raises UsageError for what is no such address, or without the library."""
        self.url = url.rstrip("/")
        parts = _checked(url)
        folder, _, last = self.url.rpartition("/")
        self.file = last if last.endswith(".safetensors") else None
        self._listed = parts.scheme not in _WEB
        obstore = _obstore()
        more: dict[str, Any] = (
            {} if parts.scheme == "file" else {"client_options": _CLIENT, "retry_config": _RETRY}
        )
        with explained(self.url):
            self._store = obstore.store.from_url(folder if self.file else self.url, **more)
        self._pool: ThreadPoolExecutor | None = None

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]

    def where(self, file: str) -> str:
        return self.url if file == self.file else f"{self.url}/{file}"

    def names(self) -> dict[str, int] | None:
        """{file: size}; None of a web server, which cannot list them. Raises NotFoundError, RemoteError."""
        if not self._listed:
            return None
        with explained(self.url):
            found = _obstore().list_with_delimiter(self._store)["objects"]
        names = {str(one["path"]).rpartition("/")[2]: int(one["size"]) for one in found}
        if not names:
            raise NotFoundError(
                f"nothing is at {self.url}",
                hint="check bucket and folder; a checkpoint is a folder of safetensors",
            )
        return names

    def get(self, file: str, most: int) -> bytes | None:
        """A small file, whole; None if there is none. Raises FormatError if it is longer than `most`."""
        try:
            with contextlib.closing(self.open(file)) as ranges:
                if ranges.size > most:
                    raise FormatError(f"{ranges.where} is longer than {most} bytes")
                return bytes(ranges.read(0, ranges.size))
        except NotFoundError:
            return None

    def open(self, file: str) -> ObjectRanges:
        """Raises NotFoundError, RemoteError."""
        return ObjectRanges(self, file)

    def fetch(self, file: str, start: int, stop: int) -> tuple[bytes | memoryview, dict[str, Any]]:
        """Bytes start to stop of a file, and what the store says of it."""
        with explained(self.where(file)):
            got = _obstore().get(self._store, file, options={"range": (start, stop)})
            return memoryview(got.bytes()), dict(got.meta)

    @property
    def pool(self) -> ThreadPoolExecutor:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(IN_FLIGHT, "pv-ranges")
        return self._pool

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None


@dataclass(slots=True)
class _Block:
    data: Future[memoryview]
    left: int  # bytes that nobody has read


class ObjectRanges(Closing):
    """One file in a store."""

    def __init__(self, folder: ObjectFolder, file: str) -> None:
        self._folder, self.name, self.where = folder, file, folder.where(file)
        try:
            self._head, self._meta = folder.fetch(file, 0, 8)
        except _Empty:
            self._head, self._meta = b"", {"size": 0}
        self.size = int(self._meta["size"])
        self._blocks: dict[tuple[int, int], _Block] = {}
        self._fetched: set[tuple[int, int]] = set()
        self._ends: set[int] = set()
        self._lock = Lock()

    @property
    def stamp(self) -> list[str]:
        said = (self._meta.get(key) for key in ("size", "e_tag", "version", "last_modified"))
        return [self.where, *map(str, said)]

    def read(self, offset: int, count: int, *, stretch: tuple[int, int] | None = None) -> memoryview:
        if offset + count > self.size:
            raise FormatError(f"{self.where} is shorter than it should be: {self.size} bytes")
        out = memoryview(bytearray(count))
        known = max(0, min(len(self._head) - offset, count))
        out[:known] = self._head[offset : offset + known]
        if known < count:
            for at, data in self._parts(offset + known, offset + count, stretch):
                out[at - offset : at - offset + len(data)] = data
        return out

    def _parts(
        self, start: int, stop: int, stretch: tuple[int, int] | None
    ) -> Iterator[tuple[int, memoryview]]:
        with self._lock:
            blocks = None if stretch is None else self._stream(start, stop, *stretch)
        if blocks is None:
            pieces = [(at, min(at + BLOCK, stop)) for at in range(start, stop, BLOCK)]
            if len(pieces) == 1:
                yield start, self._get(start, stop)
                return
            wanted = [(at, self._folder.pool.submit(self._get, at, end)) for at, end in pieces]
            yield from ((at, future.result()) for at, future in wanted)
            return
        for key, block in blocks:
            low, high = max(start, key[0]), min(stop, key[1])
            data = block.data.result()
            yield low, data[low - key[0] : high - key[0]]
            with self._lock:
                block.left -= high - low
                if block.left <= 0:
                    self._blocks.pop(key, None)

    def _stream(
        self, start: int, stop: int, begin: int, end: int
    ) -> list[tuple[tuple[int, int], _Block]] | None:
        """The blocks of the stretch that hold the range, and a few more asked for; None for a look at some bytes."""
        in_order = start in self._ends
        self._ends.discard(start)
        self._ends.add(stop)
        first = begin + (start - begin) // BLOCK * BLOCK
        looks = (start - begin) % BLOCK or stop - start < min(_STREAM, end - start)
        if looks and not in_order and (first, min(first + BLOCK, end)) not in self._blocks:
            return None
        keys = [(at, min(at + BLOCK, end)) for at in range(first, min(stop + AHEAD * BLOCK, end), BLOCK)]
        found = []
        for key in keys:
            needed = key[0] < stop
            if key not in self._blocks and (needed or key not in self._fetched):
                self._fetched.add(key)
                self._blocks[key] = _Block(self._folder.pool.submit(self._get, *key), key[1] - key[0])
            if needed:
                found.append((key, self._blocks[key]))
        for key in [key for key, block in self._blocks.items() if block.data.done() and key not in keys]:
            if len(self._blocks) <= _HELD:
                break
            del self._blocks[key]
        return found

    def _get(self, start: int, stop: int) -> memoryview:
        data, meta = self._folder.fetch(self.name, start, stop)
        if any(meta.get(key) != self._meta.get(key) for key in ("size", "e_tag", "last_modified")):
            raise RemoteError(
                f"{self.where} was replaced while it was being read", hint="run the command again"
            )
        if len(data) != stop - start:
            raise RemoteError(
                f"{self.where} gave {len(data)} of {stop - start} bytes from {start} on", hint="run it again"
            )
        return memoryview(data)

    def close(self) -> None:
        with self._lock:
            for block in self._blocks.values():
                block.data.cancel()
            self._blocks.clear()


class _Empty(RemoteError):
    """A range of a file that has no bytes."""


@contextmanager
def explained(what: str) -> Iterator[None]:
    """obstore's errors as ours. `what` is the address that is read."""
    exceptions = _obstore().exceptions
    try:
        yield
    except PvError:
        raise
    except (exceptions.BaseError, OSError, ValueError) as error:
        raise _as_ours(what, error, exceptions) from error


def _as_ours(what: str, error: Exception, exceptions: Any) -> PvError:
    said = " ".join(str(error).split("\n\nDebug source:")[0].split())
    if isinstance(error, (FileNotFoundError, exceptions.NotFoundError)) or "canonicalize" in said:
        return NotFoundError(f"nothing is at {what}", hint="check the address: bucket, folder and file name")
    if isinstance(
        error, (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError, PermissionError)
    ):
        return RemoteError(f"{what} may not be read: no permission", hint=_credentials(what))
    if isinstance(error, exceptions.NotSupportedError):
        return RemoteError(
            f"{what}: the server gives whole files only, no ranges",
            hint="copy the folder to this machine first",
        )
    if "416" in said or "larger than" in said or "zero-length" in said:
        return _Empty(f"{what} is shorter than it should be", hint="upload it again")
    if "credential" in said.lower() or "metadata" in said.lower():
        return RemoteError(f"{what} cannot be read: {said[:200]}", hint=_credentials(what))
    if "body" in said:
        said = "the connection ended in the middle, again and again"
    return RemoteError(
        f"{what} cannot be read: {said[:300]}", hint="check network and address, and run it again"
    )


def _credentials(what: str) -> str:
    """Which settings say who is asking, and where: obstore reads them from the environment."""
    scheme = what.partition("://")[0]
    if scheme.startswith("s3"):
        return "set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION; a public bucket: AWS_SKIP_SIGNATURE=true"
    if scheme == "gs":
        return "set GOOGLE_SERVICE_ACCOUNT, or GOOGLE_APPLICATION_CREDENTIALS"
    if scheme in _WEB:
        return "pv sends no credentials to a web server: copy the folder to this machine first"
    if scheme == "file":
        return "check the permissions of the file"
    return "set AZURE_STORAGE_ACCOUNT_NAME, and AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN"


def _checked(url: str) -> Any:
    parts = urlsplit(url)
    if "@" in parts.netloc and parts.scheme not in ("abfs", "abfss"):
        raise UsageError(
            f"{parts.scheme}://…@{parts.hostname}{parts.path}: credentials do not belong in an address",
            hint="set them in the environment; docs/builds.md says which",
        )
    if parts.query or parts.fragment:
        raise UsageError(
            f"{parts.scheme}://{parts.netloc}{quote(parts.path)} has a query behind it: a folder has none",
            hint="name the folder alone; docs/builds.md says how credentials are set",
        )
    if parts.scheme in ("ftp", "memory") or not (parts.netloc or parts.scheme == "file"):
        raise UsageError(
            f"pv does not read from {url}",
            hint="an address is s3://BUCKET/FOLDER, gs://BUCKET/FOLDER, az://CONTAINER/FOLDER or https://HOST/FOLDER",
        )
    return parts


def _obstore() -> Any:
    try:
        import obstore
        import obstore.exceptions
        import obstore.store
    except ImportError as error:
        raise UsageError(
            "reading from an object store needs the package obstore",
            hint="pip install 'personavec[object-store]'",
        ) from error
    return obstore
