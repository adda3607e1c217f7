"""The driver of stored runs: keeps a bounded window of tasks and hands in the next as one finishes.

It speaks to a `concurrent.futures.Executor` alone: a thread pool, or that of a `distributed.Client`.
"""

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Executor, Future
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

from cryodask.errors import ClusterError, CryodaskError, IncompleteError, InputError, ResourceError
from cryodask.search.problem import TaskReport
from cryodask.search.store import Part, count_hypotheses, is_disk_full, missing_ranges
from cryodask.search.task import Run, fold_parts, prepare_run, score_batch
from cryodask.search.tiles import Batch, Tile, TilePlan

log = logging.getLogger(__name__)
FOLD_AT = 4  # partials of one tile that are folded into one, so that the store never holds many
MOST_TASKS = 10_000
MOST_LISTED = 10  # failures that a message names
MOST_LETTERS = 200  # of a foreign error's text
SLOTS_SECONDS = 5.0  # how often the number of workers is asked for


@dataclass
class Progress:
    """How far a set of runs is; handed to the listener after every task."""

    hypotheses_total: int = 0
    hypotheses_done: int = 0
    hypotheses_resumed: int = 0
    tiles_total: int = 0
    tiles_done: int = 0
    tiles_resumed: int = 0
    tasks: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    failures: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class PlannedRun:
    """A run, its tiles, the hypotheses of one task, and what to do before its first and after its last.

    It begins only when the run of number `after`, whose stored result it reads, is complete.
    """

    run: Run
    plan: TilePlan
    batch: int
    begin: Callable[[], Any]
    complete: Callable[[], Any]
    name: str
    after: int | None = None


@dataclass
class _OpenTile:
    tile: Tile
    waiting: int = 0
    folding: int = 0
    parts: list[Part] = field(default_factory=list)
    held: int = 0  # partials that are stored or will be by tasks in flight


@dataclass(frozen=True)
class _Task:
    number: int
    tile: int
    function: Callable[..., TaskReport]
    arguments: tuple[Any, ...]
    frees: int = 0  # partials fewer after it


@dataclass
class _OpenRun:
    """A run that is not complete: numbers alone of its tiles, but for those at work."""

    planned: PlannedRun
    done: set[int]
    parts: dict[int, list[Part]]
    left: int
    queue: Iterator[tuple[Tile, Batch]] = field(default_factory=lambda: iter(()))
    state: str = "new"
    exhausted: bool = False
    tiles: dict[int, _OpenTile] = field(default_factory=dict)
    failed: set[int] = field(default_factory=set)

    @property
    def tasks(self) -> int:
        """About how many tasks it has."""
        return self.left * math.ceil(self.planned.run.problem.hypotheses / self.planned.batch)


def drive(
    runs: Sequence[PlannedRun],
    executor: Executor,
    *,
    slots: int | Callable[[], int],
    listen: Callable[[Progress], None] = lambda progress: None,
    progress: Progress | None = None,
) -> Progress:
    """Compute what is missing of every run, in order, as one queue of tasks.

    Parameters
    ----------
    runs
        Prepared stores; tiles and batches that their records name are skipped.
    executor
        Where tasks run; a task that fails is tried again as the executor is set up to.
    slots
        How many tasks run at once; a function where workers come and go.
    listen
        Called after every task.
    progress
        Filled in as the runs advance; a new one by default.

    Returns
    -------
    Progress

    Raises
    ------
    IncompleteError
        Where tiles or runs failed; all others are stored.
    InputError
        Where runs cannot be computed from their input, and nothing else failed; all others are stored.
    ResourceError
        Where the disk is full, or a task does not fit: all stops at once and can be resumed.
    ClusterError
        Where the cluster drops tasks.
    """
    count = slots if callable(slots) else lambda: slots
    return _Driver(runs, executor, count, listen, progress or Progress()).run()


