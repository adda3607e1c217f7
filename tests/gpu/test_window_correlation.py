"""Scores on windows on a GPU against the same calls on the CPU: the cases of the kernel's own tests."""

import numpy as np
import pytest

from cryodask.arrays.module import cuda_is_available, to_numpy
from cryodask.geometry.zyz import zyz_matrices
from cryodask.kernels.pose_search import PoseHypotheses, Surroundings, best_pose
from cryodask.kernels.slices import extract_slices, slice_axes, template_spectrum
from cryodask.kernels.window_correlation import UNIT_ENERGY, Normalization, window_scores, window_set
from cryodask.optics.ctf_image import ImageCtf, ctf_image

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not cuda_is_available(), reason="no CUDA device")]
N, BOX = 16, 20
COMPLEX = {"zernikes": (("Z31c", 0.8), ("Z33s", -0.5))}


@pytest.fixture(scope="module")
def host():
    """Return slices, windows and the box that they are cut from."""
    rng = np.random.default_rng(1)
    spectrum = template_spectrum(rng.random((N, N, N), dtype=np.float32))
    axes = slice_axes(zyz_matrices(rng.uniform(0, 180, (7, 3))))
    box = rng.standard_normal((BOX, BOX)).astype(np.float32) + np.float32(0.3)
    windows = np.lib.stride_tricks.sliding_window_view(box, (N, N)).reshape(-1, N, N)
    return spectrum, axes, windows.copy(), box


def filters(**changes):
    optics = ImageCtf(2.0, 5200.0, 4100.0, 25.0, **changes)
    return np.stack([ctf_image((N, N), optics, defocus_offset=d) for d in (-500.0, 300.0)])


@pytest.mark.parametrize("changes", [{}, COMPLEX], ids=["real", "complex"])
@pytest.mark.parametrize(
    "normalization", [UNIT_ENERGY, Normalization.leopard_em(N, BOX)], ids=["unit", "leopard"]
)
def test_scores_are_those_of_the_cpu(host, changes, normalization):
    cupy = pytest.importorskip("cupy")
    spectrum, axes, windows, _ = host
    results = []
    for xp in (np, cupy):
        slices = extract_slices(xp.asarray(spectrum), axes, N)
        prepared = window_set(xp.asarray(windows), xp.asarray(filters(**changes)))
        results.append(to_numpy(window_scores(slices, prepared, normalization, first_row=5)))
    np.testing.assert_allclose(results[1], results[0], atol=5e-5)


def test_a_projection_without_energy_scores_nothing(host):
    cupy = pytest.importorskip("cupy")
    empty = cupy.zeros((1, N, N // 2 + 1), cupy.complex64)
    prepared = window_set(cupy.asarray(host[2]), cupy.asarray(filters()))
    assert not to_numpy(window_scores(empty, prepared)).any()


def test_the_best_pose_is_that_of_the_cpu(host):
    cupy = pytest.importorskip("cupy")
    spectrum, axes, _, box = host
    places = np.argwhere(np.ones((BOX - N + 1,) * 2, bool))
    spread = np.full(len(places), 1.5, np.float32)
    around = Surroundings(box, places, np.zeros(len(places), np.float32), spread)
    found = [
        best_pose(
            around, PoseHypotheses(xp.asarray(spectrum), (axes,), filters()[None].astype("f4"), 0, len(axes))
        )
        for xp in (np, cupy)
    ]
    assert (found[0].pose, found[0].shift) == (found[1].pose, found[1].shift)
    assert found[1].z == pytest.approx(found[0].z, abs=5e-5)
