"""The process that fetches ahead is started while somebody waits: it imports what it needs, and no more."""

import subprocess
import sys

OURS = "cvmfs_graphdriver"


def test_the_worker_does_not_import_what_evaluates_configuration() -> None:
    command = f"import {OURS}.client.objects.prefetch_worker, sys; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", command], stdout=subprocess.PIPE, check=True, timeout=60)
    imported = set(found.stdout.decode().split())
    assert f"{OURS}.client.cache.arrival" in imported
    configuration = {name for name in imported if name.startswith(f"{OURS}.client.configuration.")}
    assert configuration == {f"{OURS}.client.configuration.network"}
    spared = ("shell", "client.client", "client.config_repository", "client.tree", "client.pac", "planes")
    assert not [name for name in imported if name.startswith(tuple(f"{OURS}.{each}" for each in spared))]
    assert not imported & {"pickle", "json", "subprocess"}
