"""The tomogram that tasks read: filtered, extended, of unit variance where it is searched."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.fft
import zarr

from cryodask.errors import InputError
from cryodask.jobs.tomogram_matching import constants
from cryodask.jobs.tomogram_matching.area import search_area
from cryodask.jobs.tomogram_matching.filtering import Extension
from cryodask.jobs.tomogram_matching.inputs import load_inputs
from cryodask.jobs.tomogram_matching.planning import Resources, make_problem
from cryodask.jobs.tomogram_matching.preparation import prepare_tomogram
from cryodask.optics.bandpass import BandPass
from cryodask.optics.frequency import half_frequencies
from cryodask.optics.tilts import TiltSeries
from cryodask.optics.tomogram_filter import tomogram_filter


def prepared(inputs, folder, **changes):
    area = search_area(inputs)
    folder.mkdir(parents=True)
    area.write(folder)
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
