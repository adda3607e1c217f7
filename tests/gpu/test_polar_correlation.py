"""The correlation of particles with class averages on a GPU against the same call on the CPU."""

import numpy as np
import pytest

from cryodask.arrays.module import cuda_is_available
from cryodask.kernels.polar_correlation import AngleTable, correlate, in_lanes
from cryodask.kernels.polar_correlation_arrays import correlate_on_device
from tests.kernels.test_polar_correlation_arrays import random_case

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not cuda_is_available(), reason="no CUDA device")]


@pytest.mark.parametrize("memory", [0.5, 2.0**22])
def test_winners_on_a_gpu_are_those_of_the_cpu(memory: float) -> None:
    images, references, basis = random_case(300, 20, 9)
    table = AngleTable(48, 12)
    score, code = correlate(in_lanes(images), references, basis, table)
    found, place = correlate_on_device(images, references, basis, table, memory=memory)
    np.testing.assert_allclose(found, score[:300], atol=1e-3)
    assert (place == code[:300]).mean() > 0.98
