"""The publisher service, as a process, with a real S3 store in which everything is."""

import gzip
import hashlib
import io
import os
import random
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
import urllib3

from cvmfs_graphdriver.publisher.care.check import RepositoryCheck
from cvmfs_graphdriver.publisher.creation import create_repository
from cvmfs_graphdriver.publisher.keyring import load_master_public_keys
from cvmfs_graphdriver.publisher.repository import Repository
from cvmfs_graphdriver.publisher.storage.bucket import Bucket
from cvmfs_graphdriver.publisher.storage.upstream import create_storage, storage_at
from cvmfs_graphdriver.publisher.transaction import Transaction
from demo.seaweed import Seaweed
from tests.support.tars import tar_of

FQRN = "images.example.org"
KILLS = int(os.environ.get("KILLS", "8"))
"""How many times the service is killed; 50 and more for a long night."""


@dataclass(slots=True)
class Site:
    storage: Path
    keys: Path
    uploads: Path
    bucket: Bucket
    url: str = ""

    @contextmanager
    def service(self, *options: str) -> Iterator["subprocess.Popen[bytes]"]:
        command = [
            *(sys.executable, "-c", "from cvmfs_graphdriver.cli.main import main; main()"),
            *("publisher", "serve", FQRN, "--storage", str(self.storage), "--keys", str(self.keys)),
            *("--uploads", str(self.uploads), "--port", "0", *options),
        ]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            try:
                assert process.stdout is not None
                self.url = process.stdout.readline().decode().strip()
                assert self.url
                yield process
            finally:
                process.terminate()

    def upload(self, data: bytes, name: str = "") -> str:
        name = name or hashlib.sha256(data).hexdigest()
        self.bucket.put(name, io.BytesIO(data), len(data), "application/x-tar", {})
        return name

    def status(self, name: str) -> str:
        reply = urllib3.request("GET", f"{self.url}/status/{name}", retries=False, timeout=20.0)
        assert reply.status == 200, reply.data
        return reply.data.decode()

    def notify(self) -> None:
        assert urllib3.request("POST", self.url, json={"Records": []}, retries=False).status == 200

    def await_status(self, name: str, wanted: str) -> str:
        deadline = time.monotonic() + 30
        while not (status := self.status(name)).startswith(wanted):
            assert status in {"publishing", "unknown"}, status
            assert time.monotonic() < deadline, status
            time.sleep(0.05)
        return status

    def repository(self) -> Repository:
        return Repository.open(FQRN, storage_at(self.storage, FQRN), self.keys)

    def has(self, name: str) -> bool:
        with Transaction(self.repository(), wait=20) as transaction:
            return transaction.lookup(b"/layers/" + name.encode()) is not None

    def findings(self) -> list[str]:
        keys = load_master_public_keys(FQRN, self.keys)
        return list(RepositoryCheck(storage_at(self.storage, FQRN), FQRN, keys, now=datetime.now(UTC)).run())


@pytest.fixture
def site(tmp_path: Path, s3: Seaweed) -> Site:
    storage, keys = s3.configuration(f"b{secrets.token_hex(6)}"), tmp_path / "keys"
    create_repository(FQRN, create_storage(storage, FQRN), keys)
    uploads = s3.configuration(f"layers-{secrets.token_hex(6)}")
    text = uploads.read_text()
    name = text.partition("BUCKET=")[2].partition("\n")[0]
    return Site(storage, keys, uploads, s3.bucket(name))


def layer(text: str) -> bytes:
    return tar_of(("etc/", None), ("etc/file", text.encode()))


def test_good_and_bad_uploads(site: Site) -> None:
    plain, packed = layer("plain"), gzip.compress(layer("packed"), mtime=0)
    broken = b"no tar at all" * 100
    upwards = tar_of(("../../etc/passwd", b"x"))
    with site.service("--interval", "600", "--limit", "1"):
        good = [site.upload(plain), site.upload(packed)]
        bad = {
            site.upload(plain, "0" * 64): "does not match its name",
            site.upload(broken): "",
            site.upload(upwards): "",
            site.upload(random.Random(0).randbytes(2 << 20)): "exceeds the limit of 1048576 bytes",
        }
        other = site.upload(b"not ours", "README")
        never = "f" * 64
        assert site.status(never) == "unknown"
        assert site.status("no-hash") == "unknown"
        assert site.status(good[0]) in {"publishing", "done"}
        site.notify()
        for name in good:
            assert site.await_status(name, "done") == "done"
        for name, words in bad.items():
            assert words in site.await_status(name, "failed: ")
        deadline = time.monotonic() + 20
        while [each.key for each in site.bucket.objects("")] != [other]:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        again = site.upload(plain)  # is there already
        site.notify()
        assert site.status(again) == "done"
    assert site.findings() == []


def test_requests_that_make_no_sense(site: Site) -> None:
    with site.service() as process:
        assert urllib3.request("GET", f"{site.url}/", retries=False).status == 404
        reply = urllib3.request(
            "POST", site.url, headers={"Content-Length": "9999999"}, body=b"", retries=False
        )
        assert reply.status == 413
        process.terminate()
        assert process.wait(timeout=20) == 0


def test_a_service_that_is_killed_anywhere_loses_nothing(site: Site) -> None:
    dice = random.Random(3)
    names = []
    for number in range(KILLS):
        names += [site.upload(layer(f"{number}.{each}" * 1000)) for each in range(3)]
        names.append(site.upload(tar_of(("big", dice.randbytes(3_000_000)))))
        with site.service() as process:
            time.sleep(dice.uniform(0, 0.4))
            process.send_signal(signal.SIGKILL)
        assert site.findings() == []
    with site.service("--interval", "1"):
        for name in names:
            site.await_status(name, "done")
    assert all(site.has(name) for name in names[:4])
    assert list(site.bucket.objects("")) == []
    assert site.findings() == []


def test_the_store_goes_away_for_a_while(site: Site, s3: Seaweed) -> None:
    with site.service("--interval", "0.5"):
        s3.kill()
        reply = urllib3.request("GET", f"{site.url}/status/{'0' * 64}", retries=False, timeout=30.0)
        assert reply.status == 503
        assert b"check that the S3 store is running" in reply.data
        s3.start()
        name = site.upload(layer("later"))
        site.await_status(name, "done")
