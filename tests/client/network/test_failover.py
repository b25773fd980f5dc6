"""The state machine of servers and proxies, against a table of what each failure leads to."""

from random import Random

import pytest

from cvmfs_graphdriver.client.network.failover import Attempt, Failover, Failure, Policy, classify_status
from cvmfs_graphdriver.client.network.proxies import proxy_groups

NO_PAUSE = Policy(max_retries=0)


def _machine(
    hosts: str = "h1", proxies: str = "DIRECT", fallback: str = "", policy: Policy = NO_PAUSE
) -> Failover:
    return Failover(hosts.split(), proxy_groups(proxies, fallback), policy, Random(1))


def _place(attempt: Attempt | None) -> str:
    """An attempt as text: ``host/proxy``, with ``!`` past caches and ``+`` after a pause."""
    if attempt is None:
        return "end"
    proxy = attempt.proxy.url.removeprefix("http://")
    return f"{attempt.host}/{proxy}{'!' * attempt.no_cache}{'+' * (attempt.delay > 0)}"


TABLE = [
    # servers, proxies, fallback, retries: what fails, and where the job goes from the first place on
    ("h1", "DIRECT", "", 0, "HOST_HTTP", "h1/DIRECT end"),
    ("h1 h2", "DIRECT", "", 0, "HOST_HTTP HOST_HTTP", "h1/DIRECT h2/DIRECT end"),
    ("h1 h2 h3", "p", "", 0, "HOST_HTTP HOST_RESOLVE HOST_HTTP", "h1/p h2/p h3/p end"),
    ("h1", "p", "", 0, "PROXY_HTTP", "h1/p end"),
    ("h1", "p;q", "", 0, "PROXY_HTTP PROXY_RESOLVE", "h1/p h1/q end"),
    ("h1", "p;q;DIRECT", "", 0, "PROXY_CONNECTION PROXY_SHORT HOST_HTTP", "h1/p h1/q h1/DIRECT end"),
    ("h1", "p", "f", 0, "PROXY_RESOLVE PROXY_RESOLVE", "h1/p h1/f end"),
    ("h1", "p;DIRECT", "f;DIRECT", 0, "PROXY_HTTP PROXY_HTTP", "h1/p h1/f end"),
    # All proxies failed: the next server, beginning with the first group.
    (
        "h1 h2",
        "p;q",
        "",
        0,
        "PROXY_HTTP PROXY_HTTP PROXY_HTTP PROXY_HTTP",
        "h1/p h1/q h2/p h2/q end",
    ),
    # A server fails behind a proxy, then the proxy.
    ("h1 h2", "p;q", "", 0, "HOST_HTTP PROXY_HTTP PROXY_HTTP", "h1/p h2/p h2/q end"),
    # Transfer failures are repeated once with a pause; others are not.
    ("h1", "DIRECT", "", 1, "HOST_CONNECTION HOST_CONNECTION", "h1/DIRECT h1/DIRECT+ end"),
    ("h1 h2", "DIRECT", "", 1, "HOST_TOO_SLOW HOST_SHORT HOST_SHORT", "h1/DIRECT h1/DIRECT+ h2/DIRECT end"),
    ("h1", "p;q", "", 1, "PROXY_SHORT PROXY_TOO_SLOW PROXY_SHORT", "h1/p h1/p+ h1/q end"),
    ("h1", "p;q", "", 1, "PROXY_HTTP PROXY_CONNECTION PROXY_HTTP", "h1/p h1/q h1/q+ end"),
    ("h1", "p", "", 2, "PROXY_SHORT PROXY_SHORT PROXY_SHORT", "h1/p h1/p+ h1/p+ end"),
    ("h1", "DIRECT", "", 1, "HOST_HTTP", "h1/DIRECT end"),
    ("h1", "p", "", 1, "PROXY_RESOLVE", "h1/p end"),
    # Wrong bytes: once past the caches, then the server is to blame; no repetitions afterwards.
    ("h1", "p", "", 1, "BAD_DATA BAD_DATA", "h1/p h1/p! end"),
    ("h1 h2", "p", "", 1, "BAD_DATA BAD_DATA BAD_DATA", "h1/p h1/p! h2/p! end"),
    ("h1 h2", "p", "", 1, "BAD_DATA HOST_SHORT HOST_SHORT", "h1/p h1/p! h2/p! end"),
]


