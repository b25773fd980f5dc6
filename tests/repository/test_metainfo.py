"""Metainfo: the real server's document, ours, and nonsense."""

from pathlib import Path

import pytest

from cvmfs_graphdriver.repository.digest import ObjectName, Suffix
from cvmfs_graphdriver.repository.errors import FormatError
from cvmfs_graphdriver.repository.manifest import Manifest
from cvmfs_graphdriver.repository.metainfo import Metainfo
from cvmfs_graphdriver.repository.trust.letter import Letter
from tests.support.fixtures import unpack
from tests.support.mutations import survives

FULL = Metainfo(
    administrator="Ä. Admin",
    email="a@example.org",
    organisation="O",
    description="D",
    url="http://example.org",
    recommended_stratum0="http://s0",
    recommended_stratum1s=("http://a", "http://b"),
    custom={"deep": [1, {"x": None}]},
)


def test_the_real_servers_document_is_read(tmp_path: Path) -> None:
    published = unpack("empty", tmp_path / "fixture")
    manifest = Manifest.parse(Letter.parse(published.stored(".cvmfspublished")).body)
    assert manifest.metainfo is not None
    found = Metainfo.parse(published.content(ObjectName(manifest.metainfo, Suffix.METAINFO)))
    assert found.administrator == "Your Name"
    assert found.recommended_stratum0 == "stratum 0 url"
    assert found.recommended_stratum1s == ("stratum1 url", "stratum1 url")
    assert found.custom == {"_comment": "Put arbitrary structured data here"}


def test_what_is_written_is_read_again() -> None:
    assert Metainfo.parse(FULL.export()) == FULL
    assert Metainfo.parse(b"{}") == Metainfo()


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b'{"email": 1}',
        b'{"recommended-stratum1s": "x"}',
        b'{"recommended-stratum1s": [1]}',
        b'{"custom": []}',
        b"\xff\xfe\xfd",
        b"[" * 60_000,
        b" " * 65_537,
    ],
)
def test_nonsense_is_refused(text: bytes) -> None:
    with pytest.raises(FormatError, match="metainfo"):
        Metainfo.parse(text)


@pytest.mark.fuzz
def test_no_input_surprises() -> None:
    assert survives(Metainfo.parse, [FULL.export(), b'{"email": "\\ud800"}']) > 0.1
