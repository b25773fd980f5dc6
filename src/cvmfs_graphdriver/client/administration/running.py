"""The clients that are running on this machine.

Owns: finding their talk sockets and asking for their status. Must not know: who uses the status.
"""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from cvmfs_graphdriver.client.administration.status import Status
from cvmfs_graphdriver.client.administration.talk_socket import ask
from cvmfs_graphdriver.client.configuration.parameters import PARAMETERS
from cvmfs_graphdriver.client.configuration.search import load_configuration
from cvmfs_graphdriver.client.errors import TalkError

__all__ = ["ask_status", "find_sockets", "running_clients"]

_SOCKET = "cvmfs_io."
_ANY = "any.repository"


def find_sockets(etc: Path) -> list[Path]:
    """The talk sockets where the configuration in ``etc`` places them, including stale ones."""
    configuration = load_configuration(_ANY, etc, {})
    places = {}
    for name in ("CVMFS_CACHE_BASE", "CVMFS_CACHE_DIR", "CVMFS_WORKSPACE"):
        setting = configuration.get(name)
        places[name] = setting.value if setting else PARAMETERS[name].default
    found = set(Path(places["CVMFS_CACHE_BASE"] or "/nowhere").glob(f"*/{_SOCKET}*"))
    for name in ("CVMFS_CACHE_DIR", "CVMFS_WORKSPACE"):
        if places[name]:
            # The directory's name may contain the repository's.
            found |= set(Path(places[name].replace(_ANY, "*")).parent.glob(f"*/{_SOCKET}*"))
    return sorted(found, key=lambda path: path.name)


def ask_status(socket: Path, *, seconds: float = 60.0) -> Status:
    """The status of the client at ``socket``. Raises TalkError: no answer, or one of another version."""
    answer = ask(socket, "status json", seconds=seconds)
    try:
        return Status.parse(answer)
    except ValueError as error:
        raise TalkError(f"{socket}: the client's answer cannot be understood: {error}") from error


def running_clients(sockets: Iterable[Path]) -> list[Status]:
    """The status of each client that answers."""
    found = []
    for socket in sockets:
        with suppress(TalkError):
            found.append(ask_status(socket))
    return found
