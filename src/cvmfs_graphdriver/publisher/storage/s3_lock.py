"""The lock of a storage in S3: an object that names the publisher, rewritten while the publisher lives.

Owns: who holds it, and when it may be taken over. It is acquired by a conditional write, which succeeds only
if the object is absent or still what was read before. A holder loses it by dying on this machine, or by not
writing for ``_LEASE`` seconds of the store's own clock; a holder that finds its lock gone must neither
publish nor delete. docs/adr/0021-s3-lock.md says why it is our own. Must not know: what the lock protects.
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
        """Acquire it, waiting up to ``wait`` seconds for another holder. Raises BusyError, StorageError."""
        deadline = time.monotonic() + wait
        while True:
            before = time.monotonic()
            holder, found = self._read()
            if found is None or _is_dead(holder):
                etag = self._bucket.put_if(self._key, self._document(), etag=found)
                # On a store without conditional writes the later write wins: check which one that was.
                if etag is not None and self._read()[0].get("nonce") == self._nonce:
                    self._etag, self._written = etag, before
                    _HELD.add(self._nonce)
                    self._thread.start()
                    return
            if time.monotonic() >= deadline:
                raise BusyError(
                    f"another publisher is using {self._bucket.location}: process {holder.get('pid')} "
                    f"on {holder.get('host')}; try again later"
                )
            time.sleep(_POLL)

    def check(self) -> None:
        """Raise BusyError if it is no longer held: others may have concluded that we died."""
        if self._lost or time.monotonic() - self._written > _LEASE - _BEAT / 2:
            raise BusyError(
                f"lost the lock of {self._bucket.location}, because the store could not be reached for "
                "too long: try again"
            )

    def release(self) -> None:
        """Release it. If the store cannot be reached, the lease runs out by itself."""
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
                continue  # there is time for another attempt, and ``check`` watches the clock
            if etag is None:
                self._lost = True
                return
            self._etag, self._written = etag, before

    def _document(self) -> bytes:
        self._beats += 1
        return json.dumps({**_ourselves(), "nonce": self._nonce, "beats": self._beats}).encode()

    def _read(self) -> tuple[dict[str, Any], str | None]:
        """Who holds it, and the object's etag, which is None if nobody does."""
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
    """What lets others on this machine tell whether this very process is alive."""
    pid = os.getpid()
    return {"host": socket.gethostname(), "machine": _machine(), "pid": pid, "started": _started(pid)}


def _machine() -> str:
    """This boot of this machine, and our PID namespace."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {os.readlink('/proc/self/ns/pid')}"


def _started(pid: int) -> str:
    """When a process started, in ticks since boot; empty if it does not exist or is dead."""
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
    # We know which locks we hold: this one may be of ours, one that could not be released.
    is_ours = pid == os.getpid() and holder.get("nonce") not in _HELD
    return is_ours or _started(pid) != holder.get("started")
