import numpy as np
import pytest
import scipy.ndimage
from scipy.spatial.transform import Rotation

from cryodask.kernels.rotation import rotate, rotate_by_library, rotate_mask, rotation_coefficients

R = Rotation.from_euler("zxz", [30, 40, 50], degrees=True).as_matrix()


@pytest.mark.parametrize("interpolation", ["linear", "cubic"])
@pytest.mark.parametrize("n", [12, 13])
def test_identity_returns_the_volume(rng, interpolation, n):
    volume = rng.standard_normal((n, n, n)).astype(np.float32)
    coefficients = rotation_coefficients(volume, interpolation)
    np.testing.assert_allclose(rotate(coefficients, np.eye(3), interpolation), volume, atol=2e-6)


@pytest.mark.parametrize("interpolation", ["linear", "cubic"])
@pytest.mark.parametrize("n", [20, 21])
def test_a_point_at_v_goes_to_R_v(interpolation, n):
    c = n // 2
    v = np.array([3.0, -4.0, 2.0])
    z, y, x = np.indices((n, n, n)) - c
    blob = lambda p: np.exp(-((x - p[0]) ** 2 + (y - p[1]) ** 2 + (z - p[2]) ** 2) / 4)  # noqa: E731
    rotated = rotate(rotation_coefficients(blob(v), interpolation), R, interpolation)
    assert np.abs(rotated - blob(R @ v)).max() < {"linear": 0.2, "cubic": 0.02}[interpolation]
    centre = np.array([(rotated * axis).sum() for axis in (x, y, z)]) / rotated.sum()
    np.testing.assert_allclose(centre, R @ v, atol=0.02)


def test_linear_is_scipys_zero_outside_the_box(rng):
    volume = rng.standard_normal((15, 15, 15)).astype(np.float32)
    inverse = R.T[::-1, ::-1]
    offset = np.full(3, 7.0) - inverse @ np.full(3, 7.0)
    expected = scipy.ndimage.affine_transform(volume.astype(float), inverse, offset=offset, order=1)
    np.testing.assert_allclose(
        rotate(rotation_coefficients(volume, "linear"), R, "linear"), expected, atol=2e-6
    )


@pytest.mark.parametrize("interpolation", ["linear", "cubic"])
def test_library_path_of_the_gpu_agrees(rng, interpolation):
    n = 14
    coefficients = rotation_coefficients(rng.standard_normal((n, n, n)), interpolation)
    inverse = np.ascontiguousarray(R.T[::-1, ::-1])
    margin = (coefficients.shape[0] - n) // 2
    start = n // 2 + margin - inverse @ np.full(3, n // 2)
    expected = rotate_by_library(coefficients, inverse, start, interpolation)
    np.testing.assert_allclose(rotate(coefficients, R, interpolation), expected, atol=1e-5)


def test_rotated_mask_stays_between_0_and_1(reference):
    mask = reference.sphere(24, 8, 3.0) * 1.0005
    rotated = rotate_mask(rotation_coefficients(mask, "linear"), R)
    assert rotated.max() == 1.0
    assert rotated[rotated > 0].min() >= 1e-3
