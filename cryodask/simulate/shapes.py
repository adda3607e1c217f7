"""The particles of the phantoms: made from a seed, no data files."""

import numpy as np
from scipy.spatial.transform import Rotation

from cryodask.errors import InputError
from cryodask.geometry.symmetry import symmetry_group
from cryodask.simulate.random import Stream, generator, random_rotations
from cryodask.simulate.structure import GaussianStructure
from cryodask.simulate.walk import capsule, ellipsoid, self_avoiding_walk


def ribosome(seed: int = 0) -> GaussianStructure:
    """Return an asymmetric particle of about 300 angstrom: two subunits, stalks, a channel between them."""
    rng = generator(seed, Stream.SHAPE, 0)
    large = self_avoiding_walk(_large_subunit, np.array([0.0, 0.0, 60.0]), 620, step=15.0, rng=rng)
    small = self_avoiding_walk(_small_subunit, np.array([30.0, 5.0, -70.0]), 230, step=15.0, rng=rng)
    weights = np.concatenate([1.0 + 0.5 * _texture(large, rng), 1.15 + 0.5 * _texture(small, rng)])
    return _centred(np.concatenate([large, small]), 7.0, weights)


def _large_subunit(points: np.ndarray) -> np.ndarray:
    """Body, two stalks of different length, less the channel and the exit tunnel."""
    body = ellipsoid(points, (0, 0, 38), (100, 82, 70))
    long_stalk = capsule(points, ((-80, 20, 30), (-108, 38, 2)), 15)
    short_stalk = capsule(points, ((70, -40, 60), (92, -55, 68)), 13)
    tunnel = capsule(points, ((10, 0, -35), (-15, 25, 120)), 11)
    return (body | long_stalk | short_stalk) & ~tunnel & ~_channel(points)


def _small_subunit(points: np.ndarray) -> np.ndarray:
    """Body, head with a beak, less the channel."""
    body = ellipsoid(points, (35, -5, -68), (62, 46, 36))
    head = ellipsoid(points, (-48, 25, -72), (42, 40, 32))
    beak = capsule(points, ((-55, 35, -72), (-70, 64, -74)), 13)
    return (body | head | beak) & ~_channel(points)


def _channel(points: np.ndarray) -> np.ndarray:
    return capsule(points, ((-20, -110, -34), (5, 110, -34)), 14)


def proteasome(seed: int = 0) -> GaussianStructure:
    """Return a barrel of four rings of seven, 150 by 115 angstrom, hollow, of symmetry D7 about z."""
    rng = generator(seed, Stream.SHAPE, 1)
    unit = np.concatenate([_globule(place, rng) for place in ((41.0, 4.0, 21.0), (38.0, 4.0, 56.0))])
    group = symmetry_group("D7")
    weights = np.tile(0.55 + 0.3 * rng.random(len(unit)), len(group))
    centres = np.concatenate([g.apply(unit) for g in group])
    return GaussianStructure(centres, np.full(len(centres), 6.0), weights, "D7")


def _globule(place: tuple[float, float, float], rng: np.random.Generator) -> np.ndarray:
    """Return 16 beads packed about a place."""

    def inside(points: np.ndarray) -> np.ndarray:
        return ellipsoid(points, place, (17, 16, 17))

    return self_avoiding_walk(inside, np.array(place), 16, step=11.0, rng=rng)


def _texture(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a smooth random field in [-1, 1] at the points, of 80 to 160 angstrom wavelength."""
    waves = random_rotations(6, rng).apply([0, 0, 1]) * rng.uniform(1 / 160, 1 / 80, (6, 1))
    phases = rng.uniform(0, 2 * np.pi, 6)
    return np.sin(2 * np.pi * points @ waves.T + phases).mean(axis=1) * 2


def _centred(centres: np.ndarray, sigma: float, weights: np.ndarray) -> GaussianStructure:
    """Move the centre of mass to the origin, so that particles turn about it."""
    weights = np.clip(weights, 0.2, None)
    centre = np.average(centres, axis=0, weights=weights)
    return GaussianStructure(centres - centre, np.full(len(centres), sigma), weights)


_KINDS = {"ribosome": ribosome, "proteasome": proteasome}


def make_structure(kind: str, *, seed: int = 0) -> GaussianStructure:
    """Return the particle of a kind, "ribosome" or "proteasome"; the seed shapes its chain.

    Raises
    ------
    InputError
        For any other kind.
    """
    if kind not in _KINDS:
        raise InputError(f"kind = {kind}: expected {' or '.join(_KINDS)}")
    return _KINDS[kind](seed)


def simulate_structure(kind: str, voxel_size: float, box: int, seed: int = 0) -> np.ndarray:
    """Return the map of a particle, its centre of rotation at voxel box//2.

    Parameters
    ----------
    kind : "ribosome" or "proteasome"
    voxel_size : angstrom
    box : int, voxels
    seed : int

    Returns
    -------
    (box, box, box) float32, z y x

    Raises
    ------
    InputError
        For an unknown kind.
    """
    centre = np.full(3, box // 2)
    return make_structure(kind, seed=seed).density((box,) * 3, voxel_size, Rotation.identity(), centre)
