import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfs_graphdriver.oci.digest import ContentDigest
from cvmfs_graphdriver.oci.errors import ReferenceFormatError
from cvmfs_graphdriver.oci.image.reference import ImageReference
from tests.support.mutations import generated

_HEX = "ab" * 32


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("debian", "docker.io/library/debian:latest"),
        ("debian:12", "docker.io/library/debian:12"),
        ("someone/tool", "docker.io/someone/tool:latest"),
        ("index.docker.io/debian", "docker.io/library/debian:latest"),
        ("registry.hub.docker.com/library/debian", "docker.io/library/debian:latest"),
        ("localhost/a", "localhost/a:latest"),
        ("localhost:5000/a/b:tag", "localhost:5000/a/b:tag"),
        ("registry.example.org/a__b/c-d.e:V1.0_x", "registry.example.org/a__b/c-d.e:V1.0_x"),
        ("[::1]:5000/a", "[::1]:5000/a:latest"),
        (f"debian@sha256:{_HEX}", f"docker.io/library/debian@sha256:{_HEX}"),
        (f"r.org/a:t@sha256:{_HEX}", f"r.org/a:t@sha256:{_HEX}"),
    ],
)
def test_a_reference_gets_dockers_defaults(text: str, full: str) -> None:
    reference = ImageReference.parse(text)
    assert str(reference) == full
    assert ImageReference.parse(full) == reference


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/a",
        "a/",
        "A",
        "r.org/A",
        "a//b",
        "a:",
        "a:-x",
        "a:" + "x" * 129,
        "a b",
        "../a",
        "a/../b",
        "a@sha256:12",
        f"a@md5:{'a' * 32}",
        f"a@sha256:{'A' * 64}",
        "http://r.org/a",
        "r.org:port/a",
        "r_.org/a",
        "r.org/" + "a" * 300,
        "a:b:c/d",
        "é",
    ],
)
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(ReferenceFormatError):
        ImageReference.parse(text)


def test_the_digest_decides_over_the_tag() -> None:
    reference = ImageReference.parse(f"r.org/a:t@sha256:{_HEX}")
    assert reference.target == f"sha256:{_HEX}"
    assert reference.with_tag("u").target == "u"
    assert str(ImageReference.parse("r.org/a:t").with_digest(ContentDigest("sha256", _HEX))).endswith(_HEX)


def test_a_default_registry_replaces_docker_hub() -> None:
    reference = ImageReference.parse("library/debian:12", default_host="localhost:5000")
    assert str(reference) == "localhost:5000/library/debian:12"
    assert str(ImageReference.parse("a", default_host="localhost:5000")) == "localhost:5000/a:latest"


@generated
@given(st.text(max_size=80))
def test_any_text_is_a_reference_or_refused(text: str) -> None:
    try:
        reference = ImageReference.parse(text)
    except ReferenceFormatError:
        return
    assert ImageReference.parse(str(reference)) == reference
    assert ".." not in reference.repository.split("/")
