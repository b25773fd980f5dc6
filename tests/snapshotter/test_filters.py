"""containerd's filter language; the cases are those of its own tests (``pkg/filters``), where it has one."""

from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cvmfs_graphdriver.snapshotter.errors import SnapshotRequestError
from cvmfs_graphdriver.snapshotter.filters import parse_filters

RECORD = {
    ("name",): "foo",
    ("other",): "",
    ("labels", "containerd.io/snapshot.ref"): "sha256:0a",
    ("labels", "a b"): 'quo"te',
    ("labels", "x"): "5",
}


def fields(path: Sequence[str]) -> str | None:
    return RECORD.get(tuple(path))


@pytest.mark.parametrize(
    ("filters", "matches"),
    [
        ([], True),
        ([""], True),
        (["name"], True),
        (["other"], True),
        (["missing"], False),
        (["name==foo"], True),
        (["name == foo"], True),
        (["name==bar"], False),
        (["name!=bar"], True),
        (["missing!=bar"], True),
        (["missing=="], None),
        (['missing==""'], False),
        (['missing!=""'], False),
        (["name~=^f"], True),
        (["name~=o{2}$"], True),
        (["name~=/f.o/"], True),
        (["name~=|f.o|"], True),
        (["name~=(["], False),
        (['name~="f|g"'], True),
        (["name==/foo/"], None),
        (["name==foo,other"], True),
        (["name==foo , missing"], False),
        (["name==bar", "name==foo"], True),
        (['labels."containerd.io/snapshot.ref"==sha256:0a'], True),
        (['labels."containerd.io/snapshot.ref"==sha256:0a,parent!=""'], False),
        (['labels."a b"=="quo\\"te"'], True),
        (['labels."a b"=="quo\\x22te"'], True),
        (['labels."a b"~="\\u0071uo"'], True),
        (["labels.x==5"], True),
        (["labels.x<5"], None),
        (["labels.x=5"], None),
        (["labels..x"], None),
        (["name,"], None),
        (["name==foo bar"], None),
        (['name=="foo'], None),
        (['name=="\\q"'], None),
        (["=="], None),
        (["x" * 70_000], None),
    ],
)
def test_filters(filters: list[str], matches: bool | None) -> None:
    """None: it is refused."""
    if matches is None:
        with pytest.raises(SnapshotRequestError, match="the filter"):
            parse_filters(filters)
    else:
        assert parse_filters(filters)(fields) is matches


@given(st.text(alphabet='abx01 .,=!~"/|\\\n\0é', max_size=40))
@example('"\\U00110000"')
def test_any_text_is_a_filter_or_refused(text: str) -> None:
    try:
        found = parse_filters([text])
    except SnapshotRequestError:
        return
    assert found(fields) in (True, False)


@given(st.dictionaries(st.text(min_size=1), st.text(), min_size=1, max_size=3))
def test_quoted_names_and_values_are_found(labels: dict[str, str]) -> None:
    def quoted(text: str) -> str:
        return '"' + "".join(f"\\U{ord(char):08x}" for char in text) + '"'

    condition = ",".join(f"labels.{quoted(name)}=={quoted(value)}" for name, value in labels.items())
    assert parse_filters([condition])(lambda path: labels.get(".".join(path[1:])))
