"""The Geo API's question and answer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfs_graphdriver.client.network.geo import SEPARATOR, geo_path, parse_order
from tests.support.mutations import INPUTS, generated, mutations


def test_question() -> None:
    hosts = ["http://s1.cern.ch/cvmfs/a.b", "https://s2.fnal.gov:8000/x", SEPARATOR, "http://p.org:3128"]
    assert geo_path("squid.x.org", hosts) == (
        "api/v1.0/geo/squid.x.org/s1.cern.ch,s2.fnal.gov,+PXYSEP+,p.org"
    )
    assert geo_path("a/b c", ["http://[::1]/x"]) == "api/v1.0/geo/a%2Fb%20c/%3A%3A1"


def test_answer() -> None:
    assert parse_order(b"2,1,3\n", 3) == [1, 0, 2]
    for bad in (b"", b"1,2", b"1,2,2", b"0,1,2", b"1,2,4", b"a,b,c", b"\xff", b"<html>", b"1,2,3,4"):
        with pytest.raises(ValueError, match="not an order of 3"):
            parse_order(bad, 3)


@generated
@given(data=st.binary(max_size=20))
def test_any_answer_is_an_order_or_refused(data: bytes) -> None:
    try:
        order = parse_order(data, 2)
    except ValueError:
        return
    assert sorted(order) == [0, 1]


@pytest.mark.fuzz
def test_damaged_answers_are_an_order_or_refused() -> None:
    orders = 0
    for data in mutations([b"2,1,3\n", b"1,2,3", b"3,2,1\n"]):
        try:
            order = parse_order(data, 3)
        except ValueError:
            continue
        assert sorted(order) == [0, 1, 2]
        orders += 1
    assert INPUTS / 1000 < orders < INPUTS * 0.9
