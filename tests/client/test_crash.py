"""A client that is killed at any instant leaves nothing wrong behind."""

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

from cvmfs_graphdriver.client.client import Client
from tests.client.tree.test_revision import read, walk
from tests.support.fixtures import serve, unpack

_KILLS = 20

_READER = """
import sys, time
from pathlib import Path
from cvmfs_graphdriver.client.client import Client
from cvmfs_graphdriver.client.config_repository import load_settings
client = Client(load_settings(sys.argv[1], Path(sys.argv[2])))
revision = client.mount()
print("mounted", flush=True)
waiting = [revision.top]
while waiting:
    for node in revision.children(waiting.pop()):
        if node.entry.is_directory:
            waiting.append(node)
        elif node.entry.is_regular:
            file = revision.open(node)
            file.fetch_all()
            file.close()
time.sleep(60)
"""


def test_killed_at_random_instants_during_cold_reads(tmp_path: Path) -> None:
    repository = unpack("lite-sha1-zlib", tmp_path / "repository")
    choose = random.Random(3)
    with serve(repository.directory) as server:
        settings = repository.settings(server.url, tmp_path)
        with closing(Client(settings)) as client:
            revision = client.mount()
            nodes = [*walk(revision, revision.top)]
            right = {node.path: read(revision, node) for node in nodes if node.entry.is_regular}
            inodes = {node.path: node.inode for node in nodes}
        for number in range(_KILLS):
            for path in settings.cache.directory.glob("[0-9a-f][0-9a-f]/*"):
                if number % 2 or choose.random() < 0.5:
                    path.unlink()
            process = subprocess.Popen(
                [sys.executable, "-c", _READER, repository.fqrn, str(tmp_path / "etc")],
                stdout=subprocess.PIPE,
            )
            assert process.stdout is not None
            with process.stdout:
                process.stdout.readline()
                time.sleep(choose.uniform(0, 0.1))
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
        with closing(Client(settings)) as client:
            revision = client.mount()
            for node in walk(revision, revision.top):
                assert inodes[node.path] == node.inode
                if node.entry.is_regular:
                    assert read(revision, node) == right[node.path]
            for _ in range(100):
                left = os.listdir(settings.cache.directory / "txn")
                if not left:
                    break
                time.sleep(0.02)
            assert not left
            assert client.cache.eviction is not None
            there = {digest for digest, _ in client.cache.objects()}
            assert {record.digest for record in client.cache.eviction.records()} == there
