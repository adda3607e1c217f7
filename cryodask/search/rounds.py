"""Iterative jobs: round after round of the same function over fixed chunks of positions.

The chunks follow from the data alone, results come back in the order of the chunks, and sums are made in that
order: what a round decides does not depend on how many workers there are, nor on who was first.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from cryodask.errors import ClusterError, ResourceError
from cryodask.search.store import is_disk_full, telling_disk_full

if TYPE_CHECKING:
    from distributed import Client

R = TypeVar("R")
AHEAD = 8  # tasks beyond two a slot that wait with the scheduler


class StoppedError(Exception):
    """Another thread of the job failed, or the user stopped it."""


@dataclass(frozen=True)
class Rounds:
    """Where rounds run.

    Parameters
    ----------
    executor : concurrent.futures.Executor
    slots : callable
        How many tasks run at once; workers may come and go.
    stop : threading.Event
        Set to end every thread of the job at its next task.
    """

    executor: Executor
    slots: Callable[[], int]
    stop: threading.Event

    def each(self, function: Callable[..., R], items: Iterable[tuple[Any, ...]]) -> Iterator[R]:
        """Yield function(*item) of every item, in order, a bounded number in flight.

        Raises
        ------
        ResourceError
            The disk is full.
        ClusterError
            The cluster dropped the tasks.
        """
        waiting: deque[Future[R]] = deque()
        queue = iter(items)
        try:
            while True:
                while len(waiting) < 2 * self.slots() + AHEAD and (item := next(queue, None)) is not None:
                    waiting.append(self.executor.submit(_call, function, *item))
                if not waiting:
                    return
                yield self._result(waiting.popleft())
        finally:
            for future in waiting:
                future.cancel()

    def map(self, function: Callable[..., R], items: Iterable[tuple[Any, ...]]) -> list[R]:
        """Return the list of `each`."""
        return list(self.each(function, items))

    def _result(self, future: "Future[R]") -> R:
        if self.stop.is_set():
            future.cancel()
            raise StoppedError
        try:
            return future.result()
        except CancelledError as error:
            raise ClusterError(
                "the cluster dropped the tasks (connection lost, workers shut down); run again with --resume"
            ) from error
        except OSError as error:
            if is_disk_full(error):
                raise ResourceError(
                    "the disk is full; free some space and run again with --resume"
                ) from error
            raise


def _call(function: Callable[..., R], *arguments: Any) -> R:
    with telling_disk_full():
        return function(*arguments)


@contextmanager
def open_rounds(client: "Client | None" = None, *, threads: int | None = None) -> Iterator[Rounds]:
    """Yield where rounds run: a Dask client, or threads of this process (default: one a core)."""
    stop = threading.Event()
    if client is not None:
        client.wait_for_workers(1)
        executor = client.get_executor(pure=False, retries=2)
        yield Rounds(executor, lambda: max(1, sum(client.nthreads().values())), stop)
        return
    count = threads or os.cpu_count() or 1
    with ThreadPoolExecutor(count) as pool:
        yield Rounds(pool, lambda: count, stop)
