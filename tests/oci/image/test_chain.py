import contextlib
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfs_graphdriver.oci.digest import ContentDigest
from cvmfs_graphdriver.oci.errors import ThinImageFormatError
from cvmfs_graphdriver.oci.image.chain import (
    ChainRecord,
    chain_id,
    chain_ids,
    record_directory,
    unpacked_directory,
)

_A, _B, _C = (ContentDigest.of(text) for text in (b"a", b"b", b"c"))
_LAYER = b"../../.." + unpacked_directory(_A)
_DIFF = str(_B).encode()


def test_chain_ids_are_those_of_the_specification() -> None:
    # ChainID(L0) = L0, ChainID(L0|...|Ln) = Digest(ChainID(L0|...|Ln-1) + " " + DiffID(Ln))
    two = "sha256:" + hashlib.sha256(f"{_A} {_B}".encode()).hexdigest()
    three = "sha256:" + hashlib.sha256(f"{two} {_C}".encode()).hexdigest()
    assert [str(chain) for chain in chain_ids([_A, _B, _C])] == [str(_A), two, three]
    assert chain_id(None, _A) == _A
    assert list(chain_ids([])) == []


def test_a_record_is_two_links_below_its_chain() -> None:
    record = ChainRecord.of(unpacked_directory(_A), _A, _B)
    assert record.links() == (_LAYER, _DIFF)
    assert ChainRecord.parse(_LAYER, _DIFF) == record
    assert record_directory(_A) == f"/.chains/{_A.hex[:2]}/{_A.hex}".encode()
    side_by_side = ChainRecord.of(b"/some/layers/" + _A.hex.encode(), _A, _B)
    assert ChainRecord.parse(*side_by_side.links()) == side_by_side


@pytest.mark.parametrize(
    "target",
    [
        b"",
        unpacked_directory(_A),  # absolute: it would be outside of the repository once that is mounted
        b"../.." + unpacked_directory(_A),
        b"../../../.." + unpacked_directory(_A),
        b"../../../../other.example.org" + unpacked_directory(_A),
        b"/cvmfs/other.example.org" + unpacked_directory(_A),
        b"../../../etc/passwd",
        b"../../..",
        b"../../../",
        b"../../../.chains/" + _A.hex[:2].encode() + b"/" + _A.hex.encode(),  # a circle
        b"../../../.layers/" + _A.hex[:2].encode() + b"/" + _A.hex.encode(),
        _LAYER + b"/",
        _LAYER + b"/etc",
        _LAYER.replace(b"/layerfs", b"/.metadata"),
        _LAYER.replace(b"/.layers/", b"/.layers/../.layers/"),
        _LAYER.replace(b"/.layers/", b"/.layers//"),
        _LAYER.replace(b"/" + _A.hex[:2].encode() + b"/", b"/00/"),
        _LAYER.replace(_A.hex.encode(), _A.hex.upper().encode()),
        _LAYER.replace(_A.hex.encode(), _A.hex[:-1].encode()),
        b"../../../layers/../" + _A.hex.encode(),
        b"../../../layers/./" + _A.hex.encode(),
        b"../../../.hidden/" + _A.hex.encode(),
        b"../../../lay\ners/" + _A.hex.encode(),
        b"../../../" + b"x" * 256 + b"/" + _A.hex.encode(),
        b"../../.." + b"/x" * 600 + b"/" + _A.hex.encode(),
        _LAYER + b"\0",
        b"$(HOME)/" + _A.hex.encode(),
    ],
)
def test_links_to_other_places_are_refused(target: bytes) -> None:
    with pytest.raises(ThinImageFormatError, match="^the link 'layer' of a chain's record is "):
        ChainRecord.parse(target, _DIFF)


@pytest.mark.parametrize(
    "target", [b"", b"sha256:", _A.hex.encode(), b"sha512:" + b"0" * 128, _DIFF + b"\n", b"\xff" * 71]
)
def test_other_diffs_are_refused(target: bytes) -> None:
    with pytest.raises(ThinImageFormatError, match="^the link 'diff' of a chain's record is "):
        ChainRecord.parse(_LAYER, target)


def test_a_record_that_readers_would_refuse_cannot_be_made() -> None:
    for directory, layer in (
        (b"/.thin/" + _A.hex.encode(), _A),
        (unpacked_directory(_A), _B),
        (b"/layers/x", _A),
    ):
        with pytest.raises(ThinImageFormatError):
            ChainRecord.of(directory, layer, _B)
    with pytest.raises(ThinImageFormatError):
        ChainRecord.of(unpacked_directory(_A), _A, ContentDigest("sha512", "0" * 128))


@given(st.binary(max_size=300), st.binary(max_size=80))
def test_any_links_are_a_record_or_an_error_of_ours(layer: bytes, diff: bytes) -> None:
    diff = diff or _DIFF
    for target in (layer, b"../../../" + layer, _LAYER + layer, b"../../../%b/%b" % (layer, _A.hex.encode())):
        with contextlib.suppress(ThinImageFormatError):
            record = ChainRecord.parse(target, diff)
            assert record.links() == (target, diff)
            assert b"/." not in record.directory.removeprefix(b"/.layers/")
