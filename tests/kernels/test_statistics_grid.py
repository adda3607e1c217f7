import numpy as np
import pytest

from cryodask.kernels.statistics_grid import choose_statistics_grid, predicted_error
from cryodask.kernels.volume_correlation import local_statistics, tile_spectra


def ellipsoid(n):
    z, y, x = np.indices((n, n, n)) - n // 2
    rho = np.sqrt((z / 16) ** 2 + (y / 15) ** 2 + (x / 13) ** 2)
    mask = np.where(rho <= 1, 1.0, np.exp(-((14 * (rho - 1)) ** 2) / 4.5))
    return np.where(mask < 0.0135, 0.0, mask).astype(np.float32)


def test_prediction_is_the_measured_error_on_white_noise(rng):
    mask, shape = ellipsoid(40), (64, 64, 64)
    block = rng.standard_normal(shape, dtype=np.float32)
    spectra = tile_spectra(block, box=40, valid=shape, squares=True)
    exact = local_statistics(spectra, mask, mask.sum())
    coarse = local_statistics(spectra, mask, mask.sum(), statistics_grid=0.5)
    measured = np.std(coarse / exact - 1)
    assert measured == pytest.approx(predicted_error(mask, 0.5), rel=0.3)
    assert measured < 1e-4


def test_auto_takes_the_coarsest_grid_that_is_good_enough(reference):
    assert choose_statistics_grid(ellipsoid(40), "auto").fraction == 0.5
    hard = choose_statistics_grid(reference.sphere(40, 14, 1e-3), "auto")
    assert (hard.fraction, hard.predicted_error) == (1.0, 0.0)
    assert choose_statistics_grid(reference.sphere(40, 14, 1e-3), "coarse").predicted_error > 1e-4
    assert choose_statistics_grid(ellipsoid(40), "exact").fraction == 1.0
