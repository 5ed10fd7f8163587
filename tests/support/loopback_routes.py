"""The protocol half of the loopback Hub: the HTTP routes that the `huggingface_hub` client calls.

One method answers one row of the client's protocol: repositories, card validation, the tree, preupload, the
LFS batch with its PUTs and checks, the commit, and downloads with ranges.
"""

from __future__ import annotations

import base64
import fnmatch
import hashlib
import json
import re
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

from support.loopback_state import Entry, Fault, HubState, Refused, Repo, Request, lfs_pointer

__all__ = ["Handler"]

CHUNK = 1 << 16


def card_errors(content: str) -> list[dict[str, str]]:
    """What is wrong with a README's front matter, in the Hub's shape."""
    match = re.match(r"---\r?\n(.*?)\r?\n---\r?(\n|$)", content, re.DOTALL)
    if not match:
        return []
    try:
        data = yaml.safe_load(match[1])
    except yaml.YAMLError as error:
        return [{"message": f"YAML: {error}"}]
    if not isinstance(data, dict):
        return [{"message": "the metadata must be an object"}]
    bases = data.get("base_model", [])
    bases = [bases] if isinstance(bases, str) else bases
    errors = [
        {"message": f'"base_model" {base!r} is not a model id'}
        for base in bases
        if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", str(base))
    ]
    if not all(isinstance(tag, str) for tag in data.get("tags", [])):
        errors.append({"message": '"tags" must be strings'})
    if "license" in data and not re.fullmatch(r"[a-z0-9.+-]+", str(data["license"])):
        errors.append({"message": '"license" must be one of the known licenses'})
    return errors


