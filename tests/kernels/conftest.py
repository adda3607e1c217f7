"""The slow, obvious forms of the kernels: direct sums in float64."""

from types import SimpleNamespace

import numpy as np
import pytest


def correlation(block, box, valid):
    """num(i) = Σ_v box(v) block(i + v), circular."""
    block = np.asarray(block, np.float64)
    out = np.zeros(valid)
    for v in np.argwhere(box):
        shifted = np.roll(block, -v, axis=(0, 1, 2))
        out += float(box[tuple(v)]) * shifted[: valid[0], : valid[1], : valid[2]]
    return out


def score(block, u, mask, valid):
    """num / √(N·A - B²)."""
    block = np.asarray(block, np.float64)
    count = mask.sum(dtype=np.float64)
    variance = count * correlation(block**2, mask, valid) - correlation(block, mask, valid) ** 2
    return correlation(block, u, valid) / np.sqrt(variance)


def normalised(template, mask, normalization):
    """The weights u, straight from the definition."""
    t, m = np.asarray(template, np.float64), np.asarray(mask, np.float64)
    if normalization == "weighted":
        mean = (m * t).sum() / m.sum()
        deviation = np.sqrt((m * (t - mean) ** 2).sum() / m.sum())
    elif normalization == "support":
        mean, deviation = t[m > 0].mean(), t[m > 0].std()
    else:
        mean, deviation = (m * t)[m > 0].mean(), (m * t)[m > 0].std(ddof=1)
    return m * (t - mean) / deviation


def sphere(n, radius, edge=1.0):
    v = np.arange(n) - n // 2
    rho = np.sqrt(v[:, None, None] ** 2 + v[:, None] ** 2 + v**2)
    return np.clip((radius + edge - rho) / edge, 0, 1).astype(np.float32)


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture(scope="session")
def reference():
    return SimpleNamespace(correlation=correlation, score=score, normalised=normalised, sphere=sphere)
