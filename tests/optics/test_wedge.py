"""Filters against those distributed with a real subtomogram: box 48, 8.704 angstrom, 58 tilts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryodask.optics.bandpass import BandPass
from cryodask.optics.frequency import half_frequencies, template_radius
from cryodask.optics.template_filter import template_filter
from cryodask.optics.tilts import TiltSeries
from cryodask.optics.tomogram_filter import tomogram_filter
from cryodask.optics.wedge import filled_wedge, slice_wedge

FOLDER = "tomogram_matching/local_correlation"
BOX, VOXEL = 48, 8.704
ANGLES = np.concatenate([[-54.5], np.arange(-52.5, 57.6, 2.0), [58.25]])
LIMITS = (-54.5, 58.25)


def read_em(path):
    """Read the EM files of the reference data: 512 bytes of header, float32, x fastest."""
    return np.fromfile(path, "<f4", offset=512).reshape(BOX, BOX, BOX)


@pytest.fixture(scope="module")
def tile_filter(shared_data):
    return read_em(shared_data / FOLDER / "tile_filt_48_t126_b4_f24.em")


@pytest.fixture(scope="module")
def given_template_filter(shared_data):
    return read_em(shared_data / FOLDER / "tmpl_filt_48_t126_b4_f24.em")


@pytest.fixture(scope="module")
def full_frequencies():
    k = np.fft.fftfreq(BOX, VOXEL)
    return k.reshape(-1, 1, 1), k.reshape(1, -1, 1), k.reshape(1, 1, -1)


def test_band_of_the_distributed_tile_filter(tile_filter, full_frequencies):
    band = BandPass(24, 3, 1, 2, "pchip").curve(template_radius(*full_frequencies, BOX, VOXEL), BOX)
    kept = tile_filter != 0
    np.testing.assert_allclose(band[kept], tile_filter[kept], rtol=0, atol=1e-7)


def test_support_of_the_distributed_filters(tile_filter, given_template_filter, full_frequencies):
    radius = template_radius(*full_frequencies, BOX, VOXEL)
    inside = (radius < 23) & (BandPass(24, 3, 1, 2, "pchip").curve(radius, BOX) > 0)
    assert inside.sum() == 50726
    slabs = np.broadcast_to(slice_wedge(*full_frequencies, ANGLES, BOX, VOXEL) > 0, radius.shape)
    filled = np.broadcast_to(filled_wedge(*full_frequencies, LIMITS, BOX, VOXEL), radius.shape)
    for given_filter in (tile_filter, given_template_filter):
        np.testing.assert_array_equal(slabs[inside], given_filter[inside] != 0)
        np.testing.assert_array_equal(filled[inside], given_filter[inside] != 0)


def test_half_spectrum_filters_have_the_distributed_support(tile_filter):
    tilts, band = TiltSeries(ANGLES), BandPass(24, 3, 1, 2)
    half = half_frequencies((BOX,) * 3, VOXEL)
    inside = template_radius(*half, BOX, VOXEL) < 23
    expected = (tile_filter[..., : BOX // 2 + 1] != 0)[inside]
    template = template_filter(BOX, VOXEL, tilts, band)
    np.testing.assert_array_equal((template != 0)[inside], expected)
    for wedge in ("filled", "slices"):
        tomogram = tomogram_filter(*half, BOX, VOXEL, tilts, band, wedge=wedge, longest_edge=BOX)
        np.testing.assert_array_equal((tomogram != 0)[inside], expected)


def test_a_slab_is_sampled_along_the_tilted_axis():
    kz, ky, kx = (
        np.array(k, dtype=float).reshape(-1) / (BOX * VOXEL) for k in ([10, -10, 0], [3, 3, 3], [10, 10, 10])
    )
    counts = [
        slice_wedge(*(k[i].reshape(1, 1, 1) for k in (kz, ky, kx)), 45.0, BOX, VOXEL).item() for i in range(3)
    ]
    assert counts == [1, 0, 0]


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.floats(-70, 0), st.floats(1, 75))
def test_filled_wedge_holds_every_slab_and_is_symmetric(least, greatest):
    k = np.fft.fftfreq(25, VOXEL)
    frequencies = k.reshape(-1, 1, 1), k.reshape(1, -1, 1), k.reshape(1, 1, -1)
    filled = filled_wedge(*frequencies, (least, greatest), 25, VOXEL)
    slabs = slice_wedge(*frequencies, np.linspace(least, greatest, 181), 25, VOXEL) > 0
    # both are the same set once tilts are as close as Fourier pixels
    near = np.hypot(frequencies[0], frequencies[2]) * 25 * VOXEL < 12
    np.testing.assert_array_equal(filled[near], slabs[near])
    np.testing.assert_array_equal(filled[1:, :, 1:], filled[:0:-1, :, :0:-1])
    assert filled[0, 0, 0]


@pytest.mark.parametrize("wedge", ["filled", "slices", "none"])
def test_a_tomogram_is_filtered_slab_by_slab(wedge):
    shape, box = (40, 54, 50), 16
    tilts, band = TiltSeries(ANGLES), BandPass(6, 1, 1, 1)
    options = {"wedge": wedge, "longest_edge": 50, "radial_weights": (np.square,)}
    kz, ky, kx = half_frequencies(shape, VOXEL)
    whole = tomogram_filter(kz, ky, kx, box, VOXEL, tilts, band, **options)
    assert whole.shape == (40, 54, 26)
    assert whole.dtype == np.float32
    assert whole[0, 0, 0] == 0
    for z, x in [(slice(0, 7), slice(0, 26)), (slice(7, 40), slice(5, 9))]:
        slab = tomogram_filter(kz[z], ky, kx[..., x], box, VOXEL, tilts, band, **options)
        np.testing.assert_array_equal(slab, whole[z, :, x])
