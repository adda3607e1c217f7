"""How mixed a class is, and what two classes it would make."""

from dataclasses import dataclass

import numpy as np

from cryodask.jobs.classify.passes import Classes, Population
from cryodask.jobs.classify.poses import Poses
from cryodask.jobs.classify.randomness import Purpose, lowest_hashes
from cryodask.jobs.classify.shards import Images, transformed
from cryodask.kernels.class_sums import aligned
from cryodask.kernels.steerable import Basis

LEAST_MEMBERS = 8
MOST_MEMBERS = 1000  # of the Gram matrix; larger classes are sampled
NO_RATIO = -1.0


@dataclass(frozen=True)
class Spread:
    """The mixed-class statistic of a class, and the means of its halves.

    Parameters
    ----------
    ratio : float
        Largest eigenvalue of the members' Gram matrix over the median of the others; NO_RATIO where there
        are too few members.
    gain : float
        What the members' scores would rise together with the halves as references, each image left out of
        the means it is scored against.
    halves : (2, R, M) complex64 or None
        Means of the members on either side of the first eigenvector.
    """

    ratio: float
    gain: float
    halves: np.ndarray | None


def class_spreads(population: Population, classes: Classes) -> list[Spread]:
    """Return the spread of every class, a task each."""
    tasks = []
    for k in range(classes.count):
        rows = np.flatnonzero(classes.poses.label == k)
        if len(rows) > MOST_MEMBERS:
            rows = np.sort(lowest_hashes(rows, MOST_MEMBERS, Purpose.SPREAD_SAMPLE))
        tasks.append((population.images, population.indices[rows], classes.poses[rows]))
    return population.rounds.map(_spread, tasks)


def _spread(images: Images, indices: np.ndarray, poses: Poses) -> Spread:
    if len(indices) < LEAST_MEMBERS:
        return Spread(NO_RATIO, 0.0, None)
    model = images.model
    coefficients = transformed(images, indices, poses.centre)
    frequency = np.arange(model.grid.frequencies)
    lying = aligned(coefficients.rings, frequency, poses.angle, poses.mirror)
    basis = model.basis
    inside = basis.project(lying)
    ratio, upper = split(inside, basis.weights * basis.multiplicity)
    gain = gain_of_halves(inside, upper, basis)
    return Spread(ratio, gain, np.stack([lying[upper].mean(axis=0), lying[~upper].mean(axis=0)]))


def gain_of_halves(coefficients: np.ndarray, upper: np.ndarray, basis: Basis) -> float:
    """Return how much more the members score against the better half than against the whole."""
    everyone = np.ones(len(upper), bool)
    whole, *halves = [scores_against(coefficients, rows, basis) for rows in (everyone, upper, ~upper)]
    return float((np.maximum(*halves) - whole).sum())


def scores_against(coefficients: np.ndarray, members: np.ndarray, basis: Basis) -> np.ndarray:
    """Return the scores (n,) of aligned images against the mean of some of them, itself left out.

    Parameters
    ----------
    coefficients : (n, P) complex
    members : (n,) bool
        Whose mean.
    basis : Basis
    """
    total = coefficients[members].sum(axis=0, dtype=np.complex128)
    own = np.where(members[:, None], coefficients, 0)
    without = (basis.weights * (total - own)).astype(np.complex64)
    return basis.dot(coefficients, without) / np.maximum(basis.norm(without), 1e-12)


def split(coefficients: np.ndarray, weights: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the spread ratio and the side of each member.

    Parameters
    ----------
    coefficients : (n, P) complex
        Aligned.
    weights : (P,)
        Of the squared coefficients.

    Returns
    -------
    ratio : float
    upper : (n,) bool
        Who lies on the side of the member farthest out.
    """
    parts = np.concatenate([coefficients.real, coefficients.imag], axis=1).astype(np.float64)
    rows = parts * np.sqrt(np.concatenate([weights, weights]))
    rows -= rows.mean(axis=0)
    values, vectors = np.linalg.eigh(rows @ rows.T)
    first = vectors[:, -1]
    upper = first * first[np.abs(first).argmax()] > 0
    if upper.all():
        upper[first.argsort()[: len(first) // 2]] = False
    return float(values[-1] / max(np.median(values[1:-1]), 1e-12)), upper


def similarities(population: Population, averages: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Return the best correlation of every two class means over angle, mirror and offset, (K, K) float32.

    The diagonal is -1.
    """
    from cryodask.jobs.classify.model import STILL
    from cryodask.kernels.polar_correlation import correlate, in_lanes

    model = population.images.model
    count = len(averages)
    still = model.references(averages, STILL)[:, 0]
    found, _ = correlate(in_lanes(still), model.references(averages, offsets), model.basis, model.table)
    found = np.maximum(found[:count], found[:count].T)
    np.fill_diagonal(found, -1)
    return found
