"""Slices and projections: the reference projections, a plain float64 form, and where an atom lands."""

import numpy as np
import pytest
import scipy.fft
from scipy.ndimage import map_coordinates

from cryodask.geometry.zyz import zyz_matrices, zyz_rotations
from cryodask.kernels.slices import extract_slices, project, slice_axes, template_spectrum, unit_energy


def blobs(n, places, sigma=1.5):
    """Gaussians of one width at places (x, y, z), voxels from the centre."""
    z, y, x = np.mgrid[:n, :n, :n] - n // 2
    volume = np.zeros((n, n, n))
    for px, py, pz in np.atleast_2d(places):
        volume += np.exp(-((x - px) ** 2 + (y - py) ** 2 + (z - pz) ** 2) / (2 * sigma**2))
    return volume.astype(np.float32)


def flat_blobs(n, places, sigma=1.5):
    """Their projections along z: places (x, y)."""
    y, x = np.mgrid[:n, :n] - n // 2
    image = np.zeros((n, n))
    for px, py in np.atleast_2d(places):
        image += np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * sigma**2))
    return image * sigma * np.sqrt(2 * np.pi)


def plain_slice(volume, matrix):
    """The slice of one orientation from the full float64 spectrum, interpolated by SciPy."""
    n = len(volume)
    spectrum = np.fft.fftshift(np.fft.fftn(np.fft.ifftshift(volume.astype(np.float64))))
    ky, kx = np.meshgrid(scipy.fft.fftfreq(n), scipy.fft.rfftfreq(n), indexing="ij")
    q = np.einsum("ij,j...->i...", matrix, np.stack([kx, ky, np.zeros_like(kx)]))
    index = q[::-1] * n + n // 2
    real, imaginary = (
        map_coordinates(part, index, order=1, mode="constant") for part in (spectrum.real, spectrum.imag)
    )
    found = real + 1j * imaginary
    found[0, 0] = 0
    return found


def test_projections_of_torch_fourier_slice(shared_data):
    folder = shared_data / "micrograph_matching"
    volume = np.load(folder / "search_512" / "template.npy")
    with np.load(folder / "filters_projections.npz") as reference:
        axes, expected = slice_axes(zyz_matrices(reference["euler"])), reference["projections"]
    found = project(extract_slices(template_spectrum(volume), axes, 128), -1.0)
    # those have a mean, which is removed here
    expected = expected - expected.mean(axis=(1, 2), keepdims=True, dtype=np.float64)
    np.testing.assert_allclose(found, expected, atol=5e-4)


def test_slices_are_those_of_a_plain_float64_form():
    volume = np.random.default_rng(0).standard_normal((16, 16, 16)).astype(np.float32)
    matrices = zyz_matrices(np.random.default_rng(1).uniform(0, 360, (6, 3)))
    found = extract_slices(template_spectrum(volume), slice_axes(matrices), 16)
    for matrix, mine in zip(matrices, found, strict=True):
        theirs = plain_slice(volume, matrix)
        # the half spectrum has no rows beyond its edge for a plain form to mirror
        inside = np.hypot(*np.meshgrid(scipy.fft.fftfreq(16), scipy.fft.rfftfreq(16), indexing="ij")) < 0.43
        np.testing.assert_allclose(mine[inside], theirs[inside], atol=2e-3)


def test_an_atom_lands_where_its_rotation_carries_it():
    angles = np.array([[40.0, 70.0, 25.0]])
    atom = np.array([[4.0, -2.0, 3.0]])
    axes = slice_axes(zyz_matrices(angles))
    found = project(extract_slices(template_spectrum(blobs(32, atom), padding=2), axes, 32), -1.0)[0]
    place = zyz_rotations(angles).apply(atom)[0, :2]
    expected = flat_blobs(32, place)
    expected -= expected.mean()
    np.testing.assert_allclose(found, expected, atol=0.1 * expected.max())


@pytest.mark.parametrize(
    ("padding", "gridding", "most"), [(1, "none", 0.09), (1, "sinc2", 0.04), (2, "sinc2", 0.008)]
)
def test_errors_of_the_interpolation_are_those_written_down(padding, gridding, most):
    rng = np.random.default_rng(3)
    n, radius = 64, 0.2 * 64
    places = rng.standard_normal((20, 3))
    places *= (radius * rng.random((20, 1)) ** (1 / 3)) / np.linalg.norm(places, axis=1, keepdims=True)
    angles = rng.uniform(0, 180, (4, 3))
    spectrum = template_spectrum(blobs(n, places), padding=padding, gridding=gridding)
    found = project(extract_slices(spectrum, slice_axes(zyz_matrices(angles)), n), -1.0)
    for image, rotation in zip(found, zyz_rotations(angles), strict=True):
        expected = flat_blobs(n, rotation.apply(places)[:, :2])
        assert np.abs(image - (expected - expected.mean())).max() < 1.3 * most * expected.max()


def test_scale_enlarges_the_particle():
    atom = np.array([[8.0, 4.0, 0.0]])
    spectrum = template_spectrum(blobs(48, atom, sigma=2.0), padding=2, gridding="sinc2")
    found = project(extract_slices(spectrum, slice_axes(np.eye(3)[None], scale=1.25), 48), -1.0)[0]
    assert np.unravel_index(found.argmax(), found.shape) == (24 + 5, 24 + 10)


def test_magnification_moves_an_atom_by_its_matrix():
    atom = np.array([[6.0, 5.0, 0.0]])
    stretched = (1.25, 0.0, 0.0, 1.5)
    spectrum = template_spectrum(blobs(48, atom, sigma=2.0), padding=2, gridding="sinc2")
    axes = slice_axes(np.eye(3)[None], magnification=stretched)
    found = project(extract_slices(spectrum, axes, 48), -1.0)[0]
    # the matrix carries positions of the image to those of the specimen
    assert np.unravel_index(found.argmax(), found.shape) == (24 + 4, 24 + 4)


def test_frequencies_beyond_the_limit_stay_zero():
    spectrum = template_spectrum(blobs(16, [[1.0, 2.0, 3.0]]))
    whole = extract_slices(spectrum, slice_axes(np.eye(3)[None]), 16)[0]
    cut = extract_slices(spectrum, slice_axes(np.eye(3)[None]), 16, limit=0.3)[0]
    length = np.hypot(*np.meshgrid(scipy.fft.fftfreq(16), scipy.fft.rfftfreq(16), indexing="ij"))
    np.testing.assert_array_equal(cut, np.where(length <= 0.3, whole, 0))


def test_unit_energy_removes_the_border_and_leaves_a_flat_projection_empty():
    rng = np.random.default_rng(5)
    images = rng.standard_normal((3, 20, 20)).astype(np.float32) + 7
    images[2] = 7.0
    found = unit_energy(images)
    border = np.ones((20, 20), bool)
    border[1:-1, 1:-1] = False
    for image, made in zip(images[:2], found[:2], strict=True):
        expected = image.astype(np.float64) - image[border].mean(dtype=np.float64)
        np.testing.assert_allclose(made, expected / np.sqrt(np.sum(expected**2)), atol=1e-5)
    np.testing.assert_array_equal(found[2], 0)
