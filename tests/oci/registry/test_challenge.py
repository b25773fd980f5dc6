import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfs_graphdriver.oci.registry.challenge import Challenge, parse_challenges
from tests.support.mutations import generated


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", []),
        ("Negotiate", [Challenge("negotiate", {})]),
        ('Basic realm="a, b"', [Challenge("basic", {"realm": "a, b"})]),
        (
            'Bearer realm="https://auth.example.org/token",service="r",scope="repository:a/b:pull,push"',
            [
                Challenge(
                    "bearer",
                    {
                        "realm": "https://auth.example.org/token",
                        "service": "r",
                        "scope": "repository:a/b:pull,push",
                    },
                )
            ],
        ),
        (
            r'BASIC Realm="say \"hi\"" , Bearer realm=x',
            [Challenge("basic", {"realm": 'say "hi"'}), Challenge("bearer", {"realm": "x"})],
        ),
        ('Bearer realm="open', [Challenge("bearer", {})]),
    ],
)
def test_challenges_are_read_as_the_grammar_has_them(header: str, expected: list[Challenge]) -> None:
    assert parse_challenges(header) == expected


@generated
@given(st.text(alphabet='Basic earr="\\, \t', max_size=300))
def test_any_header_is_read_to_some_end(header: str) -> None:
    parse_challenges(header)
