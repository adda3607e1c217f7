"""A simulated tomogram holds what its truth says, behind the stated wedge and noise, whatever the chunks."""

import pickle

import numpy as np
import pytest
from scipy.fft import fftn
from scipy.ndimage import affine_transform
from scipy.spatial.distance import pdist
from scipy.spatial.transform import Rotation

from cryodask.errors import InputError
from cryodask.geometry.euler import rotation_from_euler
from cryodask.simulate import Vesicle, make_structure, simulate_structure, simulate_tomogram
from cryodask.simulate.imaging import image_region
from cryodask.simulate.random import white_noise
from cryodask.simulate.scene import Scene

VOXEL = 15.0
SHAPE = (56, 100, 96)
RIBOSOME = make_structure("ribosome")
PROTEASOME = make_structure("proteasome")


def simulated(**changes):
    settings = {"particles": {"ribosome": (RIBOSOME, 5), "proteasome": (PROTEASOME, 4)}, "seed": 5}
    return simulate_tomogram(SHAPE, VOXEL, **{**settings, **changes})


@pytest.fixture(scope="module")
def tomogram():
    made = simulated()
    return made, made.volume.compute(scheduler="sync").values


def power_off_axis(volume, angle_from, angle_to):
    """Mean power between two angles from kx towards kz, away from the origin and from Nyquist."""
    window = [np.hanning(n) for n in volume.shape]
    tapered = volume * window[0][:, None, None] * window[1][:, None] * window[2]
    power = np.abs(fftn(tapered)) ** 2
    kz, ky, kx = np.meshgrid(*(np.fft.fftfreq(n) for n in volume.shape), indexing="ij")
    angle = np.degrees(np.arctan2(kz, kx)) % 180
    radius = np.hypot(kz, kx)
    inside = (angle > angle_from) & (angle < angle_to) & (radius > 0.2) & (radius < 0.45) & (abs(ky) < 0.45)
    return power[inside].mean()


def test_missing_wedge_is_empty_and_has_the_sense_of_the_tilts():
    volume = simulated(tilt_range=(-60.0, 40.0)).volume.compute(scheduler="sync").values
    filled = power_off_axis(volume, 0, 35)
    assert power_off_axis(volume, 50, 110) < 1e-3 * filled
    assert power_off_axis(volume, 125, 180) == pytest.approx(filled, rel=0.1)


def test_signal_to_noise_ratio_is_as_stated():
    # without a wedge the variance of a particle does not depend on its orientation
    settings = {"particles": {"ribosome": (RIBOSOME, 1)}, "whole_voxels": True, "tilt_range": None}
    clean = simulated(snr=np.inf, **settings)
    noisy = simulated(snr=0.1, **settings)
    signal = clean.volume.compute(scheduler="sync").values
    noise = noisy.volume.compute(scheduler="sync").values - signal
    x, y, z = clean.truth[["x", "y", "z"]].to_numpy()[0]
    grid = np.ogrid[tuple(slice(n) for n in SHAPE)]
    distance = np.sqrt(sum((axis - p) ** 2 for axis, p in zip(grid, (z, y, x), strict=True)))
    inside = distance <= RIBOSOME.diameter / VOXEL / 2
    assert signal[inside].var() / noise.var() == pytest.approx(0.1, rel=0.03)
    assert noise.std() == pytest.approx(noisy.noise_sigma, rel=0.01)


def test_noise_behind_the_wedge_is_as_strong_as_stated():
    clean, noisy = simulated(snr=np.inf), simulated()
    noise = noisy.volume.compute(scheduler="sync").values - clean.volume.compute(scheduler="sync").values
    assert noise.std() == pytest.approx(noisy.noise_sigma, rel=0.01)


def test_values_do_not_depend_on_the_chunks(tomogram):
    _, volume = tomogram
    other = simulated(chunks=(17, 40, 96)).volume
    assert other.chunks[0][0] == 17
    part = other[20:40, 30:71, 3:90].compute(scheduler="sync").values
    np.testing.assert_array_equal(part, volume[20:40, 30:71, 3:90])


def test_blocks_join_without_seams(tomogram):
    made, volume = tomogram
    scene = Scene({"ribosome": RIBOSOME, "proteasome": PROTEASOME}, made.truth)
    across = image_region(
        (10, 40, 40), (40, 50, 45), scene, made.imaging, noise_sigma=made.noise_sigma, seed=5
    )
    np.testing.assert_allclose(across, volume[10:50, 40:90, 40:85], atol=1e-4 * volume.std())


def test_same_seed_same_tomogram_and_another_seed_another(tomogram):
    made, volume = tomogram
    again = simulated()
    np.testing.assert_array_equal(again.volume.compute(scheduler="sync").values, volume)
    assert again.truth.equals(made.truth)
    other = simulated(seed=6).volume.compute(scheduler="sync").values
    assert abs(np.corrcoef(other.ravel(), volume.ravel())[0, 1]) < 0.05


