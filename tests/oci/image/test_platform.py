import pytest

from cvmfs_graphdriver.oci.errors import ReferenceFormatError
from cvmfs_graphdriver.oci.image.platform import Platform


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("linux/amd64", "linux/amd64"),
        ("x86_64", "linux/amd64"),
        ("linux/aarch64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm", "linux/arm"),
        ("linux/arm/7", "linux/arm"),
        ("linux/arm/v6", "linux/arm/v6"),
        ("Linux/AMD64/v3", "linux/amd64/v3"),
    ],
)
def test_platforms_have_one_normal_form(text: str, normal: str) -> None:
    assert str(Platform.parse(text)) == normal


@pytest.mark.parametrize("text", ["", "linux/", "/amd64", "a/b/c/d"])
def test_what_is_no_platform_is_refused(text: str) -> None:
    with pytest.raises(ReferenceFormatError):
        Platform.parse(text)


def _choose(wanted: str, *offered: str) -> str | None:
    position = Platform.parse(wanted).choose([None, *map(Platform.parse, offered)])
    return None if position is None else offered[position - 1]


def test_the_same_platform_is_chosen_first() -> None:
    assert _choose("linux/arm64", "linux/amd64", "linux/arm64/v8") == "linux/arm64/v8"
    assert _choose("linux/arm/v7", "linux/arm/v5", "linux/arm/v6", "linux/arm/v7") == "linux/arm/v7"


def test_older_variants_run_too_the_newest_first() -> None:
    assert _choose("linux/arm/v7", "linux/arm/v5", "linux/arm/v6") == "linux/arm/v6"
    assert _choose("linux/amd64/v3", "linux/amd64", "linux/amd64/v2") == "linux/amd64/v2"


def test_newer_variants_and_other_systems_do_not() -> None:
    assert _choose("linux/arm/v6", "linux/arm/v7") is None
    assert _choose("linux/amd64", "linux/amd64/v3", "windows/amd64") is None
