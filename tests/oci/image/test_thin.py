import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfs_graphdriver.oci.digest import ContentDigest
from cvmfs_graphdriver.oci.errors import ThinImageFormatError
from cvmfs_graphdriver.oci.image.thin import LayerLocation, ThinImage, ThinLayer
from tests.support.mutations import INPUTS, generated, mutations

_A, _B = "a" * 64, "b" * 64


def _document(**members: Any) -> bytes:
    layers = [{"digest": digest, "url": f"cvmfs://r.example.org/layers/{digest}"} for digest in (_A, _B)]
    return json.dumps({"version": "1.0", "origin": "o@sha256:x", "layers": layers, **members}).encode()


def _layers(*urls: str) -> bytes:
    return _document(layers=[{"digest": f"{n:064x}", "url": url} for n, url in enumerate(urls)])


def test_a_descriptor_is_read_and_written_back() -> None:
    thin = ThinImage.parse(_document(comment="hello", min_version="1.0"))
    assert [layer.digest for layer in thin.layers] == [ContentDigest("sha256", d) for d in (_A, _B)]
    assert thin.layers[0].location == LayerLocation("r.example.org", b"/layers/" + _A.encode())
    assert (thin.origin, thin.comment, thin.min_version) == ("o@sha256:x", "hello", "1.0")
    assert ThinImage.parse(thin.dump()) == thin
    assert thin.dump() == ThinImage.parse(thin.dump()).dump()


def test_the_bytes_are_those_of_the_format() -> None:
    layer = ThinLayer(ContentDigest("sha256", _A), LayerLocation("r.example.org", b"/layers/x"))
    assert json.loads(ThinImage((layer,), origin="o").dump()) == {
        "version": "1.0",
        "origin": "o",
        "layers": [{"digest": _A, "url": "cvmfs://r.example.org/layers/x"}],
    }


def test_what_older_tools_write_is_read() -> None:
    data = _document(layers=[{"digest": f"sha256:{_A}", "url": f"cvmfs://r.example.org/layers//{_A}/"}])
    (layer,) = ThinImage.parse(data).layers
    assert layer.location.path == f"/layers/{_A}".encode()


def test_the_layout_of_unpacked_repositories_is_read() -> None:
    (layer,) = ThinImage.parse(_layers(f"cvmfs://unpacked.cern.ch/.layers/aa/{_A}/layerfs")).layers
    assert layer.location.path == f"/.layers/aa/{_A}/layerfs".encode()


@pytest.mark.parametrize(
    "url",
    [
        "http://r.example.org/layers/x",
        "file:///etc",
        "CVMFS://r.example.org/x",
        "cvmfs:/r.example.org/x",
        "r.example.org/x",
        "",
        "cvmfs://",
        "cvmfs:///x",
        "cvmfs://r.example.org",
        "cvmfs://r.example.org/",
        "cvmfs://r.example.org//",
        "cvmfs://noDomain/x",
        "cvmfs://../x",
        "cvmfs://r..org/x",
        "cvmfs://r.example.org/../x",
        "cvmfs://r.example.org/layers/../../x",
        "cvmfs://r.example.org/layers/..",
        "cvmfs://r.example.org/./x",
        "cvmfs://r.example.org/a\0b",
        "cvmfs://r.example.org/a\nb",
        "cvmfs://r.example.org:80/x",
        "cvmfs://user@r.example.org/x",
        "cvmfs://" + "r" * 60 + ".org/x",
        "cvmfs://r.example.org/" + "x" * 256,
        "cvmfs://r.example.org/" + "x/" * 3000,
        "cvmfs://r.example.org/\ud800",
    ],
)
def test_a_layer_that_lies_elsewhere_is_refused(url: str) -> None:
    with pytest.raises(ThinImageFormatError, match="layer location"):
        ThinImage.parse(_layers(url))


def test_an_unknown_scheme_is_named() -> None:
    with pytest.raises(ThinImageFormatError, match=r"'https' is unknown; layers must be at cvmfs://"):
        ThinImage.parse(_layers("https://r.example.org/x"))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not JSON"),
        (b"[]", "not a JSON object"),
        (b"{}", "'version'"),
        (b" " * (1 << 20) + b"{}", "longer than"),
        (b'{"version":"1.0","layers":' + b"[" * 60 + b"]" * 60 + b"}", "levels deep"),
        (_document(version=1), "'version' is not a string"),
        (_document(version="one"), "not valid versions"),
        (_document(version="2.0"), "install a newer one"),
        (_document(min_version="1.1"), "install a newer one"),
        (_document(layers=[]), "no layers"),
        (_document(layers=None), "no layers"),
        (_document(layers={}), "not a list"),
        (_document(layers=["x"]), "not a JSON object"),
        (_document(layers=[{"digest": _A}]), "'url' is not a string"),
        (_document(layers=[{"url": "cvmfs://r.org/x"}]), "'digest' is not a string"),
        (_document(layers=[{"digest": "A" * 64, "url": "cvmfs://r.org/x"}]), "not a digest"),
        (_document(layers=[{"digest": "../x", "url": "cvmfs://r.org/x"}]), "not a digest"),
        (_document(origin=[]), "'origin' is not a string"),
        (_layers("cvmfs://r.org/x", "cvmfs://r.org//x"), "same location"),
        (
            _document(layers=[{"digest": _A, "url": f"cvmfs://r.org/{n}"} for n in range(2)]),
            "same digest",
        ),
    ],
)
def test_what_is_no_descriptor_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(ThinImageFormatError, match=reason):
        ThinImage.parse(data)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["version", "layers", "digest", "url", "origin"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@generated
@given(_json)
def test_any_document_is_read_or_refused(value: object) -> None:
    with contextlib.suppress(ThinImageFormatError):
        ThinImage.parse(json.dumps(value).encode())


@generated
@given(st.text(alphabet="cvmfs:/r.org\0é", max_size=60))
def test_no_location_leads_out_of_its_repository(text: str) -> None:
    with contextlib.suppress(ThinImageFormatError):
        location = LayerLocation.parse("cvmfs://r.org/" + text)
        parts = location.path.split(b"/")
        assert parts[0] == b""
        assert len(parts) > 1
        assert not {b"", b".", b".."} & set(parts[1:])
        assert LayerLocation.parse(location.url) == location


@pytest.mark.fuzz
def test_damaged_documents_are_read_or_refused() -> None:
    refused = 0
    for data in mutations([_document(), _document(comment="c", layers=[])]):
        try:
            ThinImage.parse(data)
        except ThinImageFormatError:
            refused += 1
    assert INPUTS * 0.2 < refused < INPUTS
