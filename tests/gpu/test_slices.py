"""Slices on a GPU against the same calls on the CPU."""

import numpy as np
import pytest

from cryodask.arrays.module import cuda_is_available, to_numpy
from cryodask.geometry.zyz import zyz_matrices
from cryodask.kernels.slices import extract_slices, project, slice_axes, template_spectrum, unit_energy

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not cuda_is_available(), reason="no CUDA device")]


@pytest.mark.parametrize("padding", [1, 2])
def test_slices_and_projections_are_those_of_the_cpu(padding):
    cupy = pytest.importorskip("cupy")
    rng = np.random.default_rng(0)
    volume = rng.standard_normal((24, 24, 24), dtype=np.float32)
    axes = slice_axes(zyz_matrices(rng.uniform(0, 360, (5, 3))), scale=1.02)
    host = extract_slices(template_spectrum(volume, padding=padding), axes, 24, limit=0.4)
    device = extract_slices(template_spectrum(cupy.asarray(volume), padding=padding), axes, 24, limit=0.4)
    np.testing.assert_allclose(to_numpy(device), host, atol=1e-3)
    made = unit_energy(project(device, cupy.ones((24, 13), cupy.float32)))
    np.testing.assert_allclose(to_numpy(made), unit_energy(project(host, np.float32(1.0))), atol=1e-5)
