"""A hub over HTTP: listings, branches, regular files behind a redirect of its own, large ones on a second host.

It answers as huggingface.co does: 401 for what an anonymous client may not know of, codes in X-Error-Code, git's object
ids for regular files and SHA-256 for large ones. The second host stands for the storage behind a signed address, and
refuses requests that bring another credential.
"""

from __future__ import annotations

import hashlib
import json
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

TOKENS = ("hf_reader", "hf_guest")
"""The first may read everything, the second no gated repository."""

SIGNATURE = "X-Amz-Signature=secret-of-the-address"


@dataclass
class Repo:
    """Files by branch, tag or commit; a branch is a commit of its own."""

    revisions: dict[str, dict[str, bytes]]
    large: set[str] = field(default_factory=set)
    is_private: bool = False
    is_gated: bool = False

    def commit(self, revision: str) -> str | None:
        """The hash of a revision's files, which may also be given by that hash."""
        hashes = {name: self._hash(files) for name, files in self.revisions.items()}
        return hashes.get(revision) or (revision if revision in hashes.values() else None)

    def files(self, commit: str) -> dict[str, bytes]:
        return next(files for files in self.revisions.values() if self._hash(files) == commit)

    @staticmethod
    def _hash(files: dict[str, bytes]) -> str:
        return hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()


@dataclass(frozen=True)
class Request:
    """What came: to "hub" or "storage"."""

    host: str
    path: str
    headers: dict[str, str]


Fault = Callable[["_Handler", bytes], None]
"""Answers the request for a file's bytes in its own way."""


