import errno
import tracemalloc
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import dask
import numpy as np
import psutil
import pytest
from distributed import Client, LocalCluster
from toy_search import (
    AGGREGATES,
    InlineExecutor,
    ShufflingExecutor,
    Toy,
    assert_same_maps,
    expected_maps,
    read_maps,
    toy_plan,
    toy_run,
)

from cryodask.cluster import SETTINGS
from cryodask.errors import ClusterError, IncompleteError, InputError, ResourceError
from cryodask.search import store as store_module
from cryodask.search.driver import MOST_TASKS, PlannedRun, Progress, drive
from cryodask.search.store import Part, RunStore
from cryodask.search.task import Run, score_batch
from cryodask.search.tiles import Batch, TilePlan


def drive_one(folder, toy, executor, *, batch=5, slots=2, tiles=8):
    return drive([toy_run(folder, toy, toy_plan(tiles), batch)], executor, slots=slots)


@pytest.fixture(scope="module")
def expected():
    return expected_maps()


@pytest.mark.parametrize("batch", [1, 4, 7, 36, 37, 1000])
def test_same_maps_for_any_batch(tmp_path, expected, batch):
    drive_one(tmp_path, Toy(), InlineExecutor(), batch=batch, tiles=2)
    assert_same_maps(read_maps(tmp_path / "toy.zarr"), expected)


@pytest.mark.parametrize("tiles", [1, 4, 12])
def test_same_maps_for_any_tiling(tmp_path, expected, tiles):
    drive_one(tmp_path, Toy(), InlineExecutor(), batch=20, tiles=tiles)
    assert_same_maps(read_maps(tmp_path / "toy.zarr"), expected)


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_same_maps_for_any_number_of_threads(tmp_path, expected, workers):
    with ThreadPoolExecutor(workers) as pool:
        drive_one(tmp_path, Toy(), pool, slots=workers)
    assert_same_maps(read_maps(tmp_path / "toy.zarr"), expected)


@pytest.mark.parametrize("seed", range(3))
def test_same_maps_for_any_order_of_completion(tmp_path, expected, seed):
    with ShufflingExecutor(seed) as executor:
        drive_one(tmp_path, Toy(), executor, slots=10)
    assert_same_maps(read_maps(tmp_path / "toy.zarr"), expected)


def test_progress_counts_tiles_and_hypotheses(tmp_path):
    toy, seen = Toy(notes=str(tmp_path)), []
    runs = [toy_run(tmp_path, toy, toy_plan(4), 37, number=n, name=f"toy{n}") for n in range(2)]
    progress = drive(runs, InlineExecutor(), slots=1, listen=lambda p: seen.append(p.tiles_done))
    assert (progress.tiles_done, progress.tiles_total) == (8, 8)
    assert progress.hypotheses_done == progress.hypotheses_total == 8 * 37
    assert (progress.tiles_resumed, progress.hypotheses_resumed) == (0, 0)
    assert progress.tasks == 10  # two preparations
    assert seen == sorted(seen)
    assert seen[-1] == 8


def test_resumed_after_an_interruption_at_any_task_with_finished_work_skipped(tmp_path, expected):
    plain = InlineExecutor()
    drive_one(tmp_path, Toy(), plain, tiles=2, batch=9)
    for most in range(plain.submitted):
        folder = tmp_path / str(most)
        folder.mkdir()
        toy = Toy(notes=str(folder))
        with pytest.raises(KeyboardInterrupt):
            drive_one(folder, toy, InlineExecutor(most), tiles=2, batch=9)
        first = toy.calls("fold")
        progress = drive_one(folder, toy, InlineExecutor(), tiles=2, batch=9)
        assert_same_maps(read_maps(folder / "toy.zarr"), expected)
        again = toy.calls("fold")[len(first) :]
        assert not set(first) & set(again)
        assert progress.hypotheses_resumed == sum(int(b) - int(a) for _, a, b in map(str.split, first))
        assert progress.tiles_done == 2
        assert progress.hypotheses_done == 74


