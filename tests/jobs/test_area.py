"""Where a tomogram is searched."""

import logging

import numpy as np
import pytest

from cryodask.errors import InputError
from cryodask.jobs.tomogram_matching import area as area_module
from cryodask.jobs.tomogram_matching import constants
from cryodask.jobs.tomogram_matching.area import search_area, write_selection
from cryodask.jobs.tomogram_matching.inputs import load_inputs
from cryodask.search.tiles import Tile

SHAPE = (20, 24, 22)
WHOLE = tuple(slice(0, n) for n in SHAPE)


def area_of(parameters):
    return search_area(load_inputs(parameters))


def halves(low, high):
    mask = np.full(SHAPE, low, np.float32)
    mask[:, 5:9, 3:] = high
    return mask


def test_everything_is_searched_without_mask_and_region(job):
    area = area_of(job())
    assert area.is_everything
    assert area.count == np.prod(SHAPE)
    assert area.select(WHOLE).all()


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 255), (1, 2), (-1, 0), (7, 7.5)])
def test_the_larger_of_two_mask_values_is_in(job, caplog, low, high):
    area = area_of(job(tomogram_mask=halves(low, high)))
    np.testing.assert_array_equal(area.select(WHOLE), halves(0, 1) > 0)
    assert area.count == 20 * 4 * 19
    assert not caplog.records


def test_a_mask_of_one_value_above_zero_is_everything(job):
    assert area_of(job(tomogram_mask=halves(3, 3))).count == np.prod(SHAPE)


def test_fractions_are_cut_at_one_half_with_a_warning(job, caplog):
    mask = halves(0, 1)
    mask[0], mask[1] = 0.3, 0.6
    with caplog.at_level(logging.WARNING, logger="cryodask"):
        area = area_of(job(tomogram_mask=mask))
    assert caplog.messages == ["tomogram_mask has fractions, cut at 0.5"]
    np.testing.assert_array_equal(area.select(WHOLE), mask > 0.5)


def test_a_region_is_in_angstrom_of_the_tomograms_coordinates_both_ends_included(job):
    origin = (-100.0, 50.0, 0.0)
    area = area_of(job(origin=origin, region={"z": [-70, -20], "y": [105, 199]}))
    z = -100 + 10.0 * np.arange(20)
    y = 50 + 10.0 * np.arange(24)
    expected = ((z >= -70) & (z <= -20))[:, None, None] & ((y >= 105) & (y <= 199))[:, None]
    np.testing.assert_array_equal(area.select(WHOLE), np.broadcast_to(expected, SHAPE))
    assert area.count == 6 * 9 * 22


def test_mask_and_region_both_count_and_tiles_without_a_voxel_are_known(job):
    area = area_of(job(tomogram_mask=halves(0, 1), region={"z": [0, 95]}))
    assert area.count == 10 * 4 * 19
    assert area.has(Tile(0, (8, 0, 0), (16, 6, 4), (32,) * 3))
    assert not area.has(Tile(1, (10, 0, 0), (20, 24, 22), (32,) * 3))
    assert not area.has(Tile(2, (0, 0, 0), (20, 24, 3), (32,) * 3))


def test_nothing_selected_is_refused_by_name(job):
    with pytest.raises(InputError, match=r"^tomogram_mask: selects no voxel$"):
        area_of(job(tomogram_mask=halves(0, 0)))
    with pytest.raises(InputError, match=r"^tomogram_mask: holds voxels that are not finite$"):
        area_of(job(tomogram_mask=halves(0, np.nan)))
    with pytest.raises(InputError, match=r"^region: selects no voxel$"):
        area_of(job(region={"x": [500, 600]}))
    with pytest.raises(InputError, match=r"^region: selects no voxel$"):
        area_of(job(tomogram_mask=halves(0, 1), region={"x": [500, 600]}))


def test_slabs_select_and_write_the_same(job, tmp_path, monkeypatch):
    parameters = job(tomogram_mask=halves(0, 1), region={"z": [30, 150]})
    whole = area_of(parameters)
    monkeypatch.setattr(area_module, "SLAB_VOXELS", 1500)
    area = area_of(parameters)
    assert area == whole
    write_selection(area, tmp_path)
    stored = constants.read_search_mask(tmp_path, Tile(0, (0, 0, 0), SHAPE, (32,) * 3))
    np.testing.assert_array_equal(stored, area.select(WHOLE))
