"""A small hub on this machine: the parts of the Hugging Face Hub's HTTP interface that uploads and downloads use."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

TOKEN = "hf_" + "secret" * 6  # may write, and may read what is private


@dataclass
class Repository:
    """branches: files by path, for each branch. tampered: content that is served instead of a file's own."""

    private: bool = False
    gated: bool = False
    branches: dict[str, dict[str, bytes]] = field(default_factory=lambda: {"main": {}})
    tampered: dict[str, bytes] = field(default_factory=dict)

    def commit(self, branch: str) -> str:
        """A hash of 40 digits of a branch's content."""
        files = sorted((path, hashlib.sha1(content).digest()) for path, content in self.branches[branch].items())
        return hashlib.sha1(repr(files).encode()).hexdigest()

    def files(self, revision: str) -> dict[str, bytes] | None:
        named = [branch for branch in self.branches if revision in (branch, self.commit(branch))]
        return self.branches[named[0]] if named else None


@dataclass
class Hub:
    """address: for HF_ENDPOINT. uploaded: contents by SHA-256. requests: method and path of each."""

    address: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    uploaded: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)


class RefusedError(Exception):
    """status: of HTTP. code: as in the hub's header X-Error-Code."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(code)
        self.status, self.code = status, code


class _Handler(BaseHTTPRequestHandler):
    """Each method answers a route: it gets the request's body and what the route's pattern found."""

    hub: Hub

    def log_message(self, *_: Any) -> None:
        """Print nothing."""

    def route(self) -> None:
        path, body = unquote(urlsplit(self.path).path), self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.hub.requests.append(f"{self.command} {path}")
        answers = [(found, name) for pattern, name in _ROUTES.items() if (found := re.fullmatch(pattern, path))]
        try:
            if not answers:
                raise RefusedError(404, "EntryNotFound")
            found, name = answers[0]
            self.answer(getattr(self, name)(body, *found.groups()))
        except RefusedError as error:
            self.answer(
                {"error": error.code, "url": f"{self.hub.address}/alice/old"},
                error.status,
                X_Error_Code=error.code,
                X_Error_Message=error.code,
            )

    do_GET = do_HEAD = do_POST = do_PUT = route  # noqa: N815

    def answer(self, content: Any, status: int = 200, **headers: str) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers, **self.extra}.items():
            self.send_header(name.replace("_", "-"), value)
        self.extra = {}
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def setup(self) -> None:
        super().setup()
        self.extra: dict[str, str] = {}  # headers of the next answer

    def check_writing(self) -> None:
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            raise RefusedError(401, "Unauthorized")

    def repository(self, name: str) -> Repository:
        found, known = self.hub.repositories.get(name), self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if found is None or (found.private and not known):
            raise RefusedError(404 if known else 401, "RepoNotFound")
        if found.gated:
            raise RefusedError(403, "GatedRepo")
        return found

    def files(self, name: str, revision: str) -> dict[str, bytes]:
        files = self.repository(name).files(revision)
        if files is None:
            raise RefusedError(404, "RevisionNotFound")
        return files

    def create(self, body: bytes) -> Any:
        wanted = json.loads(body)
        self.check_writing()
        if wanted.get("organization") not in (None, "alice"):
            raise RefusedError(403, "you may not create a model in this namespace")
        name = f"alice/{wanted['name']}"
        if name in self.hub.repositories:
            raise RefusedError(409, "it exists")
        private = wanted.get("private") or wanted.get("visibility") == "private"
        self.hub.repositories[name] = Repository(private=bool(private))
        return {"url": f"{self.hub.address}/{name}"}

    def validate(self, body: bytes) -> Any:
        assert json.loads(body)["content"].startswith("---\n")
        return {"warnings": [], "errors": []}

    def info(self, _: bytes, name: str, revision: str = "main") -> Any:
        files, repository = self.files(name, revision), self.hub.repositories[name]
        branch = next(branch for branch, content in repository.branches.items() if content is files)
        siblings = [{"rfilename": path} for path in files]
        return {"id": name, "sha": repository.commit(branch), "private": repository.private, "siblings": siblings}

    def tree(self, _: bytes, name: str, revision: str) -> Any:
        return [_entry(path, content) for path, content in self.files(name, revision).items()]

    def branch(self, _: bytes, name: str, branch: str) -> Any:
        self.check_writing()
        branches = self.repository(name).branches
        if branch in branches:
            raise RefusedError(409, "it exists")
        branches[branch] = dict(branches["main"])
        return {}

    def preupload(self, body: bytes, name: str, revision: str) -> Any:
        self.files(name, revision)
        paths = [one["path"] for one in json.loads(body)["files"]]
        modes = ["lfs" if path.endswith(".safetensors") else "regular" for path in paths]
        one = [{"path": path, "uploadMode": mode} for path, mode in zip(paths, modes, strict=True)]
        return {"files": [{**file, "shouldIgnore": False} for file in one]}

    def batch(self, body: bytes, _: str) -> Any:
        objects = json.loads(body)["objects"]
        for one in objects:
            one["actions"] = {"upload": {"href": f"{self.hub.address}/lfs/{one['oid']}"}}
        return {"transfer": "basic", "objects": objects}

    def put(self, body: bytes, oid: str) -> Any:
        assert hashlib.sha256(body).hexdigest() == oid
        self.hub.uploaded[oid] = body
        return {}

    def commit(self, body: bytes, name: str, revision: str) -> Any:
        self.check_writing()
        files = self.files(name, revision)
        for line in map(json.loads, body.decode().splitlines()):
            match line["key"], line["value"]:
                case "file", {"path": path, "content": content}:
                    files[path] = base64.b64decode(content)
                case "lfsFile", {"path": path, "oid": oid}:
                    files[path] = self.hub.uploaded[oid]
                case "deletedFile", {"path": path}:
                    del files[path]
        commit = self.hub.repositories[name].commit(revision)
        return {"commitUrl": f"{self.hub.address}/{name}/commit/{commit}", "commitOid": commit}

    def resolve(self, _: bytes, name: str, revision: str, path: str) -> Any:
        files = self.files(name, revision)
        if path not in files:
            raise RefusedError(404, "EntryNotFound")
        size, etag = str(len(files[path])), hashlib.sha256(files[path]).hexdigest()
        self.extra = {"X-Repo-Commit": revision, "ETag": f'"{etag}"', "Content-Length": size}
        return self.hub.repositories[name].tampered.get(path, files[path])


_NAME = r"([\w.-]+/[\w.-]+)"
_ROUTES = {
    "/api/repos/create": "create",
    "/api/validate-yaml": "validate",
    f"/api/models/{_NAME}": "info",
    f"/api/models/{_NAME}/revision/(.+)": "info",
    f"/api/models/{_NAME}/tree/([^/]+)": "tree",
    f"/api/models/{_NAME}/branch/(.+)": "branch",
    f"/api/models/{_NAME}/preupload/(.+)": "preupload",
    f"/api/models/{_NAME}/commit/(.+)": "commit",
    f"/{_NAME}.git/info/lfs/objects/batch": "batch",
    "/lfs/(.+)": "put",
    f"/{_NAME}/resolve/([^/]+)/(.+)": "resolve",
}


def _entry(path: str, content: bytes) -> dict[str, Any]:
    size, digest = len(content), hashlib.sha256(content).hexdigest()
    lfs = {"lfs": {"size": size, "oid": digest, "pointerSize": 134}} if path.endswith(".safetensors") else {}
    return {"type": "file", "path": path, "size": size, "oid": hashlib.sha1(content).hexdigest(), **lfs}


@contextmanager
def fake_hub(monkeypatch: pytest.MonkeyPatch, cache: Any) -> Iterator[Hub]:
    """A hub that huggingface_hub reaches through HF_ENDPOINT, with a cache and a token of its own."""
    from huggingface_hub import constants

    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setenv("HF_ENDPOINT", hub.address)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # the fake hub stores large files as Git LFS does
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
