"""A name server on loopback that answers as a test wants it to."""

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["Reply", "answer", "name_server", "records"]

Reply = Callable[[bytes], bytes | None]
"""From a question to an answer, None for silence."""


def answer(question: bytes, records: list[tuple[int, int, bytes]], flags: int = 0x8180) -> bytes:
    number = question[:2]
    head = number + struct.pack("!HHHHH", flags, 1, len(records), 0, 0)
    body = question[12:]
    for kind, ttl, data in records:
        body += b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, ttl, len(data)) + data
    return head + body


@contextmanager
def name_server(reply: Reply) -> Iterator[str]:
    """A name server on loopback; gives its place."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(0.02)
        stop = threading.Event()

        def serve() -> None:
            while not stop.is_set():
                try:
                    data, peer = sock.recvfrom(4096)
                except TimeoutError:
                    continue
                if (answer := reply(data)) is not None:
                    sock.sendto(answer, peer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{sock.getsockname()[1]}"
        finally:
            stop.set()
            thread.join()


def records(kinds: dict[int, list[tuple[int, bytes]]]) -> Callable[[bytes], bytes]:
    def reply(question: bytes) -> bytes:
        (kind,) = struct.unpack("!H", question[-4:-2])
        return answer(question, [(kind, ttl, data) for ttl, data in kinds.get(kind, [])])

    return reply
