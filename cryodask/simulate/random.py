"""Random streams that depend on the seed and on what is drawn, never on the order in which it is drawn."""

from enum import IntEnum

import numpy as np
from scipy.spatial.transform import Rotation

NOISE_BLOCK = 32


class Stream(IntEnum):
    """What a stream of random numbers is for; the second word of its seed."""

    SHAPE = 1
    PLACES = 2
    NOISE = 3
    POSES = 4


def generator(seed: int, stream: Stream, *key: int) -> np.random.Generator:
    """Return the generator of one stream and key (a block index, an image number), all integers >= 0."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, int(stream), *key])))


def random_rotations(count: int, rng: np.random.Generator) -> Rotation:
    """Return `count` uniformly distributed rotations."""
    return Rotation.from_quat(rng.standard_normal((count, 4)))


def white_noise(start: tuple[int, ...], shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Return a region of one endless field of unit white noise.

    The field is drawn in fixed cubes of 32 voxels, each from its own stream, so a region holds the same
    numbers whichever larger region it is cut from.

    Parameters
    ----------
    start, shape : (d,) ints, array axis order
        First voxel (may be negative) and size of the region.
    seed : int

    Returns
    -------
    (\\*shape,) float32
    """
    noise = np.empty(shape, np.float32)
    first = [s // NOISE_BLOCK for s in start]
    counts = [(s + n - 1) // NOISE_BLOCK - f + 1 for s, n, f in zip(start, shape, first, strict=True)]
    for index in np.ndindex(*counts):
        block = [f + i for f, i in zip(first, index, strict=True)]
        rng = generator(seed, Stream.NOISE, *(_unsigned(b) for b in block))
        values = rng.standard_normal((NOISE_BLOCK,) * len(shape), dtype=np.float32)
        low = [b * NOISE_BLOCK - s for b, s in zip(block, start, strict=True)]
        into = tuple(slice(max(lo, 0), min(lo + NOISE_BLOCK, n)) for lo, n in zip(low, shape, strict=True))
        noise[into] = values[tuple(slice(s.start - lo, s.stop - lo) for s, lo in zip(into, low, strict=True))]
    return noise


def _unsigned(index: int) -> int:
    """Map every integer to one >= 0 (a seed takes no negative words)."""
    return 2 * index if index >= 0 else -2 * index - 1
