"""A small Hugging Face Hub for tests: the HTTP API that huggingface_hub uses to create, upload, list and download.

It keeps repositories in memory, stores large files by Git LFS as the real one does, and can damage downloads on
request (`server.fault`). Set HF_ENDPOINT to `server.url` before huggingface_hub is imported, and HF_HUB_DISABLE_XET=1
(it does not speak Xet), and run it with `with server:`.
"""

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

TOKEN = "hf_test"
USER = "tester"
LFS_SUFFIXES = (".safetensors", ".bin", ".parquet", ".tar")


@dataclass
class Repo:
    """One repository: its files and the hash of its last commit."""

    files: dict[str, bytes] = field(default_factory=dict)
    sha: str = "0" * 40
    private: bool = False

    def commit(self) -> str:
        digest = hashlib.sha1(self.sha.encode())
        for path, content in sorted(self.files.items()):
            digest.update(path.encode() + hashlib.sha256(content).digest())
        self.sha = digest.hexdigest()
        return self.sha


class HubServer:
    """The server, running in a thread.

    Attributes:
        url: Its address.
        repos: Repositories by id.
        requests: Method and path of each request so far.
        fault: None, or "cut_once", "cut", "wrong_bytes", which damage downloads of files stored by LFS.
    """

    def __init__(self):
        self.repos: dict[str, Repo] = {}
        self.lfs: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.fault: str | None = None
        handler = type("Handler", (_Handler,), {"hub": self})
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        self.thread = threading.Thread(target=self.http.serve_forever, daemon=True)

    def __enter__(self) -> "HubServer":
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.route("GET")

    def do_HEAD(self) -> None:
        self.route("HEAD")

    def do_POST(self) -> None:
        self.route("POST")

    def do_PUT(self) -> None:
        self.route("PUT")

    def route(self, method: str) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{method} {path}")
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in ("", TOKEN) and not path.startswith("/lfs/"):
            return self.error(401, "RepoNotFound", "Invalid credentials")
        if method in ("POST", "PUT") and token != TOKEN and not path.startswith("/lfs/"):
            return self.error(401, "", "A token is needed to write")
        for verb, pattern, action in ROUTES:
            match = re.fullmatch(pattern, path)
            if match and (verb == method or (verb == "GET" and method == "HEAD")):
                return getattr(self, action)(**match.groupdict())
        return self.error(404, "", f"no such endpoint: {method} {path}")

    # Answers

    def json(self, value: object, status: int = 200) -> None:
        self.send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def error(self, status: int, code: str, message: str) -> None:
        self.send(status, b"{}", {"X-Error-Code": code, "X-Error-Message": message} if code else {})

    def send(self, status: int, content: bytes, headers: dict[str, str], sent: bytes | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content if sent is None else sent)

    def repo(self, name: str, revision: str = "main") -> Repo | None:
        repo = self.hub.repos.get(name)
        if repo is None:
            self.error(404, "RepoNotFound", f"no repository {name}")
        elif revision not in ("main", repo.sha):
            self.error(404, "RevisionNotFound", f"no revision {revision}")
            return None
        return repo

    # Endpoints

    def whoami(self) -> None:
        if not self.headers.get("Authorization"):
            return self.error(401, "", "no token")
        self.json(
            {"type": "user", "name": USER, "fullname": USER, "orgs": [], "auth": {"accessToken": {"role": "write"}}}
        )

    def create(self) -> None:
        asked = json.loads(self.body)
        name = f"{asked.get('organization') or USER}/{asked['name']}"
        if name in self.hub.repos:
            return self.json({"error": "You already created this repo", "url": f"{self.hub.url}/{name}"}, 409)
        self.hub.repos[name] = Repo(private=bool(asked.get("private")) or asked.get("visibility") == "private")
        self.json({"url": f"{self.hub.url}/{name}", "name": name, "id": name})

    def validate(self) -> None:
        self.json({"errors": [], "warnings": []})

    def preupload(self, name: str, revision: str) -> None:
        if self.repo(name, revision) is None:
            return
        files = json.loads(self.body)["files"]
        mode = {True: "lfs", False: "regular"}
        answers = [
            {"path": f["path"], "uploadMode": mode[f["path"].endswith(LFS_SUFFIXES)], "shouldIgnore": False}
            for f in files
        ]
        self.json({"files": answers})

    def lfs_batch(self, name: str) -> None:
        objects = []
        for asked in json.loads(self.body)["objects"]:
            entry = {"oid": asked["oid"], "size": asked["size"]}
            if asked["oid"] not in self.hub.lfs:
                entry["actions"] = {"upload": {"href": f"{self.hub.url}/lfs/{asked['oid']}", "header": {}}}
            objects.append(entry)
        self.json({"transfer": "basic", "objects": objects})

    def lfs_put(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            return self.error(400, "", "hash does not match")
        self.hub.lfs[oid] = self.body
        self.send(200, b"", {})

    def commit(self, name: str, revision: str) -> None:
        repo = self.repo(name, revision)
        if repo is None:
            return
        for line in filter(None, self.body.split(b"\n")):
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "file":
                repo.files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                repo.files[value["path"]] = self.hub.lfs[value["oid"]]
            elif item["key"] == "deletedFile":
                repo.files.pop(value["path"], None)
        sha = repo.commit()
        url = f"{self.hub.url}/{name}/commit/{sha}"
        self.json({"success": True, "commitOid": sha, "commitUrl": url, "hookOutput": "", "pullRequestUrl": None})

    def info(self, name: str, revision: str = "main") -> None:
        repo = self.repo(name, revision)
        if repo is None:
            return
        card = repo.files.get("README.md", b"").decode()
        tags = dict(re.findall(r"^(pipeline_tag|library_name): (\S+)$", card, flags=re.MULTILINE))
        siblings = [{"rfilename": path} for path in sorted(repo.files)]
        self.json(
            {
                "_id": name,
                "id": name,
                "modelId": name,
                "sha": repo.sha,
                "private": repo.private,
                "tags": [],
                "downloads": 0,
            }
            | {"likes": 0, "siblings": siblings}
            | tags
        )

    def tree(self, name: str, revision: str, folder: str | None = None) -> None:
        repo = self.repo(name, revision)
        if repo is None:
            return
        files = [
            {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
            for path, content in sorted(repo.files.items())
            if folder is None or path.startswith(folder + "/")
        ]
        if folder is not None and not files:
            return self.error(404, "EntryNotFound", f"no folder {folder}")
        self.json(files)

    def resolve(self, name: str, revision: str, path: str) -> None:
        repo = self.repo(name, revision)
        if repo is None:
            return
        if path not in repo.files:
            return self.error(404, "EntryNotFound", f"no file {path}")
        content = repo.files[path]
        large = path.endswith(LFS_SUFFIXES)
        etag = (hashlib.sha256 if large else hashlib.sha1)(content).hexdigest()
        headers = {"X-Repo-Commit": repo.sha, "ETag": f'"{etag}"', "Accept-Ranges": "bytes"}
        if large:
            headers |= {"X-Linked-Size": str(len(content)), "X-Linked-Etag": f'"{etag}"'}
        status, first = 200, 0
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked:
            status, first = 206, int(asked[1])
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        content = content[first:]
        sent = content
        if large and self.command == "GET" and self.hub.fault is not None:
            sent = self.damaged(content)
        self.send(status, content, headers, sent)

    def damaged(self, content: bytes) -> bytes:
        fault = self.hub.fault
        if fault == "wrong_bytes":
            return content[:-8] + bytes(byte ^ 1 for byte in content[-8:])
        if fault == "cut_once":
            self.hub.fault = None
        self.close_connection = True
        return content[: len(content) // 2]


_NAME = r"(?P<name>[^/]+/[^/]+)"
ROUTES = (
    ("GET", "/api/whoami-v2", "whoami"),
    ("POST", "/api/repos/create", "create"),
    ("POST", "/api/validate-yaml", "validate"),
    ("POST", f"/api/models/{_NAME}/preupload/(?P<revision>[^/]+)", "preupload"),
    ("POST", f"/api/models/{_NAME}/commit/(?P<revision>[^/]+)", "commit"),
    ("POST", rf"/{_NAME}\.git/info/lfs/objects/batch", "lfs_batch"),
    ("PUT", "/lfs/(?P<oid>[0-9a-f]{64})", "lfs_put"),
    ("GET", f"/api/models/{_NAME}", "info"),
    ("GET", f"/api/models/{_NAME}/revision/(?P<revision>[^/]+)", "info"),
    ("GET", f"/api/models/{_NAME}/tree/(?P<revision>[^/]+)(?:/(?P<folder>.+))?", "tree"),
    ("GET", f"/{_NAME}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "resolve"),
)