def test_interrupting_cancels_what_waits(tmp_path):
    waiting = []

    class Stalled(InlineExecutor):
        def submit(self, function, /, *arguments, **named):
            if function.__name__ == "prepare_run":
                return super().submit(function, *arguments, **named)
            if len(waiting) == 3:
                raise KeyboardInterrupt
            waiting.append(Future())
            return waiting[-1]

    with pytest.raises(KeyboardInterrupt):
        drive_one(tmp_path, Toy(), Stalled())
    assert all(future.cancelled() for future in waiting)


def test_a_failing_tile_is_reported_and_the_others_are_stored(tmp_path, expected):
    toy = Toy(notes=str(tmp_path), trouble="raises", where=3)
    with pytest.raises(IncompleteError) as caught:
        drive_one(tmp_path, toy, InlineExecutor())
    assert str(caught.value) == (
        "1 tiles failed (toy tile 3: RuntimeError: the kernel met nonsense); run again with --resume"
    )
    mended = Toy(notes=str(tmp_path))
    progress = drive_one(tmp_path, mended, InlineExecutor())
    assert progress.tiles_resumed == 7
    assert_same_maps(read_maps(tmp_path / "toy.zarr"), expected)


def test_many_failures_are_counted_and_some_are_named(tmp_path):
    class Failing(InlineExecutor):
        def submit(self, function, /, *arguments, **named):
            future = super().submit(function, *arguments, **named)
            if function.__name__ == "score_batch":
                future = Future()
                future.set_exception(ValueError("no"))
            return future

    with pytest.raises(IncompleteError, match=r"^12 tiles failed \(toy tile 0: .* tile 9: .*; and 2 more\)"):
        drive_one(tmp_path, Toy(), Failing(), tiles=12)


def test_a_run_whose_input_is_bad_does_not_stop_the_others(tmp_path, expected):
    toys = [Toy(), Toy(trouble="bad input"), Toy()]
    runs = [toy_run(tmp_path, toy, toy_plan(2), number=n, name=f"toy{n}") for n, toy in enumerate(toys)]
    with pytest.raises(InputError, match=r"^tomogram = a.mrc: 3 voxels are not finite, expected numbers$"):
        drive(runs, InlineExecutor(), slots=1)
    for n in (0, 2):
        assert_same_maps(read_maps(tmp_path / f"toy{n}.zarr"), expected)
    assert not (tmp_path / "toy1.zarr").exists()


def test_a_full_disk_stops_the_run_which_can_be_resumed(tmp_path, expected, monkeypatch):
    write, left = store_module.replacing, [9]

    def failing(path):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path)

    monkeypatch.setattr(store_module, "replacing", failing)
    with (
        ThreadPoolExecutor(2) as pool,
        pytest.raises(
            ResourceError, match=r"^toy: the disk is full; free some space and run again with --resume$"
        ),
    ):
        drive_one(tmp_path, Toy(), pool)
    monkeypatch.undo()
    assert drive_one(tmp_path, Toy(), InlineExecutor()).hypotheses_resumed > 0
    assert_same_maps(read_maps(tmp_path / "toy.zarr"), expected)


def test_a_full_disk_while_completing_is_a_resource_error(tmp_path):
    planned = toy_run(tmp_path, Toy(), toy_plan(1))

    def complete():
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    full = PlannedRun(planned.run, planned.plan, 37, planned.begin, complete, "toy")
    with pytest.raises(ResourceError, match="the disk is full"):
        drive([full], InlineExecutor(), slots=1)
    assert drive([planned], InlineExecutor(), slots=1).tiles_resumed == 1


def test_tasks_that_the_cluster_drops_are_a_cluster_error(tmp_path):
    class Dropping(InlineExecutor):
        def submit(self, function, /, *arguments, **named):
            future = Future()
            future.cancel()
            return future

    with pytest.raises(ClusterError, match=r"^toy: the cluster dropped the tasks .* --resume$"):
        drive_one(tmp_path, Toy(), Dropping())


