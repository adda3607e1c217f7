"""Ring coefficients, the steerable basis, and the correlation over angle, mirror and offset."""

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from cryodask.kernels.class_sums import aligned, sum_classes, turned_back, turned_vectors
from cryodask.kernels.polar import PolarGrid
from cryodask.kernels.polar_correlation import AngleTable, correlate, in_lanes, pair_spectra, refine_angles
from cryodask.kernels.steerable import Basis, covariance_sum, make_basis

BOX, RADIUS, M = 48, 20, 24
GRID = PolarGrid(1, RADIUS, 1, 128, M)
TABLE = AngleTable(48, M)
STILL = np.zeros((1, 2))


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    return np.random.default_rng(1).standard_normal((40, BOX, BOX)).astype(np.float32)


@pytest.fixture(scope="module")
def basis() -> Basis:
    """Six profiles a frequency, orthonormal."""
    rng = np.random.default_rng(2)
    profiles = [np.linalg.qr(rng.standard_normal((RADIUS, RADIUS)))[0][:6] for _ in range(M)]
    starts = np.arange(M + 1, dtype=np.int64) * 6
    return Basis(starts, np.concatenate(profiles).astype(np.float32), np.ones(6 * M, np.float32))


def blob_image(
    angle: float = 0.0, mirror: bool = False, centre: tuple[float, float] = (0.0, 0.0)
) -> np.ndarray:
    """An asymmetric picture whose frame is turned, then mirrored (y -> -y), then moved to a centre (x, y)."""
    blobs = np.array([[0, 0], [9, 2], [-4, 8], [3, -11], [-9, -5]], float)
    places = turned_vectors(blobs, np.full(5, angle), np.full(5, mirror)) + centre
    axis = np.arange(BOX) - BOX // 2
    x, y = axis[None, None, :] - places[:, 0, None, None], axis[None, :, None] - places[:, 1, None, None]
    heights = np.array([1.0, 0.8, 1.2, 0.7, 0.9])[:, None, None]
    return (heights * np.exp(-(x**2 + y**2) / 18)).sum(axis=0).astype(np.float32)


def unit(basis: Basis, image: np.ndarray, centre: np.ndarray = STILL) -> np.ndarray:
    found = basis.project(GRID.coefficients(image[None], centre))
    return found / basis.norm(found)[:, None]


