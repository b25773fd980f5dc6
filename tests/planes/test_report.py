"""What is said of mounted repositories."""

import dataclasses
import time

import pytest

from cvmfs_graphdriver.client.administration.status import Status
from cvmfs_graphdriver.planes.report import cache_row, degraded_row, repository_row

FINE = Status(
    **{field.name: "" for field in dataclasses.fields(Status)}  # type: ignore[arg-type]
    | {
        "fqrn": "a.org",
        "revision": 7,
        "next_refresh": 90.0,
        "host": "http://s/cvmfs/a.org",
        "proxy": "DIRECT",
    }
    | {"counters": {"io_errors": 3}, "cache_used": 5 << 20, "cache_limit": 400 << 20, "burned_proxies": 0}
    | {"published": 0, "last_io_error": 0}
)


@pytest.mark.parametrize(
    ("age", "shown"), [(30, "30 s"), (150, "2 min"), (7300, "2 h"), (200_000, "2 d"), (-50, "0 s")]
)
def test_a_repository(age: int, shown: str) -> None:
    status = dataclasses.replace(FINE, published=int(time.time()) - age)
    assert repository_row(status) == (
        "Repository a.org",
        f"revision 7, {shown} old, next check in 1 min, from http://s/cvmfs/a.org by DIRECT, 3 I/O errors",
    )


def test_a_fixed_revision_that_nobody_dates() -> None:
    row = repository_row(dataclasses.replace(FINE, next_refresh=-1))
    assert row[1].startswith("revision 7, revision is fixed, from ")


def test_the_cache() -> None:
    assert cache_row("/c", "", []) == ("Cache", "/c, quota as configured")
    assert cache_row("/c", "500", []) == ("Cache", "/c, quota 500 MiB")
    assert cache_row("/c", "500", [FINE]) == ("Cache", "/c, 5 of 400 MiB")
    unlimited = dataclasses.replace(FINE, cache_limit=-1)
    assert cache_row("/c", "", [unlimited]) == ("Cache", "/c, 5 MiB, no quota")


def test_what_is_degraded() -> None:
    assert degraded_row([FINE], {}) == ("Degraded", "no")
    ill = dataclasses.replace(FINE, offline="no host answers", burned_proxies=2)
    assert degraded_row([FINE, ill], {"b.org": "nobody answers"})[1] == (
        "b.org: nobody answers; a.org: served from the cache alone: no host answers; "
        "a.org: 2 proxies do not answer"
    )


def test_a_whitelist_that_ends_is_degraded() -> None:
    ending = dataclasses.replace(FINE, whitelist_problem="the whitelist of a.org expires on Sunday")
    assert degraded_row([ending], {})[1] == "the whitelist of a.org expires on Sunday"


def test_a_revision_that_servers_died_of_is_named() -> None:
    status = dataclasses.replace(FINE, avoided="abc")
    assert degraded_row([status], {})[1] == (
        "a.org: shows revision 7, since servers died of the newer one with root catalog abc"
    )


def test_a_full_disk_is_degraded() -> None:
    full = dataclasses.replace(FINE, cache_full=True, cache_directory="/cache")
    assert degraded_row([full], {})[1] == f"{FINE.fqrn}: the disk of the cache /cache is full"


def test_a_file_that_could_not_be_had_lately_is_named() -> None:
    status = dataclasses.replace(
        FINE, last_io_error=int(time.time()) - 130, last_io_error_text="/a/file: no host answers"
    )
    assert degraded_row([status], {})[1] == "a.org: cannot be read (2 min ago): /a/file: no host answers"
    old = dataclasses.replace(status, last_io_error=int(time.time()) - 3600)
    assert degraded_row([old], {})[1] == "no"
