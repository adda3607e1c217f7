"""What tasks read by path: the block of a tile, the search mask."""

import itertools
import shutil
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cryodask.jobs.tomogram_matching import constants
from cryodask.search.tiles import Tile

SCALE = np.float32(0.25)


def store(folder, volume):
    stored = constants.create_array(constants.filtered_path(folder), volume.shape, "float32")
    stored[...] = volume
    constants.write_prepared(folder, {"scale": float(SCALE), "notices": []})


def naive_block(volume, tile, before, halo, margin, wrap):
    block = np.zeros(tile.block, np.float32)
    for place in itertools.product(*map(range, tile.block)):
        at = [p + s + margin - before for p, s in zip(place, tile.start, strict=True)]
        needed = all(p < n + halo for p, n in zip(place, tile.shape, strict=True))
        inside = all(0 <= a < n for a, n in zip(at, volume.shape, strict=True))
        if needed and (wrap or inside):
            block[place] = volume[tuple(a % n for a, n in zip(at, volume.shape, strict=True))] * SCALE
    return block


@st.composite
def cases(draw):
    box = draw(st.integers(2, 6))
    wrap = draw(st.booleans())
    shape = tuple(draw(st.integers(box, 9)) for _ in range(3))
    start = tuple(draw(st.integers(0, n - 1)) for n in shape)
    stop = tuple(draw(st.integers(a + 1, n)) for a, n in zip(start, shape, strict=True))
    spare = draw(st.integers(0, 3))
    block = [b - a + box - 1 + spare for a, b in zip(start, stop, strict=True)]
    for axis in range(3):
        whole = (start[axis], stop[axis]) == (0, shape[axis])
        if wrap and whole and draw(st.booleans()):
            block[axis] = shape[axis]
    return shape, box, wrap, Tile(0, start, stop, tuple(block))


@given(cases())
@settings(max_examples=40, deadline=None, derandomize=True)
def test_a_block_is_what_an_index_loop_reads(case):
    shape, box, wrap, tile = case
    margin = 0 if wrap else -(-box // 2)
    volume = np.random.default_rng(0).standard_normal([n + 2 * margin for n in shape]).astype(np.float32)
    options = {"before": box // 2, "halo": box - 1, "margin": margin, "wrap": wrap}
    with tempfile.TemporaryDirectory() as folder:
        store(Path(folder), volume)
        found = constants.read_block(Path(folder), tile, **options)
    np.testing.assert_array_equal(found, naive_block(volume, tile, **options))


def test_tiles_together_see_every_chunk_of_a_large_volume(tmp_path):
    volume = np.random.default_rng(1).standard_normal((12, 140, 70)).astype(np.float32)
    store(tmp_path, volume)
    tile = Tile(0, (0, 60, 10), (8, 130, 60), (12, 80, 60))
    found = constants.read_block(tmp_path, tile, before=2, halo=4, margin=2, wrap=False)
    np.testing.assert_array_equal(found[:12, :74, :54], volume[:12, 60:134, 10:64] * SCALE)
    assert not found[:, 74:].any()


def test_the_search_mask_is_read_by_tiles(tmp_path):
    tile = Tile(0, (1, 2, 3), (4, 6, 8), (8, 8, 8))
    assert constants.read_search_mask(tmp_path, tile) is None
    mask = np.random.default_rng(2).random((6, 7, 8)) > 0.5
    constants.create_array(constants.mask_path(tmp_path), mask.shape, "uint8")[...] = mask.astype(np.uint8)
    np.testing.assert_array_equal(constants.read_search_mask(tmp_path, tile), mask[1:4, 2:6, 3:8])


def random_tables(seed):
    generator = np.random.default_rng(seed)
    return constants.Tables(
        matrices=generator.random((4, 3, 3)),
        templates=generator.random((2, 5, 5, 5)).astype(np.float32),
        mask=generator.random((5, 5, 5)).astype(np.float32),
        mask_coefficients=generator.random((5, 5, 5)).astype(np.float32),
        directions=np.arange(4),
    )


def test_a_run_written_over_another_is_read_anew(tmp_path):
    folder = tmp_path / "constants"
    for seed in (1, 2):
        folder.mkdir()
        constants.write_tables(folder, random_tables(seed))
        constants.write_prepared(folder, {"scale": seed})
        found = constants.read_tables(str(folder))
        np.testing.assert_array_equal(found.matrices, random_tables(seed).matrices)
        assert constants.read_prepared(str(folder))["scale"] == seed
        assert constants.read_tables(str(folder)) is found
        shutil.rmtree(folder)


def test_tables_come_back_and_absent_ones_stay_absent(tmp_path):
    tables = random_tables(3)
    assert not constants.has_tables(tmp_path)
    constants.write_tables(tmp_path, tables)
    assert constants.has_tables(tmp_path)
    found = constants.read_tables(str(tmp_path))
    assert found.template_filters is None
    for name in ("matrices", "templates", "mask", "mask_coefficients", "directions"):
        np.testing.assert_array_equal(getattr(found, name), getattr(tables, name))
