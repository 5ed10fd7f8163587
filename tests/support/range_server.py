"""A web server on 127.0.0.1 that serves a folder by ranges, and lists it as S3 does: for obstore to read from.

    with range_server(folder) as server:
        pv.ok("diff", f"{server.url}/a", f"{server.url}/b")

It notes what it sent (`sent`: {file: {byte ranges}}), and fails on request (`fails`: {part of a path: what}). With
`together` it answers what lies behind a file's beginning only when so many requests are under way at once.
"""

from __future__ import annotations

import contextlib
import re
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

__all__ = ["RangeServer", "range_server"]

BEGINNING = 4 << 20  # bytes


@dataclass
class RangeServer:
    """`fails` maps a part of a path to a status, "cut", "whole" or "slow"; a pair with a count ends after as many."""

    folder: Path
    url: str = ""
    sent: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    fails: dict[str, Any] = field(default_factory=dict)
    listings: int = 0
    most_at_once: int = 0
    _at_work: int = 0
    _lock: threading.Condition = field(default_factory=threading.Condition)
    together: int = 0

    @property
    def s3(self) -> dict[str, str]:
        """The environment in which `s3://bucket/...` is the folder."""
        return {
            "AWS_ENDPOINT_URL": self.url, "AWS_ALLOW_HTTP": "true", "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s",
        }  # fmt: skip

    def failure(self, path: str) -> Any:
        with self._lock:
            for part, what in self.fails.items():
                if part in path:
                    if isinstance(what, tuple):
                        kind, left = what
                        if left <= 0:
                            continue
                        self.fails[part] = (kind, left - 1)
                        return kind
                    return what
        return None

    @contextlib.contextmanager
    def noted(self, path: str, start: int, stop: int) -> Iterator[None]:
        with self._lock:
            self.sent.setdefault(path, []).append((start, stop))
            self._at_work += 1
            self.most_at_once = max(self.most_at_once, self._at_work)
            self._lock.notify_all()
            if start > BEGINNING:
                self._lock.wait_for(lambda: self.most_at_once >= self.together, 30)
        try:
            yield
        finally:
            with self._lock:
                self._at_work -= 1

    def overlaps(self, path: str) -> list[tuple[int, int]]:
        """Ranges of a file that begin before an earlier one ends."""
        found, end = [], 0
        for start, stop in sorted(self.sent.get(path, [])):
            if start < end:
                found.append((start, stop))
            end = max(end, stop)
        return found

    def bytes_sent(self, path: str) -> int:
        return sum(stop - start for start, stop in self.sent.get(path, []))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "ranges"
    ranges: RangeServer

    def log_message(self, format: str, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        path = unquote(parts.path).lstrip("/")
        if "list-type" in (query := parse_qs(parts.query)):
            self._list(query.get("prefix", [""])[0])
            return
        path = path.removeprefix("bucket/")
        file, failure = self.ranges.folder / path, self.ranges.failure(path)
        if isinstance(failure, int):
            self._status(failure)
        elif not file.is_file():
            self._status(404)
        else:
            self._send(file, path, failure)

    def _send(self, file: Path, path: str, failure: Any) -> None:
        size = file.stat().st_size
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        start, stop = (int(asked[1]), min(int(asked[2]) + 1, size)) if asked else (0, size)
        if failure == "whole":
            start, stop = 0, size
        if start >= size and asked and failure != "whole":
            self._status(416)
            return
        with self.ranges.noted(path, start, stop), file.open("rb") as opened:
            self.send_response(206 if asked and failure != "whole" else 200)
            if asked and failure != "whole":
                self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
            self.send_header("ETag", f'"{file.stat().st_mtime_ns:x}-{size:x}"')
            self.send_header("Last-Modified", self.date_time_string(int(file.stat().st_mtime)))
            self.send_header("Content-Length", str(stop - start))
            self.end_headers()
            opened.seek(start)
            data = opened.read(stop - start)
            if failure == "cut" and len(data) > 64:
                data, self.close_connection = data[: len(data) // 2], True
            self.wfile.write(data)

    def _list(self, prefix: str) -> None:
        self.ranges.listings += 1
        prefix = prefix.removeprefix("bucket/")
        root = self.ranges.folder / prefix
        files = sorted(path for path in root.iterdir() if path.is_file()) if root.is_dir() else []
        rows = "".join(
            f"<Contents><Key>{escape(prefix.rstrip('/') + '/' + file.name)}</Key>"
            f"<LastModified>2026-01-01T00:00:00.000Z</LastModified><Size>{file.stat().st_size}</Size></Contents>"
            for file in files
        )
        body = f"<ListBucketResult><IsTruncated>false</IsTruncated>{rows}</ListBucketResult>".encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _status(self, code: int) -> None:
        self.send_response(code)
        self.send_header("Content-Length", "0")
        self.end_headers()


@contextlib.contextmanager
def range_server(folder: Path) -> Iterator[RangeServer]:
    ranges = RangeServer(folder)
    server = _Server(("127.0.0.1", 0), type("Bound", (_Handler,), {"ranges": ranges}))
    ranges.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield ranges
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
