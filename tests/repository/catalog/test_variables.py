"""Variant symlinks: what is expanded, what is left as it is."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfs_graphdriver.repository.catalog.variables import expand_variables

VARIABLES = {"A": "x", "EMPTY": "", "ODD": "\udcff", "LOOP": "$(A)"}


@pytest.mark.parametrize(
    ("target", "expanded"),
    [
        (b"plain", b"plain"),
        (b"$(A)/$(A)", b"x/x"),
        (b"$(UNSET)/a", b"/a"),
        (b"$(UNSET:-default/a)", b"default/a"),
        (b"$(A:-default)", b"x"),
        (b"$(EMPTY:-default)", b""),
        (b"$(UNSET:-a:-b)", b"a:-b"),
        (b"$(UNSET:-a(b)c)", b"a(bc)"),
        (b"$(ODD)", b"\xff"),
        (b"$(LOOP)", b"$(A)"),
        (b"$(A", b"$(A"),
        (b"$A)$", b"$A)$"),
        (b")$()(", b")("),
        (b"\xfe$(\xfe:-\xff)", b"\xfe\xff"),
    ],
)
def test_expansion(target: bytes, expanded: bytes) -> None:
    assert expand_variables(target, VARIABLES) == expanded


@given(st.binary(), st.binary())
def test_what_names_no_variable_stays(before: bytes, after: bytes) -> None:
    plain = (before + after).replace(b"$(", b"")
    assert expand_variables(plain, VARIABLES) == plain


def test_a_hostile_target_takes_linear_time() -> None:
    start = time.process_time()
    assert expand_variables(b"$(" * 500_000, {}) == b"$(" * 500_000
    expand_variables(b"$()" * 200_000, {})
    assert time.process_time() - start < 3
