"""What a Hub, its client or the network refuses, put in words: one message and one thing to do next.

Every failure of a call to the Hub ends here, so that a user meets a sentence and exit code 4, never the
client's traceback. The only exceptions are what the user mistyped (2) and what the disk refused (74).
"""

from __future__ import annotations

from pv.registry.errors import PvError, RemoteError, StorageError, UsageError

__all__ = ["explain", "overtaken"]

MAX_SERVER_CHARS = 300


def overtaken(target: str) -> RemoteError:
    """The branch moved on since it was last looked at."""
    return RemoteError(
        f"{target}: someone pushed since", hint="look on the Hub at what they pushed; --force pushes over it"
    )


def explain(error: BaseException, target: str, endpoint: str) -> PvError:
    """The error to raise for what a huggingface_hub call raised."""
    from huggingface_hub import errors as hub

    while isinstance(error, RuntimeError) and error.__cause__ is not None:
        error = error.__cause__  # the client wraps what an upload met
    match error:
        case PvError():
            return error
        case hub.LocalTokenNotFoundError():
            return RemoteError(
                f"{target}: a push needs a token, and there is none",
                hint="run `hf auth login`, or set HF_TOKEN to a token with write access",
            )
        case hub.OIDCError() | hub.DeviceCodeError():
            return RemoteError(
                f"{target}: no token could be had: {_one_line(str(error))}", hint="run `hf auth login`"
            )
        case hub.HFValidationError():
            return UsageError(f"{target}: {_one_line(str(error))}", hint="write hf://USER/NAME")
        case hub.OfflineModeIsEnabled():
            return RemoteError(
                f"{target}: the Hub client is in offline mode", hint="unset HF_HUB_OFFLINE and push again"
            )
        case hub.HfHubHTTPError():
            return _refused(error, target, endpoint)
        case ValueError() if "metadata in README.md" in str(error):
            return RemoteError(
                f"{target}: the Hub refused the model card: {_one_line(str(error))}",
                hint="correct the front matter of README.md, then push again: nothing was uploaded",
            )
        case ValueError() if "LFS batch API" in str(error):
            return RemoteError(
                f"{target}: the Hub will not store a file: {_one_line(str(error))}",
                hint="nothing was committed: the branch is as it was",
            )
    return _unreached(error, target, endpoint)


def _refused(error: Exception, target: str, endpoint: str) -> RemoteError:
    """An HTTP status."""
    from huggingface_hub import errors as hub

    assert isinstance(error, hub.HfHubHTTPError)
    status, said = error.response.status_code, _said(error)
    if isinstance(error, hub.GatedRepoError):
        return RemoteError(
            f"{target} is gated, and this account has no access",
            hint=f"ask for access at {endpoint}/{target.removeprefix('hf://').partition('@')[0]}",
        )
    if isinstance(error, hub.DisabledRepoError):
        return RemoteError(f"{target} was disabled by the Hub", hint="push under another name")
    if isinstance(error, hub.RevisionNotFoundError):
        return RemoteError(f"{target}: there is no such branch", hint="check the name after '@'")
    if status == 401:
        return RemoteError(
            f"{target}: the Hub does not accept this token, or wants one (401)",
            hint="run `hf auth login` again, or set HF_TOKEN to a token with write access",
        )
    if status == 403:
        return RemoteError(
            f"{target}: this token may not write there (403){said}",
            hint="use a token with write access, and a repository of yours or of your organization's",
        )
    if isinstance(error, hub.RepositoryNotFoundError):
        return RemoteError(
            f"{target}: there is no such repository, or this token cannot see it",
            hint="check the name; a private repository needs a token that may read it",
        )
    if status == 412:
        return overtaken(target)
    if status == 429:
        return RemoteError(
            f"{target}: too many requests (429){said}", hint="wait some minutes, then push again"
        )
    if status >= 500:
        return RemoteError(
            f"{target}: the Hub failed ({status}){said}",
            hint="push again later: what was uploaded is not sent twice, and the branch is whole",
        )
    return RemoteError(
        f"{target}: the Hub refused ({status}){said}",
        hint="check the name, the token and HF_ENDPOINT if it is set",
    )


def _unreached(error: BaseException, target: str, endpoint: str) -> PvError:
    """No answer, or not one that a Hub gives. The HTTP library's classes are known by their names, since
    the client changes libraries between versions."""
    kinds = {cls.__name__ for cls in type(error).__mro__}
    if "TimeoutException" in kinds or isinstance(error, TimeoutError):
        return RemoteError(
            f"{target}: {endpoint} fell silent",
            hint="push again: if the commit was made after all, nothing is sent twice",
        )
    if "ProxyError" in kinds:
        return RemoteError(f"{target}: the proxy refused: {_one_line(str(error))}", hint="check HTTPS_PROXY")
    if "ConnectError" in kinds or "UnsupportedProtocol" in kinds:
        return RemoteError(
            f"{target}: cannot reach {endpoint}: {_one_line(str(error))}",
            hint="check the network, and HF_ENDPOINT if it is set; nothing was changed",
        )
    if "TransportError" in kinds or isinstance(error, ConnectionError):
        return RemoteError(
            f"{target}: the connection to {endpoint} broke: {_one_line(str(error))}",
            hint="push again: if the commit was made after all, nothing is sent twice",
        )
    if isinstance(error, OSError) and error.errno is not None:
        return StorageError(f"reading the files to push failed: {error.strerror}")
    what = f"{type(error).__name__}: {_one_line(str(error))}"
    return RemoteError(
        f"{target}: {endpoint} does not answer as a Hub does ({what})",
        hint="check HF_ENDPOINT if it is set",
    )


def _said(error: Exception) -> str:
    """The server's own words, if it had any."""
    response = getattr(error, "response", None)
    words = getattr(error, "server_message", None) or (response and response.headers.get("X-Error-Message"))
    return f": {_one_line(words)}" if words else ""


def _one_line(text: str) -> str:
    """A stranger's text, safe to print: one line, no control characters, not too long."""
    plain = "".join(ch if ch.isprintable() else " " for ch in text)
    line = " ".join(plain.split())
    return line if len(line) <= MAX_SERVER_CHARS else line[: MAX_SERVER_CHARS - 1] + "…"
