import numpy as np
import pytest

from cryodask.kernels.local_scores import WindowBlock


@pytest.mark.parametrize("box", [9, 16, 24, 37])
def test_window_sums_and_norms_are_those_of_a_plain_loop(box):
    rng = np.random.default_rng(box)
    block = rng.standard_normal((box + 9, box + 12, box + 10)).astype(np.float32)
    axes = np.ogrid[(slice(-(box // 2), box - box // 2),) * 3]
    mask = np.clip(box / 2 - np.sqrt(sum(a**2 for a in axes)), 0, 1).astype(np.float32)
    weights = (mask * rng.standard_normal(mask.shape)).astype(np.float32)
    starts = np.array([[0, 0, 0], [3, 4, 5], [9, 12, 10], [1, 0, 2]])
    extents = np.array([[2, 3, 4], [6, 7, 5], [1, 1, 1], [3, 2, 3]])
    window = WindowBlock(block)
    sums, norms = window.sums(weights, starts, extents), []
    norms = window.inverse_norm(mask, float(mask.sum()), starts, extents)
    at = 0
    for start, extent in zip(starts, extents, strict=True):
        for place in np.ndindex(*extent):
            inside = tuple(slice(a + b, a + b + box) for a, b in zip(start, place, strict=True))
            data = block[inside].astype(np.float64)
            assert sums[at] == pytest.approx((weights * data).sum(), abs=2e-5 * box**1.5)
            variance = mask.sum() * (mask * data**2).sum() - (mask * data).sum() ** 2
            assert norms[at] == pytest.approx(1 / np.sqrt(variance), rel=1e-4)
            at += 1
    assert at == len(sums) == len(norms)


def test_a_flat_block_cannot_be_scored():
    window = WindowBlock(np.ones((12, 12, 12), np.float32))
    one = np.ones((1, 3), int)
    assert window.inverse_norm(np.ones((8, 8, 8), np.float32), 512.0, one, one) == 0
