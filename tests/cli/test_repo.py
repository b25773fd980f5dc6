import os
import signal
import stat
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from cvmfs_graphdriver.publisher.repository import Repository
from cvmfs_graphdriver.publisher.storage.local import LocalStorage
from cvmfs_graphdriver.repository.manifest import Manifest
from cvmfs_graphdriver.repository.trust.letter import Letter

PROGRAM = [sys.executable, "-c", "from cvmfs_graphdriver.cli.main import main; main()"]
FQRN = "images.example.org"


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PROGRAM, *map(str, words)], capture_output=True, text=True, check=False)


def create(directory: Path, fqrn: str = FQRN) -> subprocess.CompletedProcess[str]:
    storage = directory / "srv/cvmfs" / FQRN
    storage.parent.mkdir(parents=True, exist_ok=True)
    return run("repo", "create", fqrn, "--storage", storage, "--keys", directory / "keys")


@pytest.mark.parametrize("words", [(), ("repo",)])
def test_help_names_every_command(words: tuple[str, ...]) -> None:
    done = run(*words, "--help")
    assert done.returncode == 0, done.stderr
    for name in ("create", "serve") if words else ("mount", "plugin", "repo", "umount"):
        assert f"\n  {name} " in done.stdout


def test_create_makes_a_signed_repository(tmp_path: Path) -> None:
    done = create(tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{tmp_path}/keys/{FQRN}.pub\n", "")
    names = {path.name for path in (tmp_path / "keys").iterdir()}
    assert names == {f"{FQRN}.{kind}" for kind in ("masterkey", "key", "crt", "pub")}
    assert stat.S_IMODE((tmp_path / f"keys/{FQRN}.key").stat().st_mode) == 0o400
    repository = Repository.open(FQRN, LocalStorage(tmp_path / "srv/cvmfs" / FQRN), tmp_path / "keys")
    assert repository.manifest().revision == 1


def test_create_never_replaces_a_repository(tmp_path: Path) -> None:
    assert create(tmp_path).returncode == 0
    manifest = tmp_path / "srv/cvmfs" / FQRN / ".cvmfspublished"
    before = manifest.read_bytes()
    done = create(tmp_path)
    assert done.returncode == 41
    assert done.stderr.count("\n") == 1
    assert "is not empty" in done.stderr
    assert manifest.read_bytes() == before


def test_create_never_replaces_keys(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / f"keys/{FQRN}.crt").write_text("precious")
    done = create(tmp_path)
    assert done.returncode == 44
    assert done.stderr.count("\n") == 1
    assert [path.name for path in (tmp_path / "keys").iterdir()] == [f"{FQRN}.crt"]
    (tmp_path / f"keys/{FQRN}.crt").unlink()
    assert create(tmp_path).returncode == 0, "what failed before is in the way"


def test_create_refuses_a_bad_name_before_it_makes_anything(tmp_path: Path) -> None:
    done = create(tmp_path, "../escape")
    assert done.returncode == 40
    assert "../escape" in done.stderr
    assert not (tmp_path / "keys").exists()
    assert list((tmp_path / "srv/cvmfs").iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_until_it_is_told_to_end(tmp_path: Path, number: signal.Signals) -> None:
    assert create(tmp_path).returncode == 0
    process = subprocess.Popen(
        [*PROGRAM, "repo", "serve", str(tmp_path / "srv"), "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    with process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            with urllib.request.urlopen(f"{url}/cvmfs/{FQRN}/.cvmfspublished", timeout=10) as reply:
                manifest = Manifest.parse(Letter.parse(reply.read()).body)
            assert manifest.fqrn == FQRN
            process.send_signal(number)
            assert process.wait(10) == 0
        finally:
            process.kill()


def test_serve_names_a_missing_directory(tmp_path: Path) -> None:
    done = run("repo", "serve", tmp_path / "nothing", "--port", "0")
    assert done.returncode == 41
    assert str(tmp_path / "nothing") in done.stderr
    assert done.stdout == ""
