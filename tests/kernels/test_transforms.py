import numpy as np
import pytest

from cryodask.kernels.simd import aligned_empty
from cryodask.kernels.transforms import factors, forward, inverse, order, stages


@pytest.mark.parametrize("length", [2, 3, 4, 5, 12, 30, 48, 90, 128, 250, 540])
def test_forward_is_the_fft_and_inverse_undoes_it(rng, length):
    lines = aligned_empty((length, 2, 16))
    lines[:] = rng.standard_normal(lines.shape)
    signal = lines[:, 0] + 1j * lines[:, 1].astype(np.float64)
    table, twiddles = stages(length)
    forward(lines.reshape(-1), 0, table, twiddles)
    expected = np.fft.fft(signal, axis=0)
    found = (lines[:, 0] + 1j * lines[:, 1])[order(length)]
    np.testing.assert_allclose(found, expected, atol=2e-6 * np.abs(expected).max())
    inverse(lines.reshape(-1), 0, table, twiddles)
    np.testing.assert_allclose((lines[:, 0] + 1j * lines[:, 1]) / length, signal, atol=5e-6)


def test_lengths_with_other_primes_have_no_factors():
    assert factors(14) == ()
    assert np.prod(factors(360)) == 360
