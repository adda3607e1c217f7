"""The image search on a GPU against the same calls on the CPU."""

import numpy as np
import pytest

from cryodask.arrays.module import cuda_is_available, to_numpy
from cryodask.kernels.image_correlation import image_search
from cryodask.kernels.slices import unit_energy

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not cuda_is_available(), reason="no CUDA device")]


@pytest.mark.parametrize("valid", [(45, 49), (60, 64)])
def test_a_search_on_a_gpu_is_that_on_a_cpu(valid):
    cupy = pytest.importorskip("cupy")
    rng = np.random.default_rng(0)
    tile = rng.standard_normal((60, 64), dtype=np.float32)
    templates = unit_energy(rng.standard_normal((11, 16, 16)).astype(np.float32))
    ids = np.arange(11, dtype=np.uint32)[::-1].copy()
    results = []
    for xp in (np, cupy):
        search = image_search(xp.asarray(tile), box=16, valid=valid, histogram=True)
        search.fold(xp.asarray(templates), ids)
        search.end_block()
        results.append({name: to_numpy(value) for name, value in search.result().items()})
    host, device = results
    np.testing.assert_allclose(device["value"], host["value"], atol=5e-5)
    np.testing.assert_allclose(device["sum"] / 2**24, host["sum"] / 2**24, atol=2e-4)
    np.testing.assert_allclose(device["square_sum"] / 2**20, host["square_sum"] / 2**20, rtol=1e-4)
    assert np.mean(device["id"] != host["id"]) < 0.01
    assert device["counts"].sum() == host["counts"].sum()