def test_same_maps_on_a_cluster_of_threads(tmp_path, expected):
    with (
        LocalCluster(n_workers=2, threads_per_worker=2, processes=False, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        drive_one(tmp_path, Toy(), client.get_executor(pure=False))
    assert_same_maps(read_maps(tmp_path / "toy.zarr"), expected)


def test_worker_processes_that_die_are_survived_or_reported(tmp_path, expected):
    """A worker that dies once changes nothing; a tile that kills every worker is named, the rest stored."""
    with (
        dask.config.set(SETTINGS | {"distributed.scheduler.allowed-failures": 1}),
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
        ) as cluster,
        Client(cluster) as client,
    ):
        executor = client.get_executor(pure=False, retries=2)
        once = Toy(notes=str(tmp_path), trouble="dies once", where=5)
        drive_one(tmp_path, once, executor)
        assert (tmp_path / "died").exists()
        assert_same_maps(read_maps(tmp_path / "toy.zarr"), expected)
        folder = tmp_path / "always"
        folder.mkdir()
        with pytest.raises(IncompleteError, match=r"^1 tiles failed \(toy tile 1: KilledWorker: Attempted"):
            drive_one(folder, Toy(notes=str(folder), trouble="dies", where=1), executor, batch=37, tiles=2)
    assert drive_one(folder, Toy(), InlineExecutor(), batch=37, tiles=2).tiles_resumed == 1
    assert_same_maps(read_maps(folder / "toy.zarr"), expected)


@dataclass(frozen=True)
class NoStore:
    """Keeps nothing, so that the driver alone is measured."""

    path: str = ""

    def progress(self):
        return {}

    def write_tile(self, tile, arrays, summary):
        pass

    def write_partial(self, tile, ranges, states):
        return Part(ranges, "")

    def find_partial(self, tile, ranges):
        return Part(ranges, "")

    def has_tile(self, tile):
        return True

    def remove_partials(self, parts):
        pass


@dataclass(frozen=True)
class NoWork:
    hypotheses: int = 6
    aggregates = AGGREGATES
    variables = ()

    def prepare(self):
        pass

    def fold(self, tile, batch):
        return {}

    def finish(self, tile, states):
        return {}, {}


def no_work_run(number, side):
    plan = TilePlan((side,) * 3, (1,) * 3, (1,) * 3, (2,) * 3, (side,) * 3, range(side**3))
    return PlannedRun(Run(number, NoWork(), NoStore()), plan, 3, lambda: None, lambda: None, str(number))


@pytest.mark.parametrize(("slots", "most"), [(4, 16), (10**6, MOST_TASKS)])
def test_tasks_in_flight_are_bounded_for_any_number_of_runs_and_tiles(slots, most):
    executor, waiting = InlineExecutor(), []

    def listen(progress: Progress):
        waiting.append(executor.submitted - progress.tasks)

    runs = [no_work_run(number, 5) for number in range(200)]
    progress = drive(runs, executor, slots=slots, listen=listen)
    assert progress.tiles_done == progress.tiles_total == 200 * 125
    assert max(waiting) <= most
    assert max(waiting) >= min(most, 1000) - 1  # and the window is used


@pytest.mark.acceptance
def test_200_tomograms_at_3_degrees_are_driven_through_a_window():
    tiles = TilePlan((500, 1000, 1000), (250, 334, 334), (1,) * 3, (300, 384, 384), (2, 3, 3), range(18))
    runs = [
        PlannedRun(Run(n, NoWork(576_000), NoStore()), tiles, 240, lambda: None, lambda: None, str(n))
        for n in range(200)
    ]
    most = 300_000
    executor, waiting, resident = InlineExecutor(most), [0], []

    def listen(progress: Progress):
        waiting[0] = max(waiting[0], executor.submitted - progress.tasks)
        if progress.tasks in (most // 3, most - 20_000):
            resident.append(psutil.Process().memory_info().rss)

    with pytest.raises(KeyboardInterrupt):
        drive(runs, executor, slots=10**6, listen=listen)
    assert waiting[0] <= MOST_TASKS
    assert resident[1] < resident[0] + 4 * 2**20


def test_memory_of_the_client_does_not_grow_with_the_number_of_tiles():
    tracemalloc.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            drive([no_work_run(number, 300) for number in range(20)], InlineExecutor(3000), slots=4)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * 2**20  # 20 runs of 27 million tiles


def test_the_window_follows_the_number_of_workers(monkeypatch):
    monkeypatch.setattr("cryodask.search.driver.SLOTS_SECONDS", 0.0)
    executor, slots, waiting = InlineExecutor(), iter(range(1, 10**9)), []

    def listen(progress: Progress):
        waiting.append(executor.submitted - progress.tasks)

    drive([no_work_run(0, 12)], executor, slots=lambda: next(slots), listen=listen)
    assert max(waiting) > 500


def test_runs_are_prepared_ahead_only_as_far_as_workers_need():
    begun, ready = [], []

    def planned(number):
        run = no_work_run(number, 3)
        return PlannedRun(run.run, run.plan, 3, lambda: begun.append(number), lambda: None, run.name)

    def listen(progress: Progress):
        ready.append(len(begun) - progress.tiles_done // 27)

    drive([planned(number) for number in range(50)], InlineExecutor(), slots=4, listen=listen)
    assert begun == list(range(50))
    assert max(ready) <= 4


def test_partials_on_disk_are_bounded_for_any_number_of_batches(tmp_path, monkeypatch):
    counts, write = [], RunStore.write_partial

    def counted(store, tile, ranges, states):
        part = write(store, tile, ranges, states)
        counts.append(sum(1 for _ in (store.run_folder / "partials").glob("*.arrays")))
        return part

    monkeypatch.setattr(RunStore, "write_partial", counted)
    with ShufflingExecutor(0) as executor:
        drive_one(tmp_path, Toy(200), executor, batch=1, slots=2, tiles=1)
    assert max(counts) <= 2 * 2 + 8 + 1  # a fold is stored before what it took up is removed


def test_more_stored_partials_than_one_worker_would_make_are_resumed(tmp_path, expected):
    planned = toy_run(tmp_path, Toy(), toy_plan(2))
    planned.begin()
    for tile in planned.plan.tiles:
        for first in range(0, 36, 2):
            score_batch(planned.run, tile, Batch(first, first + 1))
    progress = drive_one(tmp_path, Toy(), InlineExecutor(), batch=1, slots=1, tiles=2)
    assert progress.hypotheses_resumed == 36
    assert_same_maps(read_maps(tmp_path / "toy.zarr"), expected)


def test_maps_are_written_where_they_belong_in_chunks_of_their_own(tmp_path):
    drive_one(tmp_path, Toy(), InlineExecutor(), tiles=8)
    shards = [path for path in (tmp_path / "toy.zarr" / "valid" / "c").rglob("*") if path.is_file()]
    assert len(shards) == 8
    assert np.all(read_maps(tmp_path / "toy.zarr")["valid"] == 1)


@dataclass(frozen=True)
class Second(Toy):
    """A search that reads the stored result of another when it is prepared."""

    reads: str = ""

    def prepare(self) -> None:
        assert len(list((RunStore(self.reads).run_folder / "records").glob("tile-*.json"))) == 8
        super().prepare()


def two_stages(folder, toy):
    first = replace(toy_run(folder, toy, toy_plan(8), name="first"), complete=lambda: None)
    second = Second(notes=str(folder), reads=first.run.store.path)
    last = toy_run(folder, second, toy_plan(4), 37, number=1, name="second")
    return [first, replace(last, after=0), toy_run(folder, Toy(), toy_plan(2), number=2, name="other")]


@pytest.mark.parametrize("seed", range(3))
def test_a_second_stage_waits_for_the_first_and_other_runs_do_not(tmp_path, expected, seed):
    with ShufflingExecutor(seed) as executor:
        progress = drive(two_stages(tmp_path, Toy()), executor, slots=10)
    assert progress.tiles_done == progress.tiles_total == 14
    for name in ("second", "other"):
        assert_same_maps(read_maps(tmp_path / f"{name}.zarr"), expected)


@pytest.mark.parametrize(("trouble", "where"), [("bad input", -1), ("raises", 3)])
def test_a_second_stage_never_begins_after_a_first_that_failed(tmp_path, trouble, where):
    toy = Toy(notes=str(tmp_path), trouble=trouble, where=where)
    with pytest.raises((IncompleteError, InputError)):
        drive(two_stages(tmp_path, toy), InlineExecutor(), slots=2)
    assert not (tmp_path / "second.partial.zarr").exists()
    assert (tmp_path / "other.zarr").exists()
