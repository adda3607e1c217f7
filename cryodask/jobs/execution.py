"""Planned runs of a job, computed as one queue of tasks on a cluster or in this process."""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from cryodask.errors import IncompleteError, InputError
from cryodask.search.driver import PlannedRun, Progress, drive
from cryodask.search.plan import split_hypotheses
from cryodask.search.store import RunStore
from cryodask.search.task import Run
from cryodask.search.tiles import TilePlan

if TYPE_CHECKING:
    from distributed import Client


class JobRun(Protocol):
    """What a job plans: a problem, its tiles, and where the result goes."""

    @property
    def name(self) -> str:
        """The result's name, for messages."""
        ...

    @property
    def final(self) -> Path:
        """The result."""
        ...

    @property
    def is_finished(self) -> bool:
        """Whether there is nothing left to do."""
        ...

    @property
    def replaces(self) -> bool:
        """Whether an unfinished run of that name makes way."""
        ...

    @property
    def store(self) -> RunStore:
        """The unfinished result."""
        ...

    @property
    def problem(self) -> Any:
        """The search."""
        ...

    @property
    def plan(self) -> TilePlan:
        """Its tiles."""
        ...

    @property
    def seconds_each(self) -> float:
        """CPU seconds of one hypothesis on one tile, roughly."""
        ...

    def begin(self) -> None:
        """Create the store, unless it is resumed."""
        ...

    def complete(self, progress: Progress, *, keep_run: bool) -> list[str]:
        """Finish the result and publish it; return what should be told."""
        ...

    def forget(self) -> None:
        """Remove what was begun and has nothing to resume."""
        ...


@dataclass(frozen=True)
class Stage:
    """A search that is one part of a run.

    Parameters
    ----------
    problem, plan, store
        What is searched, its tiles, and where its maps go.
    seconds_each
        CPU seconds of one hypothesis on one tile, roughly.
    """

    problem: Any
    plan: TilePlan
    store: RunStore
    seconds_each: float


@runtime_checkable
class StagedRun(Protocol):
    """A run of several searches, each of which reads the stored result of the one before."""

    @property
    def stages(self) -> Sequence[Stage]:
        """The searches in order; the last one's maps are the result."""
        ...


def execute(
    runs: Sequence[JobRun],
    *,
    client: "Client | None" = None,
    batch: int | None = None,
    cleanup: bool = True,
    listen: Callable[[Progress], None] = lambda progress: None,
    tell: Callable[[str], None] = lambda notice: None,
) -> list[Path]:
    """Compute runs as one queue of tasks, each result published as it completes.

    Parameters
    ----------
    runs
        Checked and planned.
    client
        Dask client; default: the active one, else threads of this process.
    batch
        Hypotheses of a task, instead of the planner's.
    cleanup
        Remove plan, records and constants of finished runs.
    listen
        Called after every task.
    tell
        Called with what a user should know of a finished run.

    Returns
    -------
    list of pathlib.Path
        The results, in order.

    Raises
    ------
    IncompleteError
        Where tiles failed.
    """
    with job_executor(client) as (executor, slots):
        planned: list[PlannedRun] = []
        progress = Progress()
        for run in runs:
            if run.is_finished:
                continue
            if run.replaces:
                shutil.rmtree(run.store.path, ignore_errors=True)

            def complete(run: JobRun = run) -> None:
                for notice in run.complete(progress, keep_run=not cleanup):
                    tell(notice)

            planned += _planned(run, len(planned), slots(), batch, complete)
        try:
            drive(planned, executor, slots=slots, listen=listen, progress=progress)
        except (InputError, IncompleteError):
            for run in runs:
                run.forget()
            raise
    return [run.final for run in runs]


def _planned(
    run: JobRun, number: int, slots: int, batch: int | None, complete: Callable[[], None]
) -> Iterator[PlannedRun]:
    """Yield the stages of a run for the driver, numbered from a number on."""
    stages = [Stage(run.problem, run.plan, run.store, run.seconds_each)]
    if isinstance(run, StagedRun):
        stages = list(run.stages)
    last = len(stages) - 1
    for place, stage in enumerate(stages):
        size = split_hypotheses(
            stage.problem.hypotheses,
            tiles=len(stage.plan.tiles),
            slots=slots,
            seconds_each=stage.seconds_each,
            batch=batch,
        )
        yield PlannedRun(
            Run(number + place, stage.problem, stage.store),
            stage.plan,
            size,
            run.begin if place == 0 else _nothing,
            complete if place == last else _nothing,
            run.name,
            after=number + place - 1 if place else None,
        )


def _nothing() -> None:
    pass


@contextmanager
def job_executor(client: "Client | None" = None) -> Iterator[tuple[Executor, Callable[[], int]]]:
    """Yield where tasks run, and how many run at once: a batch system's workers come and go."""
    client = client or _active_client()
    if client is not None:
        client.wait_for_workers(1)
        yield client.get_executor(pure=False, retries=2), lambda: max(1, sum(client.nthreads().values()))
        return
    threads = os.cpu_count() or 1
    with ThreadPoolExecutor(threads) as pool:
        yield pool, lambda: threads


def _active_client() -> "Client | None":
    from distributed import default_client

    try:
        return default_client()
    except ValueError:
        return None


def iso_time(seconds: float) -> str:
    """Return seconds since 1970 as a date and time in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
