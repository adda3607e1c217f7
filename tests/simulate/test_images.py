"""Simulated micrographs and stacks show what their truth says."""

import numpy as np
import pytest
from scipy.fft import rfft2

from cryodask.optics.ctf import ctf_curve
from cryodask.simulate import make_structure, simulate_micrograph, simulate_stack
from cryodask.simulate.placement import rotations_of
from cryodask.simulate.projections import particle_image

PIXEL = 5.0
RIBOSOME = make_structure("ribosome")
PROTEASOME = make_structure("proteasome")


def micrograph(**changes):
    settings = {"particles": {"ribosome": (RIBOSOME, 8), "proteasome": (PROTEASOME, 4)}, "seed": 3}
    return simulate_micrograph((600, 700), PIXEL, **{**settings, **changes})


def test_micrograph_does_not_depend_on_chunks_and_repeats():
    whole = micrograph().image.compute(scheduler="sync").values
    part = micrograph(chunks=(100, 350)).image[120:560, 300:640].compute(scheduler="sync").values
    np.testing.assert_array_equal(part, whole[120:560, 300:640])


def test_particles_of_a_micrograph_are_where_the_truth_says():
    made = micrograph(snr=np.inf)
    image = made.image.compute(scheduler="sync").values
    assert len(made.truth) == 12
    for row, rotation in zip(made.truth.to_dict("records"), rotations_of(made.truth), strict=True):
        structure = RIBOSOME if row["template"] == "ribosome" else PROTEASOME
        whole = np.array([round(row["x"]), round(row["y"])])
        shift = np.array([row["x"], row["y"]]) - whole
        expected = particle_image(structure, rotation, shift, made.optics, defocus=row["defocus"], box=36)
        x, y = whole
        window = image[y - 18 : y + 18, x - 18 : x + 18]
        assert np.corrcoef(window.ravel(), expected.ravel())[0, 1] > 0.98


def test_micrograph_noise_is_as_stated():
    clean = micrograph(snr=np.inf, seed=3).image.compute(scheduler="sync").values
    noisy = micrograph(snr=0.05)
    noise = noisy.image.compute(scheduler="sync").values - clean
    assert noise.std() == pytest.approx(noisy.noise_sigma, rel=0.01)


def test_image_is_the_projection_times_the_signed_ctf():
    plain = simulate_stack(96, PIXEL, particles={"p": (PROTEASOME, 1)}, defocus=None, snr=np.inf)
    imaged = simulate_stack(96, PIXEL, particles={"p": (PROTEASOME, 1)}, defocus=(9000, 9000), snr=np.inf)
    before, after = (rfft2(s.images.compute(scheduler="sync").values[0]) for s in (plain, imaged))
    frequency = np.hypot(np.fft.fftfreq(96, PIXEL)[:, None], np.fft.rfftfreq(96, PIXEL))
    for at in (0.02, 0.04, 0.06):
        shell = abs(frequency - at) < 0.001
        gain = np.sum(after[shell] * before[shell].conj()).real / np.sum(abs(before[shell]) ** 2)
        assert gain == pytest.approx(ctf_curve(at, 9000), abs=0.06)


def test_stack_holds_every_class_and_repeats_in_any_chunk():
    settings = {"particles": {"ribosome": (RIBOSOME, 7), "proteasome": (PROTEASOME, 5)}, "max_shift": 10.0}
    first = simulate_stack(64, PIXEL, **settings, chunk=12)
    second = simulate_stack(64, PIXEL, **settings, chunk=5)
    whole = first.images.compute(scheduler="sync").values
    np.testing.assert_array_equal(second.images[4:9].compute(scheduler="sync").values, whole[4:9])
    assert first.truth["template"].value_counts().to_dict() == {"ribosome": 7, "proteasome": 5}
    assert first.truth[["shift_x", "shift_y"]].abs().to_numpy().max() <= 10


def test_stack_images_match_their_poses():
    made = simulate_stack(72, PIXEL, particles={"r": (RIBOSOME, 6)}, max_shift=20.0, snr=2.0)
    images = made.images.compute(scheduler="sync").values
    shifts = made.truth[["shift_x", "shift_y"]].to_numpy() / PIXEL
    poses = list(zip(rotations_of(made.truth), shifts, made.truth["defocus"], strict=True))
    clean = [particle_image(RIBOSOME, r, s, made.optics, defocus=d, box=72) for r, s, d in poses]
    table = np.corrcoef([i.ravel() for i in images], [c.ravel() for c in clean])[:6, 6:]
    np.testing.assert_array_equal(table.argmax(axis=1), np.arange(6))
