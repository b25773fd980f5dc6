"""A name server on loopback that answers as a test wants it to."""

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

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
def name_server(reply: Reply, over_tcp: Reply | None = None) -> Iterator[str]:
    """A name server on loopback, which listens for TCP too if it has a reply for that; gives its place."""
    stop = threading.Event()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, socket.socket() as listener:
        # First the port for TCP: old connections of others occupy many of those.
        listener.bind(("127.0.0.1", 0))
        sock.bind(listener.getsockname())
        for one in (sock, listener):
            one.settimeout(0.02)

        def serve() -> None:
            while not stop.is_set():
                with suppress(TimeoutError):
                    data, peer = sock.recvfrom(4096)
                    if (answer := reply(data)) is not None:
                        sock.sendto(answer, peer)

        def serve_streams(reply: Reply) -> None:
            while not stop.is_set():
                with suppress(TimeoutError):
                    stream, _ = listener.accept()
                    with stream:
                        _serve_stream(stream, reply)

        threads = [threading.Thread(target=serve)]
        if over_tcp is not None:
            listener.listen()
            threads.append(threading.Thread(target=serve_streams, args=(over_tcp,)))
        for thread in threads:
            thread.start()
        try:
            yield f"127.0.0.1:{sock.getsockname()[1]}"
        finally:
            stop.set()
            for thread in threads:
                thread.join()


def _serve_stream(stream: socket.socket, reply: Reply) -> None:
    """Answer questions, each after its length, until no more come."""
    stream.settimeout(1)
    with stream.makefile("rb") as questions:
        while len(head := questions.read(2)) == 2:
            if (answer := reply(questions.read(int.from_bytes(head, "big")))) is not None:
                stream.sendall(struct.pack("!H", len(answer)) + answer)


def records(kinds: dict[int, list[tuple[int, bytes]]]) -> Callable[[bytes], bytes]:
    def reply(question: bytes) -> bytes:
        (kind,) = struct.unpack("!H", question[-4:-2])
        return answer(question, [(kind, ttl, data) for ttl, data in kinds.get(kind, [])])

    return reply
