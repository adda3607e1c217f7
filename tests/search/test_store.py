import errno
import itertools
import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_search import (
    VARIABLES,
    InlineExecutor,
    Toy,
    assert_same_maps,
    expected_maps,
    read_maps,
    toy_plan,
    toy_run,
)

from cryodask.errors import InputError
from cryodask.search.driver import drive
from cryodask.search.store import (
    RunStore,
    check_same_run,
    count_hypotheses,
    is_disk_full,
    join_ranges,
    missing_ranges,
    telling_disk_full,
)
from cryodask.search.task import fold_parts, score_batch
from cryodask.search.tiles import Batch

few = settings(max_examples=100, deadline=None, derandomize=True)
subsets = st.sets(st.integers(0, 30), max_size=20)


def numbers(ranges):
    return [n for start, stop in ranges for n in range(start, stop)]


@few
@given(subsets)
def test_joined_and_missing_ranges_are_fewest_and_cover_everything_once(covered):
    joined = join_ranges([(n, n + 1) for n in sorted(covered, key=lambda n: n * 7 % 31)])
    missing = missing_ranges([(n, n + 1) for n in covered], 31)
    assert numbers(joined) == sorted(covered)
    assert numbers(missing) == sorted(set(range(31)) - covered)
    assert all(a[1] < b[0] for some in (joined, missing) for a, b in itertools.pairwise(some))
    assert count_hypotheses(joined) + count_hypotheses(missing) == 31


def test_a_changed_run_is_refused_with_its_first_difference():
    check_same_run({"lp_rad": 16, "shape": [1, 2]}, {"shape": (1, 2), "lp_rad": 16})
    with pytest.raises(InputError, match=r"^differs from the unfinished run: lp_rad 16 -> 18$"):
        check_same_run({"lp_rad": 16, "seed": 1}, {"lp_rad": 18, "seed": 2})
    with pytest.raises(InputError, match=r"^differs from the unfinished run: seed None -> 2$"):
        check_same_run({}, {"seed": 2})


@pytest.fixture
def run(tmp_path):
    planned = toy_run(tmp_path, Toy(), toy_plan(2))
    planned.begin()
    return planned.run


def store_parts(run, tile, *ranges):
    return [score_batch(run, tile, Batch(*each)).part for each in ranges]


def test_plan_and_fingerprint_are_read_back(tmp_path):
    store, plan = RunStore(str(tmp_path / "a.partial.zarr")), toy_plan(2)
    assert not store.exists()
    store.create(plan, VARIABLES, ("z", "y", "x"), {"lp_rad": 16})
    assert store.exists()
    assert store.read_plan() == (plan, {"lp_rad": 16})


def test_partial_is_read_back_bit_for_bit(run):
    tile = toy_plan(2).tiles[1]
    (part,) = store_parts(run, tile, (0, 5))
    states, again = run.problem.fold(tile, Batch(0, 5)), run.store.read_partial(part)
    for name, state in states.items():
        for key, values in state.items():
            np.testing.assert_array_equal(again[name][key], values, strict=True)


def test_partials_that_a_fold_has_taken_up_do_not_count_twice(run, monkeypatch):
    tile = toy_plan(2).tiles[0]
    parts = store_parts(run, tile, (0, 5), (5, 10), (20, 25))
    monkeypatch.setattr(RunStore, "remove_partials", lambda store, parts: None)
    fold_parts(run, tile, parts[:2], False)
    here = run.store.progress()[0]
    assert sorted(part.ranges for part in here.parts) == [((0, 10),), ((20, 25),)]
    assert not here.is_done


def test_a_fold_whose_worker_died_after_storing_it_can_be_run_again(run):
    tile = toy_plan(2).tiles[0]
    parts = store_parts(run, tile, (0, 5), (5, 10))
    first = fold_parts(run, tile, parts, False).part
    assert fold_parts(run, tile, parts, False).part == first
    rest = [first, *store_parts(run, tile, (10, 37))]
    fold_parts(run, tile, rest, True)
    assert fold_parts(run, tile, rest, True).is_final
    assert run.store.progress()[0].is_done


