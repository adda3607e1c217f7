"""The kernels on a GPU against the same calls on the CPU."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from cryodask.arrays.module import cuda_is_available, to_numpy
from cryodask.kernels.rotation import rotate_mask, rotation_coefficients
from cryodask.kernels.template import filter_template, normalise, prepare_rotation
from cryodask.kernels.volume_correlation import (
    correlate_general,
    correlate_spherical,
    correlate_with_norm,
    empty_state,
    finish_general,
    finish_spherical,
    local_statistics,
    tile_spectra,
)

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not cuda_is_available(), reason="no CUDA device")]

N, SHAPE, VALID = 16, (48, 40, 60), (33, 25, 45)
R = Rotation.from_euler("zxz", [[0, 0, 0], [30, 40, 50], [10, 100, -60]], degrees=True).as_matrix()


@pytest.fixture
def cupy():
    return pytest.importorskip("cupy")


@pytest.fixture
def inputs():
    rng = np.random.default_rng(2)
    v = np.arange(N) - N // 2
    rho = np.sqrt(v[:, None, None] ** 2 + v[:, None] ** 2 + v**2)
    mask = np.clip(7 - rho, 0, 1).astype(np.float32)
    return (
        rng.standard_normal(SHAPE, dtype=np.float32),
        rng.standard_normal((N, N, N), dtype=np.float32),
        mask,
    )


def rotations(xp, template, mask, interpolation):
    coefficients = rotation_coefficients(xp.asarray(template), interpolation)
    masks = [rotate_mask(rotation_coefficients(xp.asarray(mask), "linear"), matrix) for matrix in R]
    prepared = [
        prepare_rotation(coefficients, m, matrix, interpolation=interpolation)
        for m, matrix in zip(masks, R, strict=True)
    ]
    return xp.stack([u for u, _ in prepared]), xp.stack(masks), [float(count) for _, count in prepared]


@pytest.mark.parametrize("interpolation", ["linear", "cubic"])
def test_prepared_rotations_agree(cupy, inputs, interpolation):
    _, template, mask = inputs
    for device, host in zip(
        rotations(cupy, template, mask, interpolation),
        rotations(np, template, mask, interpolation),
        strict=True,
    ):
        found = device if isinstance(device, list) else to_numpy(device)
        np.testing.assert_allclose(found, host, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("normalization", ["weighted", "support", "product"])
def test_weights_agree(cupy, inputs, normalization):
    _, template, mask = inputs
    weights = np.random.default_rng(1).random((N, N, N // 2 + 1)).astype(np.float32)
    found = []
    for xp in (cupy, np):
        filtered = filter_template(xp.asarray(template), xp.asarray(weights))
        found.append(to_numpy(normalise(filtered, xp.asarray(mask), normalization=normalization)[0]))
    np.testing.assert_allclose(*found, atol=2e-5)


@pytest.mark.parametrize("statistics_grid", [1.0, 0.5])
def test_general_scores_agree(cupy, inputs, statistics_grid):
    states = []
    for xp in (cupy, np):
        block, template, mask = inputs
        spectra = tile_spectra(xp.asarray(block), box=N, valid=VALID, squares=True)
        state = empty_state(VALID, moments=True, xp=xp)
        u, masks, counts = rotations(xp, template, mask, "linear")
        correlate_general(spectra, u, masks, counts, [4, 2, 7], state, statistics_grid=statistics_grid)
        finish_general(state)
        states.append({name: to_numpy(array) for name, array in state.items()})
    agree(*states)


@pytest.mark.parametrize("at_once", [True, False])
def test_spherical_scores_agree(cupy, inputs, at_once):
    states = []
    for xp in (cupy, np):
        block, template, mask = inputs
        spectra = tile_spectra(xp.asarray(block), box=N, valid=VALID, squares=True)
        norm = local_statistics(spectra, xp.asarray(mask), float(mask.sum()))
        state = empty_state(VALID, moments=True, xp=xp)
        u, _, _ = rotations(xp, template, mask, "cubic")
        if at_once:
            correlate_with_norm(spectra, u, [4, 2, 7], norm, state)
            finish_general(state)
        else:
            correlate_spherical(spectra, u, [4, 2, 7], state)
            finish_spherical(state, norm)
        states.append({name: to_numpy(array) for name, array in state.items()})
    agree(*states)


def agree(device, host):
    np.testing.assert_allclose(device["value"], host["value"], atol=2e-5)
    assert (device["id"] == host["id"]).mean() > 0.999
    for name in ("sum", "square_sum"):
        np.testing.assert_allclose(device[name], host[name], atol=1e-4)
