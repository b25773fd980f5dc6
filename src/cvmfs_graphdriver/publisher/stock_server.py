"""What ``cvmfs_server`` keeps beside a repository that it publishes to, too: its spool directory.

Owns: the locks and the reflog's checksum there, and what its mount shows (CernVM-FS format reference,
sections 6.2 and 13.4). Must not know: what is published.

``in_transaction.lock`` exists while a transaction is open; ``is_publishing.lock`` counts only while the
process that it names is alive, or somebody has locked it by flock(2), depending on the server's version. We
take both, the latter first; so a publisher of ours that was killed leaves both with the same number in them.
"""

import contextlib
import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Self

from cvmfs_graphdriver.publisher.errors import BusyError, PublisherError, StorageError
from cvmfs_graphdriver.publisher.storage.assignments import Assignments
from cvmfs_graphdriver.repository.digest import Digest

__all__ = ["StockServer"]

_POLL: Final = 0.2
_CHECKSUM, _TRANSACTION, _PUBLISHING = "reflog.chksum", "in_transaction.lock", "is_publishing.lock"


class StockServer:
    """The spool directory of ``fqrn``, e.g. ``/var/spool/cvmfs/<fqrn>``."""

    def __init__(self, fqrn: str, spool: Path) -> None:
        self._fqrn = fqrn
        self._spool = spool

    @classmethod
    def load(cls, file: Path, fqrn: str) -> Self | None:
        """The one that a ``server.conf`` names, None if it names none.

        Raises StorageError: the file cannot be read or is another repository's, there is no such directory.
        """
        values = Assignments.load(file, "CVMFS_")
        if values.text("REPOSITORY_NAME", fqrn) != fqrn:
            values.refuse("REPOSITORY_NAME", f"this is not the configuration of {fqrn}")
        spool = values.text("SPOOL_DIR", "")
        if not spool:
            return None
        if not os.path.isdir(spool):
            values.refuse("SPOOL_DIR", f"there is no directory {spool}: run it where cvmfs_server publishes")
        return cls(fqrn, Path(spool))

    @contextlib.contextmanager
    def lock(self, *, wait: float) -> Iterator[None]:
        """Keep ``cvmfs_server`` out; waits up to ``wait`` seconds, then raises BusyError. StorageError."""
        deadline = time.monotonic() + wait
        with contextlib.ExitStack() as stack:
            while (obstacle := self._take(stack)) is not None:
                if time.monotonic() >= deadline:
                    raise BusyError(obstacle)
                time.sleep(_POLL)
            yield

    def note_reflog(self, digest: Digest) -> None:
        """Write down the digest of the reflog, which ``cvmfs_server`` compares before it publishes."""
        path = self._spool / _CHECKSUM
        with self._mapped("write"):
            owner = (path if path.exists() else self._spool).stat()
            with self._written(digest.text) as (temporary, file):
                os.fchmod(file, 0o644)
                if os.geteuid() == 0:
                    os.fchown(file, owner.st_uid, owner.st_gid)
                os.rename(temporary, path)

    def outdated(self, root: Digest) -> bool:
        """Whether its mount shows another revision than the one of this root catalog."""
        path = self._spool / "client.local"
        if not path.exists():
            return False
        return Assignments.load(path, "CVMFS_").text("ROOT_HASH", root.text) != root.text

    def _take(self, stack: contextlib.ExitStack) -> str | None:
        """Take both locks, to be released by ``stack``, or say why not; none is taken then."""
        with self._mapped("lock"), contextlib.ExitStack() as taken:
            if self._is_held(_PUBLISHING):
                return f"cvmfs_server is publishing in {self._fqrn}: try again later"
            left = self._holder(_PUBLISHING)
            if left and left == self._holder(_TRANSACTION):
                self._release(_TRANSACTION)
            self._release(_PUBLISHING)
            if not (self._create(_PUBLISHING, taken) and self._create(_TRANSACTION, taken)):
                return (
                    f"cvmfs_server has a transaction open in {self._fqrn}: publish or abort it first "
                    f"(cvmfs_server abort {self._fqrn})"
                )
            stack.enter_context(taken.pop_all())
        return None

    def _create(self, name: str, taken: contextlib.ExitStack) -> bool:
        """Create a lock file with our number in it, locked by flock(2) as well, unless there is one."""
        with self._written(f"{os.getpid()}\n") as (temporary, file):
            fcntl.flock(file, fcntl.LOCK_EX)
            try:
                os.link(temporary, self._spool / name)
            except FileExistsError:
                return False
            taken.callback(os.close, os.dup(file))
            taken.callback(self._release, name)
        return True

    def _is_held(self, name: str) -> bool:
        """Whether whoever made a lock file is still there."""
        holder = self._holder(name)
        if holder and _is_alive(holder):
            return True
        try:
            file = os.open(self._spool / name, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(file)
        return False

    def _holder(self, name: str) -> int:
        """The number of the process in a lock file, 0 if there is no such file, or no number in it."""
        try:
            text = (self._spool / name).read_bytes()[:32].strip()
        except FileNotFoundError:
            return 0
        return int(text) if text.isdigit() else 0

    def _release(self, name: str) -> None:
        (self._spool / name).unlink(missing_ok=True)

    @contextlib.contextmanager
    def _written(self, text: str) -> Iterator[tuple[str, int]]:
        """A file in the spool directory with this text, its name and descriptor; removed if not renamed."""
        file, temporary = tempfile.mkstemp(prefix=".cvmfs-graphdriver-", dir=self._spool)
        try:
            os.write(file, text.encode())
            yield temporary, file
        finally:
            os.close(file)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)

    @contextlib.contextmanager
    def _mapped(self, what: str) -> Iterator[None]:
        try:
            yield
        except PublisherError:
            raise
        except OSError as error:
            raise StorageError(
                f"cannot {what} in the spool directory {self._spool} of cvmfs_server: {error.strerror}; run "
                "it as the owner of the repository or as root"
            ) from error


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True
