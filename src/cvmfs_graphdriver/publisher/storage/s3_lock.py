"""The lock of a storage in S3: an object that says who publishes, written anew while he lives.

Owns: who has it, and when it may be taken from somebody. It is taken by a write that only succeeds where
nothing is, or what was read before (S3's conditional writes). A holder that died on this very machine and
one that has not written for ``_LEASE`` seconds, by the store's own clock, have lost it; a holder that finds
its lock gone must neither publish nor delete any more. Must not know: what the lock protects.
"""

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from pathlib import Path
from typing import Any, Final

from cvmfs_graphdriver.publisher.errors import BusyError, StorageError
from cvmfs_graphdriver.publisher.storage.bucket import Bucket, read_small

__all__ = ["S3Lock"]

_LEASE: Final = 60.0
_BEAT: Final = 15.0
_POLL: Final = 0.5
_LIMIT: Final = 4096
_HELD: Final[set[str]] = set()
"""Nonces of the locks that this process holds."""


class S3Lock:
    """The lock at one key; held from ``acquire`` to ``release``."""

    def __init__(self, bucket: Bucket, key: str) -> None:
        self._bucket = bucket
        self._key = key
        self._nonce = secrets.token_hex(16)
        self._beats = 0
        self._etag = ""
        self._written = 0.0
        self._lost = False
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="s3-lock", daemon=True)

    def acquire(self, *, wait: float) -> None:
        """Take it; waits up to ``wait`` seconds for another holder. Raises BusyError, StorageError."""
        deadline = time.monotonic() + wait
        while True:
            before = time.monotonic()
            holder, found = self._read()
            if found is None or _is_dead(holder):
                etag = self._bucket.put_if(self._key, self._document(), etag=found)
                # A store that knows no conditional writes lets the later one win: look who that is.
                if etag is not None and self._read()[0].get("nonce") == self._nonce:
                    self._etag, self._written = etag, before
                    _HELD.add(self._nonce)
                    self._thread.start()
                    return
            if time.monotonic() >= deadline:
                raise BusyError(
                    f"somebody else is publishing in {self._bucket.location}: process {holder.get('pid')} on "
                    f"{holder.get('host')}; try again later"
                )
            time.sleep(_POLL)

    def check(self) -> None:
        """Raises BusyError: it is not held any more, for somebody else had to believe us dead."""
        if self._lost or time.monotonic() - self._written > _LEASE - _BEAT / 2:
            raise BusyError(
                f"the lock of {self._bucket.location} was lost, since the store could not be reached for too "
                "long: run it again"
            )

    def release(self) -> None:
        """Give it back. If the store cannot be told, others find out by themselves."""
        self._end.set()
        self._thread.join()
        _HELD.discard(self._nonce)
        with contextlib.suppress(StorageError):
            if not self._lost and self._read()[0].get("nonce") == self._nonce:
                self._bucket.delete([self._key])

    def _beat(self) -> None:
        while not self._end.wait(_BEAT):
            before = time.monotonic()
            try:
                etag = self._bucket.put_if(self._key, self._document(), etag=self._etag)
            except StorageError:
                continue  # there is time for another attempt, and ``check`` looks at the clock
            if etag is None:
                self._lost = True
                return
            self._etag, self._written = etag, before

    def _document(self) -> bytes:
        self._beats += 1
        return json.dumps({**_ourselves(), "nonce": self._nonce, "beats": self._beats}).encode()

    def _read(self) -> tuple[dict[str, Any], str | None]:
        """Who holds it, and the state of the object; None if nobody does."""
        reader = self._bucket.open(self._key)
        if reader is None:
            return {}, None
        with reader:
            try:
                holder = json.loads(read_small(reader, _LIMIT) or b"")
            except ValueError:
                holder = None
            return {**(holder if isinstance(holder, dict) else {}), "age": reader.age}, reader.etag


def _ourselves() -> dict[str, str | int]:
    """What tells whether this very process lives, for others on this machine."""
    pid = os.getpid()
    return {"host": socket.gethostname(), "machine": _machine(), "pid": pid, "started": _started(pid)}


def _machine() -> str:
    """This boot of this machine, and the processes that we can see on it."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {os.readlink('/proc/self/ns/pid')}"


def _started(pid: int) -> str:
    """When a process began, in ticks since boot; empty if there is none, or a dead one."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if fields[0] in {"Z", "X"} else fields[19]


def _is_dead(holder: dict[str, Any]) -> bool:
    if holder.get("age", 0.0) > _LEASE:
        return True
    pid = holder.get("pid")
    if holder.get("machine") != _machine() or not isinstance(pid, int):
        return False
    # We know of ourselves what we hold: there may be a lock that could not be given back.
    is_ours = pid == os.getpid() and holder.get("nonce") not in _HELD
    return is_ours or _started(pid) != holder.get("started")
