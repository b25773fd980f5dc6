"""Serving a file system to the kernel: threads that read requests and write replies.

Owns: the life of a request, from the device to a method of ``Filesystem`` and back. Follows
Documentation/filesystems/fuse.rst. Must not know: what is served, who restarts a dead server.

All threads do the same: read, serve, answer. One that waits for something slow delays nobody as long as
others are free. A file system refuses by RefusalError; anything else that it raises reaches the caller as
EIO, never as a missing file.
"""

import errno
import logging
import os
import struct
import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple

from cvmfs_graphdriver.kernel.fuse import wire
from cvmfs_graphdriver.kernel.fuse.filesystem import Filesystem, RefusalError
from cvmfs_graphdriver.kernel.fuse.inflight import InFlight, Slot
from cvmfs_graphdriver.kernel.fuse.interrupt import is_dying
from cvmfs_graphdriver.kernel.fuse.wire import HEADER, Opcode
from cvmfs_graphdriver.kernel.memory.limit import is_used_up
from cvmfs_graphdriver.kernel.waiting.watch import Busy

__all__ = ["Server"]

_log = logging.getLogger(__name__)

_read_in = struct.Struct("=8xQI")  # READ, READDIR, READDIRPLUS: offset, size
_u64 = struct.Struct("=Q")
_u32 = struct.Struct("=I")
_xattr_in = _xattr_out = struct.Struct("=I4x")

_BODY = HEADER.size
_NAMES = {opcode.value: opcode.name for opcode in Opcode}


class _Request(NamedTuple):
    """What handlers need: the node, the body, the caller's group."""

    node: int
    body: memoryview
    gid: int


_Handler = Callable[[_Request], bytes | None]
_ENDED = (errno.ENODEV, errno.ECONNABORTED)


