"""Fetching what will probably be wanted: many small objects at once, by one thread.

Owns: what is under way ahead of its readers. Who waits for one object is served by a thread that makes one
transfer from beginning to end; here a reader of thousands of small files shall not wait for each of them,
and handing them from thread to thread would cost more than fetching them. So one thread drives as many
transfers as there are connections to spare (libcurl-multi(3)). Must not know: who reads what, failover: a
transfer whose first attempt fails is carried on by ``Transfer``, where it may take its time.
"""

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import NamedTuple

import pycurl

from cvmfs_graphdriver.client.background import Background
from cvmfs_graphdriver.client.connection import Connection
from cvmfs_graphdriver.client.errors import UnreachableError
from cvmfs_graphdriver.client.failover import Attempt
from cvmfs_graphdriver.client.fetcher import Download, Fetcher, Wanted
from cvmfs_graphdriver.client.transfer import Errand, Transfer
from cvmfs_graphdriver.errors import CvmfsGraphdriverError

__all__ = ["Arrived", "Prefetcher"]

Arrived = Callable[[int], None]
"""Is given a descriptor of the object, which then belongs to it."""

_BIG = 1 << 20
"""Objects of more bytes have a thread each: decompressing them takes longer than all the rest."""
_THREADS = 4
_TICK = 0.02
_MOMENT = 0.001


class _Task(NamedTuple):
    """What is to be fetched, and who wants to know."""

    wanted: Wanted
    arrived: Arrived


class _Flight(NamedTuple):
    """A transfer under way."""

    task: _Task
    download: Download
    errand: Errand
    attempt: Attempt
    connection: Connection


class Prefetcher:
    """Fetches into the cache from a repository's servers; safe for any number of threads.

    Errors are nobody's: whoever needs the object will see them.
    """

    def __init__(self, fetcher: Fetcher, transfer: Transfer) -> None:
        self._fetcher = fetcher
        self._transfer = transfer
        self._slow = Background(_THREADS, "prefetch")
        self._tasks: SimpleQueue[_Task | None] = SimpleQueue()
        self._flights: dict[pycurl.Curl, _Flight] = {}
        self._failed: set[Download] = set()
        """Those whose first attempt failed, and the next one has not begun."""
        self._closing = False
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def submit(self, wanted: Wanted, arrived: Arrived = os.close, transfer: Transfer | None = None) -> None:
        """Fetch an object if it is not there, and do not wait; ``arrived`` is called when it has come.

        ``transfer`` is for what does not come from the usual servers.
        """
        task = _Task(wanted, arrived)
        if transfer is not None or wanted.size > _BIG:
            self._slow.submit(lambda: self._fetch(task, transfer))
            return
        if self._thread is None:
            self._start()
        self._tasks.put(task)

    def close(self) -> None:
        """Fetch nothing any more; what is under way is given up."""
        self._closing = True
        with self._lock:
            thread = self._thread
        if thread is not None:
            self._tasks.put(None)
            thread.join()
        self._slow.close()
        while self._failed:
            download = self._failed.pop()
            download.fail(_closed(download))

    def _start(self) -> None:
        with self._lock:
            if self._thread is None and not self._closing:
                self._thread = threading.Thread(target=self._run, name="prefetcher", daemon=True)
                self._thread.start()

    # The thread

    def _run(self) -> None:
        multi = pycurl.CurlMulti()
        try:
            while not self._closing:
                self._take_off(multi)
                multi.perform()
                if not self._land(multi) and self._flights and multi.select(_TICK) <= 0:
                    # Also so if libcurl finds no way to wait for descriptors with great numbers.
                    time.sleep(_MOMENT)
        finally:
            for flight in self._flights.values():
                multi.remove_handle(flight.connection.handle)
                flight.download.fail(_closed(flight.download))
                self._transfer.give_back(flight.connection, spare=True)
            self._flights.clear()
            multi.close()

    def _take_off(self, multi: pycurl.CurlMulti) -> None:
        """Begin transfers as long as there are tasks and connections; wait for a task if there is no work."""
        while not self._closing:
            connection = self._transfer.try_to_borrow()
            if connection is None:
                if not self._flights:
                    time.sleep(_TICK)
                return
            begun = False
            try:
                while not begun:
                    task = self._tasks.get(block=not self._flights)
                    if task is None:
                        return
                    begun = self._begin(multi, task, connection)
            except Empty:
                return
            finally:
                if not begun:
                    self._transfer.give_back(connection, spare=True)

    def _begin(self, multi: pycurl.CurlMulti, task: _Task, connection: Connection) -> bool:
        """Says whether the connection is in use now."""
        with suppress(CvmfsGraphdriverError):
            download = self._fetcher.begin(task.wanted)
            if download is None:
                return False
            try:
                errand = self._transfer.errand(
                    download.path, download, key=download.key, span=task.wanted.span
                )
                attempt = errand.attempt
                assert attempt is not None  # noqa: S101 - there is a first one
                self._transfer.prepare(errand, attempt, connection)
            except BaseException as error:
                download.fail(error)
                raise
            self._flights[connection.handle] = _Flight(task, download, errand, attempt, connection)
            multi.add_handle(connection.handle)
            return True
        return False

    def _land(self, multi: pycurl.CurlMulti) -> int:
        """See to the transfers that have ended; returns how many those were."""
        count, more = 0, 1
        while more:
            more, good, bad = multi.info_read()
            for handle, number, text in (*((handle, 0, "") for handle in good), *bad):
                multi.remove_handle(handle)
                self._conclude(self._flights.pop(handle), number, text)
                count += 1
        return count

    def _conclude(self, flight: _Flight, number: int, text: str) -> None:
        task, download, errand, attempt, connection = flight
        try:
            if not self._transfer.conclude(errand, attempt, connection, number, text):
                self._failed.add(download)
                self._slow.submit(lambda: self._carry_on(task, download, errand))
                return
            descriptor = download.keep()
        except CvmfsGraphdriverError as error:
            download.fail(error)
            return
        finally:
            self._transfer.give_back(connection, spare=True)
        task.arrived(descriptor)

    # The other threads

    def _carry_on(self, task: _Task, download: Download, errand: Errand) -> None:
        """Make the attempts that are left."""
        self._failed.discard(download)
        try:
            self._transfer.finish(errand)
            descriptor = download.keep()
        except CvmfsGraphdriverError as error:
            download.fail(error)
            return
        task.arrived(descriptor)

    def _fetch(self, task: _Task, transfer: Transfer | None) -> None:
        with suppress(CvmfsGraphdriverError):
            task.arrived(self._fetcher.open(task.wanted, transfer))


def _closed(download: Download) -> UnreachableError:
    return UnreachableError(f"{download.path}: the client is being closed")
