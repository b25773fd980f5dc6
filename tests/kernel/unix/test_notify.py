"""Telling systemd: a datagram to the socket that it names."""

import socket
from pathlib import Path

import pytest

from cvmfs_graphdriver.kernel.unix.notify import notify


def test_the_state_arrives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for address, name in (
        (str(tmp_path / "notify"), str(tmp_path / "notify")),
        ("\0" + str(tmp_path), f"@{tmp_path}"),
    ):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
            receiver.bind(address)
            receiver.settimeout(5)
            monkeypatch.setenv("NOTIFY_SOCKET", name)
            notify("READY=1")
            assert receiver.recv(100) == b"READY=1"


@pytest.mark.parametrize("name", ["", "relative", "/no/such/socket"])
def test_nobody_who_wants_to_know_is_no_error(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", name)
    notify("READY=1")
