"""The tomogram filter in slabs is the filter of the whole volume, whatever the memory."""

import numpy as np
import pytest
import scipy.fft
from hypothesis import given, settings
from hypothesis import strategies as st

from cryodask.errors import InputError
from cryodask.jobs.tomogram_matching.filtering import Extension, filter_volume, inspect

VOXEL = 9.5


def band(kz, ky, kx):
    """A factor that tells all axes and both signs of kz and ky apart."""
    square = (kz / 0.02) ** 2 + (ky / 0.03) ** 2 + (kx / 0.015) ** 2
    return (np.exp(-square) * (1 + 0.3 * np.sign(kz) * np.sign(ky)) + 0.1).astype(np.float32)


def extended(volume, margin):
    """Reflect, taper and append zeros, axis by axis."""
    for axis in range(3) if margin else ():
        pads = [(margin, margin) if a == axis else (0, 0) for a in range(3)]
        volume = np.pad(volume, pads, mode="reflect")
        distance = np.concatenate([np.arange(margin, 0, -1), np.zeros(volume.shape[axis] - 2 * margin)])
        distance = np.concatenate([distance, np.arange(1, margin + 1)])
        taper = (1 + np.cos(np.pi * distance / (margin + 1))) / 2
        volume = volume * taper.reshape([-1 if a == axis else 1 for a in range(3)])
        length = Extension(volume.shape[axis] - 2 * margin, margin).length
        pads = [(0, length - volume.shape[axis]) if a == axis else (0, 0) for a in range(3)]
        volume = np.pad(volume, pads)
    return volume


def reference(volume, margin):
    """The whole volume at once in float64."""
    data = extended(volume.astype(np.float64) - volume.mean(dtype=np.float64), margin)
    kz, ky = (np.fft.fftfreq(n, VOXEL) for n in data.shape[:2])
    factors = band(kz[:, None, None], ky[:, None], np.fft.rfftfreq(data.shape[2], VOXEL))
    spectrum = np.fft.rfftn(data) * factors.astype(np.float64)
    spectrum[0, 0, 0] = 0
    return scipy.fft.irfftn(spectrum, data.shape)


def filtered(volume, margin, memory, scratch):
    axes = tuple(Extension(size, margin) for size in volume.shape)
    out = np.full([axis.length for axis in axes], np.nan, np.float32)

    def write(rows, slab):
        assert np.isnan(out[rows]).all()
        out[rows] = slab

    filter_volume(
        lambda region: volume[region],
        write,
        axes,
        mean=float(volume.mean(dtype=np.float64)),
        voxel_size=VOXEL,
        spectrum_filter=band,
        memory=memory,
        scratch=scratch,
    )
    return out


@pytest.mark.parametrize("margin", [0, 5])
@pytest.mark.parametrize("shape", [(20, 24, 28), (17, 24, 21), (40, 15, 19)])
@pytest.mark.parametrize("memory", [1e9, 4e5, 2e4])
def test_slabs_filter_as_the_whole_volume_does(tmp_path, shape, margin, memory):
    volume = np.random.default_rng(3).standard_normal(shape).astype(np.float32) + 7
    expected = reference(volume, margin)
    scratch = tmp_path / "spectrum.zarr"
    found = filtered(volume, margin, memory, scratch)
    np.testing.assert_allclose(found, expected, atol=2e-6 * np.abs(expected).max())
    needs_scratch = 8 * np.prod([*expected.shape[:2], expected.shape[2] // 2 + 1]) > memory / 2
    assert scratch.exists() == needs_scratch


def test_memory_bounds_the_slabs(tmp_path):
    volume = np.random.default_rng(3).standard_normal((64, 20, 20)).astype(np.float32)
    thickest = 0

    def read(region):
        nonlocal thickest
        thickest = max(thickest, region[0].stop - region[0].start)
        return volume[region]

    axes = tuple(Extension(size, 0) for size in volume.shape)
    filter_volume(
        read,
        lambda rows, slab: None,
        axes,
        mean=0.0,
        voxel_size=VOXEL,
        spectrum_filter=band,
        memory=32 * 4 * 400 * 4,
        scratch=tmp_path / "s.zarr",
    )
    assert thickest * 32 * 400 <= 32 * 4 * 400 * 4


@given(size=st.integers(2, 40), margin=st.integers(1, 30))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_an_axis_is_reflected_tapered_and_filled_to_a_fast_length(size, margin):
    axis = Extension(size, margin)
    sources, taper = axis.sources(), axis.taper()
    reflected = np.pad(np.arange(size), margin, mode="reflect")
    filled = axis.length - len(reflected)
    np.testing.assert_array_equal(sources, np.concatenate([reflected, np.full(filled, -1)]))
    assert (taper[margin : margin + size] == 1).all()
    assert (np.diff(taper[margin + size - 1 : 2 * margin + size]) < 0).all()
    np.testing.assert_allclose(taper[:margin], taper[margin + size : 2 * margin + size][::-1], atol=1e-7)
    assert (taper[2 * margin + size :] == 0).all()
    assert 0 < taper[0] < 1


def test_an_axis_that_wraps_is_left_as_it_is():
    axis = Extension(13, 0)
    assert axis.length == 13
    np.testing.assert_array_equal(axis.sources(), np.arange(13))
    np.testing.assert_array_equal(axis.taper(), 1)


@pytest.mark.parametrize("memory", [1e9, 1e4])
def test_the_first_look_finds_mean_and_range(memory):
    volume = np.random.default_rng(4).normal(1000, 1, (21, 9, 10)).astype(np.float32)
    found = inspect(lambda region: volume[region], volume.shape, memory, "t.mrc")
    assert found.mean == pytest.approx(volume.mean(dtype=np.float64), rel=1e-12)
    assert (found.minimum, found.maximum) == (volume.min(), volume.max())


@pytest.mark.parametrize("memory", [1e9, 1e4])
def test_the_first_look_refuses_what_cannot_be_searched(memory):
    volume = np.random.default_rng(4).standard_normal((21, 9, 10)).astype(np.float32)
    volume[17, 4] = np.inf
    volume[20, 8, 9] = volume[4, 5, 6] = np.nan
    with pytest.raises(InputError) as error:
        inspect(lambda region: volume[region], volume.shape, memory, "t.mrc")
    assert str(error.value) == "t.mrc: 12 non-finite voxels, first at (z,y,x) = (4,5,6)"
    flat = np.full((21, 9, 10), 3, np.float32)
    with pytest.raises(InputError, match=r"t.mrc: tomogram is constant \(3 everywhere\)"):
        inspect(lambda region: flat[region], flat.shape, memory, "t.mrc")
