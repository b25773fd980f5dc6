"""Blacklists: what they refuse, and that no text of an administrator's breaks them."""

import pytest

from cvmfs_graphdriver.repository.digest import Algorithm, Digest
from cvmfs_graphdriver.repository.trust.blacklist import Blacklist
from cvmfs_graphdriver.repository.trust.keys import Fingerprint
from tests.support.mutations import mutations

MARK = Fingerprint(Digest.of(b"stolen", Algorithm.SHAKE128))
TEXT = f"""\
# comment
{MARK.text} stolen in 2026
{MARK.text.lower()}
<x.example.org 8
< y.example.org   12
<z.example.org
<z.example.org eight
nonsense
"""


def test_lines() -> None:
    blacklist = Blacklist.parse(TEXT.encode())
    assert blacklist.fingerprints == {MARK}
    assert blacklist.least_revisions == (("x.example.org", 8), ("y.example.org", 12))


def test_revisions_below_the_number_are_refused() -> None:
    blacklist = Blacklist.parse(TEXT.encode())
    assert blacklist.refuses_revision("x.example.org", 7)
    assert not blacklist.refuses_revision("x.example.org", 8)
    assert not blacklist.refuses_revision("z.example.org", 0)


def test_two_refuse_what_either_refuses() -> None:
    both = Blacklist.parse(b"<a.org 3\n") | Blacklist.parse(f"<a.org 5\n{MARK.text}\n".encode())
    assert both.refuses_revision("a.org", 4)
    assert MARK in both.fingerprints


@pytest.mark.fuzz
def test_any_text_is_read() -> None:
    for data in mutations([TEXT.encode()]):
        Blacklist.parse(data)
