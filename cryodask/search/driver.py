"""The driver of stored runs: keeps a bounded window of tasks and hands in the next as one finishes.

It speaks to a `concurrent.futures.Executor` alone: a thread pool, or that of a `distributed.Client`.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, wait
from dataclasses import dataclass, field
from typing import Any

from cryodask.errors import CryodaskError, IncompleteError, InputError, ResourceError
from cryodask.search.problem import TaskReport
from cryodask.search.store import Part, TileProgress, count_hypotheses, is_disk_full, missing_ranges
from cryodask.search.task import Run, fold_parts, prepare_run, score_batch
from cryodask.search.tiles import Batch, Tile, TilePlan

log = logging.getLogger(__name__)
FOLD_AT = 4  # partials of one tile that are folded into one, so that the store never holds many
MOST_TASKS = 10_000


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
    """A run, its tiles, the hypotheses of one task, and what to do before its first and after its last."""

    run: Run
    plan: TilePlan
    batch: int
    begin: Callable[[], Any]
    complete: Callable[[], Any]
    name: str


@dataclass
class _OpenTile:
    tile: Tile
    waiting: int = 0
    folding: int = 0
    parts: list[Part] = field(default_factory=list)


@dataclass
class _OpenRun:
    planned: PlannedRun
    queue: Iterator[tuple[Tile, Batch]]
    stored: dict[int, TileProgress]
    left: set[int]
    state: str = "new"
    exhausted: bool = False
    tiles: dict[int, _OpenTile] = field(default_factory=dict)
    failed: set[int] = field(default_factory=set)


def drive(
    runs: Sequence[PlannedRun],
    executor: Executor,
    *,
    slots: int,
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
        How many tasks run at once.
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
        Where tiles failed; all others are stored.
    ResourceError
        Where the disk is full; the run stops at once and can be resumed.
    """
    return _Driver(runs, executor, slots, listen, progress or Progress()).run()


