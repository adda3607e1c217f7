import numpy as np
import pytest

from cryodask.optics.masks import mask_kind, sphere_mask

FOLDER = "tomogram_matching/local_correlation"


def test_kinds_of_the_distributed_masks(shared_data):
    for name, kind in (("mask48_r22", "spherical"), ("tm_bin4_voxel2.176_ribosome", "general")):
        mask = np.fromfile(shared_data / FOLDER / f"{name}.em", "<f4", offset=512).reshape(48, 48, 48)
        assert mask_kind(mask) == kind


@pytest.mark.parametrize("n", [24, 25])
def test_kind_follows_the_shape_and_its_centre(n):
    z, y, x = np.indices((n, n, n)) - n // 2
    assert mask_kind(sphere_mask(n, 7, 3)) == "spherical"
    assert mask_kind((x**2 + y**2 <= 36) & (abs(z) <= 8)) == "axial"
    assert mask_kind((z**2 + y**2 <= 36) & (abs(x) <= 8)) == "general"
    assert mask_kind(np.roll(sphere_mask(n, 7, 0), 1, axis=0)) == "axial"
    assert mask_kind(np.roll(sphere_mask(n, 7, 0), 1, axis=2)) == "general"


def test_sphere_is_one_inside_and_falls_over_its_edge():
    mask = sphere_mask(33, 8, 4)
    assert mask.dtype == np.float32
    np.testing.assert_allclose(mask[16, 16, 16:], [1] * 9 + [0.853553, 0.5, 0.146447] + [0] * 5, atol=1e-6)
    assert set(np.unique(sphere_mask(33, 8, 0))) == {0, 1}
    assert sphere_mask(33, 8, 0).sum() == 2109
