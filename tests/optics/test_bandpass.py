import numpy as np
import pytest

from cryodask.optics.bandpass import BandPass

BAND = BandPass(16, 3, 1, 2)


def test_the_documented_values():
    r = np.array([0, 1, 2, 3, *range(4, 17), 17, 18, 19, 20, 20.3, 24])
    expected = [0, 0, 0.221199, 0.632121, *[1] * 13, 0.894839, 0.641180, 0.367879, 0.169013, 0, 0]
    np.testing.assert_allclose(BAND.curve(r, 48), expected, atol=1e-6)
    assert BAND.edge == pytest.approx(16 + 3 * np.sqrt(2))


def test_a_high_pass_of_zero_is_off_but_for_the_origin():
    np.testing.assert_array_equal(BandPass(16, 3, 0, 2).curve(np.array([0, 1e-6, 1, 4]), 48), [0, 1, 1, 1])


def test_nothing_passes_beyond_half_the_box():
    for interpolation in ("formula", "pchip"):
        band = BandPass(24, 3, 0, 2, interpolation)
        np.testing.assert_array_equal(band.curve(np.array([24.0, 24.001, 30]), 48), [1, 0, 0])
        np.testing.assert_array_equal(band.curve(np.array([23.0, 24.001, 30]), 45), [1, 0, 0])


def test_pchip_agrees_at_whole_radii_and_stays_monotonic_between():
    fine = np.linspace(0, 24, 2401)
    curve = BandPass(16, 3, 1, 2, "pchip").curve(fine, 48)
    np.testing.assert_allclose(curve[::100], BAND.curve(np.arange(25), 48), atol=1e-12)
    assert (np.diff(curve[:1000]) >= -1e-12).all()
    assert (np.diff(curve[1600:]) <= 1e-12).all()
