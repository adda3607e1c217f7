"""The best scores in few windows on a GPU against the same call on the CPU."""

import numpy as np
import pytest

from cryodask.arrays.module import cuda_is_available
from cryodask.geometry.zyz import zyz_matrices
from cryodask.kernels.slices import slice_axes, template_spectrum
from cryodask.kernels.window_search import WindowSearch

N = 16
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not cuda_is_available(), reason="no CUDA device")]


def work(xp, kind):
    rng = np.random.default_rng(1)
    spectrum = template_spectrum(xp.asarray(rng.standard_normal((N, N, N), dtype=np.float32)))
    filters = rng.standard_normal((2, 3, N, N // 2 + 1)).astype(np.float32)
    if kind == "complex":
        filters = filters * np.exp(1j * rng.standard_normal(filters.shape)).astype(np.complex64)
    windows = rng.standard_normal((9, N, N), dtype=np.float32)
    axes = [slice_axes(zyz_matrices(rng.uniform(0, 180, (40, 3))), scale=s) for s in (1.0, 1.02)]
    return spectrum, xp.asarray(filters), xp.asarray(windows), axes


@pytest.mark.parametrize("kind", ["real", "complex"])
def test_the_best_of_all_filters_is_that_of_the_cpu(kind):
    cupy = pytest.importorskip("cupy")
    found = []
    for xp in (np, cupy):
        spectrum, filters, windows, axes = work(xp, kind)
        found.append(WindowSearch(windows, spectrum, filters).best(axes))
    np.testing.assert_allclose(found[1][0], found[0][0], atol=5e-5)
    assert (found[1][1] == found[0][1]).mean() > 0.99
