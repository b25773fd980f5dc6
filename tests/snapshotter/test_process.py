"""The process: what it tells systemd and Prometheus."""

import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.chains import Image
from tests.support.entries import file
from tests.support.published import FQRN, Published, published
from tests.support.snapshotter_process import code_of, snapshotter

pytestmark = pytest.mark.root

IMAGE, OTHER = Image("here", 0), Image("elsewhere", 0)


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Published]:
    directory = tmp_path / "repository"
    directory.mkdir()
    with published(directory) as found:
        found.publish(IMAGE.trees([[file("/data", b"data")]]) | IMAGE.records([0]))
        yield found


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def samples(port: int) -> dict[tuple[str, ...], float]:
    """Every sample by its name and the values of its labels, in their alphabetical order."""
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
        text = answer.read().decode()
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_metrics_and_states(repository: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(20)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        with snapshotter(
            tmp_path, [FQRN], repository.etc, "fuse", f'metrics = "127.0.0.1:{port}"'
        ) as running:
            assert systemd.recv(100) == b"READY=1"
            with code_of("ALREADY_EXISTS"):
                running.prepare("1", "", IMAGE.labels(0))
            for key in ("2", "3"):
                running.prepare(key, "", OTHER.labels(0))
            running.prepare("container", "1")
            with code_of("INVALID_ARGUMENT"):
                running.prepare("", "")
            found = samples(port)
            running.stop()
            assert systemd.recv(100) == b"STOPPING=1"
    prefix = "cvmfs_snapshotter"
    assert found[f"{prefix}_hits_total", "chain", FQRN] == 1
    assert found[f"{prefix}_misses_total", "no-record"] == 2
    counts = {
        name: found[f"{prefix}_prepare_seconds_count", name] for name in ("lazy", "pulled", "container")
    }
    assert counts == {"lazy": 1, "pulled": 2, "container": 1}
    assert found[f"{prefix}_prepare_seconds_count", "failed"] == 1
    assert 0 < found[f"{prefix}_prepare_seconds_sum", "lazy"] < 20
    assert found["cvmfs_graphdriver_revision", FQRN] == 2
    assert found["cvmfs_graphdriver_received_bytes_total", FQRN] > 1000
    assert found["cvmfs_graphdriver_whitelist_expires_timestamp_seconds", FQRN] > 1.7e9


def test_a_port_that_is_taken_is_not_fatal(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with snapshotter(tmp_path, more=f'metrics = "127.0.0.1:{port}"') as running:
            running.prepare("container")
            assert (
                f"cannot serve metrics at 127.0.0.1:{port}: Address already in use" in running.log.read_text()
            )
