import random
from collections.abc import Callable, Iterator

import pytest

from cvmfs_graphdriver.oci.errors import (
    ContentMismatchError,
    RegistryReplyError,
    RegistryUnreachableError,
)
from cvmfs_graphdriver.oci.image.model import ContentDescriptor
from cvmfs_graphdriver.oci.registry.blob import BlobStream
from cvmfs_graphdriver.oci.registry.transport import Transport, TransportSettings
from cvmfs_graphdriver.oci.verify import read_to_end
from tests.support.misbehaving_server import Exchange, run_server

_DATA = random.Random(1).randbytes(900_000)
_DESCRIPTOR = ContentDescriptor.of("application/octet-stream", _DATA)


def _offset(exchange: Exchange) -> int:
    wanted = exchange.header("Range")
    return int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0


def _partial(exchange: Exchange, count: int, *, start: int | None = None) -> None:
    """Answer from the offset asked for, and break off after ``count`` bytes."""
    offset = _offset(exchange)
    rest = _DATA[offset:]
    headers = {"Content_Range": f"bytes {offset if start is None else start}-{len(_DATA) - 1}/{len(_DATA)}"}
    broken = {} if count >= len(rest) else {"length": len(rest)}
    exchange.answer(206 if offset else 200, rest[:count], **broken, **(headers if offset else {}))  # type: ignore[arg-type]


def _read(
    act: Callable[[Exchange], None], descriptor: ContentDescriptor = _DESCRIPTOR
) -> tuple[bytes, list[int]]:
    """What comes of the blob, and the offsets that were asked for."""
    offsets: list[int] = []

    def watched(exchange: Exchange) -> None:
        offsets.append(_offset(exchange))
        act(exchange)

    settings = TransportSettings(sleep=lambda _: None)
    transport = Transport(settings)
    with run_server(watched) as script:

        def open_at(offset: int):  # type: ignore[no-untyped-def]
            headers = {"Range": f"bytes={offset}-"} if offset else {}
            return transport.request("GET", f"http://{script.host}/blob", headers)

        try:
            with BlobStream("blob x", descriptor, open_at, settings) as blob:
                return read_to_end(blob, 10_000), offsets
        finally:
            transport.close()


def test_a_blob_comes_in_one_go() -> None:
    assert _read(lambda e: e.answer(200, _DATA)) == (_DATA, [0])


def test_a_broken_download_goes_on_where_it_broke() -> None:
    counts: Iterator[int] = iter([100_000, 50_000, 1 << 30])
    data, offsets = _read(lambda e: _partial(e, next(counts)))
    assert data == _DATA
    assert offsets[0] == 0
    assert offsets == sorted(set(offsets))
    assert offsets[-1] <= 150_000


def test_many_breaks_are_no_failure_as_long_as_bytes_come() -> None:
    data, offsets = _read(lambda e: _partial(e, 70_000))
    assert data == _DATA
    assert len(offsets) >= 12


def test_a_server_without_ranges_is_read_from_the_start_again() -> None:
    counts: Iterator[int] = iter([400_000, 500_000, 1 << 30])

    def act(exchange: Exchange) -> None:
        count = next(counts)
        exchange.answer(200, _DATA[:count], **({} if count > len(_DATA) else {"length": len(_DATA)}))  # type: ignore[arg-type]

    assert _read(act)[0] == _DATA


def test_breaks_without_a_byte_between_are_given_up() -> None:
    with pytest.raises(
        RegistryUnreachableError, match=r"blob x broke off 5 times after 100000 of 900000 bytes"
    ):
        _read(lambda e: _partial(e, 0 if _offset(e) else 100_000))


def test_another_part_than_asked_for_is_refused() -> None:
    with pytest.raises(RegistryReplyError, match="sent other bytes"):
        _read(lambda e: _partial(e, 100_000, start=7 if _offset(e) else None))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (_DATA[:-1], "ended after 899999 of"),
        (_DATA + b"x", "longer than the announced 900000 bytes"),
        (_DATA[:-1] + bytes([_DATA[-1] ^ 1]), "does not match its digest"),
        (b"", "ended after 0 of"),
    ],
)
def test_a_lie_is_an_error_before_the_end(body: bytes, reason: str) -> None:
    with pytest.raises(ContentMismatchError, match=f"blob x.*{reason}"):
        _read(lambda e: e.answer(200, body))


def test_an_empty_blob_is_one_too() -> None:
    assert _read(lambda e: e.answer(200, b""), ContentDescriptor.of("x", b"")) == (b"", [0])
