"""Scores on windows against projections in real space, in float64."""

import numpy as np
import pytest

from cryodask.geometry.zyz import zyz_matrices
from cryodask.kernels.slices import extract_slices, project, slice_axes, template_spectrum, unit_energy
from cryodask.kernels.window_correlation import ROWS, Normalization, window_scores, window_set
from cryodask.optics.ctf_image import ImageCtf, ctf_image

N, BOX = 16, 20
ANGLES = np.array([[10.0, 40.0, 200.0], [123.0, 95.0, 7.0], [300.0, 170.0, 55.0]])


@pytest.fixture(scope="module")
def slices():
    volume = np.random.default_rng(1).random((N, N, N), dtype=np.float32)
    return extract_slices(template_spectrum(volume), slice_axes(zyz_matrices(ANGLES)), N)


@pytest.fixture(scope="module")
def windows():
    box = np.random.default_rng(2).standard_normal((BOX, BOX)).astype(np.float32) + 0.3
    return np.lib.stride_tricks.sliding_window_view(box, (N, N)).reshape(-1, N, N)


def filters(**changes):
    optics = ImageCtf(2.0, 5200.0, 4100.0, 25.0, **changes)
    return np.stack([ctf_image((N, N), optics, defocus_offset=d) for d in (-500.0, 300.0)])


@pytest.mark.parametrize(
    "changes", [{}, {"zernikes": (("Z31c", 0.8), ("Z33s", -0.5))}], ids=["real", "complex"]
)
def test_scores_are_sums_over_windows_of_unit_energy_projections(slices, windows, changes):
    ctf = filters(**changes)
    scores = window_scores(slices, window_set(windows, ctf))
    for found, each in zip(scores, ctf, strict=True):
        shown = unit_energy(project(slices, each)).astype(np.float64)
        np.testing.assert_allclose(found, np.einsum("nyx,syx->ns", shown, windows), atol=2e-5)


def test_leopard_em_normalization_counts_the_padded_mean(slices, windows):
    ctf = filters()[:1]
    found = window_scores(slices, window_set(windows, ctf), Normalization.leopard_em(N, BOX))[0]
    p = project(slices, ctf[0]).astype(np.float64)
    border = np.ones((N, N), bool)
    border[1:-1, 1:-1] = False
    centred = p - p[:, border].mean(axis=1)[:, None, None]
    m0 = centred.mean(axis=(1, 2), keepdims=True) * (N * N / BOX**2) ** 2
    variance = ((centred - m0) ** 2).sum(axis=(1, 2), keepdims=True) + (BOX - N) ** 2 * m0**2
    wanted = np.einsum("nyx,syx->ns", centred / np.sqrt(variance), windows) * BOX / (BOX + 1)
    np.testing.assert_allclose(found, wanted, atol=2e-5)


def test_a_score_has_the_same_bits_whatever_is_scored_with_it(slices, windows):
    prepared = window_set(windows, filters())
    together = window_scores(slices, prepared, first_row=5)
    for row in range(3):
        alone = window_scores(slices[row : row + 1], prepared, first_row=5 + row)
        np.testing.assert_array_equal(alone[:, 0], together[:, row])
    assert ROWS >= 8


def test_a_projection_without_energy_scores_nothing(windows):
    empty = np.zeros((1, N, N // 2 + 1), np.complex64)
    assert not window_scores(empty, window_set(windows, filters())).any()
