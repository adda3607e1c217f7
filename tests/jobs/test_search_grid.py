"""The coarse grid: which one is chosen, and how it lies in the full one."""

from fractions import Fraction

import numpy as np
import pytest
import scipy.fft
import zarr
from hypothesis import given
from hypothesis import strategies as st

from cryodask.errors import InputError
from cryodask.jobs.tomogram_matching import constants
from cryodask.jobs.tomogram_matching.area import SearchArea
from cryodask.jobs.tomogram_matching.coarse_area import CoarseArea
from cryodask.jobs.tomogram_matching.cropping import crop_tomogram
from cryodask.jobs.tomogram_matching.inputs import load_inputs
from cryodask.jobs.tomogram_matching.search_grid import (
    AUTOMATIC,
    SearchGrid,
    automatic_factor,
    choose_search_grid,
    grid_of,
)
from cryodask.search.tiles import Tile

FACTORS = st.sampled_from(AUTOMATIC)


@pytest.mark.parametrize(
    ("edge", "factor"), [(8.0, "1/2"), (9.5, "3/5"), (10.6, "2/3"), (12.0, "3/4"), (12.7, "4/5"), (12.9, "1")]
)
def test_the_least_factor_with_room_for_the_band_is_taken(edge, factor):
    assert automatic_factor(edge, 48) == Fraction(factor)


def grid(factor=Fraction(3, 4), shape=(40, 48, 44), box=24, margin=12):
    return SearchGrid(factor, shape, box, margin, tuple(size + 2 * margin for size in shape))


@given(FACTORS, st.integers(8, 70), st.integers(0, 40), st.tuples(*[st.integers(70, 120)] * 3))
def test_both_grids_are_whole_and_share_their_centres(factor, box, margin, shape):
    found = grid(factor, shape, box, margin)
    assert found.padded_box >= box
    assert found.coarse_box % 2 == found.padded_box % 2 == 0
    assert found.coarse_box == factor * found.padded_box
    assert found.coarse_margin == factor * (margin + found.before)
    for padded, length, coarse in zip(
        found.padded_lengths, found.extended, found.coarse_lengths, strict=True
    ):
        assert padded >= length + found.before
        assert coarse == factor * padded
    for size, positions in zip(shape, found.coarse_shape, strict=True):
        assert positions - (margin > 0) >= factor * (size - 1)


def inputs_of(job, **native):
    noise = np.random.default_rng(3).standard_normal((30, 34, 32)).astype(np.float32)
    return load_inputs(job(tomogram=noise, lowpass=60.0, lowpass_sigma=0.002, **native))


def test_auto_full_and_a_factor(job):
    assert choose_search_grid(inputs_of(job)).factor == Fraction(3, 5)
    assert choose_search_grid(inputs_of(job, search_grid="full")) is None
    assert choose_search_grid(inputs_of(job, search_grid=0.75)).factor == Fraction(3, 4)
    assert choose_search_grid(inputs_of(job, search_grid=1.0)) is None
    assert choose_search_grid(load_inputs(job())) is None


@pytest.mark.parametrize(("wanted", "ratio"), [(0.75, "3/4"), (0.7, "7/10"), (0.61, "5/8"), (0.4, "2/5")])
def test_a_factor_becomes_the_next_ratio_of_small_numbers(job, wanted, ratio):
    assert choose_search_grid(inputs_of(job, search_grid=wanted)).factor == Fraction(ratio)


def test_a_grid_too_coarse_for_the_band_is_refused_naming_the_least(job):
    with pytest.raises(InputError, match=r"search_grid = 0.3: expected at least 0.39, which the band"):
        choose_search_grid(inputs_of(job, search_grid=0.3))
    with pytest.raises(InputError, match=r"search_grid = 0.8: needs a low-pass that leaves frequencies out"):
        choose_search_grid(load_inputs(job(search_grid=0.8)))


@pytest.mark.parametrize("memory", [1e9, 2e5])
@pytest.mark.parametrize("boundary", ["pad", "wrap"])
def test_the_cropped_tomogram_shows_the_filtered_one(tmp_path, job, boundary, memory):
    found = grid_of(inputs_of(job, boundary=boundary), Fraction(3, 4))
    rng = np.random.default_rng(1)
    lengths = found.extended
    spectrum = scipy.fft.rfftn(rng.standard_normal(lengths))
    k = np.meshgrid(*(np.fft.fftfreq(n) for n in lengths[:2]), np.fft.rfftfreq(lengths[2]), indexing="ij")
    spectrum[np.sqrt(sum(part**2 for part in k)) > 0.3] = 0
    volume = scipy.fft.irfftn(spectrum, lengths)
    constants.create_array(constants.filtered_path(tmp_path), lengths, "float32")[:] = volume
    constants.write_prepared(tmp_path, {"scale": 1.0, "notices": []})
    crop_tomogram(tmp_path, tmp_path / "coarse", found, memory=memory, voxel_size=10.0)
    cropped = zarr.open_array(constants.filtered_path(tmp_path / "coarse"), mode="r")[:]
    assert cropped.shape == found.coarse_lengths
    # voxels that lie on both grids: every third coarse one, every fourth full one
    places = [range(found.coarse_margin % 3, n, 3) for n in found.coarse_lengths]
    full = [[i * 4 // 3 - found.before for i in place] for place in places]
    inside = [
        [at for at, f in enumerate(own) if 6 <= f < n - 6] for own, n in zip(full, lengths, strict=True)
    ]
    coarse = cropped[np.ix_(*([places[a][i] for i in inside[a]] for a in range(3)))]
    exact = volume[np.ix_(*([full[a][i] for i in inside[a]] for a in range(3)))]
    tolerance = 1e-5 if found.wraps else 0.05 * volume.std()  # the zeros around it are an edge
    assert np.abs(coarse - exact).max() < tolerance or np.abs(coarse - exact).std() < tolerance


@pytest.mark.parametrize("wraps", [False, True])
@pytest.mark.parametrize("factor", AUTOMATIC)
def test_the_coarse_area_holds_what_the_searched_voxels_are_interpolated_from(monkeypatch, factor, wraps):
    shape = (60, 60, 60)
    found = SearchGrid(factor, shape, 24, 0 if wraps else 12, shape if wraps else (84, 84, 84))
    selected = np.random.default_rng(2).random(shape) > 0.995
    area = SearchArea(shape, (slice(0, 60),) * 3, None, 0.0)
    monkeypatch.setattr(SearchArea, "select", lambda self, region: selected[region])
    coarse = CoarseArea(area, found)
    whole = coarse.select(tuple(slice(0, n) for n in coarse.shape))
    expected = np.zeros(coarse.shape, bool)
    for place in np.argwhere(selected):
        at = place * float(factor)
        for corner in np.ndindex(2, 2, 2):
            edge = np.where(corner, np.ceil(at - 1e-9), np.floor(at + 1e-9)).astype(int)
            expected[tuple(edge % coarse.shape if wraps else edge)] = True
    np.testing.assert_array_equal(whole, expected)
    tile = Tile(0, (5, 0, 11), (18, 20, 30), (1, 1, 1))
    np.testing.assert_array_equal(coarse.select(tile.slices), whole[tile.slices])
