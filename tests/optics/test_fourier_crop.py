import numpy as np
import pytest

from cryodask.optics.fourier_crop import crop_axis, crop_volume, resample_mask


def waves(size: int, step: float) -> np.ndarray:
    """Return a sum of waves of at most 3 periods in a box of 24 voxels, about the box's centre."""
    z, y, x = ((np.arange(size) - size // 2) * step * 2 * np.pi / 24 for _ in range(3))
    total = np.cos(3 * z[:, None, None] - y[:, None] + 0.3) + np.sin(
        2 * y[:, None] + x + 0.0 * z[:, None, None]
    )
    return total + 0.5 * np.cos(2 * x + 3 * y[:, None] + z[:, None, None])


@pytest.mark.parametrize("size", [12, 16, 18])
def test_a_band_limited_volume_keeps_its_values_about_the_centre(size):
    np.testing.assert_allclose(crop_volume(waves(24, 1.0), size), waves(size, 24 / size), atol=1e-6)


@pytest.mark.parametrize(("length", "size"), [(9, 5), (9, 6), (10, 5), (10, 6)])
def test_cropping_an_axis_keeps_its_lowest_frequencies(length, size):
    kept = crop_axis(np.fft.fftfreq(length, 1 / length)[None], size, 1)[0]
    expected = np.fft.fftfreq(size, 1 / size)
    if size % 2 == 0:
        expected[size // 2] = 0
    np.testing.assert_array_equal(kept, expected)


def test_a_soft_sphere_stays_one():
    def sphere(size, radius, edge):
        axes = np.ogrid[(slice(-(size // 2), size - size // 2),) * 3]
        return np.clip((radius + edge - np.sqrt(sum(a**2 for a in axes))) / edge, 0, 1)

    found = resample_mask(sphere(40, 12, 4), 30)
    np.testing.assert_allclose(found, sphere(30, 9, 3), atol=0.06)
