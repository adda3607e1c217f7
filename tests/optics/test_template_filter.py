import numpy as np
import pytest

from cryodask.errors import InputError
from cryodask.optics.bandpass import BandPass
from cryodask.optics.ctf import box_ctf
from cryodask.optics.dose import DoseFilter
from cryodask.optics.template_filter import template_filter
from cryodask.optics.tilts import TiltSeries

VOXEL = 10.0
TILTS = TiltSeries(
    angles=[-50, -31, -12, 4, 22, 41, 61],
    exposure=[70, 40, 20, 3, 12, 30, 60],
    defocus=[31000, 30500, 30000, 29000, 30000, 30200, 32000],
)


def slow_filter(n, band, tilts, *, ctf=None, dose=None, weight="none", average="tilts"):
    """Section by section as defined: every frequency, every tilt, and both signs at Nyquist."""
    curves = [box_ctf(tilts, i, ctf, n, VOXEL) if ctf else None for i in range(len(tilts.angles))]
    half = n // 2
    result = np.zeros((n, n, half + 1))
    for z, y, x in np.ndindex(result.shape):
        kz, ky, kx = (i if i <= (n - 1) // 2 else i - n for i in (z, y, x))
        r = np.sqrt(kz**2 + ky**2 + kx**2)
        if r == 0 or band.curve(r, n) == 0:
            continue
        nyquist_z, nyquist_x = n % 2 == 0 and z == half, n % 2 == 0 and x == half
        values = []
        for sz in (1, -1) if nyquist_z else (1,):
            for sx in (1, -1) if nyquist_x else (1,):
                exposures, transfers, products = [], [], []
                for i, theta in enumerate(np.radians(tilts.angles)):
                    if abs(sz * kz * np.cos(theta) - sx * kx * np.sin(theta)) >= 1 - np.exp(-2):
                        continue
                    e = dose.curve(r / (n * VOXEL), tilts.exposure[i]) if dose else 1.0
                    e *= np.cos(theta) if weight == "cos" else 1.0
                    c = float(curves[i](r)) if ctf else 1.0
                    exposures.append(e)
                    transfers.append(c)
                    products.append(e * c)
                if not products:
                    values.append(0.0)
                elif average == "product":
                    values.append(np.mean(exposures) * np.mean(transfers))
                else:
                    values.append(np.mean(products))
        result[z, y, x] = band.curve(r, n) * np.mean(values)
    return result


@pytest.mark.parametrize(
    ("n", "options"),
    [
        (12, {}),
        (13, {"ctf": "amplitude", "dose": DoseFilter(), "weight": "cos"}),
        (12, {"ctf": "signed", "dose": DoseFilter("bfactor")}),
        (12, {"ctf": "amplitude", "dose": DoseFilter(), "average": "product"}),
    ],
)
def test_filter_is_the_mean_over_the_tilts_that_sample(n, options):
    band = BandPass(5.5, 2, 1, 1)
    expected = slow_filter(n, band, TILTS, **options)
    renamed = {"weight": "tilt_weight", "average": "filter_average"}
    options = {renamed.get(key, key): value for key, value in options.items()}
    result = template_filter(n, VOXEL, TILTS, band, **options)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, atol=2e-7)
    assert 0.05 < (result != 0).mean() < 0.5


@pytest.mark.parametrize("n", [12, 13])
def test_filter_of_a_real_volume_is_hermitian(n):
    half = template_filter(n, VOXEL, TILTS, BandPass(6, 3), ctf="signed")
    mirror = -np.arange(n) % n
    for x in (0, n // 2) if n % 2 == 0 else (0,):
        np.testing.assert_allclose(half[:, :, x], half[mirror][:, mirror, x], atol=1e-7)


def test_a_range_fills_the_wedge_and_none_opens_it():
    limits = TiltSeries([-50, 61], is_range=True)
    dense = TiltSeries(np.arange(-50, 61.5, 1.0))
    band = BandPass(5, 1)
    np.testing.assert_array_equal(
        template_filter(12, VOXEL, limits, band), template_filter(12, VOXEL, dense, band)
    )
    whole = template_filter(12, VOXEL, None, band)
    np.testing.assert_array_equal(template_filter(12, VOXEL, TILTS, band, wedge="none"), whole)
    np.testing.assert_array_equal(template_filter(12, VOXEL, limits, band, wedge="none"), whole)


def test_radial_weights_multiply_by_functions_of_the_frequency():
    plain, weighted = (
        template_filter(12, VOXEL, None, BandPass(5), radial_weights=w) for w in ((), (np.square,))
    )
    assert weighted[0, 0, 3] == pytest.approx(plain[0, 0, 3] * (3 / 120) ** 2)


@pytest.mark.parametrize(
    ("tilts", "options", "message"),
    [
        (TiltSeries([-60, 0, 60]), {"ctf": "amplitude"}, "ctf: the tilts have no defocus"),
        (TiltSeries([-60, 0, 60]), {"dose": DoseFilter()}, "dose: the tilts have no exposure"),
        (TiltSeries([-60, 60], is_range=True), {"dose": DoseFilter()}, "need the angle of every tilt"),
        (None, {"tilt_weight": "cos"}, "need the angle of every tilt"),
    ],
)
def test_missing_optics_are_named(tilts, options, message):
    with pytest.raises(InputError, match=message):
        template_filter(12, VOXEL, tilts, BandPass(5), **options)
