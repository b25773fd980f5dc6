"""The commands that fill and care for a repository: what they print, what they change, how they fail."""

import io
import json
import os
import random
import subprocess
import tarfile
import time
from pathlib import Path

import pytest

from cvmfs_graphdriver.publisher.transaction import Transaction
from tests.cli.test_repo import PROGRAM, run
from tests.support.entries import file
from tests.support.storage_site import FQRN, Site


@pytest.fixture
def site(tmp_path: Path) -> Site:
    site = Site(tmp_path)
    site.clock = 1_800_000_000.0
    site.publish({b"/l": [file("/f", b"content")]})
    site.open().resign()
    return site


def on(site: Site, verb: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
    return run("repo", verb, FQRN, "--storage", site.storage, "--keys", site.keys, *words)


def tar(path: Path, mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        member = tarfile.TarInfo("d/f")
        member.size, member.uid, member.mode = 5, 1000, 0o4755
        archive.addfile(member, io.BytesIO(b"hello"))
        link = tarfile.TarInfo("d/g")
        link.type, link.linkname = tarfile.LNKTYPE, "d/f"
        archive.addfile(link)
    return path


@pytest.mark.parametrize("path", ["/layers/one", "layers/one", "layers/one/"])
def test_ingest_a_tar(site: Site, path: str) -> None:
    done = on(site, "ingest", tar(site.place / "layer.tar.gz"), path)
    assert (done.returncode, done.stdout) == (0, "3\n"), done.stderr
    assert "new objects" in done.stderr
    tree = site.tree(b"/layers/one")
    assert tree[b"/d/f"][1] == tree[b"/d/g"][1] == b"hello"
    assert (tree[b"/d/f"][0].uid, tree[b"/d/f"][0].mode, tree[b"/d/f"][0].linkcount) == (1000, 0o104755, 2)
    assert site.names(b"/l") == {b"", b"/f"}


def test_ingest_as_a_stock_server_would(site: Site) -> None:
    settings = site.place / "server.conf"
    settings.write_text("CVMFS_IGNORE_SPECIAL_FILES=true\n")
    path = site.place / "layer.tar"
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("one/f"))
        for name, kind in (("two/g", tarfile.LNKTYPE), ("pipe", tarfile.FIFOTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "one/f" if kind == tarfile.LNKTYPE else ""
            archive.addfile(member)
    done = on(site, "ingest", "--server-conf", settings, path, "/l")
    assert done.returncode == 0, done.stderr
    assert "note: left out the special file '/pipe'" in done.stderr
    assert "note: broke up 1 hard-link groups" in done.stderr
    assert site.tree(b"/l")[b"/two/g"][0].linkcount == 1


def test_ingest_from_standard_input(site: Site) -> None:
    data = tar(site.place / "layer.tar", "w").read_bytes()
    words = [
        "ingest",
        FQRN,
        "--storage",
        site.storage,
        "--keys",
        site.keys,
        "-",
        "/x",
        "--json",
        "--tag",
        "new",
    ]
    done = subprocess.run([*PROGRAM, "repo", *map(str, words)], input=data, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    account = json.loads(done.stdout)
    assert account["revision"] == 3
    assert account["objects_new"] > 0
    assert site.tree(b"/x")[b"/d/f"][1] == b"hello"
    assert [line.split("\t")[:2] for line in on(site, "tag").stdout.splitlines()][:2] == [
        ["new", "3"],
        ["trunk", "3"],
    ]


def test_a_bad_tar_changes_nothing(site: Site) -> None:
    before = site.files()
    path = tar(site.place / "layer.tar.gz")
    path.write_bytes(path.read_bytes()[:-30])
    done = on(site, "ingest", path, "/x")
    assert done.returncode == 38
    assert done.stderr.count("\n") == 1
    assert str(path) in done.stderr
    assert (done.stdout, site.files()) == ("", before)


def test_remove(site: Site) -> None:
    site.publish({b"/a": [], b"/b": []})
    done = on(site, "remove", "/a", "b")
    assert (done.returncode, done.stdout, done.stderr) == (0, "4\n", "")
    assert site.names() == {b"", b"/l", b"/l/f"}
    done = on(site, "remove", "/l", "/none")
    assert (done.returncode, done.stdout) == (40, "")
    assert "there is nothing at /none" in done.stderr
    assert site.names() == {b"", b"/l", b"/l/f"}


def test_tags_and_going_back(site: Site) -> None:
    assert on(site, "tag", "good", "-m", "as it should be").returncode == 0
    on(site, "remove", "/l")
    listed = json.loads(on(site, "tag", "--json").stdout)
    assert {tag["name"]: (tag["revision"], tag["description"]) for tag in listed} == {
        "trunk": (3, "current HEAD"),
        "trunk-previous": (2, "default undo target"),
        "good": (2, "as it should be"),
    }
    done = on(site, "rollback", "--tag", "good")
    assert (done.returncode, done.stdout) == (0, "4\n")
    assert site.names() == {b"", b"/l", b"/l/f"}
    assert on(site, "tag", "good", "--delete").returncode == 0
    assert "good" not in on(site, "tag").stdout
    done = on(site, "rollback", "--tag", "good")
    assert (done.returncode, done.stderr.count("\n")) == (40, 1)
    assert "has no tag good" in done.stderr
    assert on(site, "tag", "--delete").returncode == 2
    assert on(site, "tag", "a b").returncode == 11


def test_info(site: Site) -> None:
    document = json.loads(on(site, "info", "--json").stdout)
    assert document["revision"] == 2
    assert document["root"] == site.open().manifest().root.text
    assert (document["catalogs"], document["files"], document["bytes"], document["tags"]) == (2, 2, 7, 2)
    assert document["published"] == "2027-01-15T08:00:01Z"
    text = on(site, "info").stdout
    assert f"root                 {document['root']}" in text


def test_a_whitelist_that_has_expired_is_told(site: Site) -> None:
    assert "whitelist" not in on(site, "info").stderr
    site.clock = time.time() - 25 * 86400
    site.open().resign()
    told = f"whitelist of {FQRN} expires on 20"
    assert told in on(site, "info").stderr
    checked = on(site, "check")
    assert checked.returncode == 0
    assert told in checked.stderr
    assert "whitelist" not in on(site, "resign").stderr
    assert "whitelist" not in on(site, "info").stderr


def test_resign(site: Site) -> None:
    before = (site.storage / ".cvmfswhitelist").read_bytes()
    done = on(site, "resign")
    assert done.returncode == 0
    assert done.stdout.endswith("Z\n")
    assert (site.storage / ".cvmfswhitelist").read_bytes() != before
    (site.keys / f"{FQRN}.masterkey").unlink()
    done = on(site, "resign")
    assert done.returncode == 40
    assert "master key" in done.stderr


def test_check(site: Site) -> None:
    for suffix in ("key", "masterkey", "crt"):
        (site.keys / f"{FQRN}.{suffix}").unlink()  # whoever checks need not be able to publish
    done = on(site, "check")
    assert (done.returncode, done.stdout) == (0, ""), done
    assert "catalogs" in done.stderr
    files = [path for path in site.storage.glob("data/??/*") if not path.name[-1].isupper()]
    broken = max(files, key=lambda path: path.stat().st_size)  # the other one is empty: a catalog marker's
    broken.write_bytes(b"x")
    assert on(site, "check", "--no-contents").returncode == 0
    done = on(site, "check")
    assert done.returncode == 46
    assert "/l/f: object" in done.stdout
    done = on(site, "check", "--json")
    assert done.returncode == 46
    assert len(json.loads(done.stdout)["findings"]) == 1


def test_gc(tmp_path: Path) -> None:
    site = Site(tmp_path)
    for number in range(4):
        site.publish({b"/l": [file("/f", random.Random(number).randbytes(1_000_000))]})
    before = site.files()
    words = ("--keep-days", "0", "--index", site.place / "index")
    rehearsed = on(site, "gc", *words, "--dry-run")
    assert rehearsed.returncode == 0, rehearsed.stderr
    assert "would be deleted" in rehearsed.stdout
    assert site.files() == before
    done = on(site, "gc", *words, "--json")
    account = json.loads(done.stdout)
    assert (account["retained_revisions"], account["forgotten_revisions"]) == (2, 4)
    assert account["objects"] > 4
    gone = [data for path, data in before.items() if path not in site.files()]
    assert (account["objects"], account["size"]) == (len(gone), sum(map(len, gone)))
    assert f"{len(gone)} objects ({account['size'] / 2**20:.1f} MiB)" in rehearsed.stdout
    assert account["size"] > 2_000_000
    assert len(site.files()) == len(before) - account["objects"] + 1  # the status file is new
    assert site.findings() == []
    assert json.loads(on(site, "gc", *words, "--json").stdout)["objects"] == 0


@pytest.mark.parametrize("verb", ["info", "resign", "tag", "rollback", "check", "gc"])
def test_no_repository_is_one_clear_line(tmp_path: Path, verb: str) -> None:
    done = run("repo", verb, FQRN, "--storage", tmp_path, "--keys", tmp_path / "keys")
    assert done.returncode == 44
    assert done.stderr.count("\n") == 1
    assert str(tmp_path / "keys") in done.stderr


def test_another_publisher_is_waited_for_only_if_asked(site: Site) -> None:
    with Transaction(site.open()):
        done = on(site, "remove", "/l")
        assert done.returncode == 42
        assert "another publisher is using" in done.stderr
        assert on(site, "remove", "/l", "--wait", "0.1").returncode == 42
    assert on(site, "remove", "/l", "--wait", "10").returncode == 0


def test_names_need_not_be_text(site: Site) -> None:
    path = tar(site.place / "layer.tar.gz")
    words = ["repo", "ingest", FQRN, "--storage", site.storage, "--keys", site.keys, path]
    done = subprocess.run(
        [*PROGRAM, *map(os.fsencode, map(str, words)), b"/\xff"], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert b"/\xff/d/f" in site.names()
