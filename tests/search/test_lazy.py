from concurrent.futures import ThreadPoolExecutor
from math import prod

import dask
import numpy as np
import pytest
from distributed import Client, LocalCluster
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

from cryodask.search.aggregates import NO_ID
from cryodask.search.driver import drive
from cryodask.search.lazy import lazy_variables


@pytest.fixture
def toy(tmp_path):
    return Toy(notes=str(tmp_path))


def compute_all(arrays):
    return dict(zip(arrays, dask.compute(*arrays.values()), strict=True))


def test_variables_have_the_shapes_and_types_of_the_problem_and_compute_nothing_yet(toy):
    arrays = lazy_variables(toy, toy_plan(8))
    for variable in VARIABLES:
        array = arrays[variable.name]
        assert array.shape == tuple(length for _, length in variable.leading) + toy_plan(8).shape
        assert array.dtype == variable.dtype
        assert prod(array.numblocks) == 8
    assert toy.calls("fold") == toy.calls("prepare") == []


@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
def test_all_variables_together_take_one_kernel_run_a_tile(toy, scheduler):
    with dask.config.set(scheduler=scheduler, pool=ThreadPoolExecutor(3)):
        maps = compute_all(lazy_variables(toy, toy_plan(8)))
    assert_same_maps(maps, expected_maps())
    assert sorted(toy.calls("fold")) == [f"{tile} 0 37" for tile in range(8)]
    assert toy.calls("prepare") == ["done"]


def test_distributed_scheduler_gives_the_same_maps_with_one_kernel_run_a_tile(toy):
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
        Client(cluster),
    ):
        maps = compute_all(lazy_variables(toy, toy_plan(8)))
    assert_same_maps(maps, expected_maps())
    assert len(toy.calls("fold")) == 8


def test_only_the_tiles_that_are_asked_for_are_computed(toy):
    plan = toy_plan(None, block=(14, 16, 14))
    assert plan.grid == (2, 2, 2)
    arrays = lazy_variables(toy, plan)
    plane = arrays["score"][0, plan.core[0] - 1].compute(scheduler="synchronous")
    np.testing.assert_array_equal(plane, expected_maps()["score"][0, plan.core[0] - 1])
    assert sorted(toy.calls("fold")) == [f"{tile} 0 37" for tile in range(4)]
    assert arrays["valid"][-1, -1, -1].compute(scheduler="synchronous") == 1
    assert toy.calls("fold")[4:] == ["7 0 37"]


def test_a_tile_that_is_left_out_holds_the_fill_values(toy):
    plan = toy_plan(8, is_wanted=lambda tile: tile.index != 5)
    maps = compute_all(lazy_variables(toy, plan))
    left_out = toy_plan(8).tiles[5].slices
    expected = expected_maps()
    for name, fill in [("score", 0), ("orientation", NO_ID), ("score_mean", 0), ("valid", 0)]:
        expected[name][(..., *left_out)] = fill
    assert_same_maps(maps, expected)
    assert len(toy.calls("fold")) == 7


def test_lazy_and_stored_results_are_the_same_bits(toy, tmp_path):
    plan = toy_plan(4, is_wanted=lambda tile: tile.index != 2)
    drive([toy_run(tmp_path, toy, plan, 7)], InlineExecutor(), slots=1)
    assert_same_maps(compute_all(lazy_variables(toy, plan)), read_maps(tmp_path / "toy.zarr"))