@pytest.mark.parametrize(("hosts", "proxies", "fallback", "retries", "failures", "places"), TABLE)
def test_transitions(
    hosts: str, proxies: str, fallback: str, retries: int, failures: str, places: str
) -> None:
    machine = _machine(hosts, proxies, fallback, Policy(max_retries=retries))
    job = machine.job()
    attempt: Attempt | None = job.first(1)
    seen = [_place(attempt)]
    for failure in failures.split():
        assert attempt is not None
        attempt = job.failed(attempt, Failure[failure], 1)
        seen.append(_place(attempt))
    assert " ".join(seen) == places


@pytest.mark.parametrize("indefinitely", [False, True])
def test_every_sequence_of_failures_ends_unless_told_otherwise(indefinitely: bool) -> None:
    random = Random(5)
    policy = Policy(max_retries=2, indefinitely=indefinitely)
    for _ in range(200):
        machine = _machine("h1 h2 h3", "p|q;r;DIRECT", "s", policy)
        job = machine.job()
        attempt: Attempt | None = job.first(1)
        for _ in range(100):
            if attempt is None:
                break
            sides = (
                Failure
                if attempt.proxy.url != "DIRECT"
                else [f for f in Failure if f.name.startswith("HOST")]
            )
            attempt = job.failed(attempt, random.choice(list(sides)), 1)
        assert (attempt is None) or indefinitely


def test_load_is_balanced_within_a_group_and_burned_members_are_left_out() -> None:
    chosen = set()
    for seed in range(30):
        machine = Failover(["h"], proxy_groups("a|b|c;d"), NO_PAUSE, Random(seed))
        chosen.add(machine.current_proxy.url)
    assert chosen == {"http://a", "http://b", "http://c"}
    machine = _machine(proxies="a|b|c;d")
    job = machine.job()
    attempt = job.first(1)
    used = [attempt.proxy.url]
    for _ in range(3):
        following = job.failed(attempt, Failure.PROXY_HTTP, 1)
        assert following is not None
        attempt = following
        used.append(attempt.proxy.url)
    assert sorted(used[:3]) == ["http://a", "http://b", "http://c"]
    assert used[3] == "http://d"
    assert (machine.current_group, machine.burned) == (1, 0)


def test_requests_that_fail_together_burn_one_proxy_and_leave_one_server() -> None:
    machine = _machine("h1 h2 h3", "a;b;c")
    jobs = [machine.job() for _ in range(5)]
    firsts = [job.first(1) for job in jobs]
    for job, first in zip(jobs, firsts, strict=True):
        assert _place(job.failed(first, Failure.PROXY_CONNECTION, 1)) == "h1/b"
    jobs = [machine.job() for _ in range(5)]
    firsts = [job.first(1) for job in jobs]
    for job, first in zip(jobs, firsts, strict=True):
        assert _place(job.failed(first, Failure.HOST_HTTP, 1)) == "h2/b"


def test_way_back_to_the_first_choice() -> None:
    policy = Policy(proxy_reset_after=300, host_reset_after=1800, max_retries=0)
    machine = _machine("h1 h2", "a;b", "", policy)
    job = machine.job()
    attempt = job.failed(job.first(100), Failure.PROXY_HTTP, 100)
    assert attempt is not None
    assert _place(job.failed(attempt, Failure.HOST_HTTP, 200)) == "h2/b"
    assert _place(machine.job().first(399)) == "h2/b"
    assert _place(machine.job().first(401)) == "h2/a"
    assert _place(machine.job().first(1999)) == "h2/a"
    assert _place(machine.job().first(2001)) == "h1/a"


def test_burned_members_return_after_the_same_time() -> None:
    machine = _machine(proxies="a|b", policy=Policy(proxy_reset_after=300, max_retries=0))
    job = machine.job()
    assert job.failed(job.first(100), Failure.PROXY_HTTP, 100) is not None
    assert machine.burned == 1
    machine.job().first(399)
    assert machine.burned == 1
    machine.job().first(401)
    assert machine.burned == 0