class HubServer:
    """Two servers on this machine, until `close`."""

    def __init__(self) -> None:
        self.repos: dict[tuple[str, str], Repo] = {}
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        """Taken one by one, each by the next request for a file's bytes."""
        self.listing: Callable[[dict[str, Any]], Any] = lambda document: document
        """Changes what the hub says a repository holds; bytes are sent as they are."""
        self.ignores_ranges = False
        self._servers = {host: self._serve(host) for host in ("hub", "storage")}

    def _serve(self, host: str) -> ThreadingHTTPServer:
        handler = type("Handler", (_Handler,), {"hub": self, "host": host})
        server = _Server(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return server

    def url(self, host: str = "hub") -> str:
        return f"http://127.0.0.1:{self._servers[host].server_address[1]}"

    def add(self, repo_id: str, files: dict[str, bytes], repo_type: str = "model", **settings: Any) -> Repo:
        repo = self.repos[repo_type, repo_id] = Repo({"main": files}, **settings)
        return repo

    def ranges(self, name: str) -> list[str | None]:
        """Of each request for a file's bytes that was answered with bytes, the range asked for."""
        paths = "/api/resolve-cache/", "/storage/"
        return [
            r.headers.get("range")
            for r in self.requests
            if r.path.startswith(paths) and unquote(urlsplit(r.path).path).endswith(f"/{name}")
        ]

    def close(self) -> None:
        for server in self._servers.values():
            server.shutdown()
            server.server_close()


def git_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def cut(after: int) -> Fault:
    """Announce all of the bytes, and close the connection after some."""

    def answer(handler: _Handler, data: bytes) -> None:
        handler.begin(data)
        handler.wfile.write(handler.asked_for(data)[:after])
        handler.close_connection = True

    return answer


def slow(step: int, pause_s: float) -> Fault:
    """Send a step at a time."""

    def answer(handler: _Handler, data: bytes) -> None:
        handler.begin(data)
        rest = handler.asked_for(data)
        for start in range(0, len(rest), step):
            handler.wfile.write(rest[start : start + step])
            time.sleep(pause_s)

    return answer


def status(number: int, **headers: str) -> Fault:
    """Refuse."""
    return lambda handler, data: handler.refuse(number, "", "", **headers)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # a client that was killed
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    host: str
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        self.hub.requests.append(Request(self.host, self.path, {k.lower(): v for k, v in self.headers.items()}))
        self._storage() if self.host == "storage" else self._hub()

    do_HEAD = do_GET

    def _hub(self) -> None:
        token = self.headers.get("authorization", "").removeprefix("Bearer ")
        if token.startswith("Basic "):  # a proxy's, from the address
            token = ""
        if token and token not in TOKENS:
            self.refuse(401, "", "Invalid credentials in Authorization header")
            return
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        if parts[:2] == ["api", "resolve-cache"]:
            repo_type, (owner, name, revision), path = parts[2][:-1], parts[3:6], "/".join(parts[6:])
        elif parts[0] == "api":
            repo_type, (owner, name), path = parts[1][:-1], parts[2:4], "/".join(parts[4:])
            revision = path.removeprefix("revision/") if path != "refs" else "main"
        else:
            repo_type = "dataset" if parts[0] == "datasets" else "model"
            owner, name, _, revision, *rest = parts[repo_type == "dataset" :]
            path = "/".join(rest)
        repo = self.hub.repos.get((repo_type, f"{owner}/{name}"))
        if repo is None or (repo.is_private and not token):
            self.refuse(404 if token else 401, "RepoNotFound", "Repository not found")
        elif (commit := repo.commit(revision or "main")) is None:
            self.refuse(404, "RevisionNotFound", "Invalid rev id")
        elif parts[0] == "api" and parts[1] != "resolve-cache":
            self._api(repo, f"{owner}/{name}", commit, is_refs=path == "refs")
        elif repo.is_gated and token != TOKENS[0]:
            self.refuse(403 if token else 401, "GatedRepo", f"Access to {owner}/{name} is restricted")
        elif path not in repo.files(commit):
            self.refuse(404, "EntryNotFound", "Entry not found")
        else:
            data = repo.files(commit)[path]
            known = {"X-Repo-Commit": commit, "ETag": f'"{git_id(data)}"'}
            place = f"{owner}/{name}/{commit}/{quote(path)}"
            if parts[1] == "resolve-cache":
                self._send(data, **known)
            elif path in repo.large:
                known |= {"X-Linked-ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Linked-Size": str(len(data))}
                self.redirect(302, f"{self.hub.url('storage')}/storage/{repo_type}/{place}?{SIGNATURE}", **known)
            else:
                self.redirect(307, f"/api/resolve-cache/{repo_type}s/{place}", **known)

    def _api(self, repo: Repo, repo_id: str, commit: str, *, is_refs: bool) -> None:
        if is_refs:
            named = [{"name": n, "ref": f"refs/{n}", "targetCommit": repo.commit(n)} for n in repo.revisions]
            self.send_json({"branches": named[:1], "tags": named[1:], "converts": []})
            return
        siblings: list[dict[str, Any]] = [{"rfilename": name} for name in repo.files(commit)]
        if "blobs" in parse_qs(urlsplit(self.path).query):
            for sibling in siblings:
                data = repo.files(commit)[sibling["rfilename"]]
                sibling |= {"size": len(data), "blobId": git_id(data)}
                if sibling["rfilename"] in repo.large:  # git has a pointer there
                    sha256 = hashlib.sha256(data).hexdigest()
                    sibling |= {"lfs": {"sha256": sha256, "size": len(data), "pointerSize": 134}, "blobId": "0" * 40}
        self.send_json(self.hub.listing({"id": repo_id, "sha": commit, "siblings": siblings}))

    def _storage(self) -> None:
        if "authorization" in self.headers or SIGNATURE not in self.path:
            self.refuse(400, "", "Only one auth mechanism allowed")
            return
        _, repo_type, owner, name, commit, *rest = urlsplit(self.path).path.strip("/").split("/")
        self._send(self.hub.repos[repo_type, f"{owner}/{name}"].files(commit)[unquote("/".join(rest))])

    def _send(self, data: bytes, **headers: str) -> None:
        if self.hub.faults and self.command == "GET":
            self.hub.faults.pop(0)(self, data)
            return
        if self._start() and self._start() >= len(data):
            self.refuse(416, "", "Range not satisfiable")
            return
        self.begin(data, **headers)
        if self.command == "GET":
            self.wfile.write(self.asked_for(data))

    def _start(self) -> int:
        asked = self.headers.get("range", "")
        return 0 if self.hub.ignores_ranges or not asked else int(asked.removeprefix("bytes=").removesuffix("-"))

    def asked_for(self, data: bytes) -> bytes:
        return data[self._start() :]

    def begin(self, data: bytes, **headers: str) -> None:
        start = self._start()
        self.send_response(206 if start else 200)
        for name, value in headers.items():
            self.send_header(name, value)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()

    def redirect(self, number: int, location: str, **headers: str) -> None:
        self.send_response(number)
        for name, value in {"Location": location, **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def send_json(self, document: Any) -> None:
        data = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def refuse(self, number: int, code: str, message: str, **headers: str) -> None:
        self.send_response(number)
        for name, value in {"X-Error-Code": code, "X-Error-Message": message, **headers}.items():
            if value:
                self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()
