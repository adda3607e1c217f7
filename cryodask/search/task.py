"""The task function: a tile times a batch of hypotheses, on any worker.

The stored run and the lazy dataset both score through `score_tile`, so that they give the same bits.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cryodask.search.aggregates import States, merge_states
from cryodask.search.problem import Problem, Summary, TaskReport
from cryodask.search.store import Part, RunStore, join_ranges, telling_disk_full
from cryodask.search.tiles import Batch, Tile


@dataclass(frozen=True)
class Run:
    """A problem and where its result is stored; small, travels with every task."""

    number: int
    problem: Problem
    store: RunStore


def score_tile(problem: Problem, tile: Tile, batches: Sequence[Batch]) -> States:
    """Fold batches of hypotheses on a tile into one set of states, one batch after another."""
    states = problem.fold(tile, batches[0])
    for batch in batches[1:]:
        states = merge_states(problem.aggregates, states, problem.fold(tile, batch))
    return states


def compute_tile(problem: Problem, tile: Tile) -> tuple[dict[str, np.ndarray], Summary]:
    """Score all hypotheses on a tile and return the result's variables there."""
    return problem.finish(tile, score_tile(problem, tile, [Batch(0, problem.hypotheses)]))


@telling_disk_full()
def prepare_run(run: Run) -> TaskReport:
    """Write the constants of a run."""
    clock = _Clock()
    run.problem.prepare()
    return clock.report("prepare", run)


@telling_disk_full()
def score_batch(run: Run, tile: Tile, batch: Batch) -> TaskReport:
    """Score a batch on a tile; store the tile if that is all of it, else the partial aggregate."""
    clock = _Clock()
    states = score_tile(run.problem, tile, [batch])
    whole = len(batch) == run.problem.hypotheses
    part = None
    if whole:
        run.store.write_tile(tile, *run.problem.finish(tile, states))
    else:
        part = run.store.write_partial(tile.index, ((batch.start, batch.stop),), states)
    return clock.report("score", run, tile.index, part, hypotheses=len(batch), is_final=whole)


@telling_disk_full()
def fold_parts(run: Run, tile: Tile, parts: Sequence[Part], is_last: bool) -> TaskReport:
    """Merge partial aggregates of a tile into one, or into the finished tile if they are the last.

    A worker may die after the fold is stored and its parts are removed: run again, this finds the fold.
    """
    clock = _Clock()
    folded = None
    if is_last:
        if not run.store.has_tile(tile.index):
            run.store.write_tile(tile, *run.problem.finish(tile, _merged(run, parts)))
    else:
        ranges = join_ranges(r for part in parts for r in part.ranges)
        folded = run.store.find_partial(tile.index, ranges)
        folded = folded or run.store.write_partial(tile.index, ranges, _merged(run, parts))
    run.store.remove_partials(parts)
    return clock.report("fold", run, tile.index, folded, is_final=is_last)


def _merged(run: Run, parts: Sequence[Part]) -> States:
    states = run.store.read_partial(parts[0])
    for part in parts[1:]:
        states = merge_states(run.problem.aggregates, states, run.store.read_partial(part))
    return states


class _Clock:
    """Wall and CPU time since it was made, of this thread."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.thread_time()

    def report(
        self,
        kind: str,
        run: Run,
        tile: int = -1,
        part: Part | None = None,
        *,
        hypotheses: int = 0,
        is_final: bool = False,
    ) -> TaskReport:
        seconds, cpu_seconds = time.perf_counter() - self.wall, time.thread_time() - self.cpu
        return TaskReport(kind, run.number, tile, part, seconds, cpu_seconds, hypotheses, is_final)
