"""The bytes of the protocol, against the sizes and fields of the kernel's own header."""

import errno
import logging
import os
import stat
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfs_graphdriver.kernel.errors import FuseError
from cvmfs_graphdriver.kernel.fuse import wire
from cvmfs_graphdriver.kernel.fuse.inflight import InFlight
from cvmfs_graphdriver.kernel.fuse.server import Server
from cvmfs_graphdriver.kernel.fuse.wire import Attributes, InitFlag, StatFs
from tests.support.memory_filesystem import MemoryFilesystem
from tests.support.mutations import generated, mutations

ATTRIBUTES = Attributes(7, stat.S_IFREG | 0o600, size=5)


def test_sizes_of_structures() -> None:
    assert wire.HEADER.size == 40
    assert len(ATTRIBUTES.pack()) == 88
    assert len(wire.entry(7, ATTRIBUTES.pack())) == len(wire.no_entry()) == 128
    assert len(wire.attributes_reply(ATTRIBUTES.pack())) == 104
    assert len(StatFs(1, 2, 3, 4).pack()) == 80
    assert len(wire.invalidate_inode(1)) == 16 + 24


@given(st.binary(min_size=1, max_size=255))
def test_directory_entries_are_aligned(name: bytes) -> None:
    item = wire.directory_entry(name, 5, stat.S_IFDIR, 9)
    assert len(item) % 8 == 0
    inode, following, length, kind = struct.unpack_from("=QQII", item)
    assert (inode, following, kind) == (5, 9, 4)
    assert item[24 : 24 + length] == name
    assert len(wire.directory_entry_plus(name, 5, 0o040000, 9, wire.no_entry())) == len(item) + 128


def init(major: int, minor: int, flags: int) -> bytes:
    return struct.pack("=IIII48x", major, minor, 131072, flags)


def test_agreement_takes_what_both_have() -> None:
    agreement, reply = wire.agree(init(7, 99, InitFlag.DO_READDIRPLUS | 1 << 9))
    assert agreement.flags == InitFlag.DO_READDIRPLUS
    assert len(reply) == 64
    major, minor, _, flags = struct.unpack_from("=IIII", reply)
    assert (major, minor, flags) == (7, agreement.minor, InitFlag.DO_READDIRPLUS)
    assert wire.agree(init(7, 31, 0))[0].minor == 31


@pytest.mark.parametrize("body", [b"", init(7, 30, 0), init(8, 0, 0), init(6, 99, 0)])
def test_other_protocols_are_refused(body: bytes) -> None:
    with pytest.raises(FuseError):
        wire.agree(body)


def test_a_reply_has_its_own_length() -> None:
    assert wire.reply_header(9, 100) == struct.pack("=IiQ", 116, 0, 9)
    assert wire.error_reply(9, errno.EIO) == struct.pack("=IiQ", 16, -errno.EIO, 9)


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[Server, InFlight, int]]:
    """A server whose kernel is a pipe."""
    reading, writing = os.pipe()
    inflight = InFlight(1)
    logging.disable(logging.CRITICAL)
    yield Server(writing, MemoryFilesystem(), inflight), inflight, reading
    logging.disable(logging.NOTSET)
    os.close(reading)
    os.close(writing)


ANSWERED = [opcode for opcode in range(61) if opcode not in (2, 36, 42)]


def check_reply(server: tuple[Server, InFlight, int], opcode: int, node: int, body: bytes) -> None:
    """A request gets one well-formed reply."""
    served, inflight, reading = server
    buffer = inflight.slots[0].buffer
    request = wire.HEADER.pack(40 + len(body), opcode, 77, node, 0, 0, 0, 0) + body
    buffer[: len(request)] = request
    served._serve(buffer)
    reply = os.read(reading, 1 << 20)
    length, error, unique = struct.unpack_from("=IiQ", reply)
    assert length == len(reply)
    assert unique == 77
    assert -4096 < error <= 0


@generated
@given(opcode=st.sampled_from(ANSWERED), node=st.integers(0, 2**64 - 1), body=st.binary(max_size=300))
def test_any_request_gets_one_well_formed_reply(
    server: tuple[Server, InFlight, int], opcode: int, node: int, body: bytes
) -> None:
    check_reply(server, opcode, node, body)


@pytest.mark.fuzz
def test_damaged_requests_get_one_well_formed_reply(server: tuple[Server, InFlight, int]) -> None:
    bodies = [
        b"name\0",
        init(7, 31, 0),
        struct.pack("=QQI", 1, 0, 4096),
        struct.pack("=I4x", 0) + b"user.a\0",
    ]
    for number, body in enumerate(mutations(bodies)):
        check_reply(server, ANSWERED[number % len(ANSWERED)], number % 9, body)
