"""Repositories that demand a membership: without a helper that proves it, nobody but root reads them."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cvmfs_graphdriver.client.administration.checkup import Level, check_repository
from cvmfs_graphdriver.planes.service.request import MountRequest
from cvmfs_graphdriver.planes.service.spawn import spawn
from cvmfs_graphdriver.publisher.transaction import Transaction
from tests.support.entries import file
from tests.support.mounts import end, pids_serving, wait_until
from tests.support.published import Published, published

pytestmark = pytest.mark.root

DEMANDED = "example.org:/example/group"


def restrict(repository: Published) -> None:
    with Transaction(repository.repository) as transaction:
        root = transaction._catalogs._owner(b"").writer
        root.set_property("voms_authz", DEMANDED)
        transaction.ingest(b"/secret", [file("/f", b"secret")])
        transaction.publish()


def as_nobody(*paths: Path) -> list[str]:
    """What an ordinary user gets who reads these: the content, or the name of the error."""
    program = (
        "import errno, sys\n"
        "for path in sys.argv[1:]:\n"
        "    try: print(open(path).read())\n"
        "    except OSError as error: print(errno.errorcode[error.errno])\n"
    )
    command = [sys.executable, "-c", program, *map(str, paths)]
    return subprocess.run(
        command, user=65534, group=65534, extra_groups=[], capture_output=True, text=True, check=True
    ).stdout.split()


@pytest.fixture
def open_to_all(tmp_path: Path) -> Path:
    """A directory that everybody can reach, to mount at."""
    for directory in (tmp_path, *tmp_path.parents[:2]):
        directory.chmod(0o755)
    target = tmp_path / "mnt"
    target.mkdir()
    return target


def test_only_root_reads_it(tmp_path: Path, open_to_all: Path) -> None:
    with published(tmp_path) as repository:
        restrict(repository)
        spawn(MountRequest(repository.fqrn, open_to_all, repository.etc))
        try:
            secret = open_to_all / "secret/f"
            assert as_nobody(secret, open_to_all / "nothing") == ["EACCES", "EACCES"]
            assert secret.read_text() == "secret"
            assert as_nobody(secret) == ["EACCES"], "what the kernel has in its cache"
            assert "user.authz" in os.listxattr(open_to_all)
            assert os.getxattr(open_to_all, "user.authz") == DEMANDED.encode()
        finally:
            end(open_to_all)
        (finding,) = [
            one for one in check_repository(repository.fqrn, repository.etc) if "membership" in one.what
        ]
        assert finding.level is Level.WARNING
        assert DEMANDED in finding.what
        assert "\n" not in finding.what


def test_a_mount_for_everybody_never_shows_it(tmp_path: Path, open_to_all: Path) -> None:
    with published(tmp_path, ttl=1) as repository:
        repository.publish({b"/open": [file("/f", b"open")]})
        spawn(MountRequest(repository.fqrn, open_to_all, repository.etc, {"CVMFS_TIMEOUT_DIRECT": "1"}))
        try:
            assert as_nobody(open_to_all / "open/f") == ["open"]
            assert "user.authz" not in os.listxattr(open_to_all)
            with pytest.raises(OSError, match=os.strerror(errno.ENODATA)):
                os.getxattr(open_to_all, "user.authz")
            served = pids_serving(open_to_all)
            restrict(repository)
            wait_until(lambda: pids_serving(open_to_all) != served, 60)
            assert as_nobody(open_to_all / "secret/f") in (["EIO"], ["ENOENT"])
            end(open_to_all)
            spawn(MountRequest(repository.fqrn, open_to_all, repository.etc))
            assert (open_to_all / "secret/f").read_text() == "secret"
            assert as_nobody(open_to_all / "secret/f") == ["EACCES"]
        finally:
            end(open_to_all)
