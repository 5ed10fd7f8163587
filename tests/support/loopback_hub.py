"""A Hub on 127.0.0.1, for the real `huggingface_hub` client to talk to: nothing in the tests is mocked.

    with loopback_hub(tmp_path, tokens={"hf_w": "write", "hf_r": "read"}) as hub:
        push_folder(folder, target, token="hf_w", endpoint=hub.endpoint, message="first")

It speaks plain LFS (basic and multipart), never xet; checks SHA-256 sums, tokens and parents for real; and
fails on request: `hub.fail_next(503, on="/commit/")`, `hub.race(repo)`, `hub.flip_next_upload()`.
What it cannot stand in for is set down in docs/push.md.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from support.loopback_routes import Handler
from support.loopback_state import HubState

__all__ = ["HubState", "client_env", "isolated_client", "loopback_hub"]


class Server(ThreadingHTTPServer):
    daemon_threads = True
    defects: list[BaseException]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is a client's right; anything else is a defect of this server."""
        error = sys.exception()
        if error is not None and not isinstance(error, ConnectionError):
            self.defects.append(error)


@contextlib.contextmanager
def loopback_hub(root: Path, tokens: Mapping[str, str] | None = None) -> Iterator[HubState]:
    """A running Hub whose files lie under `root`. `tokens` maps a token to "read" or "write"."""
    hub = HubState(root, tokens if tokens is not None else {"hf_write": "write", "hf_read": "read"})
    server = Server(("127.0.0.1", 0), type("BoundHandler", (Handler,), {"hub": hub}))
    server.defects = []
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert not server.defects, f"the loopback Hub broke: {server.defects!r}"


@contextlib.contextmanager
def isolated_client(monkeypatch: pytest.MonkeyPatch, home: Path) -> Iterator[None]:
    """huggingface_hub in this process with nobody's token, an own cache, and no way past 127.0.0.1.

    The client reads the environment when it is imported, which may be long ago: so its constants are set.
    """
    from huggingface_hub import close_session, constants

    nobody = "http://127.0.0.1:9"  # a call that forgets its endpoint is noticed
    for name, value in {
        "ENDPOINT": nobody,
        "HUGGINGFACE_CO_URL_TEMPLATE": nobody + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_CACHE": str(home / "hub"),
        "HF_HUB_DISABLE_IMPLICIT_TOKEN": False,
        "HF_HUB_DISABLE_TELEMETRY": True,
        "HF_HUB_OFFLINE": False,
        "HF_STORED_TOKENS_PATH": str(home / "stored_tokens"),
        "HF_TOKEN_PATH": str(home / "token"),
    }.items():
        monkeypatch.setattr(constants, name, value)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_OIDC_RESOURCE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    strangers: list[str] = []
    look_up = socket.getaddrinfo

    def only_here(host: Any, *args: Any, **kwargs: Any) -> Any:
        if host not in ("127.0.0.1", "localhost"):
            strangers.append(str(host))
            raise socket.gaierror(socket.EAI_NONAME, "tests stay on 127.0.0.1")
        return look_up(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", only_here)
    close_session()  # a client made earlier holds earlier proxies
    try:
        yield
    finally:
        close_session()
    assert not strangers, f"the tests tried to reach {strangers}"


def client_env(hub: HubState, home: Path, token: str | None = None) -> dict[str, str]:
    """The same for a process of its own: what to put into its environment."""
    return {
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_TOKEN": token or "",
        "NO_PROXY": "127.0.0.1",
    }
