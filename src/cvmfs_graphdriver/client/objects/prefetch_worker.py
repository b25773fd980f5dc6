"""A process that fetches many small objects at once into the cache, for the client that started it.

Owns: the transfers in progress. Must not know: who wants an object, or what to do if it cannot be fetched:
each is tried once, verified, and failures are reported to ``prefetcher``. Eviction is up to the client, too.
"""

import contextlib
import os
import time
from collections import deque
from typing import Any, NamedTuple

import pycurl

from cvmfs_graphdriver.client.cache.arrival import Arrival, Wanted
from cvmfs_graphdriver.client.cache.cache import Cache
from cvmfs_graphdriver.client.network.connection import CurlConnection, Problem
from cvmfs_graphdriver.client.network.failover import Attempt, Failure
from cvmfs_graphdriver.client.network.proxies import Proxy
from cvmfs_graphdriver.client.objects.prefetch_messages import CACHE, UNTRIED, Order, Result, Route, Setup
from cvmfs_graphdriver.errors import CvmfsGraphdriverError
from cvmfs_graphdriver.kernel.channel import Channel
from cvmfs_graphdriver.repository.catalog.entry import Compression
from cvmfs_graphdriver.repository.digest import ObjectName

__all__ = ["main"]

_IDLE = 30.0
"""Seconds without orders after which this process ends."""
_MOMENT = 0.002
_SIGN = 1.0
"""Seconds after which a sign of life is sent if there is nothing else to be said."""
_OF_THE_OBJECT = {Failure.HOST_HTTP, Failure.BAD_DATA}
"""Failures that say nothing about other objects."""
_REPORT = 16
"""The number of results that are sent together."""


class _Fetch(NamedTuple):
    number: int
    arrival: Arrival
    attempt: Attempt
    connection: CurlConnection
    started: float


class _Worker:
    """Carries out orders until its pipe ends."""

    def __init__(self, channel: Channel, setup: Setup) -> None:
        self._channel = channel
        self._settings = setup.settings
        self._identifier = setup.identifier
        self._cache = Cache(setup.cache, alien=setup.alien)
        self._multi = pycurl.CurlMulti()
        self._idle: list[CurlConnection] = []
        self._orders: deque[tuple[Route, Attempt, Order]] = deque()
        self._flights: dict[pycurl.Curl, _Fetch] = {}
        self._results: list[Result] = []
        self._said = 0.0

    def run(self) -> None:
        """Work until there is nothing left to do. Raises EOFError, BrokenPipeError: the client hung up."""
        try:
            while True:
                if not self._orders and not self._flights and self._channel.is_quiet(_IDLE):
                    return
                while not self._channel.is_quiet():
                    self._accept(self._channel.receive())
                self._take_off()
                self._multi.perform()
                landed = self._land()
                if self._results and (len(self._results) >= _REPORT or not landed or not self._flights):
                    self._report()
                if self._flights and time.monotonic() - self._said > _SIGN:
                    self._report()
                if not landed and self._flights and self._multi.select(_MOMENT) < 0:
                    time.sleep(_MOMENT)
        finally:
            for flight in self._flights.values():
                flight.arrival.abandon()

    def _report(self) -> None:
        self._channel.send([tuple(result) for result in self._results])
        self._results.clear()
        self._said = time.monotonic()

    def _accept(self, message: Any) -> None:
        values, orders = message
        route = Route(*values)
        attempt = Attempt(route.host, Proxy(*route.proxy), route.no_cache, 0)
        self._orders.extend((route, attempt, Order(*order)) for order in orders)

    def _take_off(self) -> None:
        while self._orders and len(self._flights) < self._orders[0][0].transfers:
            route, attempt, order = self._orders.popleft()
            wanted = Wanted(
                ObjectName.parse(order.name),
                order.size,
                exact=order.exact,
                compression=Compression(order.compression),
                path=order.path,
            )
            try:
                arrival = Arrival(wanted, self._cache)
            except CvmfsGraphdriverError as error:
                self._results.append(_unstored(order.number, error))
                continue
            arrival.begin()
            connection = self._idle.pop() if self._idle else CurlConnection(self._settings, self._identifier)
            connection.prepare(attempt, wanted.location, arrival, None, route.timeout)
            flight = _Fetch(order.number, arrival, attempt, connection, time.monotonic())
            self._flights[connection.handle] = flight
            self._multi.add_handle(connection.handle)

    def _land(self) -> int:
        """Handle transfers that have ended; returns how many."""
        count, more = 0, 1
        while more:
            more, good, bad = self._multi.info_read()
            for handle, number, text in (*((handle, 0, "") for handle in good), *bad):
                self._multi.remove_handle(handle)
                flight = self._flights.pop(handle)
                self._results.append(self._concluded(flight, number, text))
                self._idle.append(flight.connection)
                count += 1
        return count

    def _concluded(self, flight: _Fetch, number: int, text: str) -> Result:
        arrival, connection = flight.arrival, flight.connection
        try:
            problem = connection.conclude(flight.attempt, arrival, number, text)
            if problem is None:
                arrival.commit()
        except CvmfsGraphdriverError as error:
            arrival.abandon()
            return _unstored(flight.number, error)
        seconds = time.monotonic() - flight.started
        if problem is not None:
            if problem.failure not in _OF_THE_OBJECT:
                self._drop(flight.attempt)
            return _failed(flight, problem, seconds)
        return Result(
            flight.number, "", "", False, False, connection.received, seconds, arrival.size, arrival.crc32
        )

    def _drop(self, failed: Attempt) -> None:
        """Give orders back that would only wait for the same server or proxy again."""
        kept = deque(each for each in self._orders if each[1] != failed)
        self._results += [
            Result(order.number, UNTRIED, "", False, False, 0, 0.0, 0, 0)
            for _, attempt, order in self._orders
            if attempt == failed
        ]
        self._orders = kept


def _failed(flight: _Fetch, problem: Problem, seconds: float) -> Result:
    flight.arrival.abandon()
    return Result(
        flight.number,
        problem.failure.name,
        problem.detail,
        problem.missing,
        problem.error is not None,
        flight.connection.received,
        seconds,
        0,
        0,
    )


def _unstored(number: int, error: CvmfsGraphdriverError) -> Result:
    return Result(number, CACHE, str(error), False, False, 0, 0.0, 0, 0)


def main() -> None:
    """The worker process."""
    channel = Channel.of_child()
    with contextlib.suppress(EOFError, BrokenPipeError):
        _Worker(channel, Setup.of_message(channel.receive())).run()
    os._exit(0)  # all files are closed; shutting the interpreter down would only take time


if __name__ == "__main__":
    main()
