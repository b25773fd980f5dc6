"""A process that publishes one revision after the other, each with a file that tells its number."""

import os
import subprocess
import sys
from pathlib import Path

from tests.support.project import PROJECT

__all__ = ["endless_publisher"]

_PROGRAM = """
import sys, random
from pathlib import Path
from cvmfs_graphdriver.publisher.ingest import objects
from cvmfs_graphdriver.publisher.repository import Repository
from cvmfs_graphdriver.publisher.transaction import Transaction
from cvmfs_graphdriver.publisher.storage.upstream import storage_at
from tests.support.entries import file
from tests.support.storage_site import FQRN
objects._WORTH_WORKERS = int(sys.argv[3])
repository = Repository.open(FQRN, storage_at(Path(sys.argv[1]), FQRN), Path(sys.argv[2]))
print("ready", flush=True)
while True:
    with Transaction(repository, wait=10) as transaction:
        number = repository.manifest().revision + 1
        content = random.Random(number).randbytes(20_000)
        files = [file(f"/{name}", b"%d %d" % (number, name) + content) for name in range(30)]
        transaction.ingest(b"/layers/%d" % (number % 3), [file("/number", b"%d" % number), *files])
        transaction.publish()
"""


def endless_publisher(place: Path, keys: Path, workers: int, **environment: str) -> "subprocess.Popen[bytes]":
    """Start it, for the storage at ``place``; it is about to publish when this returns.

    ``workers`` is from how many bytes on worker processes are used.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, str(place), str(keys), str(workers)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=PROJECT,
        env={**os.environ, **environment},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process
