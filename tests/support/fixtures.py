"""Repositories published by a real server, unpacked and served on loopback, with faults on demand."""

import json
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from cvmfs_graphdriver.client.config_repository import load_settings
from cvmfs_graphdriver.client.configuration.settings import RepositorySettings
from cvmfs_graphdriver.repository.compression import decompress
from cvmfs_graphdriver.repository.digest import ObjectName
from cvmfs_graphdriver.repository.trust.keys import PublicKey, load_public_keys
from tests.support.http_server import QuietServer, in_thread
from tests.support.project import FIXTURES, require_fixtures

__all__ = ["NAMES", "Answer", "Server", "UnpackedRepository", "serve", "unpack"]

NAMES = sorted(path.parent.name for path in FIXTURES.glob("*/fqrn"))
Answer = Callable[[BaseHTTPRequestHandler], bool]
"""Answers a request itself and returns True, or returns False to leave it to the server."""


class Server(QuietServer):
    """Serves a directory by HTTP/1.1 with keep-alive and ranges; counts requests by path."""

    block_on_close = False
    request_queue_size = 128

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root = root
        self.requests: Counter[str] = Counter()
        self.headers: list[dict[str, str]] = []
        self.faults: dict[str, Answer] = {}
        """Answers by path; the path ``*`` is for all others."""
        self.connections: set[Any] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.connections.discard(request)
        super().shutdown_request(request)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        path = unquote(self.path).removeprefix(self.server.url)
        self.server.requests[path] += 1
        self.server.headers.append(dict(self.headers))
        fault = self.server.faults.get(path) or self.server.faults.get("*")
        if fault is not None and fault(self):
            return
        file = self.server.root / path.lstrip("/")
        if ".." in path or not file.is_file():
            self.send_error(404)
            return
        self.reply(file.read_bytes())

    def reply(self, data: bytes) -> None:
        """Send ``data``, or the range of it that was asked for."""
        status = 200
        if span := self.headers.get("Range"):
            first, _, last = span.removeprefix("bytes=").partition("-")
            data = data[int(first) : int(last) + 1]
            status = 206
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def serve(root: Path) -> Iterator[Server]:
    """A server for ``root`` that ends with the block."""
    server = Server(root)
    with in_thread(server):
        yield server
    for connection in list(server.connections):
        connection.close()


class UnpackedRepository:
    """A fixture in a directory of its own, which tests may damage."""

    def __init__(self, name: str, directory: Path) -> None:
        self.source = require_fixtures() / name
        self.fqrn = (self.source / "fqrn").read_text().strip()
        self.directory = directory
        # Not by tarfile: Debian 12's cannot filter, and later ones warn if nobody does.
        archive = self.source / "repo.tar.gz"
        subprocess.run(["tar", "--extract", "--file", archive, "--directory", directory], check=True)
        self.root = directory / "cvmfs" / self.fqrn
        self.keys = sorted(self.source.glob("*.pub"))

    @property
    def public_keys(self) -> list[PublicKey]:
        """Those of the key files."""
        return [key for file in self.keys for key in load_public_keys(file.read_bytes())]

    def stored(self, name: str) -> bytes:
        """A file below the repository's root, as it is."""
        return (self.root / name).read_bytes()

    def content(self, name: ObjectName) -> bytes:
        """An object, decompressed."""
        return decompress(self.stored(name.path))

    @staticmethod
    def expected_of(name: str, tag: str = "") -> dict[str, Any]:
        """What the reference client saw in a fixture."""
        file = f"expected-{tag}.json" if tag else "expected.json"
        found: dict[str, Any] = json.loads((require_fixtures() / name / file).read_text())
        return found

    def settings(self, url: str, directory: Path, **overrides: str) -> RepositorySettings:
        """Settings of a client with its cache and /etc/cvmfs below ``directory``."""
        extra = self.source / "client-extra.conf"
        lines = [f"export {line}" for line in extra.read_text().splitlines()] if extra.exists() else []
        etc = directory / "etc"
        etc.mkdir(parents=True, exist_ok=True)
        port = url.rpartition(":")[2]
        values = {
            "CVMFS_SERVER_URL": f"{url}/cvmfs/@fqrn@",
            "CVMFS_HTTP_PROXY": "DIRECT",
            "CVMFS_PUBLIC_KEY": ":".join(map(str, self.keys)),
            "CVMFS_CACHE_BASE": str(directory / "cache"),
            "CVMFS_TIMEOUT": "2",
            "CVMFS_TIMEOUT_DIRECT": "2",
            "CVMFS_MAX_RETRIES": "0",
            **overrides,
        }
        lines += [f"{name}='{value}'" for name, value in values.items()]
        (etc / "default.local").write_text("\n".join(lines).replace("@PORT@", port) + "\n")
        return load_settings(self.fqrn, etc)


def unpack(name: str, directory: Path) -> UnpackedRepository:
    """Unpack a fixture below ``directory``."""
    if directory.exists():
        shutil.rmtree(directory)
    directory.mkdir(parents=True)
    return UnpackedRepository(name, directory)


def slowly(seconds: float) -> Answer:
    """An answer that never comes, for a while."""

    def answer(_: BaseHTTPRequestHandler) -> bool:
        time.sleep(seconds)
        return False

    return answer
