"""Preparation of images: what changes them, and what does not."""

from pathlib import Path

import numpy as np
import pytest

from cryodask.jobs.classify import preparation
from cryodask.jobs.classify.averages import laid_on_reference
from cryodask.jobs.classify.centring import centred_images
from cryodask.jobs.classify.parameters import make_parameters
from cryodask.jobs.classify.prealign import prealign, steps
from cryodask.jobs.classify.preparation import WorkingShape
from cryodask.search.rounds import open_rounds
from tests.jobs.classify_works import BOX, make_population, pictures, write_images

VIEW = 36  # of the drawn ones, one whose centre of mass is near its middle


def poses(count: int, seed: int = 1) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    angle, mirror = rng.uniform(-3, 3, count), rng.random(count) < 0.5
    return np.zeros(count, int), angle, mirror, rng.uniform(-2, 2, (count, 2))


@pytest.mark.parametrize(
    ("box", "working", "radius"), [(64, 64, 28), (65, 64, 20), (80, 56, 32), (50, 90, 18)]
)
def test_resampling_keeps_band_limited_images_and_their_centre(box: int, working: int, radius: int) -> None:
    shape = WorkingShape(box, working, radius, 24)

    def blob(size: int, scale: float) -> np.ndarray:
        axis = (np.arange(size) - size // 2) / scale
        return np.exp(-((axis[:, None] - 3) ** 2 + (axis + 2) ** 2) / 40)[None].astype(np.float32)

    found = preparation.resampled(blob(box, 1.0), shape)[0]
    expected = np.where(np.outer(shape.covered, shape.covered), blob(working, shape.rho)[0], 0)
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_a_constant_on_one_image_and_a_factor_on_all_change_nothing() -> None:
    shape = WorkingShape(64, 56, 28, 24)
    images = np.random.default_rng(1).standard_normal((6, 64, 64)).astype(np.float32)

    def prepared(given: np.ndarray) -> np.ndarray:
        values = preparation.resampled(preparation.centred_background(given, shape), shape)
        power = preparation.noise_power(values, shape).mean(axis=0)
        values, deviation = preparation.levelled(preparation.whitened(values, power), shape)
        return values / np.sqrt(np.square(deviation).mean())

    expected = prepared(images)
    other = images * np.float32(7)
    other[2] += 100
    np.testing.assert_allclose(prepared(other), expected, atol=1e-4)


def test_coloured_noise_becomes_white() -> None:
    shape = WorkingShape(64, 64, 28, 28)
    noise = np.random.default_rng(1).standard_normal((400, 64, 64)).astype(np.float32)
    power = 1 + 10 / (1 + np.arange(46) / 4.0)
    coloured = preparation.coloured(noise, power)
    measured = preparation.noise_power(coloured, shape).mean(axis=0)
    white = preparation.whitened(coloured, measured)
    spectrum = preparation.noise_power(white, shape).mean(axis=0)
    assert np.abs(spectrum[4:32] - 1).max() < 0.1


def test_levelled_amplitudes_are_the_same_in_all_rings() -> None:
    images = preparation.coloured(
        np.random.default_rng(1).standard_normal((50, 64, 64)).astype(np.float32), 1 + np.arange(46) ** 2.0
    )
    factor = np.append(1.0, 1 / preparation.ring_amplitudes(images).mean(axis=0)[1:])
    amplitude = preparation.ring_amplitudes(preparation.amplified(images, factor)).mean(axis=0)
    np.testing.assert_allclose(amplitude[2:32], 1, atol=0.05)


def test_an_image_laid_on_its_reference_is_the_reference() -> None:
    view, angle, mirror, centre = poses(4)
    drawn = pictures(view, angle, mirror, centre)
    reference = pictures(view[:1], np.zeros(1), np.zeros(1, bool), np.zeros((1, 2)))[0]
    for image, phi, flip, place in zip(drawn, angle, mirror, centre, strict=True):
        lying = laid_on_reference(image, place, phi, flip)
        np.testing.assert_allclose(lying[8:-8, 8:-8], reference[8:-8, 8:-8], atol=0.02)


@pytest.mark.parametrize("method", [-1, 1, 2])
def test_single_images_are_centred(tmp_path: Path, method: int) -> None:
    axis = np.arange(BOX) - BOX // 2
    centre = np.random.default_rng(1).uniform(-1.8, 1.8, (20, 2))
    x, y = axis[None, None, :] - centre[:, 0, None, None], axis[None, :, None] - centre[:, 1, None, None]
    images = write_images(tmp_path, "particles", np.exp(-(x**2 + y**2) / 30).astype(np.float32), 8)
    with open_rounds(threads=1) as rounds:
        found = centred_images(images, method, WorkingShape(BOX, BOX, 17, 17), rounds)
    assert np.abs(found - centre).max() < 0.8


def test_prealignment_centres_images_of_one_view(tmp_path: Path) -> None:
    _, angle, mirror, centre = poses(120)
    view = np.full(120, VIEW)
    noise = np.random.default_rng(2).standard_normal((120, BOX, BOX))
    images = (2 * pictures(view, angle, mirror, centre) + noise).astype(np.float32)
    with open_rounds(threads=2) as rounds:
        found = prealign(make_population(tmp_path, images, rounds), lambda notice: None)
    assert found.kept
    assert found.table["score"].iloc[-1] > found.table["score"].iloc[0]
    before, after = np.sqrt(np.square(centre).sum(axis=1)), np.hypot(*(found.centres - centre).T)
    assert np.median(after) < 0.5 * np.median(before)


def test_steps_go_from_coarse_to_fine() -> None:
    assert list(steps(76, 29)) == [(8, 2), (4, 1), (2, 1)]
    assert list(steps(62, 29)) == [(1, 1)]


def test_parameters_of_python_and_derived_ones() -> None:
    p = make_parameters({"radius": 80, "xr": 2})
    assert (p.working_box, p.y_range, p.class_size(600), p.least_size(50)) == (78, 2, 50, 30)
    assert make_parameters({"radius": 80, "classes": 7}).class_size(100) == 14
    assert make_parameters({"radius": 80, "margin": "none"}).least_margin == -np.inf