class _Driver:
    def __init__(
        self,
        runs: Sequence[PlannedRun],
        executor: Executor,
        slots: int,
        listen: Callable[[Progress], None],
        progress: Progress,
    ) -> None:
        self.executor, self.listen = executor, listen
        self.window = min(2 * slots + 8, MOST_TASKS)
        self.progress = progress
        self.open = {planned.run.number: self._open(planned) for planned in runs}
        self.futures: dict[Future[Any], tuple[int, int]] = {}
        self.urgent: deque[tuple[int, int, Callable[..., TaskReport], tuple[Any, ...]]] = deque()

    def _open(self, planned: PlannedRun) -> _OpenRun:
        stored = planned.run.store.progress()
        count, progress = planned.run.problem.hypotheses, self.progress
        left = set()
        for tile in planned.plan.tiles:
            here = stored.get(tile.index, TileProgress())
            done = count if here.is_done else sum(count_hypotheses(part.ranges) for part in here.parts)
            progress.hypotheses_done += done
            progress.hypotheses_resumed += done
            progress.tiles_done += here.is_done
            progress.tiles_resumed += here.is_done
            if not here.is_done:
                left.add(tile.index)
        progress.tiles_total += len(planned.plan.tiles)
        progress.hypotheses_total += count * len(planned.plan.tiles)
        return _OpenRun(planned, iter(()), stored, left)

    def run(self) -> Progress:
        try:
            self._fill()
            while self.futures:
                done, _ = wait(self.futures, return_when=FIRST_COMPLETED)
                for future in done:
                    self._take(future)
                self._fill()
        except BaseException:
            for future in self.futures:
                future.cancel()
            raise
        if self.progress.failures:
            shown = "; ".join(self.progress.failures[:3])
            raise IncompleteError(
                f"{len(self.progress.failures)} tiles failed ({shown}); run again with --resume"
            )
        return self.progress

    def _fill(self) -> None:
        """Submit tasks until the window is full or nothing is ready; of two runs the earlier goes first."""
        while len(self.futures) < self.window:
            if self.urgent:
                self._submit(*self.urgent.popleft())
            elif not self._submit_next():
                return

    def _submit_next(self) -> bool:
        preparing = 0
        for number, run in list(self.open.items()):
            if run.state == "new":
                self._start(number, run)
                return True
            if run.state == "preparing":
                preparing += 1
                if preparing == 2:  # enough prepared ahead; more would only fill the disk with spectra
                    return False
            if run.state == "ready" and not run.exhausted:
                if (item := next(run.queue, None)) is not None:
                    self._submit(number, item[0].index, score_batch, (run.planned.run, *item))
                    return True
                run.exhausted = True
        return False

    def _start(self, number: int, run: _OpenRun) -> None:
        run.planned.begin()
        if not run.left:
            self._complete(number, run)
            return
        run.queue = self._missing(run)
        run.state = "preparing"
        self._submit(number, -1, prepare_run, (run.planned.run,))

    def _missing(self, run: _OpenRun) -> Iterator[tuple[Tile, Batch]]:
        """Yield what is not stored, tile by tile, so that partials of few tiles are open at once."""
        for tile in run.planned.plan.tiles:
            if tile.index not in run.left:
                continue
            parts = run.stored.get(tile.index, TileProgress()).parts
            covered = [r for part in parts for r in part.ranges]
            batches = [
                Batch(first, min(first + run.planned.batch, stop))
                for start, stop in missing_ranges(covered, run.planned.run.problem.hypotheses)
                for first in range(start, stop, run.planned.batch)
            ]
            run.tiles[tile.index] = _OpenTile(tile, waiting=len(batches), parts=list(parts))
            if not batches:  # stopped between the last batch and the last fold
                self._fold_if_due(run.planned.run.number, run, tile.index)
            for batch in batches:
                if tile.index not in run.failed:
                    yield tile, batch

    def _submit(
        self, number: int, tile: int, function: Callable[..., TaskReport], arguments: tuple[Any, ...]
    ) -> None:
        self.futures[self.executor.submit(function, *arguments)] = (number, tile)

    def _take(self, future: Future[Any]) -> None:
        number, tile = self.futures.pop(future)
        run = self.open[number]
        try:
            report: TaskReport = future.result()
        except (Exception, CancelledError) as error:
            self._fail(run, tile, error)
        else:
            self._count(report)
            if report.kind == "prepare":
                run.state = "ready"
            else:
                self._advance(number, run, report)
        self.listen(self.progress)

    def _count(self, report: TaskReport) -> None:
        self.progress.tasks += 1
        self.progress.seconds += report.seconds
        self.progress.cpu_seconds += report.cpu_seconds
        self.progress.hypotheses_done += report.hypotheses
        self.progress.tiles_done += report.is_final

    def _advance(self, number: int, run: _OpenRun, report: TaskReport) -> None:
        if report.is_final:
            run.left.discard(report.tile)
            run.tiles.pop(report.tile, None)
            if not run.left:
                self._complete(number, run)
            return
        tile = run.tiles[report.tile]
        if report.kind == "score":
            tile.waiting -= 1
        else:
            tile.folding -= 1
        tile.parts.append(report.part)
        self._fold_if_due(number, run, report.tile)

    def _fold_if_due(self, number: int, run: _OpenRun, index: int) -> None:
        tile = run.tiles[index]
        is_last = tile.waiting == 0 and tile.folding == 0
        if index not in run.failed and (is_last or len(tile.parts) >= FOLD_AT):
            parts, tile.parts = tile.parts, []
            tile.folding += 1
            self.urgent.append((number, index, fold_parts, (run.planned.run, tile.tile, parts, is_last)))

    def _complete(self, number: int, run: _OpenRun) -> None:
        run.planned.complete()
        del self.open[number]

    def _fail(self, run: _OpenRun, tile: int, error: BaseException) -> None:
        if is_disk_full(error):
            raise ResourceError(
                f"{run.planned.name}: the disk is full; free some space and run again with --resume"
            ) from error
        if isinstance(error, (InputError, ResourceError)) or tile < 0 or isinstance(error, CancelledError):
            raise error
        log.debug("tile %d of %s failed", tile, run.planned.name, exc_info=error)
        if tile not in run.failed:
            run.failed.add(tile)
            reason = str(error) if isinstance(error, CryodaskError) else f"{type(error).__name__}: {error}"
            self.progress.failures.append(f"{run.planned.name} tile {tile}: {reason}")
