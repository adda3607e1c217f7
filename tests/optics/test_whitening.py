import numpy as np
import pytest

from cryodask.errors import InputError
from cryodask.optics.bandpass import BandPass
from cryodask.optics.frequency import half_frequencies
from cryodask.optics.template_filter import template_filter
from cryodask.optics.tilts import TiltSeries
from cryodask.optics.wedge import filled_wedge
from cryodask.optics.whitening import CubePower, cube_power, cube_slices, whitening

VOXEL = 10.0
TILTS = TiltSeries([-50, 60], is_range=True)


def coloured_noise(shape, seed, tilts=None):
    """Noise of amplitude 1/(0.01 + f), sampled in the wedge of the tilts."""
    white = np.fft.rfftn(np.random.default_rng(seed).standard_normal(shape))
    kz, ky, kx = half_frequencies(shape, VOXEL)
    amplitude = 1 / (0.01 + np.sqrt(kz**2 + ky**2 + kx**2))
    inside = 1.0 if tilts is None else filled_wedge(kz, ky, kx, tilts.angle_range, 20, VOXEL)
    return np.fft.irfftn(white * amplitude * inside, s=shape, axes=(0, 1, 2))


@pytest.mark.parametrize("tilts", [None, TILTS])
def test_coloured_noise_comes_out_flat(tilts):
    volume = coloured_noise((96, 128, 128), 3, tilts)
    slices = cube_slices(((0, 96), (0, 128), (0, 128)), 20)
    curve = whitening([cube_power(volume[s], VOXEL, tilts, 20) for s in slices], VOXEL, 64)
    f = np.linspace(0.006, 0.044, 30)
    flat = curve(f) / (0.01 + f)
    assert np.ptp(flat) / flat.mean() < 0.1


def test_factor_ends_at_the_origin_and_at_nyquist_with_greatest_one():
    curve = whitening([CubePower(1.0, 1.0 / np.arange(1, 34) ** 2)], VOXEL, 64)
    f = np.linspace(0, 0.05, 1601)
    assert curve(np.array([0.0, 0.05, 0.08])) == pytest.approx([0, 0, 0])
    assert curve(f).max() == pytest.approx(1, abs=0.02)
    assert curve(0.0475) / curve.shells[30:32].mean() == pytest.approx(0.5, abs=0.01)


def test_the_tenth_of_highest_variance_is_left_out():
    calm = [CubePower(1.0 + 0.01 * i, np.ones(33)) for i in range(9)]
    gold = CubePower(50.0, 1e6 * np.arange(33.0))
    np.testing.assert_array_equal(
        whitening([gold, *calm], VOXEL, 64).shells, whitening(calm, VOXEL, 64).shells
    )


def test_power_of_a_cube_is_the_slow_mean_over_shells():
    cube = np.random.default_rng(5).standard_normal((16, 16, 16)) + 40.0
    window = np.hanning(17)[:16]
    spectrum = np.fft.fftn((cube - cube.mean()) * window[:, None, None] * window[:, None] * window)
    k = np.fft.fftfreq(16) * 16
    shell = np.rint(np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2))
    expected = [np.mean(np.abs(spectrum[shell == r]) ** 2) for r in range(9)]
    result = cube_power(cube, VOXEL, None, 8)
    np.testing.assert_allclose(result.shells, expected)
    assert result.variance == pytest.approx(cube.var())


def test_cubes_step_by_half_an_edge_within_the_region():
    slices = cube_slices(((10, 138), (0, 64), (5, 69)), 20)
    assert [s[0].start for s in slices] == [10, 42, 74]
    assert all(s[1] == slice(0, 64) and s[2] == slice(5, 69) for s in slices)
    thin = cube_slices(((0, 40), (0, 200), (0, 200)), 50)
    assert thin[0] == (slice(0, 40), slice(0, 100), slice(0, 100))
    many = cube_slices(((0, 1000), (0, 1000), (0, 1000)), 20)
    assert len(many) == len({tuple(s.start for s in cube) for cube in many}) == 2000


def test_whitening_multiplies_the_template_filter():
    curve = whitening([CubePower(1.0, 1.0 / np.arange(1, 34) ** 2)], VOXEL, 64)
    plain = template_filter(20, VOXEL, TILTS, BandPass(8))
    white = template_filter(20, VOXEL, TILTS, BandPass(8), radial_weights=(curve,))
    assert white[0, 5, 0] == pytest.approx(plain[0, 5, 0] * curve(5 / 200))


def test_an_empty_region_is_refused():
    with pytest.raises(InputError, match="the searched region has no signal"):
        whitening([CubePower(0.0, np.zeros(33))], VOXEL, 64)
    with pytest.raises(InputError, match="no signal"):
        whitening([], VOXEL, 64)
