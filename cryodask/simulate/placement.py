"""Where particles lie: at random, apart from each other, from the faces and from membranes."""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
from scipy.spatial.transform import Rotation

from cryodask.errors import InputError
from cryodask.geometry.euler import euler_from_rotation
from cryodask.simulate.random import Stream, generator, random_rotations
from cryodask.simulate.structure import Structure

Particles = Mapping[str, tuple[Structure, int]]
_TRIES = 20_000


def place_particles(
    size: np.ndarray,
    particles: Particles,
    *,
    margin: float,
    spacing: float,
    seed: int,
    clearance: Callable[[np.ndarray], float] = lambda _: np.inf,
) -> pd.DataFrame:
    """Draw positions and orientations of particles that do not overlap.

    Parameters
    ----------
    size : (d,), angstrom, axis order x y (z)
        Distance from the first to the last voxel of the data.
    particles : {name: (structure, count)}
        Placed in this order.
    margin : angstrom
        Least distance of a centre from every face.
    spacing : float
        Least distance of two centres in units of their mean diameter.
    seed : int
    clearance : callable, (d,) angstrom -> angstrom
        Distance from a point to the nearest obstacle; a particle keeps half its diameter from it.

    Returns
    -------
    DataFrame
        template (name), class (from 1, order of `particles`), x_a, y_a (, z_a) in angstrom from the first
        voxel, phi, theta, psi (zxz, degrees), qw, qx, qy, qz.

    Raises
    ------
    InputError
        When the particles do not fit; the message says how many did.
    """
    rng = generator(seed, Stream.PLACES)
    names = list(particles)
    kinds = np.repeat(np.arange(len(names)), [count for _, count in particles.values()])
    diameters = np.array([structure.diameter for structure, _ in particles.values()])[kinds]
    places = np.empty((len(kinds), len(size)))
    for n, diameter in enumerate(diameters):
        for _ in range(_TRIES):
            place = rng.uniform(margin, np.maximum(size - margin, margin))
            gaps = np.linalg.norm(places[:n] - place, axis=1) - spacing * (diameters[:n] + diameter) / 2
            if np.all(gaps >= 0) and clearance(place) >= diameter / 2 and np.all(size >= 2 * margin):
                places[n] = place
                break
        else:
            raise InputError(
                f"particles: only {n} of {len(kinds)} fit without overlap; ask for fewer or a larger shape"
            )
    table = pd.DataFrame({"template": [names[kind] for kind in kinds], "class": kinds + 1})
    table[["x_a", "y_a", "z_a"][: len(size)]] = places
    return pd.concat([table, pose_columns(random_rotations(len(kinds), rng))], axis=1)


def pose_columns(rotations: Rotation) -> pd.DataFrame:
    """Return the columns phi, theta, psi (zxz, degrees), qw, qx, qy, qz of N rotations."""
    angles = pd.DataFrame(euler_from_rotation(rotations), columns=["phi", "theta", "psi"])
    angles[["qx", "qy", "qz", "qw"]] = rotations.as_quat(canonical=True)
    return angles[["phi", "theta", "psi", "qw", "qx", "qy", "qz"]]


def rotations_of(table: pd.DataFrame) -> Rotation:
    """Return the rotations of a table's quaternions."""
    return Rotation.from_quat(table[["qx", "qy", "qz", "qw"]].to_numpy())