def test_coefficients_equal_a_float64_reference(noise: np.ndarray) -> None:
    centres = np.random.default_rng(3).uniform(-3, 3, (len(noise), 2)).astype(np.float32)
    angle = 2 * np.pi * np.arange(128) / 128
    radii = np.arange(1, RADIUS + 1)[:, None]
    found = GRID.coefficients(noise, centres)
    for image, (x, y), one in zip(noise[:5], centres, found, strict=False):
        places = [BOX // 2 + y + radii * np.sin(angle), BOX // 2 + x + radii * np.cos(angle)]
        rings = map_coordinates(image.astype(float), places, order=1) * np.sqrt(radii)
        expected = np.fft.rfft(rings, axis=1)[:, :M] / np.sqrt(128)
        np.testing.assert_allclose(one, expected, atol=2e-4)


def test_coefficients_do_not_depend_on_the_images_beside_them(noise: np.ndarray, basis: Basis) -> None:
    whole = GRID.coefficients(noise, np.zeros((len(noise), 2)))
    alone = np.concatenate([GRID.coefficients(each[None], STILL) for each in noise])
    assert (whole == alone).all()
    assert (basis.project(whole)[7] == basis.project(alone[7:8])[0]).all()


def test_pictures_of_coefficients_come_back() -> None:
    image = blob_image()
    axis = np.arange(BOX) - BOX // 2
    inside = np.hypot(axis[:, None], axis) < RADIUS - 2
    again = GRID.images(GRID.coefficients(image[None], STILL), BOX)[0]
    assert np.abs(again - image)[inside].max() < 0.06


@pytest.mark.parametrize("seed", range(4))
def test_scores_equal_a_direct_sum_over_all_angles(basis: Basis, seed: int) -> None:
    rng = np.random.default_rng(seed)

    def random(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)

    x, y = random(5, basis.size), random(3, 4, basis.size)
    y[:, :, :6], x[:, :6] = y[:, :, :6].real, x[:, :6].real
    score, code = correlate(in_lanes(x), y, basis, TABLE)
    angle, mirror, offset = TABLE.decode(code[:5])
    waves = (
        np.exp(1j * np.outer(np.arange(M), np.arange(48) * TABLE.step))
        * np.where(np.arange(M), 2, 1)[:, None]
    )
    for i in range(5):
        for k in range(3):
            both = np.stack([x[i], x[i].conj()]).astype(complex)
            spectra = np.add.reduceat(both * y[k].conj()[:, None, :], basis.starts[:-1], axis=2)
            direct = (spectra @ waves).real  # offset, mirror, angle
            best = np.unravel_index(direct.argmax(), direct.shape)
            assert score[i, k] == pytest.approx(direct.max(), rel=1e-5)
            assert (offset[i, k], mirror[i, k]) == best[:2]
            assert round(angle[i, k] / TABLE.step) % 48 == best[2]


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("degrees", [-171.0, -33.3, 12.0, 140.7])
def test_a_planted_pose_comes_back(basis: Basis, degrees: float, mirror: bool) -> None:
    angle, centre = np.radians(degrees), (2.0, -1.0)
    reference = unit(basis, blob_image())
    image = unit(basis, blob_image(angle, mirror, centre), np.array([centre]))
    score, code = correlate(in_lanes(image), reference[None], basis, TABLE)
    coarse, found, _ = TABLE.decode(code[:1, 0])
    spectra = pair_spectra(image.astype(np.complex64), reference.astype(np.complex64), found, basis)
    fine, refined = refine_angles(spectra, coarse, TABLE.step)
    assert found[0] == mirror
    assert abs(np.degrees(coarse[0] - angle + np.pi) % 360 - 180) <= 3.76
    assert abs(np.degrees(fine[0] - angle + np.pi) % 360 - 180) < 0.2
    assert refined[0] >= score[0, 0] - 1e-4


def test_an_offset_of_the_reference_is_a_shift_of_the_image(basis: Basis) -> None:
    """The image's centre is s - M^mu Rot(phi) d where the reference about d matches it about s."""
    angle, offsets = 0.7, np.array([[x, y] for y in (-1.0, 0.0, 1.0) for x in (-1.0, 0.0, 1.0)])
    references = np.concatenate([unit(basis, blob_image(), offset[None]) for offset in offsets])
    for mirror in (False, True):
        image = unit(basis, blob_image(angle, mirror, (1.0, 0.0)))
        _, code = correlate(in_lanes(image), references[None], basis, TABLE)
        phi, found, number = TABLE.decode(code[:1, 0])
        centre = -turned_vectors(offsets[number], phi, found)[0]
        assert found[0] == mirror
        assert np.linalg.norm(centre - [1.0, 0.0]) < 0.55  # offsets are a pixel apart


def test_aligned_sums_equal_a_loop(noise: np.ndarray) -> None:
    rng = np.random.default_rng(5)
    rings = GRID.coefficients(noise, np.zeros((len(noise), 2)))
    label, angle = rng.integers(-1, 3, len(noise)), rng.uniform(-3, 3, len(noise))
    mirror = rng.random(len(noise)) < 0.5
    lying = aligned(rings, np.arange(M), angle, mirror)
    expected = np.stack([lying[label == k].sum(axis=0) for k in range(3)])
    np.testing.assert_allclose(sum_classes(rings, label, angle, mirror, 3), expected, atol=1e-3)


def test_turning_back_undoes_turning() -> None:
    rng = np.random.default_rng(6)
    vectors, angle, mirror = rng.standard_normal((9, 2)), rng.uniform(-3, 3, 9), rng.random(9) < 0.5
    np.testing.assert_allclose(turned_back(turned_vectors(vectors, angle, mirror), angle, mirror), vectors)


def test_basis_coefficients_of_noise_have_variance_one(noise: np.ndarray) -> None:
    rng = np.random.default_rng(7)
    more = rng.standard_normal((600, BOX, BOX)).astype(np.float32)
    rings = GRID.coefficients(more, np.zeros((len(more), 2)))
    covariance = covariance_sum(rings) / len(more)
    signal = covariance.copy()
    signal[3] += 40 * np.outer(np.hanning(RADIUS), np.hanning(RADIUS))
    basis = make_basis(signal, covariance, len(more))
    power = np.square(np.abs(basis.project(rings))).mean(axis=0)
    np.testing.assert_allclose(power, 1, atol=0.02)
    kept = np.diff(basis.starts)
    assert (kept == 1).all()  # one of each frequency at least, and one signal
    assert basis.weights[3] > 0.9
