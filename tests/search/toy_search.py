"""A search whose scores are small integers over 32: many ties, and sums that float64 holds exactly."""

import os
import random
import shutil
import threading
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import zarr

from cryodask.search.aggregates import NO_ID, Histogram, Maximum, Moments, States, empty_states, update_states
from cryodask.search.driver import PlannedRun
from cryodask.search.plan import plan_tiles
from cryodask.search.problem import Summary, Variable
from cryodask.search.store import RunStore
from cryodask.search.task import Run
from cryodask.search.tiles import Batch, Tile, TilePlan

AGGREGATES = {"score": Maximum(), "moments": Moments(), "histogram": Histogram(-1.0, 1.0, 4)}
TEMPLATE = (("template", 1),)
VARIABLES = (
    Variable("score", "float32", 0.0, TEMPLATE, (("units", "1"),)),
    Variable("orientation", "uint32", int(NO_ID), TEMPLATE),
    Variable("score_mean", "float32", 0.0, TEMPLATE),
    Variable("valid", "uint8", 0),
)
SHAPE = (20, 24, 18)


@dataclass(frozen=True)
class Toy:
    """`notes` is a folder where calls leave a line; `trouble` says what goes wrong on tile `where`."""

    hypotheses: int = 37
    notes: str = ""
    trouble: str = ""
    where: int = -1
    aggregates: dict = field(default_factory=lambda: AGGREGATES, compare=False)
    variables: tuple[Variable, ...] = VARIABLES

    def prepare(self) -> None:
        self._note("prepare", "done")
        if self.trouble == "bad input":
            from cryodask.errors import InputError

            raise InputError("tomogram = a.mrc: 3 voxels are not finite, expected numbers")

    def fold(self, tile: Tile, batch: Batch) -> States:
        self._note("fold", f"{tile.index} {batch.start} {batch.stop}")
        if tile.index == self.where:
            self._go_wrong()
        states = empty_states(AGGREGATES, tile.shape)
        return update_states(AGGREGATES, states, scores(tile, batch), np.arange(batch.start, batch.stop))

    def finish(self, tile: Tile, states: States) -> tuple[dict[str, np.ndarray], Summary]:
        best, moments = states["score"], Moments().finalize(states["moments"])
        maps = {"score": best["value"], "orientation": best["id"], "score_mean": moments["mean"]}
        found = {name: values[None] for name, values in maps.items()}
        counts = {f"bin_{i}": float(count) for i, count in enumerate(states["histogram"]["counts"])}
        return found | {"valid": np.ones(tile.shape, np.uint8)}, counts

    def calls(self, kind: str) -> list[str]:
        path = Path(self.notes) / kind
        return path.read_text().splitlines() if path.exists() else []

    def _note(self, kind: str, text: str) -> None:
        if self.notes:
            with (Path(self.notes) / kind).open("a") as stream:
                stream.write(text + "\n")

    def _go_wrong(self) -> None:
        marker = Path(self.notes) / "died"
        if self.trouble == "raises":
            raise RuntimeError("the kernel\nmet nonsense")
        if self.trouble == "dies" or (self.trouble == "dies once" and not marker.exists()):
            marker.touch()
            os._exit(1)


def scores(tile: Tile, batch: Batch) -> np.ndarray:
    """Return (hypothesis, z, y, x) scores that depend on position and hypothesis alone."""
    z, y, x = (np.arange(a, b, dtype=np.int64) for a, b in zip(tile.start, tile.stop, strict=True))
    place = (z[:, None, None] * 73856093) ^ (y[:, None] * 19349663) ^ (x * 83492791)
    mixed = place[None] ^ (np.arange(batch.start, batch.stop)[:, None, None, None] * 2654435761)
    mixed = (mixed ^ (mixed >> 15)) * 2246822519
    return (((mixed >> 13) % 64 - 32) / 32).astype(np.float32)


def toy_plan(tile_count: int = 8, shape: tuple[int, ...] = SHAPE, **options) -> TilePlan:
    return plan_tiles(
        shape, (4, 4, 4), working_set=lambda block, tile: 1.0, memory=1.0, tile_count=tile_count, **options
    )


def toy_run(
    folder: Path, toy: Toy, plan: TilePlan, batch: int = 5, *, number: int = 0, name: str = "toy"
) -> PlannedRun:
    store = RunStore(str(folder / f"{name}.partial.zarr"))

    def begin() -> None:
        if not store.exists():
            shutil.rmtree(store.path, ignore_errors=True)
            store.create(plan, toy.variables, ("z", "y", "x"), {})

    def complete() -> None:
        store.publish(str(folder / f"{name}.zarr"), keep_run=False)

    return PlannedRun(Run(number, toy, store), plan, batch, begin, complete, name)


def read_maps(path: Path) -> dict[str, np.ndarray]:
    group = zarr.open_group(path, mode="r")
    return {variable.name: np.asarray(group[variable.name][:]) for variable in VARIABLES}


def expected_maps(hypotheses: int = 37, shape: tuple[int, ...] = SHAPE) -> dict[str, np.ndarray]:
    """Return the maps from all scores at once."""
    everything = scores(Tile(0, (0, 0, 0), shape, shape), Batch(0, hypotheses))
    maps = {
        "score": everything.max(axis=0)[None],
        "orientation": everything.argmax(axis=0).astype(np.uint32)[None],
        "score_mean": everything.mean(axis=0, dtype=np.float64).astype(np.float32)[None],
    }
    return maps | {"valid": np.ones(shape, np.uint8)}


def assert_same_maps(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name].dtype == values.dtype
        np.testing.assert_array_equal(found[name], values, err_msg=name)


class InlineExecutor(Executor):
    """Runs each task as it is submitted; interrupts the client after `most` tasks."""

    def __init__(self, most: float = np.inf) -> None:
        self.most, self.submitted = most, 0

    def submit(self, function, /, *arguments, **named) -> Future:
        if self.submitted >= self.most:
            raise KeyboardInterrupt
        self.submitted += 1
        future: Future = Future()
        try:
            future.set_result(function(*arguments, **named))
        except Exception as error:
            future.set_exception(error)
        return future


class ShufflingExecutor(Executor):
    """Runs tasks one at a time in a random order of those that wait."""

    def __init__(self, seed: int) -> None:
        self.random, self.waiting, self.changed = random.Random(seed), [], threading.Condition()
        self.thread = threading.Thread(target=self._work)
        self.thread.start()

    def submit(self, function, /, *arguments, **named) -> Future:
        future: Future = Future()
        with self.changed:
            self.waiting.append((future, function, arguments, named))
            self.changed.notify()
        return future

    def _work(self) -> None:
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.waiting)
                task = self.waiting.pop(self.random.randrange(len(self.waiting)))
            if task is None:
                return
            future, function, arguments, named = task
            future.set_result(function(*arguments, **named))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        with self.changed:
            self.waiting.append(None)
            self.changed.notify()
        self.thread.join()
