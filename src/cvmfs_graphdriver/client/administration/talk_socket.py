"""Both ends of the socket through which a running client takes commands.

Owns: one command per connection, limited in size and time (CernVM-FS format reference, section 12). Must not
know: commands.
"""

import contextlib
import os
import pwd
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from cvmfs_graphdriver.client.errors import ConfigurationError, TalkError
from cvmfs_graphdriver.kernel.waiting.deadline import end

__all__ = ["ask", "serve_talk"]

_COMMAND = 512
_PATIENCE = 65536
_SECONDS = 5.0
_MODE = 0o660
_ANSWER = 256 * 1024 * 1024


@contextlib.contextmanager
def serve_talk(path: Path, answer: Callable[[str], str], owner: str = "") -> Iterator[None]:
    """Answer commands sent to the socket ``path`` until the block ends.

    Raises TalkError: the socket cannot be created; ConfigurationError: there is no user ``owner``.
    """
    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC))
        stack.callback(_remove, path, _bind(sock, path, owner))
        closing = threading.Event()
        thread = threading.Thread(target=_listen, args=(sock, closing, answer), name="talk", daemon=True)
        thread.start()
        try:
            yield
        finally:
            closing.set()
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            end(thread)


def ask(path: Path, command: str, *, seconds: float = 60.0) -> str:
    """The answer of the client whose socket is ``path``.

    Raises TalkError: no answer, or not in time, or the command is too long.
    """
    line = command.encode("utf-8", "surrogateescape") + b"\n"
    if len(line) > _COMMAND:
        raise TalkError(f"the command is longer than {_COMMAND - 1} bytes")
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as sock:
            sock.settimeout(seconds)
            _connect(sock, path)
            sock.sendall(line)
            data = bytearray()
            while piece := sock.recv(65536):
                data += piece
                if len(data) > _ANSWER:
                    raise TalkError(f"{path}: the answer is too long")
    except TimeoutError:
        raise TalkError(f"{path}: no answer within {seconds:g} seconds") from None
    except OSError as error:
        raise TalkError(f"no client answers at {path}: {error.strerror}; is it mounted?") from error
    return data.decode("utf-8", "surrogateescape")


def _remove(path: Path, inode: int) -> None:
    """Remove our socket, unless another client has replaced it."""
    with contextlib.suppress(FileNotFoundError):
        if path.lstat().st_ino == inode:
            path.unlink()


def _bind(sock: socket.socket, path: Path, owner: str) -> int:
    """Bind the socket to its path; returns the inode number of the path."""
    try:
        user = pwd.getpwnam(owner) if owner else None
    except KeyError:
        raise ConfigurationError(f"CVMFS_TALK_OWNER={owner!r}: there is no such user") from None
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.unlink(missing_ok=True)
        with _near(temporary) as name:
            sock.bind(name)
        temporary.chmod(_MODE)
        if user is not None:
            os.chown(temporary, user.pw_uid, user.pw_gid)
        sock.listen()
        # Replaces a stale socket atomically: whoever connects finds one that listens.
        inode = temporary.lstat().st_ino
        temporary.replace(path)
    except OSError as error:
        raise TalkError(f"cannot create the talk socket {path}: {error.strerror}") from error
    return inode


def _connect(sock: socket.socket, path: Path) -> None:
    with _near(path) as name:
        sock.connect(name)


@contextlib.contextmanager
def _near(path: Path) -> Iterator[str]:
    """A name for ``path`` that fits into the 108 bytes of a socket address."""
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


def _listen(sock: socket.socket, closing: threading.Event, answer: Callable[[str], str]) -> None:
    while not closing.is_set():
        try:
            connection, _ = sock.accept()
        except OSError:
            continue
        with connection, contextlib.suppress(OSError):
            connection.settimeout(_SECONDS)
            command = _read_command(connection)
            connection.sendall(answer(command).encode("utf-8", "surrogateescape"))


def _read_command(connection: socket.socket) -> str:
    """One line, ended by a newline, a NUL or the end of the stream, and truncated if it is too long."""
    data = bytearray()
    while len(data) < _PATIENCE and not data.endswith((b"\n", b"\0")):
        piece = connection.recv(_PATIENCE)
        if not piece:
            break
        data += piece
    return data[:_COMMAND].decode("utf-8", "surrogateescape")