def test_records_without_a_name_of_their_own_are_not_read(run):
    record = run.store.run_folder / "records" / ".part-0-abc.json.1234"
    record.write_text('{"tile": 0, "ran')
    assert run.store.progress() == {}


def test_publishing_replaces_an_older_result_and_removes_the_run(tmp_path):
    for hypotheses in (3, 37):
        planned = toy_run(tmp_path, Toy(hypotheses), toy_plan(2))
        drive([planned], InlineExecutor(), slots=1)
    assert_same_maps(read_maps(tmp_path / "toy.zarr"), expected_maps())
    assert [path.name for path in tmp_path.iterdir()] == ["toy.zarr"]
    assert not (tmp_path / "toy.zarr" / "run").exists()


def test_published_run_can_be_kept(tmp_path):
    (tmp_path / "a.zarr").mkdir()
    store = RunStore(str(tmp_path / "a.partial.zarr"))
    store.create(toy_plan(2), VARIABLES, ("z", "y", "x"), {})
    store.publish(str(tmp_path / "a.zarr"), keep_run=True)
    assert (tmp_path / "a.zarr" / "run" / "plan.json").is_file()
    assert not (tmp_path / "a.zarr" / "run" / "replaced").exists()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_recognised_behind_other_errors(number):
    def close():
        try:
            raise OSError(number, "no room")
        finally:
            raise ValueError("cannot close the file")

    with pytest.raises(OSError, match="No space left") as caught, telling_disk_full():
        close()
    assert caught.value.errno == errno.ENOSPC
    assert is_disk_full(caught.value)
    assert not is_disk_full(OSError(errno.EIO, "broken"))


class Killed(BaseException):
    """The process ended: nothing after it is written."""


class Mortal:
    """Lets `life` changes of the file system through, then none: a process killed in between."""

    CHANGES = (
        (Path, "replace"),
        (Path, "rename"),
        (Path, "unlink"),
        (Path, "mkdir"),
        (os, "unlink"),
        (os, "rmdir"),
    )

    def __init__(self, life: int) -> None:
        self.life, self.lock = life, threading.Lock()

    def __enter__(self) -> "Mortal":
        self.patch = pytest.MonkeyPatch()
        for owner, name in self.CHANGES:
            self.patch.setattr(owner, name, self._counted(getattr(owner, name)))
        return self

    def _counted(self, change):
        def counted(*arguments, **named):
            with self.lock:
                self.life -= 1
            if self.life < 0:
                raise Killed
            return change(*arguments, **named)

        return counted

    def __exit__(self, *error) -> None:
        self.patch.undo()


def attempt(folder, batch, life):
    """Run or resume until done or killed; say which."""
    final = folder / "toy.zarr"
    if final.exists() and not (folder / "toy.partial.zarr").exists():
        return True
    planned = toy_run(folder, Toy(11), toy_plan(2, (8, 9, 7)), batch)
    try:
        with Mortal(life):
            drive([planned], InlineExecutor(), slots=1)
    except Killed:
        return False
    return True


@settings(max_examples=40, deadline=None, derandomize=True)
@given(lives=st.lists(st.integers(0, 300), min_size=1, max_size=3), batches=st.permutations([1, 2, 3, 11]))
def test_a_run_killed_after_any_write_is_resumed_to_the_same_maps(tmp_path_factory, lives, batches):
    folder = tmp_path_factory.mktemp("killed")
    for life, batch in zip(lives, batches, strict=False):
        if attempt(folder, batch, life):
            break
        assert not (folder / "toy.zarr").exists() or (folder / "toy.zarr" / "valid").exists()
    assert attempt(folder, batches[-1], 10**9)
    assert_same_maps(read_maps(folder / "toy.zarr"), expected_maps(11, (8, 9, 7)))
    shutil.rmtree(folder)
