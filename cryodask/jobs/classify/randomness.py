"""Random numbers that depend on the seed and on what they are for, never on the order of the work."""

from enum import IntEnum

import numpy as np


class Purpose(IntEnum):
    """What random numbers are for; the second word of every key."""

    FIRST_IMAGES = 1
    BASIS_SAMPLE = 2
    RESTART = 3
    MIRROR = 4
    DECOY = 5
    SPREAD_SAMPLE = 6
    HALVES = 7


def hashed(indices: np.ndarray, *key: int) -> np.ndarray:
    """Return a 64-bit hash of each index under a key of integers (splitmix64, Steele et al. 2014)."""
    value = np.zeros(np.shape(indices), np.uint64)
    with np.errstate(over="ignore"):
        for word in (*key, np.asarray(indices)):
            value = _mixed(value ^ np.asarray(word).astype(np.uint64))
    return value


def _mixed(value: np.ndarray) -> np.ndarray:
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def uniform(indices: np.ndarray, *key: int) -> np.ndarray:
    """Return a number in [0, 1) for each index under a key."""
    return (hashed(indices, *key) >> np.uint64(11)).astype(np.float64) / 2.0**53


def lowest_hashes(indices: np.ndarray, count: int, *key: int) -> np.ndarray:
    """Return the `count` indices of lowest hash, in the order of their hashes: a sample of fixed size."""
    order = np.argsort(hashed(indices, *key), kind="stable")
    return indices[order[:count]]


def normal_images(count: int, box: int, *key: int) -> np.ndarray:
    """Return `count` images of unit Gaussian noise, each from its own stream, (count, box, box) float32."""
    images = np.empty((count, box, box), np.float32)
    for i in range(count):
        stream = np.random.Generator(np.random.Philox(np.random.SeedSequence([*key, i])))
        images[i] = stream.standard_normal((box, box), dtype=np.float32)
    return images
