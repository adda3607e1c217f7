import json
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryodask.errors import InputError, ResourceError
from cryodask.search.plan import plan_tiles, split_hypotheses
from cryodask.search.tiles import TilePlan

GIB = 2**30
few = settings(max_examples=60, deadline=None, derandomize=True)
shapes = st.lists(st.integers(1, 90), min_size=2, max_size=3).map(tuple)


def bytes_of(block, tile):
    return 24.0 * math.prod(block) + 4.0 * math.prod(tile)


def is_smooth(length):
    for prime in (2, 3, 5):
        while length % prime == 0:
            length //= prime
    return length == 1


@few
@given(shapes, st.integers(0, 30), st.booleans(), st.floats(0.05, 60))
def test_tiles_cover_every_position_once_in_blocks_that_fit(shape, halo, periodic, mebibytes):
    limits = {"working_set": bytes_of, "memory": mebibytes * 2**20, "periodic": periodic}
    try:
        plan = plan_tiles(shape, (halo,) * len(shape), **limits)
    except ResourceError as refusal:  # it names what would do
        limits["memory"] = 1.01 * GIB * float(re.search(r"needs (\S+) GiB", str(refusal))[1])
        plan = plan_tiles(shape, (halo,) * len(shape), **limits)
    covered = np.zeros(shape, int)
    for tile in plan.tiles:
        covered[tile.slices] += 1
        assert tile.block == plan.block
        assert all(a % c == 0 for a, c in zip(tile.start, plan.core, strict=True))  # one tile, one shard
    assert (covered == 1).all()
    for size, core, chunk, length, count in zip(
        shape, plan.core, plan.chunk, plan.block, plan.grid, strict=True
    ):
        assert is_smooth(length)
        assert length % 2 == 0
        assert length >= min(core, size) + halo or (periodic and count == 1 and length == size)
        assert core % chunk == 0
        assert chunk <= 64
    assert bytes_of(plan.block, plan.core) <= limits["memory"]
    assert plan_tiles(shape, (halo,) * len(shape), **limits) == plan


@few
@given(shapes, st.sets(st.integers(0, 200)))
def test_plan_is_the_same_after_a_round_trip_through_json(shape, unwanted):
    plan = plan_tiles(
        shape,
        (10,) * len(shape),
        working_set=bytes_of,
        memory=2**20,
        is_wanted=lambda tile: tile.index not in unwanted,
    )
    again = TilePlan.from_description(json.loads(json.dumps(plan.describe())))
    assert list(again.tiles) == list(plan.tiles)
    assert again.describe() == plan.describe()
    assert {tile.index for tile in plan.tiles} == set(range(plan.grid_size)) - unwanted


def test_memory_cuts_the_tiles_smaller_and_the_cheapest_that_fit_are_taken():
    shape, halo = (128, 256, 256), (39, 39, 39)
    blocks = [
        plan_tiles(shape, halo, working_set=bytes_of, memory=memory * GIB).block for memory in (8, 0.2, 0.05)
    ]
    voxels = [math.prod(block) for block in blocks]
    assert blocks[0] == (180, 300, 300)
    assert voxels == sorted(voxels, reverse=True)
    assert len(set(voxels)) == 3


def test_periodic_axis_of_fast_length_is_one_tile_without_halo():
    limits = {"working_set": bytes_of, "memory": math.inf, "periodic": True}
    assert plan_tiles((128, 256, 250), (39,) * 3, **limits).block == (128, 256, 250)
    assert plan_tiles((128, 256, 254), (39,) * 3, **limits).block == (128, 256, 300)
    given = plan_tiles((128, 256, 254), (39,) * 3, **limits, block=(128, 128, 254))
    assert given.grid == (1, 3, 1)


@pytest.mark.parametrize("count", [1, 2, 7, 12])
def test_exactly_as_many_tiles_as_asked_for(count):
    plan = plan_tiles((40, 44, 36), (11,) * 3, working_set=bytes_of, memory=GIB, tile_count=count)
    assert len(plan.tiles) == count


@pytest.mark.parametrize(
    ("error", "options", "message"),
    [
        (InputError, {"tile_count": 97}, "ntiles = 97: no grid of tiles has exactly that many"),
        (InputError, {"block": (64, 33, 64)}, r"tile shape 33: expected an even length above 11 \(box - 1\)"),
        (InputError, {"block": (64, 64, 10)}, "tile shape 10: expected an even length above 11"),
        (ResourceError, {}, "^smallest tile needs 1.2 GiB, a worker has 0.5 GiB; raise --memory$"),
        (
            ResourceError,
            {"tile_count": 2},
            "needs 1.2 GiB, a worker has 0.5 GiB; raise --memory or ntiles",
        ),
        (ResourceError, {"block": (30, 30, 30)}, "raise --memory or give a smaller tile shape"),
    ],
)
def test_refusals_say_what_would_do(error, options, message):
    with pytest.raises(error, match=message):
        plan_tiles(
            (40, 44, 36), (11,) * 3, working_set=lambda block, tile: 1.2 * GIB, memory=0.5 * GIB, **options
        )


def test_a_large_volume_is_planned_in_little_time():
    calls = []

    def working_set(block, tile):
        calls.append(block)
        return bytes_of(block, tile)

    plan_tiles((1000, 2000, 2000), (11,) * 3, working_set=working_set, memory=GIB / 4)
    assert len(calls) < 200_000


@few
@given(
    st.integers(1, 200_000),
    st.integers(1, 3000),
    st.integers(1, 400),
    st.floats(1e-6, 100),
)
def test_tasks_are_whole_tiles_or_between_a_second_and_a_minute(count, tiles, slots, seconds_each):
    batch = split_hypotheses(count, tiles=tiles, slots=slots, seconds_each=seconds_each)
    assert 1 <= batch <= count
    assert batch == count or batch % 8 == 0
    assert batch * seconds_each <= 60.0 or batch <= 8
    if batch < count:
        assert batch * seconds_each >= 1.0
        if tiles >= 4 * slots:  # split for its length alone
            assert (batch + 8) * seconds_each > 60.0
        else:
            assert tiles * (math.ceil(count / batch) - 1) <= 4 * slots or (batch + 8) * seconds_each > 60.0


def test_a_batch_that_is_given_is_kept():
    assert split_hypotheses(100, tiles=1, slots=4, seconds_each=1.0, batch=7) == 7
    assert split_hypotheses(100, tiles=1, slots=4, seconds_each=1.0, batch=700) == 100
