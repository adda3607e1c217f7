"""Where the defocus of a tomogram may be taken as constant."""

import numpy as np
import pytest

from cryodask.errors import InputError
from cryodask.optics.ctf import electron_wavelength
from cryodask.optics.defocus_gradient import DefocusCells, defocus_cells, tilts_at
from cryodask.optics.tilts import TiltSeries

TILTS = TiltSeries(angles=np.arange(-54.0, 61.0, 6.0), defocus=np.full(20, 30000.0))
SHAPE = (300, 400, 500)


def spread(cells, voxel_size):
    """The largest difference of defocus, over tilts, between voxels of one cell, over all cells."""
    worst = 0.0
    for _, (z0, _, x0), (z1, _, x1) in cells.pieces((0, 0, 0), cells.shape):
        corners = np.array([(z, x) for z in (z0, z1 - 1) for x in (x0, x1 - 1)]) * voxel_size
        found = np.array([tilts_at(TILTS, 1, z, x).defocus for z, x in corners])
        worst = max(worst, np.ptp(found, axis=0).max())
    return worst


@pytest.mark.parametrize("frequency", [0.02, 0.05, 0.08, 0.12])
def test_defocus_varies_within_a_cell_by_no_more_than_the_band_bears_and_no_fewer_cells_do(frequency):
    cells = defocus_cells(SHAPE, 8.0, TILTS, frequency)
    limit = 1 / (4 * electron_wavelength(300) * frequency**2)
    assert spread(cells, 8.0) <= limit
    fewer = [
        (rows, columns)
        for rows in range(1, len(cells))
        for columns in range(1, len(cells))
        if rows * columns < len(cells)
    ]
    assert all(spread(DefocusCells(SHAPE, counts), 8.0) > limit for counts in fewer)


def test_cells_hold_every_voxel_once_and_pieces_of_a_box_are_theirs():
    cells = DefocusCells((20, 6, 33), (3, 4))
    number = np.full(cells.shape, -1)
    for cell, start, stop in cells.pieces((0, 0, 0), cells.shape):
        place = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
        assert (number[place] == -1).all()
        number[place] = cell
        z, x = cells.centre(cell)
        assert z + 10 == pytest.approx((start[0] + stop[0] - 1) / 2)
        assert x + 16 == pytest.approx((start[2] + stop[2] - 1) / 2)
    assert sorted(np.unique(number)) == list(range(12)) == list(range(len(cells)))
    found = np.full(cells.shape, -1)
    for cell, start, stop in cells.pieces((4, 1, 5), (15, 4, 30)):
        found[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] = cell
    inside = (slice(4, 15), slice(1, 4), slice(5, 30))
    np.testing.assert_array_equal(found[inside], number[inside])
    assert (np.delete(found, np.r_[4:15], axis=0) == -1).all()


def test_height_raises_the_defocus_of_the_untilted_image_and_x_only_that_of_tilted_ones():
    tilts = TiltSeries(angles=[-30.0, 0.0, 30.0], defocus=[30000.0, 31000.0, 32000.0])
    np.testing.assert_allclose(tilts_at(tilts, 1, 1000, 0).defocus, [30866.025, 32000, 32866.025])
    np.testing.assert_allclose(tilts_at(tilts, 1, 0, 1000).defocus, [30500, 31000, 31500])
    np.testing.assert_allclose(tilts_at(tilts, -1, 0, 1000).defocus, [29500, 31000, 32500])
    with pytest.raises(InputError, match="the tilts have no defocus"):
        tilts_at(TiltSeries(angles=[-30.0, 0.0]), 1, 0, 0)
