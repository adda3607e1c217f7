import numpy as np
import pytest
import scipy.fft

from cryodask.kernels.rotation import rotation_coefficients
from cryodask.kernels.template import filter_template, normalise, normalization_mask, prepare_rotation


@pytest.mark.parametrize("normalization", ["weighted", "support", "product"])
def test_weights_follow_their_definition(rng, normalization, reference):
    template = (5 + rng.standard_normal((13, 13, 13))).astype(np.float32)
    mask = normalization_mask(reference.sphere(13, 3, 3.0), normalization)
    u, count = normalise(template, mask, normalization=normalization)
    np.testing.assert_allclose(u, reference.normalised(template, mask, normalization), atol=2e-5)
    assert count == pytest.approx(mask.sum(dtype=np.float64))
    assert u.dtype == np.float32


def test_weighted_weights_sum_to_zero_in_float32(rng, reference):
    u, _ = normalise(
        (1e3 + rng.standard_normal((20, 20, 20))).astype(np.float32), reference.sphere(20, 6, 2.0)
    )
    assert abs(u.sum(dtype=np.float64)) < 1e-3


def test_constant_template_has_no_weights(reference):
    mask = reference.sphere(12, 4)
    for normalization in ("weighted", "support"):
        u, _ = normalise(np.full((12, 12, 12), 3.0, np.float32), mask, normalization=normalization)
        assert not u.any()


def test_product_drops_mask_below_exp_minus_2():
    mask = np.linspace(0, 1, 27, dtype=np.float32).reshape(3, 3, 3)
    cut = normalization_mask(mask, "product")
    assert cut[cut > 0].min() >= np.exp(-2)
    assert normalization_mask(mask, "weighted") is mask


def test_filter_acts_on_the_half_spectrum(rng):
    volume = rng.standard_normal((10, 10, 10)).astype(np.float32)
    weights = rng.random((10, 10, 6)).astype(np.float32)
    expected = scipy.fft.irfftn(scipy.fft.rfftn(volume.astype(float)) * weights, volume.shape)
    np.testing.assert_allclose(filter_template(volume, weights), expected, atol=1e-5)


def test_prepared_rotation_scores_one_on_itself(rng, reference):
    template, mask = rng.standard_normal((16, 16, 16)).astype(np.float32), reference.sphere(16, 5)
    u, count = prepare_rotation(
        rotation_coefficients(template, "cubic"),
        mask,
        np.eye(3),
        filter_half=np.ones((16, 16, 9), np.float32),
    )
    t = template.astype(float)
    norm = count * (mask * t**2).sum() - (mask * t).sum() ** 2
    assert (u * t).sum() / np.sqrt(norm) == pytest.approx(1.0, abs=1e-5)
