"""Rounds of tasks over fixed chunks."""

import errno
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from cryodask.errors import ResourceError
from cryodask.search.rounds import Rounds, StoppedError, open_rounds


def test_results_come_in_the_order_of_the_items() -> None:
    gates = [threading.Event() for _ in range(3)]

    def task(number: int) -> int:
        if number + 1 < len(gates):
            gates[number + 1].wait(10)  # each waits for the next: they finish from last to first
        gates[number].set()
        return number

    with open_rounds(threads=3) as rounds:
        assert rounds.map(task, [(i,) for i in range(3)]) == [0, 1, 2]


def test_few_tasks_are_in_flight() -> None:
    submitted = []

    class Counting(ThreadPoolExecutor):
        def submit(self, *arguments: object, **more: object) -> object:  # type: ignore[override]
            submitted.append(arguments)
            return super().submit(*arguments, **more)  # type: ignore[arg-type]

    with Counting(1) as pool:
        results = Rounds(pool, lambda: 1, threading.Event()).each(int, (("1",) for _ in range(1000)))
        next(results)
        assert len(submitted) == 10
        results.close()


def test_a_stopped_job_ends_at_its_next_task() -> None:
    with open_rounds(threads=1) as rounds:
        rounds.stop.set()
        with pytest.raises(StoppedError):
            rounds.map(int, [("1",)])


def test_a_full_disk_is_told() -> None:
    def full() -> None:
        raise OSError(errno.ENOSPC, "no space")

    with open_rounds(threads=1) as rounds, pytest.raises(ResourceError, match="disk is full"):
        rounds.map(full, [()])
