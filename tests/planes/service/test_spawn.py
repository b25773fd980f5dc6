"""What a mount waits for: most of it is Python importing modules, so that nobody may add one unnoticed."""

import subprocess
import sys

import pytest

OURS = "cvmfs_graphdriver"


def imported_with(module: str) -> set[str]:
    command = f"import {module}, sys; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", command], stdout=subprocess.PIPE, check=True, timeout=60)
    return set(found.stdout.decode().split())


@pytest.mark.parametrize(
    ("module", "spared"),
    [
        # The figures are milliseconds that it would cost, on a machine on which a mount takes 120.
        (
            f"{OURS}.planes.service.keeper",
            {
                "cryptography.x509",  # 23
                "cryptography.hazmat.primitives.serialization",  # 10
                "_strptime",  # 5
                "logging.handlers",  # 4
                "subprocess",  # 3
                "shutil",  # 2
                "uuid",  # 2
                "difflib",
                "click",
                "http",
                "urllib3",
                "Crypto",
                "pacparser",
                "pycares",
                f"{OURS}.client.network.pac",
                f"{OURS}.client.administration.metrics",
                f"{OURS}.client.administration.status",
                f"{OURS}.kernel.overlay",
                f"{OURS}.planes.erofs.trigger",
                f"{OURS}.repository.history",
            },
        ),
        (
            f"{OURS}.cli.mount",
            # Of the client, only its errors.
            {
                f"{OURS}.planes.service.keeper",
                f"{OURS}.client.client",
                f"{OURS}.client.cache",
                f"{OURS}.client.configuration",
                f"{OURS}.client.network",
                f"{OURS}.client.objects",
                f"{OURS}.client.tree",
                f"{OURS}.repository",
                "pycurl",
            },
        ),
    ],
)
def test_what_is_not_needed_for_a_mount_is_not_imported(module: str, spared: set[str]) -> None:
    assert imported_with(module) & spared == set()
