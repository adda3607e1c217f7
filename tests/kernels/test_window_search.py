"""The best score of orientations in windows: against projections correlated one by one in float64."""

import numpy as np
import pytest

from cryodask.geometry.zyz import zyz_matrices
from cryodask.kernels import window_search
from cryodask.kernels.slices import extract_slices, project, slice_axes, template_spectrum, unit_energy
from cryodask.kernels.window_search import WindowSearch

N = 12


@pytest.mark.parametrize("memory", [64 * 2**20, 4096])
def test_every_window_gets_its_best_filter(memory, monkeypatch):
    monkeypatch.setattr(window_search, "COLUMN_BYTES", memory)
    rng = np.random.default_rng(4)
    spectrum = template_spectrum(rng.standard_normal((N, N, N), dtype=np.float32))
    filters = rng.standard_normal((2, 3, N, N // 2 + 1)).astype(np.float32)
    windows = rng.standard_normal((5, N, N), dtype=np.float32)
    matrices = zyz_matrices(rng.uniform(0, 180, (35, 3)))
    axes = [slice_axes(matrices, scale=scale) for scale in (1.0, 1.05)]
    value, number = WindowSearch(windows, spectrum, filters).best(axes)
    scores = np.empty((6, 35, 5))
    for size, own in enumerate(axes):
        slices = extract_slices(spectrum, own, N)
        for defocus in range(3):
            templates = unit_energy(project(slices, filters[size, defocus])).astype(np.float64)
            scores[3 * size + defocus] = np.einsum("nyx,syx->ns", templates, windows)
    np.testing.assert_allclose(value, scores.max(axis=0), atol=2e-5)
    assert (number == scores.argmax(axis=0)).mean() > 0.99
