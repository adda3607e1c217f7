import warnings

import numpy as np
import pytest

from cryodask.errors import InputError
from cryodask.optics.frequency import half_frequencies
from cryodask.optics.tilt_sign import WedgePower, check_tilt_sign, volume_wedge_power, wedge_power

LIMITS, INVERTED = (-54.5, 58.25), (-58.25, 54.5)
SUBTOMOGRAM = (
    "tomogram_matching/local_correlation/subtomo_ribosome_mmotl_ribosome_b4_trim_shift_t126_t126_b4_s48.em"
)


@pytest.fixture(scope="module")
def subtomogram(shared_data):
    return np.fromfile(shared_data / SUBTOMOGRAM, "<f4", offset=512).reshape(48, 48, 48)


def test_power_lies_in_the_wedge_of_the_right_sign(subtomogram):
    ratio = volume_wedge_power(subtomogram, LIMITS, 48, 8.704).ratio
    assert ratio == pytest.approx(28, abs=5)
    with warnings.catch_warnings(action="error"):
        check_tilt_sign(ratio, LIMITS)


def test_inverted_angles_are_refused(subtomogram):
    ratio = volume_wedge_power(subtomogram, INVERTED, 48, 8.704).ratio
    with pytest.raises(
        InputError, match=r"^tilt angles look inverted \(power ratio 0\.04\), set tilt_sign: -1$"
    ):
        check_tilt_sign(ratio, INVERTED)


def test_an_uncertain_sign_warns_and_symmetric_limits_pass():
    with pytest.warns(UserWarning, match=r"uncertain \(power ratio 1\.20\)"):
        check_tilt_sign(1.2, LIMITS)
    check_tilt_sign(0.04, (-60.0, 61.0))
    check_tilt_sign(WedgePower().ratio, LIMITS)


def test_powers_of_slabs_add_up():
    shape = (30, 36, 32)
    power = np.random.default_rng(1).random((30, 36, 17))
    kz, ky, kx = half_frequencies(shape, 10.0)
    whole = wedge_power(power, kz, ky, kx, LIMITS, 24, 10.0)
    slabs = [
        wedge_power(power[:, y], kz, ky[:, y], kx, LIMITS, 24, 10.0) for y in (slice(0, 20), slice(20, 36))
    ]
    assert sum(slabs, WedgePower()).ratio == pytest.approx(whole.ratio, rel=1e-12)
    assert whole.given_count > 0
