import numpy as np
import pytest

from cryodask.optics.ctf import box_ctf, ctf_curve, electron_wavelength
from cryodask.optics.dose import DoseFilter
from cryodask.optics.tilts import TiltSeries

VOXEL = 8.0


def test_wavelength_is_relativistic():
    assert electron_wavelength(300) == pytest.approx(0.0196875, abs=5e-8)
    assert electron_wavelength(200) == pytest.approx(0.0250793, abs=5e-8)


def test_the_documented_transfer():
    np.testing.assert_allclose(
        ctf_curve(np.array([0, 0.01, 0.02, 0.03, 0.04]), 30000),
        [0.07, 0.252830, 0.725807, 0.985762, 0.103375],
        atol=1e-6,
    )


def test_a_quarter_wave_plate_makes_phase_contrast_at_the_origin():
    assert ctf_curve(np.zeros(1), 30000, phase_shift=90)[0] == pytest.approx(np.sqrt(1 - 0.07**2))


@pytest.mark.parametrize("box", [64, 65])
def test_a_slow_curve_passes_through_the_box_unchanged(box):
    tilts = TiltSeries([0.0], defocus=[1500.0], tomogram_shape=(400, 900, 960))
    radius = np.arange(0, 20)
    kept = box_ctf(tilts, 0, "signed", box, VOXEL)(radius)
    np.testing.assert_allclose(kept, ctf_curve(radius / (box * VOXEL), 1500), atol=0.02)


@pytest.mark.parametrize("form", ["signed", "amplitude"])
def test_a_box_keeps_the_central_coefficients_of_the_fine_curve(form):
    box, fine = 32, 960
    tilts = TiltSeries([0.0], defocus=[40000.0], tomogram_shape=(400, 900, fine))
    curve = ctf_curve(np.abs(np.fft.fftfreq(fine, VOXEL)), 40000)
    curve = np.abs(curve) if form == "amplitude" else curve
    places = np.arange(-box // 2, box // 2)
    coefficients = [np.sum(curve * np.exp(-2j * np.pi * p * np.arange(fine) / fine)) for p in places]
    expected = [np.sum(coefficients * np.exp(2j * np.pi * places * r / box)).real / fine for r in range(17)]
    np.testing.assert_allclose(box_ctf(tilts, 0, form, box, VOXEL)(np.arange(17)), expected, atol=1e-10)


def test_swings_too_fast_for_a_box_are_averaged_away():
    tilts = TiltSeries([0.0], defocus=[80000.0], tomogram_shape=(400, 900, 960))
    kept = box_ctf(tilts, 0, "signed", 16, 4.0)(np.arange(4, 8))
    assert np.abs(ctf_curve(np.arange(4, 8) / 64.0, 80000)).max() > 0.9
    assert np.abs(kept).max() < 0.15


def test_the_documented_exposure():
    np.testing.assert_allclose(
        DoseFilter().curve(np.array([0, 0.05, 0.02]), 60), [1, 0.460925, 0.836453], atol=1e-6
    )
    np.testing.assert_allclose(DoseFilter("bfactor").curve(np.array([0, 0.05]), 60), [1, np.exp(-0.15)])


def test_low_voltage_and_other_critical_doses():
    dose = DoseFilter()
    assert dose.curve(0.05, 48, voltage=200) == pytest.approx(dose.curve(0.05, 60, voltage=300))
    unscaled = DoseFilter(scale_with_voltage=False)
    assert unscaled.curve(0.05, 60, voltage=200) == pytest.approx(0.460925, abs=1e-6)
    assert DoseFilter(critical_dose=(0.0, -1.665, 30.0)).curve(0.05, 60) == pytest.approx(np.exp(-1))
