"""The whole-array correlation against the one in vector lanes."""

import numpy as np
import pytest

from cryodask.kernels.polar_correlation import AngleTable, correlate, in_lanes
from cryodask.kernels.polar_correlation_arrays import correlate_arrays
from cryodask.kernels.steerable import Basis


def random_case(images: int, references: int, offsets: int, frequencies: int = 12) -> tuple:
    rng = np.random.default_rng(5)
    starts = np.concatenate([[0], np.cumsum(rng.integers(1, 5, frequencies))])
    size = int(starts[-1])
    basis = Basis(starts, np.zeros((size, 3), np.float32), np.ones(size, np.float32))

    def draw(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)

    y = draw(references, offsets, size)
    y /= basis.norm(y.reshape(-1, size)).reshape(references, offsets, 1)
    return draw(images, size), y.astype(np.complex64), basis


@pytest.mark.parametrize(("angles", "columns"), [(48, 40), (256, 10**6)])
def test_both_forms_find_the_same_poses(angles: int, columns: int) -> None:
    images, references, basis = random_case(37, 5, 3)
    table = AngleTable(angles, 12)
    score, code = correlate(in_lanes(images), references, basis, table)
    found, place = correlate_arrays(images, references, basis, table, columns=columns)
    np.testing.assert_allclose(found, score[:37], atol=2e-5)
    other = place != code[:37]
    assert other.mean() < 0.02  # angles that tie to rounding


def test_ties_go_to_the_lowest_code() -> None:
    images, references, basis = random_case(3, 2, 1)
    table = AngleTable(48, 12)
    twice = np.concatenate([references, references], axis=1)
    assert (correlate_arrays(images, twice, basis, table)[1] < 4096).all()
    nothing = correlate_arrays(np.zeros_like(images), references, basis, table)
    assert (nothing[0] == 0).all() and (nothing[1] == 0).all()
