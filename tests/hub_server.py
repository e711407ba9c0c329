"""A small Hugging Face Hub for tests: the HTTP API that huggingface_hub uses to create, upload, list and download.

It keeps repositories in memory with their commits, branches and who may see them, stores large files by Git LFS as the
real one does, and can damage downloads and refuse uploads on request (`server.fault`). Set HF_ENDPOINT to `server.url`
before huggingface_hub is imported, and HF_HUB_DISABLE_XET=1 (it does not speak Xet), and run it with `with server:`.
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
READER = "hf_reader"  # may read what is public, and write nothing
USER = "tester"
LFS_SUFFIXES = (".safetensors", ".bin", ".parquet", ".tar")


@dataclass
class Repo:
    """One repository: the files and the hash of the last commit of `main`, earlier commits, and other branches."""

    files: dict[str, bytes] = field(default_factory=dict)
    sha: str = "0" * 40
    private: bool = False
    gated: bool = False
    history: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, "Repo"] = field(default_factory=dict)

    def commit(self) -> str:
        digest = hashlib.sha1(self.sha.encode())
        for path, content in sorted(self.files.items()):
            digest.update(path.encode() + hashlib.sha256(content).digest())
        self.sha = digest.hexdigest()
        self.history[self.sha] = dict(self.files)
        return self.sha

    def branch(self, name: str) -> "Repo":
        return self if name == "main" else self.branches.setdefault(name, Repo(dict(self.files), self.sha))

    def at(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """Hash and files of a branch or a commit; None if there is none of that name."""
        if revision in ("main", self.sha):
            return self.sha, self.files
        if revision in self.branches:
            return self.branches[revision].at("main")
        commits = {sha: files for repo in (self, *self.branches.values()) for sha, files in repo.history.items()}
        return (revision, commits[revision]) if revision in commits else None


class HubServer:
    """The server, running in a thread.

    Attributes:
        url: Its address.
        repos: Repositories by id.
        requests: Method and path of each request so far.
        fault: What goes wrong. With downloads of files stored by LFS: "cut_once" and "cut" (half of what is left),
            "nothing" (no byte at all), "short" (fewer bytes than the metadata say), "wrong_bytes", "wrong_hash".
            With everything: "busy" (503). With uploads to LFS: "refuse_upload".
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
        self.may_see_all = token == TOKEN
        if self.hub.fault == "busy":
            return self.error(503, "", "Service unavailable")
        if token not in ("", TOKEN, READER) and not path.startswith("/lfs/"):
            return self.error(401, "", "Invalid credentials in Authorization header")
        if method in ("POST", "PUT") and token != TOKEN and not path.startswith("/lfs/"):
            return self.error(403 if token else 401, "", "A token that may write is needed")
        for verb, pattern, action in ROUTES:
            match = re.fullmatch(pattern, path)
            if match and (verb == method or (verb == "GET" and method == "HEAD")):
                return getattr(self, action)(**match.groupdict())
        return self.error(404, "", f"no such endpoint: {method} {path}")

    # Answers

    def json(self, value: object, status: int = 200) -> None:
        self.send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def error(self, status: int, code: str, message: str) -> None:
        self.send(status, b"{}", {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {}))

    def send(self, status: int, content: bytes, headers: dict[str, str], sent: bytes | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content if sent is None else sent)

    def repo(self, name: str) -> Repo | None:
        repo = self.hub.repos.get(name)
        if repo is None or (repo.private and not self.may_see_all):
            sent = "Authorization" in self.headers
            self.error(404 if sent else 401, "RepoNotFound", "Repository not found")  # as to who it should not know
            return None
        return repo

    def commit_of(self, name: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        repo = self.repo(name)
        if repo is None:
            return None
        found = repo.at(revision)
        if found is None:
            self.error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return found

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
        if self.commit_of(name, revision) is None:
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

    def branch(self, name: str, branch: str) -> None:
        repo = self.repo(name)
        if repo is not None:
            if branch in ("main", *repo.branches):
                return self.error(409, "", "Reference already exists")
            repo.branch(branch)
            self.json({})

    def lfs_put(self, oid: str) -> None:
        if self.hub.fault == "refuse_upload":
            return self.error(403, "", "Storage limit reached")
        if hashlib.sha256(self.body).hexdigest() != oid:
            return self.error(400, "", "hash does not match")
        self.hub.lfs[oid] = self.body
        self.send(200, b"", {})

    def commit(self, name: str, revision: str) -> None:
        if self.commit_of(name, revision) is None:
            return
        repo = self.hub.repos[name].branch(revision)
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
        found = self.commit_of(name, revision)
        if found is None:
            return
        sha, files = found
        card = files.get("README.md", b"").decode()
        tags = dict(re.findall(r"^(pipeline_tag|library_name): (\S+)$", card, flags=re.MULTILINE))
        entry = {"_id": name, "id": name, "modelId": name, "sha": sha, "private": self.hub.repos[name].private}
        entry |= {"tags": [], "downloads": 0, "likes": 0, "siblings": [{"rfilename": path} for path in sorted(files)]}
        self.json(entry | tags)

    def tree(self, name: str, revision: str, folder: str | None = None) -> None:
        found = self.commit_of(name, revision)
        if found is None:
            return
        files = [
            {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
            for path, content in sorted(found[1].items())
            if folder is None or path.startswith(folder + "/")
        ]
        if folder is not None and not files:
            return self.error(404, "EntryNotFound", f"no folder {folder}")
        self.json(files)

    def resolve(self, name: str, revision: str, path: str) -> None:
        found = self.commit_of(name, revision)
        if found is None:
            return
        sha, files = found
        if self.hub.repos[name].gated and not self.may_see_all:
            return self.error(403, "GatedRepo", "Access to this model is restricted")
        if path not in files:
            return self.error(404, "EntryNotFound", f"no file {path}")
        content, large, fault = files[path], path.endswith(LFS_SUFFIXES), self.hub.fault
        etag = (hashlib.sha256 if large else hashlib.sha1)(content).hexdigest()
        if large and fault == "wrong_hash":
            etag = hashlib.sha256(content + b"!").hexdigest()
        headers = {"X-Repo-Commit": sha, "ETag": f'"{etag}"', "Accept-Ranges": "bytes"}
        if large:
            headers |= {"X-Linked-Size": str(len(content)), "X-Linked-Etag": f'"{etag}"'}
        status, first = 200, 0
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked:
            status, first = 206, int(asked[1])
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        content = content[first:]
        sent = content
        if large and self.command == "GET" and fault == "short":
            content = sent = content[:-8]
        elif large and self.command == "GET" and fault is not None:
            sent = self.damaged(content)
        self.send(status, content, headers, sent)

    def damaged(self, content: bytes) -> bytes:
        fault = self.hub.fault
        if fault == "wrong_bytes":
            return content[:-8] + bytes(byte ^ 1 for byte in content[-8:])
        if fault not in ("cut_once", "cut", "nothing"):
            return content
        if fault == "cut_once":
            self.hub.fault = None
        self.close_connection = True
        return b"" if fault == "nothing" else content[: len(content) // 2]


_NAME = r"(?P<name>[^/]+/[^/]+)"
ROUTES = (
    ("GET", "/api/whoami-v2", "whoami"),
    ("POST", "/api/repos/create", "create"),
    ("POST", "/api/validate-yaml", "validate"),
    ("POST", f"/api/models/{_NAME}/preupload/(?P<revision>[^/]+)", "preupload"),
    ("POST", f"/api/models/{_NAME}/commit/(?P<revision>[^/]+)", "commit"),
    ("POST", f"/api/models/{_NAME}/branch/(?P<branch>[^/]+)", "branch"),
    ("POST", rf"/{_NAME}\.git/info/lfs/objects/batch", "lfs_batch"),
    ("PUT", "/lfs/(?P<oid>[0-9a-f]{64})", "lfs_put"),
    ("GET", f"/api/models/{_NAME}", "info"),
    ("GET", f"/api/models/{_NAME}/revision/(?P<revision>[^/]+)", "info"),
    ("GET", f"/api/models/{_NAME}/tree/(?P<revision>[^/]+)(?:/(?P<folder>.+))?", "tree"),
    ("GET", f"/{_NAME}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "resolve"),
)