def test_reset_time_zero_means_never() -> None:
    machine = _machine("h1 h2", "a;b", "", Policy(proxy_reset_after=0, host_reset_after=0, max_retries=0))
    machine.switch_host(1)
    machine.switch_group(1)
    assert _place(machine.job().first(1e9)) == "h2/b"


def test_pauses_double_up_to_the_limit() -> None:
    policy = Policy(max_retries=6, backoff_init=2, backoff_max=10)
    for seed in range(20):
        job = Failover(["h"], proxy_groups("DIRECT"), policy, Random(seed)).job()
        attempt: Attempt | None = job.first(1)
        pauses = []
        for _ in range(6):
            assert attempt is not None
            attempt = job.failed(attempt, Failure.HOST_SHORT, 1)
            assert attempt is not None
            pauses.append(attempt.delay)
        assert 0 <= pauses[0] <= 2
        assert pauses[1:] == [min(2 * pause, 10) for pause in pauses[:-1]]


def test_going_on_without_end() -> None:
    machine = _machine(proxies="a;b", policy=Policy(max_retries=0, indefinitely=True))
    job = machine.job()
    attempt = job.first(1)
    places = []
    for _ in range(6):
        following = job.failed(attempt, Failure.PROXY_CONNECTION, 1)
        assert following is not None
        attempt = following
        places.append(_place(attempt))
    assert places == ["h1/b", "h1/a", "h1/b", "h1/a", "h1/b", "h1/a"]


def test_sharding_spreads_objects_and_moves_only_those_of_a_dead_proxy() -> None:
    machine = _machine(proxies="a|b|c", policy=Policy(shard=True, max_retries=0))
    keys = [number * 0x01010101 for number in range(256)]
    before = {key: machine.job(key).first(1).proxy.url for key in keys}
    assert set(before.values()) == {"http://a", "http://b", "http://c"}
    key = next(key for key in keys if before[key] == "http://b")
    job = machine.job(key)
    assert job.failed(job.first(1), Failure.PROXY_HTTP, 1) is not None
    after = {key: machine.job(key).first(1).proxy.url for key in keys}
    assert "http://b" not in after.values()
    assert all(after[key] == before[key] for key in keys if before[key] != "http://b")


def test_administrators_change_servers_and_proxies() -> None:
    machine = _machine("h1 h2", "a;b", "c")
    machine.switch_host(1)
    machine.switch_group(1)
    assert (machine.current_host, machine.current_group) == (1, 1)
    machine.switch_group(1)
    machine.switch_group(1)
    assert machine.current_group == 0
    machine.set_hosts(["x", "y"])
    machine.set_proxies(proxy_groups("d|e"))
    assert _place(machine.job().first(1)) in {"x/d", "x/e"}
    assert machine.hosts == ("x", "y")
    assert [proxy.url for proxy in machine.groups.groups[0]] == ["http://d", "http://e"]
    job = machine.job()
    job.failed(job.first(1), Failure.PROXY_HTTP, 1)
    assert machine.burned == 1
    machine.rebalance()
    assert machine.burned == 0


@pytest.mark.parametrize(
    ("status", "direct", "redirects", "proxy_error", "failure"),
    [
        (200, False, False, False, None),
        (206, True, False, False, None),
        (301, False, False, False, Failure.HOST_HTTP),
        (307, False, True, False, Failure.HOST_CONNECTION),
        (400, False, False, False, Failure.HOST_HTTP),
        (404, False, False, False, Failure.HOST_HTTP),
        (404, False, False, True, Failure.PROXY_HTTP),
        (404, True, False, True, Failure.HOST_HTTP),
        (403, False, False, False, Failure.PROXY_HTTP),
        (403, True, False, False, Failure.HOST_HTTP),
        (429, False, False, False, Failure.HOST_CONNECTION),
        (429, True, False, False, Failure.HOST_CONNECTION),
        (500, False, False, False, Failure.HOST_HTTP),
        (503, False, False, True, Failure.PROXY_HTTP),
        (502, True, False, False, Failure.HOST_HTTP),
    ],
)
def test_meaning_of_a_status(
    status: int, direct: bool, redirects: bool, proxy_error: bool, failure: Failure | None
) -> None:
    found = classify_status(status, direct=direct, redirects=redirects, proxy_error=proxy_error)
    assert found is failure
