"""The commands about repositories that are read: config, cache, talk, status, metrics."""

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from cvmfs_graphdriver.cli.main import command
from cvmfs_graphdriver.client.administration.talk import Talk
from cvmfs_graphdriver.client.administration.talk_socket import serve_talk
from cvmfs_graphdriver.client.client import Client
from cvmfs_graphdriver.client.config_repository import load_settings
from cvmfs_graphdriver.client.tree.revision import Revision
from cvmfs_graphdriver.errors import CvmfsGraphdriverError
from cvmfs_graphdriver.repository.trust.whitelist import Whitelist
from tests.client.tree.test_revision import mounted, read, walk
from tests.support.fixtures import Server

FQRN = "kitchen.test.org"


@dataclass(frozen=True, slots=True)
class Said:
    """What a command printed, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def _run(*arguments: str, answer: str = "") -> Said:
    result = CliRunner().invoke(command, arguments, input=answer)
    error = result.exception
    if isinstance(error, CvmfsGraphdriverError):
        return Said(error.exit_code, result.stdout, result.stderr + str(error))
    if error is not None and not isinstance(error, SystemExit):
        raise error
    return Said(result.exit_code, result.stdout, result.stderr)


@dataclass(slots=True)
class Site:
    """A repository that is mounted, as far as commands can see."""

    client: Client
    revision: Revision
    server: Server
    etc: Path

    def run(self, *arguments: str, answer: str = "") -> Said:
        return _run(*arguments, "--config", str(self.etc), answer=answer)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with mounted("kitchen-sha1", tmp_path) as (client, revision, server):
        for node in walk(revision, revision.top):
            if node.entry.is_regular:
                read(revision, node)
        assert client.cache.eviction is not None
        client.cache.eviction.flush()
        yield Site(client, revision, server, tmp_path / "etc")


# config


def test_config_show(tmp_path: Path) -> None:
    (tmp_path / "default.local").write_text("CVMFS_TIMEOUT=7\nexport ARCH='a b'\n")
    said = _run("config", "show", "a.b", "--config", str(tmp_path))
    file = tmp_path / "default.local"
    assert said.out == f"export ARCH='a b'    # {file}:2\nCVMFS_TIMEOUT=7    # {file}:1\n"
    said = _run("config", "show", "a.b", "--all", "--config", str(tmp_path))
    assert "CVMFS_TIMEOUT_DIRECT=5    # default\n" in said.out
    assert "CVMFS_SERVER_URL=''    # default\n" in said.out
    values = _run("config", "show", "a.b", "--json", "--config", str(tmp_path)).json
    assert values["CVMFS_TIMEOUT"] == {
        "value": "7",
        "file": str(tmp_path / "default.local"),
        "line": 1,
        "meaning": "timeout for connecting and for receiving data through a proxy, seconds",
    }
    assert len(values) > 60
    (tmp_path / "default.local").write_text("A='x")
    said = _run("config", "show", "a.b", "--config", str(tmp_path))
    assert (said.code, said.out) == (21, "")
    assert f"{tmp_path}/default.local:1: ' is missing" in said.err


def test_config_check_when_all_is_well(site: Site) -> None:
    said = site.run("config", "check", FQRN)
    assert said.code == 0, said.out
    lines = said.out.splitlines()
    assert "ok      revision 7 is verified" in lines
    assert any(re.match(r"ok +http://127.* has revision 7 of 2026-11-23", line) for line in lines)
    assert any("kitchen.test.org.pub is used" in line for line in lines)
    assert "ok      no proxy is used (DIRECT)" in lines
    levels = {finding["level"] for finding in site.run("config", "check", FQRN, "--json").json}
    assert levels <= {"ok", "warning"}


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        (
            "CVMFS_SERVER_ULR=x",
            0,
            r"warning CVMFS_SERVER_ULR \(.*:\d+\) is not a known parameter - did you mean CVMFS_SERVER_URL",
        ),
        ("CVMFS_TRACEFILE=x", 0, r"ok +CVMFS_TRACEFILE .* has no effect"),
        ("CVMFS_CLAIM_OWNERSHIP=yes", 0, r"warning CVMFS_CLAIM_OWNERSHIP is set"),
        ("CVMFS_QUOTA_LIMIT=999999999", 0, r"warning the cache .* is short of space"),
        ("CVMFS_SERVER_URL=", 21, r"error +.*no server is configured"),
        (
            "CVMFS_SERVER_URL=http://127.0.0.1:9/x",
            21,
            r"error +cannot fetch .*reached.* - check CVMFS_SERVER_URL",
        ),
        ("CVMFS_PUBLIC_KEY=/nowhere.pub", 21, r"error +.*cannot read the public key /nowhere.pub"),
        ("CVMFS_HTTP_PROXY=http://no.such.proxy.invalid:1", 21, r"error +the proxy .* does not resolve"),
        ("CVMFS_CACHE_BASE=/proc/1/x", 21, r"error +"),
    ],
)
def test_config_check_finds(text: str, code: int, message: str, site: Site) -> None:
    with (site.etc / "default.local").open("a") as file:
        file.write(text + "\n")
    said = site.run("config", "check", FQRN)
    assert said.code == code, said.out
    assert re.search(message, said.out), said.out
    if code:
        assert "cannot be used" in said.err


def test_config_check_of_a_server_that_sends_nonsense(site: Site) -> None:
    (site.server.root / "cvmfs" / FQRN / ".cvmfspublished").write_text("<html>Please log in</html>")
    said = site.run("config", "check", FQRN)
    assert said.code == 21
    assert "sends invalid data" in said.out
    assert "login page" in said.out


# cache


def test_cache_list(site: Site) -> None:
    said = site.run("cache", "list", FQRN)
    lines = said.out.splitlines()
    assert any(line.endswith("file /.cvmfsdirtab, object") for line in lines)
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d +\d+ [0-9a-f]{40}  ", lines[0])
    assert said.err.startswith(f"{len(lines)} objects, ")
    catalogs = site.run("cache", "list", FQRN, "--catalogs", "--json").json
    assert len(catalogs) == 10
    assert {record["kind"] for record in catalogs} == {"catalog"}
    assert site.run("cache", "list", FQRN, "--pinned").out == ""


def test_cache_evict_and_pin(site: Site) -> None:
    def listed() -> str:
        return site.run("cache", "list", FQRN).out

    assert site.run("cache", "pin", FQRN, "/.cvmfsdirtab").code == 0
    assert "file /.cvmfsdirtab, object  pinned" in listed()
    assert site.run("cache", "evict", FQRN, "/.cvmfsdirtab").code == 0
    assert ".cvmfsdirtab" not in listed()
    said = site.run("cache", "evict", FQRN, "/absent")
    assert (said.code, said.err) == (
        25,
        f"/absent cannot be evicted: there is no such regular file in {FQRN}",
    )


def test_cache_wipe(site: Site) -> None:
    said = site.run("cache", "wipe", FQRN, answer="n\n")
    assert said.code == 1
    assert len(site.run("cache", "list", FQRN, "--json").json) > 90
    said = site.run("cache", "wipe", FQRN, "--yes")
    assert said.code == 0
    # Open catalogs stay.
    assert {record["kind"] for record in site.run("cache", "list", FQRN, "--json").json} == {"catalog"}
    for node in walk(site.revision, site.revision.top):
        if node.entry.is_regular:
            assert len(read(site.revision, node)) == node.entry.size


def test_cache_fsck(site: Site, tmp_path: Path) -> None:
    assert site.run("cache", "fsck", FQRN).err.endswith(" of them bad\n")
    node = site.revision.lookup(b"/.cvmfsdirtab")
    assert node is not None
    assert node.entry.digest is not None
    path = Path(site.client.cache.path(node.entry.digest))
    content = path.read_bytes()
    path.write_bytes(b"X" + content[1:])
    said = site.run("cache", "fsck", FQRN)
    assert said.code == 25
    assert said.out == f"wrong     {node.entry.digest}  file /.cvmfsdirtab, object\n"
    assert "corrupt objects: 1; check the disk" in said.err
    assert (path.parent.parent / "quarantaine" / node.entry.digest.text).exists()
    assert read(site.revision, node) == content
    # Without the ledger's checksum an object proves itself by its digest, or is not worth keeping.
    stranger = path.parent.parent / "00" / ("1" * 38)
    stranger.parent.mkdir(exist_ok=True)
    stranger.write_bytes(b"who knows")
    with closing(sqlite3.connect(path.parent.parent / "cachedb")) as ledger, ledger:
        ledger.execute("DELETE FROM cache_checksum")
    said = site.run("cache", "fsck", FQRN, "--json")
    assert said.code == 0
    assert [bad["verdict"] for bad in said.json["bad"]] == ["unproven"]
    assert not stranger.exists()
    assert path.exists()


def test_cache_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "default.local").write_text(
        f"CVMFS_SERVER_URL=http://s\nCVMFS_HTTP_PROXY=DIRECT\nCVMFS_PUBLIC_KEY=/k\nCVMFS_CACHE_BASE={tmp_path}/no\n"
    )
    said = _run("cache", "list", "a.b", "--config", str(tmp_path))
    assert said.code == 25
    assert "has no cache yet" in said.err


# talk, status, metrics


@pytest.fixture
def talking(site: Site) -> Iterator[Site]:
    talk = Talk(site.client, Path("/cvmfs/kitchen.test.org"))
    with serve_talk(site.client.settings.talk_socket, talk.answer):
        yield site


def test_talk(talking: Site) -> None:
    assert talking.run("talk", FQRN, "revision").out == "7\n"
    assert talking.run("talk", FQRN, "timeout", "set", "3", "4").out == "OK\n"
    assert talking.client.transfer.timeout == 3
    said = talking.run("talk", FQRN, "cache", "limit", "set", "1")
    assert (said.code, said.out) == (28, "")
    assert "at least 1000 MB" in said.err
    said = talking.run("talk", FQRN, "sing")
    assert said.code == 2
    assert "does not know the command 'sing'" in said.err
    socket = str(talking.client.settings.talk_socket)
    assert _run("talk", FQRN, "--socket", socket, "pid").out == f"{os.getpid()}\n"


def test_talk_to_nobody(site: Site) -> None:
    said = site.run("talk", FQRN, "revision")
    assert said.code == 28
    assert "is it mounted?" in said.err


def test_status(talking: Site) -> None:
    said = talking.run("status")
    title, line = said.out.splitlines()
    assert title.startswith("REPOSITORY        REVISION  STATE   UP")
    words = line.split()
    assert FQRN in words
    assert "online" in words
    (status,) = talking.run("status", FQRN, "--json").json
    assert status["revision"] == 7
    assert status["mountpoint"] == "/cvmfs/kitchen.test.org"
    assert "cvmfs_graphdriver_revision{" in talking.run("status", "--prometheus").out
    talking.client.offline_because = CvmfsGraphdriverError("the cable is out")
    said = talking.run("status")
    assert "offline" in said.out
    assert f"{FQRN} is offline: the cable is out\n" in said.err
    ending = Whitelist(FQRN, datetime.now(UTC), datetime.now(UTC) + timedelta(days=2), ())
    talking.client.manifests.whitelist.see(ending)
    assert f"warning: the whitelist of {FQRN} expires on 20" in talking.run("status").err


def test_status_of_nothing(site: Site) -> None:
    said = site.run("status")
    assert (said.code, said.out, said.err) == (0, "", "no repository is mounted\n")
    assert site.run("status", "--json").json == []
    assert site.run("status", FQRN).code == 28


def test_metrics(talking: Site) -> None:
    process = subprocess.Popen(
        [
            *(sys.executable, "-c", "from cvmfs_graphdriver.cli.main import main; main()"),
            *("metrics", "--listen", "127.0.0.1:0", "--config", str(talking.etc)),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        url = process.stderr.readline().rpartition(" ")[2].strip()
        with urllib.request.urlopen(url, timeout=10) as answer:
            text = answer.read().decode()
        assert f'cvmfs_graphdriver_revision{{repository="{FQRN}"}} 7.0' in text
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(url + "/absent", timeout=10)
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=10)
    assert process.returncode == 130
    assert _run("metrics", "--listen", "nonsense").code == 2


def test_new_revisions_are_asked_for(talking: Site) -> None:
    assert talking.run("talk", FQRN, "remount", "sync").out == "Catalog up to date\n"
    settings = load_settings(FQRN, talking.etc)
    assert settings.talk_socket == talking.client.settings.talk_socket
    assert time.monotonic() > talking.client.started
