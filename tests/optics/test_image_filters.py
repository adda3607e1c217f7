"""Filters of images against reference numbers and slow, obvious forms."""

import numpy as np
import pytest
import scipy.fft

from cryodask.optics.image_filters import (
    BandPassEdges,
    Curve,
    filter_grid,
    frequency_lengths,
    full_plane_sum,
    normalized_image,
    whitening_curve,
)


def test_whitening_and_band_pass_are_those_of_torch_fourier_filter(shared_data):
    folder = shared_data / "micrograph_matching"
    image = np.load(folder / "search_512" / "image.npy")
    spectrum = scipy.fft.rfft2(image.astype(np.float64))
    spectrum[0, 0] = 0
    curve = whitening_curve(spectrum, image.shape)
    with np.load(folder / "filters_projections.npz") as reference:
        np.testing.assert_allclose(filter_grid((512, 512), [curve]), reference["whiten_image"], atol=1e-5)
        np.testing.assert_allclose(filter_grid((128, 128), [curve]), reference["whiten_template"], atol=1e-5)
        band = BandPassEdges(0.02, 0.4, 0.05)(frequency_lengths((128, 128)))
        np.testing.assert_allclose(band, reference["bandpass"], atol=1e-5)


def test_whitening_flattens_a_coloured_spectrum():
    rng = np.random.default_rng(1)
    white = scipy.fft.rfft2(rng.standard_normal((96, 128)))
    k = frequency_lengths((96, 128))
    coloured = white / (1 + 30 * k)
    flat = np.abs(coloured * whitening_curve(coloured, (96, 128))(k)) ** 2
    shells = [flat[(k >= low) & (k < low + 0.1)].mean() for low in (0.05, 0.15, 0.25, 0.35)]
    np.testing.assert_allclose(shells, np.mean(shells), rtol=0.05)


def test_whitening_without_power_and_with_few_bins_follows_the_mean_amplitude():
    k = frequency_lengths((64, 64))
    spectrum = 1.0 / (0.2 + k)
    curve = whitening_curve(spectrum, (64, 64), bins=40, is_power=False, max_frequency=0.3)
    inside = curve.frequencies <= 0.3
    expected = (0.2 + curve.frequencies) / (0.2 + curve.frequencies[inside][-1])
    np.testing.assert_allclose(curve.values[inside][2:], expected[inside][2:], rtol=0.01)
    assert np.all(curve.values[~inside] == 1)


def test_a_curve_is_one_outside_its_range():
    curve = Curve(np.array([0.1, 0.2]), np.array([3.0, 5.0]), outside=1.0)
    np.testing.assert_allclose(curve(np.array([0.05, 0.1, 0.15, 0.2, 0.3])), [1, 3, 4, 5, 1])


@pytest.mark.parametrize("shape", [(32, 48), (33, 47), (48, 33)])
def test_half_plane_sums_are_full_plane_sums(shape):
    image = np.random.default_rng(0).standard_normal(shape)
    full = np.abs(scipy.fft.fft2(image)) ** 2
    half = np.abs(scipy.fft.rfft2(image)) ** 2
    assert full_plane_sum(half, shape[1]) == pytest.approx(full.sum())


def test_the_image_keeps_the_variance_that_the_band_leaves():
    shape = (64, 96)
    image = 5 + np.random.default_rng(2).standard_normal(shape)
    band = BandPassEdges(0.05, 0.3, 0.02)
    made = normalized_image(scipy.fft.rfft2(image), shape, filter_grid(shape, [band]), band)
    share = np.abs(band(np.hypot(*np.meshgrid(*map(scipy.fft.fftfreq, shape), indexing="ij")))).sum()
    assert made.var(dtype=np.float64) == pytest.approx(share / image.size, rel=1e-4)
    assert abs(made.mean(dtype=np.float64)) < 1e-6
