"""The sign of matter in a tomogram, held against the template's."""

import numpy as np
import pytest
from scipy.stats import skew

from cryodask.optics.bandpass import BandPass
from cryodask.optics.contrast import PowerSums, contrasts_differ, power_sums, template_skewness

BOX = 24
BAND = BandPass(lp_rad=8)


def blob():
    z, y, x = np.indices((BOX,) * 3) - BOX // 2
    return np.exp(-(z**2 + 2 * y**2 + x**2) / 18)


def crowd(sign):
    """Noise, and blobs in a fiftieth of the voxels."""
    volume = np.random.default_rng(4).standard_normal((72, 72, 72)) / 3
    for z in (12, 36, 60):
        volume[z - 12 : z + 12, 24:48, 12:36] += sign * 4 * blob()
    return volume


def test_sums_of_parts_give_the_skewness_of_the_whole():
    values = np.random.default_rng(1).uniform(-1, 1, (40, 50, 60)) ** 2
    whole = sum((power_sums(part) for part in np.split(values, 4)), PowerSums())
    assert whole.count == values.size
    assert whole.skewness == pytest.approx(skew(values, axis=None), rel=1e-6)
    assert whole.variance == pytest.approx(values.var(), rel=1e-6)
    assert power_sums(np.full(9, 2.0)).skewness == 0.0


def test_an_artefact_does_not_decide():
    values = crowd(1)
    values[3, 4, 5] = -100.0
    assert skew(values, axis=None) < -1
    assert power_sums(values).skewness > 0.02


@pytest.mark.parametrize(("matter", "template", "differ"), [(1, 1, False), (-1, -1, False), (1, -1, True)])
def test_opposite_signs_are_told_and_equal_ones_are_not(matter, template, differ):
    found = template_skewness(template * blob(), BAND)
    assert found * template > 1
    assert contrasts_differ(power_sums(crowd(matter)), found, box=BOX, band=BAND) is differ


@pytest.mark.parametrize("seed", range(5))
def test_noise_says_nothing(seed):
    noise = power_sums(np.random.default_rng(seed).standard_normal((48, 48, 48)))
    for sign in (1, -1):
        assert not contrasts_differ(noise, sign * 2.0, box=BOX, band=BAND)


def test_a_real_ribosome_and_its_average_are_both_dark(shared_data):
    from cryodask.io.volume import read_volume

    folder = shared_data / "tomogram_matching" / "local_correlation"
    subtomogram = read_volume(folder / "subtomo_ribosome_mmotl_ribosome_b4_trim_shift_t126_t126_b4_s48.em")
    average = read_volume(folder / "bin4_voxel2.176_ribosome.em")
    band = BandPass(lp_rad=12, hp_rad=1)
    assert template_skewness(average, band) < -0.5
    assert template_skewness(subtomogram, band) < 0