class _Driver:
    def __init__(
        self,
        runs: Sequence[PlannedRun],
        executor: Executor,
        slots: Callable[[], int],
        listen: Callable[[Progress], None],
        progress: Progress,
    ) -> None:
        self.executor, self.listen, self.progress = executor, listen, progress
        self.count_slots, self.slots, self.counted = slots, 0, -math.inf
        self.open = {planned.run.number: self._open(planned) for planned in runs}
        self.futures: dict[Future[Any], _Task] = {}
        self.finished: SimpleQueue[Future[Any]] = SimpleQueue()
        self.urgent: deque[_Task] = deque()
        self.held = 0
        self.first_error: Exception | None = None
        self.verdicts: set[type[CryodaskError]] = set()
        self.runs_failed = 0

    def _open(self, planned: PlannedRun) -> _OpenRun:
        count, total = planned.run.problem.hypotheses, len(planned.plan.tiles)
        stored = planned.run.store.progress()
        done = {index for index, tile in stored.items() if tile.is_done}
        parts = {index: tile.parts for index, tile in stored.items() if not tile.is_done}
        resumed = sum(count_hypotheses(part.ranges) for some in parts.values() for part in some)
        progress = self.progress
        progress.hypotheses_resumed += count * len(done) + resumed
        progress.hypotheses_done += count * len(done) + resumed
        progress.hypotheses_total += count * total
        progress.tiles_resumed += len(done)
        progress.tiles_done += len(done)
        progress.tiles_total += total
        return _OpenRun(planned, done, parts, total - len(done))

    def run(self) -> Progress:
        try:
            self._fill()
            while self.futures:
                self._take(self.finished.get())
                self._fill()
        except BaseException:
            for future in self.futures:
                future.cancel()
            raise
        if self.verdicts:
            raise self._verdict() from self.first_error
        return self.progress

    def _verdict(self) -> Exception:
        failures = self.progress.failures
        listed = "; ".join(failures[:MOST_LISTED])
        if len(failures) > MOST_LISTED:
            listed += f"; and {len(failures) - MOST_LISTED} more"
        if self.verdicts not in ({InputError}, {ResourceError}):
            what = "runs or tiles" if self.runs_failed else "tiles"
            return IncompleteError(f"{len(failures)} {what} failed ({listed}); run again with --resume")
        verdict = self.verdicts.pop()
        return verdict(str(self.first_error) if len(failures) == 1 else listed)

    def _fill(self) -> None:
        """Submit tasks until the window is full or nothing is ready; of two runs the earlier goes first."""
        while len(self.futures) < self._window():
            if self.urgent:
                self._submit(self.urgent.popleft())
            elif not self._submit_next() and not self.urgent:  # the search may have found a fold that is due
                return

    def _window(self) -> int:
        now = time.monotonic()
        if now - self.counted >= SLOTS_SECONDS:
            self.slots, self.counted = self.count_slots(), now
        return min(2 * self.slots + 8, MOST_TASKS)

    def _submit_next(self) -> bool:
        """Go a step on with the earliest run that can; the next runs are prepared ahead to fill the slots.

        No further ahead, since that would only fill the disk with their constants.
        """
        preparing, ahead = 0, 0
        for number, run in self.open.items():
            if run.state == "new":
                if run.planned.after in self.open:
                    continue
                if preparing >= 2 and ahead >= self.slots:
                    return False
                self._start(number, run)
                return True
            if run.state == "preparing":
                preparing, ahead = preparing + 1, ahead + run.tasks
            elif not run.exhausted:
                if self.held >= self._window():  # folds must go ahead of scores, or partials fill the disk
                    return False
                if (item := next(run.queue, None)) is not None:
                    self._score(number, run, *item)
                    return True
                run.exhausted = True
        return False

    def _score(self, number: int, run: _OpenRun, tile: Tile, batch: Batch) -> None:
        if len(batch) < run.planned.run.problem.hypotheses:
            self._hold(run, tile.index, 1)
        self._submit(_Task(number, tile.index, score_batch, (run.planned.run, tile, batch)))

    def _hold(self, run: _OpenRun, tile: int, change: int) -> None:
        """Count partials; those of failed tiles wait for another run and hold up nothing."""
        if tile not in run.failed:
            run.tiles[tile].held += change
            self.held += change

    def _start(self, number: int, run: _OpenRun) -> None:
        try:
            run.planned.begin()
        except Exception as error:
            self._fail_run(number, run, error)
            return
        if not run.left:
            self._complete(number, run)
            return
        run.queue = self._missing(run)
        run.state = "preparing"
        self._submit(_Task(number, -1, prepare_run, (run.planned.run,)))

    def _missing(self, run: _OpenRun) -> Iterator[tuple[Tile, Batch]]:
        """Yield what is not stored, tile by tile, so that partials of few tiles are open at once."""
        for tile in run.planned.plan.tiles:
            if tile.index in run.done:
                continue
            parts = run.parts.pop(tile.index, [])
            covered = [r for part in parts for r in part.ranges]
            batches = [
                Batch(first, min(first + run.planned.batch, stop))
                for start, stop in missing_ranges(covered, run.planned.run.problem.hypotheses)
                for first in range(start, stop, run.planned.batch)
            ]
            run.tiles[tile.index] = _OpenTile(tile, waiting=len(batches), parts=parts)
            self._hold(run, tile.index, len(parts))
            self._fold_if_due(run.planned.run.number, run, tile.index)  # of partials stored before
            for batch in batches:
                if tile.index not in run.failed:
                    yield tile, batch

    def _submit(self, task: _Task) -> None:
        future = self.executor.submit(task.function, *task.arguments)
        self.futures[future] = task
        future.add_done_callback(self.finished.put)

    def _take(self, future: Future[Any]) -> None:
        task = self.futures.pop(future)
        run = self.open[task.number]
        try:
            report: TaskReport = future.result()
        except CancelledError as error:
            raise ClusterError(
                f"{run.planned.name}: the cluster dropped the tasks (connection lost or workers shut down); "
                "run again with --resume"
            ) from error
        except Exception as error:
            if task.tile < 0:
                self._fail_run(task.number, run, error)
            else:
                self._fail_tile(run, task.tile, error)
        else:
            self._count(report)
            if report.kind == "prepare":
                run.state = "ready"
            else:
                self._advance(task, run, report)
        self.listen(self.progress)

    def _count(self, report: TaskReport) -> None:
        self.progress.tasks += 1
        self.progress.seconds += report.seconds
        self.progress.cpu_seconds += report.cpu_seconds
        self.progress.hypotheses_done += report.hypotheses
        self.progress.tiles_done += report.is_final

    def _advance(self, task: _Task, run: _OpenRun, report: TaskReport) -> None:
        if task.frees:
            self._hold(run, task.tile, -task.frees)
        if report.is_final:
            run.left -= 1
            del run.tiles[task.tile]
            if not run.left:
                self._complete(task.number, run)
            return
        tile = run.tiles[task.tile]
        if report.kind == "score":
            tile.waiting -= 1
        else:
            tile.folding -= 1
        tile.parts.append(report.part)
        self._fold_if_due(task.number, run, task.tile)

    def _fold_if_due(self, number: int, run: _OpenRun, index: int) -> None:
        tile = run.tiles[index]
        is_last = tile.waiting == 0 and tile.folding == 0
        if index not in run.failed and (is_last or len(tile.parts) >= FOLD_AT):
            parts, tile.parts = tile.parts, []
            tile.folding += 1
            frees = len(parts) if is_last else len(parts) - 1
            arguments = (run.planned.run, tile.tile, parts, is_last)
            self.urgent.append(_Task(number, index, fold_parts, arguments, frees))

    def _complete(self, number: int, run: _OpenRun) -> None:
        try:
            run.planned.complete()
        except Exception as error:
            self._fail_run(number, run, error)
        else:
            del self.open[number]

    def _fail_run(self, number: int, run: _OpenRun, error: Exception) -> None:
        """Go on without a run that cannot be prepared or completed."""
        self._stop_if_full(run, error)
        del self.open[number]
        for waiting in [other for other, each in self.open.items() if each.planned.after == number]:
            del self.open[waiting]
        self.runs_failed += 1
        refusals = (kind for kind in (InputError, ResourceError) if isinstance(error, kind))
        self._note(run.planned.name, error, next(refusals, IncompleteError))

    def _fail_tile(self, run: _OpenRun, tile: int, error: Exception) -> None:
        """Go on without a tile, unless the others must fail alike."""
        self._stop_if_full(run, error)
        if isinstance(error, InputError | ResourceError):
            raise error
        if tile not in run.failed:
            self._hold(run, tile, -run.tiles[tile].held)
            run.failed.add(tile)
            self._note(f"{run.planned.name} tile {tile}", error, IncompleteError)

    def _stop_if_full(self, run: _OpenRun, error: Exception) -> None:
        if is_disk_full(error):
            raise ResourceError(
                f"{run.planned.name}: the disk is full; free some space and run again with --resume"
            ) from error

    def _note(self, what: str, error: Exception, verdict: type[CryodaskError]) -> None:
        log.debug("%s failed", what, exc_info=error)
        reason = " ".join(str(error).split())
        if not isinstance(error, CryodaskError):
            reason = f"{type(error).__name__}: {reason}"[:MOST_LETTERS]
        self.first_error = self.first_error or error
        self.verdicts.add(verdict)
        self.progress.failures.append(f"{what}: {reason}")