class Server:
    """Serves one file system on one open ``/dev/fuse``.

    ``inflight`` has a slot for each serving thread; requests that it already holds are served first.
    """

    def __init__(self, device: int, filesystem: Filesystem, inflight: InFlight) -> None:
        self._device = device
        self._filesystem = filesystem
        self._slots = inflight.slots
        self._handlers = self._table(filesystem)
        self._buffers: list[memoryview] = []
        self._threads: list[threading.Thread] = []

    def serve(self) -> None:
        """Serve until the file system is unmounted."""
        self._threads = [
            threading.Thread(target=self._run, args=(slot,), name=f"fuse {number}", daemon=True)
            for number, slot in enumerate(self._slots)
        ]
        for thread in self._threads:
            thread.start()
        for thread in self._threads:
            thread.join()

    def tasks(self) -> Iterator[Busy]:
        """What the threads are serving now."""
        for thread, slot in zip(self._threads, self._slots, strict=False):
            length, opcode, unique, node, _, _, _, _ = HEADER.unpack_from(slot.buffer)
            if length:
                yield Busy(thread.ident or 0, unique, f"{_NAMES.get(opcode, opcode)} of inode {node}")

    def invalidate_inode(self, node: int) -> None:
        """Make the kernel forget the attributes and content of a node."""
        self._notify(wire.invalidate_inode(node))

    def _notify(self, message: bytes) -> None:
        """Notify the kernel; it is not an error if it does not know the node, or has unmounted."""
        try:
            os.write(self._device, message)
        except OSError as error:
            if error.errno not in (errno.ENOENT, *_ENDED):
                raise

    def _run(self, slot: Slot) -> None:
        """One thread: serve what a dead server left in the slot, then new requests."""
        device, request, readv = self._device, slot.buffer, os.readv
        if slot.occupied:
            if slot.is_hopeless:
                _log.error("giving up a request: every server that tried it has died")
                self._answer(wire.error_reply(HEADER.unpack_from(request)[2], errno.EIO))
            else:
                self._serve(request)
            slot.clear()
        into = [request]
        while True:
            try:
                readv(device, into)
            except OSError as error:
                if error.errno in _ENDED:
                    return
                if error.errno not in (errno.ENOENT, errno.EAGAIN):  # ENOENT: the caller gave up meanwhile
                    raise
            else:
                self._serve(request)
            slot.clear()

    def _serve(self, request: memoryview) -> None:
        length, opcode, unique, node, _, gid, _, _ = HEADER.unpack_from(request)
        try:
            if opcode == Opcode.READ:
                self._read(unique, node, *_read_in.unpack_from(request, _BODY))
                return
            body = self._handlers.get(opcode, _unknown)(_Request(node, request[_BODY:length], gid))
            if body is None:
                return
            reply = wire.reply_header(unique, len(body)) + body
        except RefusalError as refusal:
            reply = wire.error_reply(unique, refusal.number)
        except Exception as error:
            if is_used_up():  # every error may come from that, and it would not be the last
                raise MemoryError(
                    "hardly any memory is left; the next process serves this request"
                ) from error
            self._filesystem.failed(node, error)
            reply = wire.error_reply(unique, errno.EIO)
        self._answer(reply)

    def _read(self, unique: int, node: int, offset: int, size: int) -> None:
        """Answer READ. Buffers are reused, so that only as many are touched as are in use at once."""
        try:
            buffer = self._buffers.pop()
        except IndexError:
            buffer = memoryview(bytearray(wire.MAX_READ))
        try:
            filled = self._filesystem.read(node, offset, buffer[:size])
            self._answer(wire.reply_header(unique, filled), buffer[:filled])
        finally:
            self._buffers.append(buffer)

    def _answer(self, *reply: bytes | memoryview) -> None:
        try:
            os.writev(self._device, reply)
        except OSError as error:
            # ENOENT: an INTERRUPT, or a server that has died since, answered already.
            if error.errno != errno.ENOENT and error.errno not in _ENDED:
                _log.error("the kernel rejected a reply: %s", error.strerror)

    def _table(self, served: Filesystem) -> dict[int, _Handler]:
        """What to do for each operation; a handler returns the reply's body, None for no reply."""
        table: dict[int, _Handler] = {opcode: _refuse(errno.EROFS) for opcode in wire.READ_ONLY_REFUSALS}
        table |= {
            Opcode.INIT: self._init,
            Opcode.DESTROY: lambda _: b"",
            Opcode.INTERRUPT: self._interrupt,
            Opcode.FORGET: lambda _: None,
            Opcode.BATCH_FORGET: lambda _: None,
            Opcode.LOOKUP: lambda asked: served.lookup(asked.node, bytes(asked.body[:-1])),
            Opcode.GETATTR: lambda asked: served.getattr(asked.node),
            Opcode.READLINK: lambda asked: served.readlink(asked.node),
            Opcode.READDIR: lambda asked: served.readdir(asked.node, *_read_in.unpack_from(asked.body)),
            Opcode.READDIRPLUS: lambda asked: served.readdirplus(
                asked.node, *_read_in.unpack_from(asked.body)
            ),
            Opcode.STATFS: lambda _: served.statfs().pack(),
            Opcode.GETXATTR: lambda asked: _sized(
                asked, served.getxattr(asked.node, bytes(asked.body[_xattr_in.size : -1]), asked.gid)
            ),
            Opcode.LISTXATTR: lambda asked: _sized(
                asked, b"".join(name + b"\0" for name in served.listxattr(asked.node))
            ),
            Opcode.IOCTL: _refuse(errno.ENOTTY),
        }
        return table

    def _init(self, asked: _Request) -> bytes:
        _, reply = wire.agree(asked.body)
        return reply

    def _interrupt(self, asked: _Request) -> None:
        """A signal reached the caller of a request: if it kills the caller, do not let it wait."""
        (interrupted,) = _u64.unpack_from(asked.body)
        for slot in self._slots:
            _, opcode, unique, _, _, _, pid, _ = HEADER.unpack_from(slot.buffer)
            if unique == interrupted and opcode != Opcode.INTERRUPT and is_dying(pid):
                self._answer(wire.error_reply(unique, errno.EINTR))


def _refuse(number: int) -> _Handler:
    def handler(_: _Request) -> bytes:
        raise RefusalError(number)

    return handler


_unknown = _refuse(errno.ENOSYS)
"""For OPEN and OPENDIR, this answer tells the kernel not to ask again."""


def _sized(asked: _Request, value: bytes) -> bytes:
    """An extended attribute, or its length if the caller asks for that."""
    (room,) = _u32.unpack_from(asked.body)
    if room == 0:
        return _xattr_out.pack(len(value))
    if len(value) > room:
        raise RefusalError(errno.ERANGE)
    return value