def test_nothing_is_computed_before_it_is_asked_for():
    lazy = simulate_tomogram((1000, 4000, 4000), VOXEL, particles={"ribosome": (RIBOSOME, 30)}, seed=1)
    assert lazy.volume.nbytes > 60e9
    corner = lazy.volume[:8, :8, :8].compute(scheduler="sync")
    assert corner.std() == pytest.approx(lazy.noise_sigma, rel=0.2)
    assert len(pickle.dumps(lazy.volume.data.dask)) < 100e6


@pytest.mark.parametrize("whole_voxels", [True, False])
def test_truth_orientation_wins_at_the_true_position(whole_voxels):
    made = simulated(snr=5.0, whole_voxels=whole_voxels, particles={"ribosome": (RIBOSOME, 6)})
    volume = made.volume.compute(scheduler="sync").values
    n = 24
    template = simulate_structure("ribosome", VOXEL, n)
    tilts = Rotation.from_rotvec(np.radians(20) * np.concatenate([np.eye(3), -np.eye(3)]))
    for row in made.truth.itertuples():
        truth = rotation_from_euler(np.array([[row.phi, row.theta, row.psi]]))[0]
        candidates = [truth, *(tilts * truth), truth.inv()]
        place = np.array([row.z, row.y, row.x])
        low = np.round(place).astype(int) - n // 2
        window = volume[tuple(slice(s, s + n) for s in low)]
        scores = []
        for rotation in candidates:
            inverse = rotation.as_matrix().T[::-1, ::-1]
            copy = affine_transform(template, inverse, n // 2 - inverse @ (place - low), order=1)
            scores.append(np.corrcoef(copy.ravel(), window.ravel())[0, 1])
        assert int(np.argmax(scores)) == 0


def test_particles_keep_their_distance(tomogram):
    made, _ = tomogram
    places = made.truth[["x_a", "y_a", "z_a"]].to_numpy()
    assert pdist(places[:5]).min() >= 1.1 * RIBOSOME.diameter
    assert pdist(places).min() >= 1.1 * PROTEASOME.diameter
    margin = RIBOSOME.diameter / 2
    assert np.all(places >= margin)
    assert np.all(places <= (np.array(SHAPE[::-1]) - 1) * VOXEL - margin)
    np.testing.assert_allclose(places, made.truth[["x", "y", "z"]].to_numpy() * VOXEL)


def test_too_many_particles_are_refused_with_how_many_fit():
    with pytest.raises(InputError, match=r"particles: only \d+ of 200 fit without overlap"):
        simulated(particles={"ribosome": (RIBOSOME, 200)})


def test_vesicle_is_a_bilayer_that_particles_keep_clear_of():
    vesicle = Vesicle((700.0, 700.0, 400.0), 300.0)
    made = simulated(vesicles=[vesicle], tilt_range=None, defocus=None, snr=np.inf)
    volume = made.volume.compute(scheduler="sync").values
    ring = volume[27, 47, :]
    assert ring[47 + 20 - 3 : 47 + 20 + 4].max() > 0.5
    assert abs(ring[47]) < 0.05
    assert min(vesicle.distance(p) for p in made.truth[["x_a", "y_a", "z_a"]].to_numpy()) > 90


def test_defocus_dims_low_frequencies_and_leaves_phases():
    plain = simulated(tilt_range=None, defocus=None, snr=np.inf).volume.compute(scheduler="sync").values
    imaged = simulated(tilt_range=None, snr=np.inf).volume.compute(scheduler="sync").values
    before, after = fftn(plain), fftn(imaged)
    kz, ky, kx = np.meshgrid(*(np.fft.fftfreq(n, VOXEL) for n in SHAPE), indexing="ij")
    frequency = np.sqrt(kz**2 + ky**2 + kx**2)
    for at, expected in ((0.01, 0.252830), (0.02, 0.725807), (0.03, 0.985762)):
        shell = abs(frequency - at) < 0.0008
        gain = np.sum(after[shell] * before[shell].conj()) / np.sum(abs(before[shell]) ** 2)
        assert abs(gain.imag) < 0.01
        assert gain.real == pytest.approx(expected, rel=0.08)


def test_white_noise_is_one_field_seen_through_windows():
    whole = white_noise((-40, 10), (90, 70), seed=2)
    np.testing.assert_array_equal(white_noise((-3, 33), (40, 20), seed=2), whole[37:77, 23:43])
    assert whole.std() == pytest.approx(1, rel=0.03)
    assert abs(np.corrcoef(whole[8:40].ravel(), whole[40:72].ravel())[0, 1]) < 0.1