class Handler(BaseHTTPRequestHandler):
    """The protocol. A request's body is always read to its end, whatever the answer."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or each small reply waits 40 ms for an acknowledgement
    hub: HubState
    routes = (
        ("POST", r"/api/repos/create", "create_repo"),
        ("POST", r"/api/validate-yaml", "validate_yaml"),
        ("GET", r"/api/models/([^/]+/[^/]+)", "info"),
        ("GET", r"/api/models/([^/]+/[^/]+)/revision/([^/]+)", "info"),
        ("GET", r"/api/models/([^/]+/[^/]+)/tree/([^/]+)", "tree"),
        ("POST", r"/api/models/([^/]+/[^/]+)/paths-info/([^/]+)", "paths_info"),
        ("POST", r"/api/models/([^/]+/[^/]+)/branch/([^/]+)", "create_branch"),
        ("POST", r"/api/models/([^/]+/[^/]+)/preupload/([^/]+)", "preupload"),
        ("POST", r"/api/models/([^/]+/[^/]+)/commit/([^/]+)", "commit"),
        ("POST", r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", "lfs_batch"),
        ("PUT", r"/lfs/([0-9a-f]{64})", "lfs_put"),
        ("PUT", r"/lfs/([0-9a-f]{64})/part/(\d+)", "lfs_put_part"),
        ("POST", r"/lfs/([0-9a-f]{64})/complete", "lfs_complete"),
        ("POST", r"/lfs/([0-9a-f]{64})/verify", "lfs_verify"),
        ("HEAD", r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", "resolve"),
        ("GET", r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", "resolve"),
    )

    def do_GET(self) -> None:
        self.answer()

    def do_HEAD(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.answer()

    def do_PUT(self) -> None:
        self.answer()

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def answer(self) -> None:
        self.body = self.read_body()
        url = urlsplit(self.path)
        self.query = parse_qs(url.query)
        line = f"{self.command} {url.path}"
        with self.hub.lock:
            self.hub.requests.append(Request(line, self.token(), self.small_json()))
            fault = self.take_fault(line)
        try:
            if fault is not None:
                time.sleep(fault.delay_s)
                if fault.status == 0:
                    self.close_connection = True
                    return
                raise Refused(fault.status, fault.message, fault.code)
            for method, pattern, name in self.routes:
                if method == self.command and (match := re.fullmatch(pattern, url.path)):
                    getattr(self, name)(*(unquote(group) for group in match.groups()))
                    return
            raise Refused(404, f"no route {line}")
        except Refused as refused:
            headers = {"X-Error-Message": str(refused)} | (
                {"X-Error-Code": refused.code} if refused.code else {}
            )
            self.reply(refused.body, refused.status, headers)
        finally:
            self.body.unlink(missing_ok=True)

    def take_fault(self, line: str) -> Fault | None:
        for fault in self.hub.faults:
            if fault.on in line:
                fault.times -= 1
                if fault.times <= 0:
                    self.hub.faults.remove(fault)
                return fault
        return None

    # Reading and replying

    def read_body(self) -> Path:
        """The whole request body, streamed to a file (a PUT carries a checkpoint)."""
        path = self.hub.root / "parts" / f"body-{threading.get_ident()}-{time.monotonic_ns()}"
        with path.open("wb") as out:
            if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
                while size := int(self.rfile.readline().split(b";")[0], 16):
                    out.write(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
            else:
                left = int(self.headers.get("Content-Length") or 0)
                while left and (chunk := self.rfile.read(min(left, CHUNK))):
                    out.write(chunk)
                    left -= len(chunk)
        return path

    def small_json(self) -> Any:
        if "json" not in self.headers.get("Content-Type", "") or self.body.stat().st_size > 1 << 20:
            return None
        lines = [json.loads(text) for text in self.body.read_bytes().splitlines() if text]
        return lines if "ndjson" in self.headers["Content-Type"] else lines[0]

    def json(self) -> Any:
        return json.loads(self.body.read_bytes())

    def reply(self, value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for key, text in (headers or {}).items():
            self.send_header(key, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    # Rights

    def token(self) -> str | None:
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        return token if scheme == "Bearer" else None

    def right(self) -> str | None:
        token = self.token()
        if token is None:
            return None
        if token not in self.hub.tokens:
            raise Refused(401, "Invalid credentials in Authorization header")
        return self.hub.tokens[token]

    def may_write(self) -> None:
        right = self.right()
        if right is None:
            raise Refused(401, "Invalid username or password.")
        if right != "write":
            raise Refused(403, "You don't have the rights to write to this repository")

    def repo(self, name: str) -> Repo:
        right = self.right()
        repo = self.hub.repos.get(name)
        if repo is None or (repo.private and right is None):
            # Like the real one: a stranger is not told whether a repository exists.
            raise Refused(404 if right else 401, "Repository not found", "RepoNotFound")
        return repo

    # Repositories

    def create_repo(self) -> None:
        self.may_write()
        ask = self.json()
        name = f"{ask['organization'] or 'me'}/{ask['name']}"
        with self.hub.lock:
            if name in self.hub.repos:
                raise Refused(409, "You already created this model repo")
            self.hub.create(name, private=ask.get("visibility") == "private")
        self.reply({"url": f"{self.hub.endpoint}/{name}"})

    def create_branch(self, name: str, branch: str) -> None:
        self.may_write()
        repo = self.repo(name)
        with self.hub.lock:
            if branch in repo.branches:
                raise Refused(409, "Reference already exists")
            repo.branches[branch] = list(repo.branches["main"])
        self.reply({})

    def validate_yaml(self) -> None:
        errors = card_errors(self.json()["content"])
        if errors:
            raise Refused(400, "Invalid metadata", body={"errors": errors, "warnings": []})
        self.reply({"errors": [], "warnings": []})

    def info(self, name: str, revision: str = "main") -> None:
        repo = self.repo(name)
        commit = repo.find(revision)
        siblings = [{"rfilename": path} for path in sorted(commit.files)]
        self.reply({"id": name, "sha": commit.oid, "siblings": siblings, "private": repo.private, "tags": []})

    def tree(self, name: str, revision: str) -> None:
        commit = self.repo(name).find(revision)
        rows = [self.row(path, entry) for path, entry in sorted(commit.files.items())]
        start = int(self.query.get("cursor", ["0"])[0])
        headers = {}
        if start + self.hub.page_size < len(rows):
            path, after = urlsplit(self.path).path, start + self.hub.page_size
            headers["Link"] = f'<{self.hub.endpoint}{path}?recursive=true&cursor={after}>; rel="next"'
        self.reply(rows[start : start + self.hub.page_size], headers=headers)

    def paths_info(self, name: str, revision: str) -> None:
        commit = self.repo(name).find(revision)
        wanted = self.json()["paths"]
        self.reply([self.row(path, commit.files[path]) for path in wanted if path in commit.files])

    @staticmethod
    def row(path: str, entry: Entry) -> dict[str, Any]:
        row: dict[str, Any] = {"type": "file", "path": path, "size": entry.size, "oid": entry.oid}
        if entry.sha256:
            pointer = len(lfs_pointer(entry.sha256, entry.size))
            row["lfs"] = {"oid": entry.sha256, "size": entry.size, "pointerSize": pointer}
        return row

    # Uploading

    def preupload(self, name: str, revision: str) -> None:
        self.may_write()
        head = self.repo(name).tip(revision)
        files = head.files if head else {}
        ignored: list[str] = []
        if ".gitignore" in files:
            ignored = self.hub.content(files[".gitignore"]).read_text().split()
        answers = []
        for ask in self.json()["files"]:
            path, entry = ask["path"], files.get(ask["path"])
            large = path.endswith(".safetensors") or ask["size"] > self.hub.lfs_over
            answers.append(
                {
                    "path": path,
                    "uploadMode": "lfs" if large else "regular",
                    "shouldIgnore": any(fnmatch.fnmatch(path, pattern) for pattern in ignored),
                    "oid": (entry.sha256 or entry.oid) if entry else None,
                }
            )
        self.reply({"files": answers})

    def lfs_batch(self, name: str) -> None:
        self.may_write()
        self.repo(name)
        objects = []
        for ask in self.json()["objects"]:
            answer: dict[str, Any] = {"oid": ask["oid"], "size": ask["size"]}
            if not (self.hub.root / "lfs" / ask["oid"]).exists():
                answer["actions"] = self.lfs_actions(f"{self.hub.endpoint}/lfs/{ask['oid']}", ask["size"])
            objects.append(answer)
        self.reply({"transfer": "basic", "objects": objects})

    def lfs_actions(self, url: str, size: int) -> dict[str, Any]:
        part = self.hub.multipart_over
        upload: dict[str, Any] = {"href": url}
        if part is not None and size > part:
            urls = {str(n + 1): f"{url}/part/{n + 1}" for n in range(-(-size // part))}
            upload = {"href": f"{url}/complete", "header": {"chunk_size": str(part), **urls}}
        return {"upload": upload, "verify": {"href": f"{url}/verify"}}

    def lfs_put(self, oid: str) -> None:
        self.flip_if_told()
        self.body.replace(self.hub.root / "lfs" / oid)
        self.reply({})

    def lfs_put_part(self, oid: str, number: str) -> None:
        self.flip_if_told()
        self.body.replace(self.hub.root / "parts" / f"{oid}-{number}")
        self.reply({}, headers={"ETag": f'"{oid[:8]}-{number}"'})

    def lfs_complete(self, oid: str) -> None:
        with (self.hub.root / "lfs" / oid).open("wb") as out:
            for ask in self.json()["parts"]:
                out.write((self.hub.root / "parts" / f"{oid}-{ask['partNumber']}").read_bytes())
        self.reply({})

    def flip_if_told(self) -> None:
        with self.hub.lock:
            flip, self.hub.flip_uploads = self.hub.flip_uploads, max(0, self.hub.flip_uploads - 1)
        if flip:
            with self.body.open("r+b") as file:
                first = file.read(1)
                file.seek(0)
                file.write(bytes([first[0] ^ 1]))

    def lfs_verify(self, oid: str) -> None:
        self.may_write()
        path, ask = self.hub.root / "lfs" / oid, self.json()
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != oid or path.stat().st_size != ask["size"]:
            path.unlink()
            raise Refused(400, "the uploaded object does not have the announced SHA-256")
        self.reply({})

    def commit(self, name: str, revision: str) -> None:
        self.may_write()
        repo = self.repo(name)
        header, *operations = [json.loads(text) for text in self.body.read_bytes().splitlines()]
        with self.hub.lock:
            if self.hub.before_commit is not None:
                race, self.hub.before_commit = self.hub.before_commit, None
                race()
            if revision not in repo.branches:
                raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
            head = repo.tip(revision)
            parent = header["value"].get("parentCommit")
            if parent is not None and (head is None or parent != head.oid):
                raise Refused(412, "A commit has happened since. Please refresh and try again.")
            files = dict(head.files) if head else {}
            for operation in operations:
                self.apply(operation["key"], operation["value"], files)
            summary, description = header["value"]["summary"], header["value"]["description"]
            oid = self.hub.append(name, revision, summary, description, files)
        self.reply({"commitOid": oid, "commitUrl": f"{self.hub.endpoint}/{name}/commit/{oid}"})

    def apply(self, key: str, value: dict[str, Any], files: dict[str, Entry]) -> None:
        path = value["path"]
        if key == "deletedFile":
            if files.pop(path, None) is None:
                raise Refused(404, "A file with this name doesn't exist", "EntryNotFound")
        elif path in self.hub.swap:
            files[path] = self.hub.store(self.hub.swap.pop(path))
        elif key == "file":
            files[path] = self.hub.store(base64.b64decode(value["content"]))
        elif key == "lfsFile":
            files[path] = self.hub.lfs_entry(value["oid"], value["size"])
        else:
            raise Refused(400, f"unknown operation {key}")

    # Downloading

    def resolve(self, name: str, revision: str, path: str) -> None:
        commit = self.repo(name).find(revision)
        entry = commit.files.get(path)
        if entry is None:
            raise Refused(404, "Entry not found", "EntryNotFound")
        start, end = 0, entry.size
        if match := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            start, end = int(match[1]), int(match[2]) + 1 if match[2] else entry.size
        partial = (start, end) != (0, entry.size)
        self.send_response(206 if partial else 200)
        self.send_header("X-Repo-Commit", commit.oid)
        self.send_header("ETag", f'"{entry.sha256 or entry.oid}"')
        if entry.sha256:
            self.send_header("X-Linked-Etag", f'"{entry.sha256}"')
            self.send_header("X-Linked-Size", str(entry.size))
        if partial:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{entry.size}")
        self.send_header("Content-Length", str(end - start))
        self.end_headers()
        if self.command == "GET":
            with self.hub.content(entry).open("rb") as file:
                file.seek(start)
                left = end - start
                while left and (chunk := file.read(min(left, CHUNK))):
                    self.wfile.write(chunk)
                    left -= len(chunk)
