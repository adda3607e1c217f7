"""The tomogram that tasks read: filtered, extended, of unit variance where it is searched."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.fft
import zarr

from cryodask.errors import InputError
from cryodask.jobs.tomogram_matching import constants
from cryodask.jobs.tomogram_matching.area import search_area, write_selection
from cryodask.jobs.tomogram_matching.filtering import Extension
from cryodask.jobs.tomogram_matching.inputs import load_inputs
from cryodask.jobs.tomogram_matching.noise_spectrum import read_whitening
from cryodask.jobs.tomogram_matching.planning import Resources, make_problem
from cryodask.jobs.tomogram_matching.preparation import prepare_tomogram
from cryodask.optics.bandpass import BandPass
from cryodask.optics.frequency import half_frequencies
from cryodask.optics.tilts import TiltSeries
from cryodask.optics.tomogram_filter import tomogram_filter


def prepared(inputs, folder, **changes):
    area = search_area(inputs)
    folder.mkdir(parents=True)
    write_selection(area, folder)
    settings = replace(make_problem(inputs, folder, Resources()).tomogram_filter, **changes)
    prepare_tomogram(folder, settings)
    volume = np.asarray(zarr.open_array(constants.filtered_path(folder), mode="r")[...])
    return volume * constants.read_prepared(str(folder))["scale"], area


@pytest.mark.parametrize("boundary", ["pad", "wrap"])
def test_band_and_wedge_are_applied_to_the_whole_tomogram(job, tmp_path, boundary):
    noise = np.random.default_rng(8).standard_normal((20, 24, 22)).astype(np.float32)
    parameters = job(tomogram=noise, lp_rad=4, hp_rad=1, tilts=[-60, 60], boundary=boundary)
    inputs = load_inputs(parameters)
    found, _ = prepared(inputs, tmp_path / "run")
    margin = 0 if boundary == "wrap" else 6
    axes = [Extension(n, margin) for n in noise.shape]
    data = noise.astype(np.float64) - noise.mean(dtype=np.float64)
    data = data[np.ix_(*[axis.sources() for axis in axes])]
    for number, axis in enumerate(axes):
        data = data * axis.taper().reshape([-1 if a == number else 1 for a in range(3)])
    frequencies = half_frequencies(data.shape, 10.0)
    factors = tomogram_filter(*frequencies, 12, 10.0, inputs.tilts, inputs.band)
    expected = scipy.fft.irfftn(np.fft.rfftn(data) * factors, data.shape)
    inner = tuple(slice(margin, margin + n) for n in noise.shape)
    np.testing.assert_allclose(found, expected / expected[inner].std(), atol=1e-5)


def test_variance_is_one_over_the_searched_voxels_alone(job, tmp_path):
    tomogram = np.random.default_rng(8).standard_normal((20, 24, 22)).astype(np.float32)
    tomogram[:, 12:] *= 30
    mask = np.zeros(tomogram.shape, np.float32)
    mask[4:, :9] = 1
    inputs = load_inputs(job(tomogram=tomogram, tomogram_mask=mask))
    found, _ = prepared(inputs, tmp_path / "run")
    inner = found[6:26, 6:30, 6:28]
    assert inner[mask > 0].std(dtype=np.float64) == pytest.approx(1, abs=1e-5)
    assert inner[:, 12:].std() > 10


def test_memory_does_not_change_what_is_prepared(job, tmp_path):
    inputs = load_inputs(job(lp_rad=5, hp_rad=0))
    whole, _ = prepared(inputs, tmp_path / "whole")
    slabs, _ = prepared(inputs, tmp_path / "slabs", memory=5e4)
    np.testing.assert_allclose(slabs, whole, atol=1e-5)
    assert not (tmp_path / "slabs" / "spectrum.zarr").exists()


def test_what_is_prepared_is_kept(job, tmp_path):
    inputs = load_inputs(job())
    prepared(inputs, tmp_path / "run")
    settings = make_problem(inputs, tmp_path / "run", Resources()).tomogram_filter
    prepare_tomogram(tmp_path / "run", replace(settings, path="gone.mrc"))


def wedge_shaped(limits):
    noise = np.random.default_rng(2).standard_normal((40, 40, 40))
    series = TiltSeries(angles=list(limits), is_range=True)
    factors = tomogram_filter(*half_frequencies(noise.shape, 10.0), 24, 10.0, series, BandPass(lp_rad=12))
    return np.fft.irfftn(np.fft.rfftn(noise) * factors, axes=(0, 1, 2)).astype(np.float32)


def test_the_sense_of_the_tilts_is_read_from_the_tomogram(job, tmp_path):
    particle = {"template": np.random.default_rng(0).standard_normal((24,) * 3).astype(np.float32)}
    given = {**particle, "mask": {"sphere": 60}, "tomogram": wedge_shaped((-40, 65))}
    prepared(load_inputs(job(**given, tilts=[-40, 65])), tmp_path / "right")
    assert constants.read_prepared(str(tmp_path / "right"))["notices"] == []
    with pytest.raises(InputError, match=r"^tomogram = tomogram.mrc: tilt angles look inverted \(power"):
        prepared(load_inputs(job(**given, tilts=[-65, 40])), tmp_path / "inverted")
    assert not constants.is_prepared(tmp_path / "inverted")
    prepared(load_inputs(job(**given, tilts=[-65, 40], tilt_sign=-1)), tmp_path / "turned")
    noise = np.random.default_rng(3).standard_normal((40, 40, 40)).astype(np.float32)
    prepared(load_inputs(job(**{**given, "tomogram": noise}, tilts=[-40, 65])), tmp_path / "noise")
    (notice,) = constants.read_prepared(str(tmp_path / "noise"))["notices"]
    assert notice.startswith("the sign of the tilt angles is uncertain (power ratio ")


def coloured(shape, seed):
    """Noise of amplitude 1/(0.02 + f)."""
    white = np.fft.rfftn(np.random.default_rng(seed).standard_normal(shape))
    kz, ky, kx = half_frequencies(shape, 10.0)
    return np.fft.irfftn(white / (0.02 + np.sqrt(kz**2 + ky**2 + kx**2)), shape, axes=(0, 1, 2))


def shell_amplitudes(volume):
    """Root mean square of the spectrum in shells of 0.004/angstrom, below 0.9 of Nyquist."""
    kz, ky, kx = half_frequencies(volume.shape, 10.0)
    shell = np.floor(np.sqrt(kz**2 + ky**2 + kx**2) / 0.004).astype(int).ravel()
    power = np.bincount(shell, (np.abs(np.fft.rfftn(volume)) ** 2).ravel()) / np.bincount(shell)
    return np.sqrt(power[1:11])


def test_whitening_flattens_the_noise_of_the_searched_region(job, tmp_path):
    tomogram = coloured((70, 80, 76), 4).astype(np.float32)
    mask = np.zeros(tomogram.shape, np.float32)
    mask[:, :66] = 1
    loud = tomogram.copy()
    loud[:, 70:] *= 50
    given = {"tomogram": tomogram, "boundary": "wrap"}
    plain, _ = prepared(load_inputs(job(**given)), tmp_path / "plain")
    flat, _ = prepared(load_inputs(job(**given, whiten=True)), tmp_path / "flat")
    assert np.ptp(amplitudes := shell_amplitudes(plain)) / amplitudes.mean() > 0.8
    assert np.ptp(amplitudes := shell_amplitudes(flat)) / amplitudes.mean() < 0.1
    given = {"tomogram": loud, "tomogram_mask": mask, "boundary": "wrap"}
    prepared(load_inputs(job(**given, whiten=True)), tmp_path / "masked")
    curves = [read_whitening(str(tmp_path / name)) for name in ("flat", "masked")]
    f = np.linspace(0.005, 0.045, 30)
    ratio = curves[0](f) / curves[1](f)
    np.testing.assert_allclose(ratio / ratio.mean(), 1, atol=0.1)
    assert read_whitening(str(tmp_path / "plain")) is None


def test_the_laplacian_multiplies_by_the_squared_frequency(job, tmp_path):
    plain, _ = prepared(load_inputs(job(boundary="wrap")), tmp_path / "plain")
    sharp, _ = prepared(load_inputs(job(boundary="wrap", laplacian=True)), tmp_path / "sharp")
    kz, ky, kx = half_frequencies(plain.shape, 10.0)
    expected = np.fft.irfftn(np.fft.rfftn(plain) * (kz**2 + ky**2 + kx**2), plain.shape, axes=(0, 1, 2))
    np.testing.assert_allclose(sharp, expected / expected.std(), atol=1e-5)
