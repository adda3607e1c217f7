"""What speaks for an image's place: its score without itself, decoys' scores, the margin to other classes."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import gumbel_r

from cryodask.arrays.npy import load_npy
from cryodask.jobs.classify.passes import Classes, Population, Shortlist, take_poses
from cryodask.jobs.classify.poses import Poses, first_poses
from cryodask.jobs.classify.shards import Images, borrowed
from cryodask.kernels.class_sums import aligned
from cryodask.kernels.polar_correlation import correlate, in_lanes

RIDES = 5  # passes in which decoys follow the final references
LEAST_TAIL = 5.0  # decoys beyond a quantile, below which it is extrapolated
ALIKE = 0.9  # similarity of references beyond which classes are neighbours


def left_out_scores(population: Population, classes: Classes) -> np.ndarray:
    """Return each image's score against its class mean without the image itself, (n,) float32.

    An image that helped to draw the mean flatters itself; a class of aligned noise lives of it.
    """
    model = population.images.model
    sizes = classes.sizes
    means = population.images.publish(f"means_{population.owner}", model.weighted(classes.averages))
    tasks = [
        (population.images, population.owner, chunk, population.indices[p], classes.poses[p], means, sizes)
        for chunk, p in population.parts
    ]
    found = np.concatenate(population.rounds.map(_left_out, tasks))
    Path(means).unlink(missing_ok=True)
    return found


def _left_out(
    images: Images,
    owner: str,
    chunk: int,
    indices: np.ndarray,
    poses: Poses,
    means_path: str,
    sizes: np.ndarray,
) -> np.ndarray:
    basis, means = images.model.basis, load_npy(means_path)
    with borrowed(images, owner, chunk, indices, poses.centre) as coefficients:
        lying = aligned(coefficients.basis, basis.frequency, poses.angle, poses.mirror)
    count = sizes[poses.label][:, None]
    without = (count * means[poses.label] - basis.weights * lying) / np.maximum(count - 1, 1)
    score = basis.dot(lying, without) / np.maximum(basis.norm(without), 1e-12)
    return np.where(count[:, 0] > 1, score, 0).astype(np.float32)


def ridden_scores(population: Population, averages: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Return the best scores (n,) of images that follow references as members do, without a say in them.

    Parameters
    ----------
    population : Population
        Decoys, or images that belong to no class; from their origins.
    averages : (K, R, M) complex64
    offsets : (S, 2)
    """
    images = population.images
    path = images.publish(f"ride_{population.owner}", images.model.references(averages, offsets))
    tasks = [
        (images, population.owner, chunk, population.indices[p], population.origins[p], path, offsets)
        for chunk, p in population.parts
    ]
    found = np.concatenate(population.rounds.map(_ride, tasks))
    Path(path).unlink(missing_ok=True)
    return found


def _ride(
    images: Images,
    owner: str,
    chunk: int,
    indices: np.ndarray,
    origins: np.ndarray,
    path: str,
    offsets: np.ndarray,
) -> np.ndarray:
    model, references = images.model, load_npy(path)
    poses, rows = first_poses(origins), np.arange(len(indices))
    with borrowed(images, owner, chunk, indices, poses.centre) as coefficients:
        for _ in range(RIDES):
            coefficients.move(images, poses.centre)
            score, code = correlate(in_lanes(coefficients.basis), references, model.basis, model.table)
            best = score[: len(rows)].argmax(axis=1)
            poses = poses.replaced(label=best.astype(np.int32))
            poses = take_poses(
                images, coefficients.basis, references, poses, code[rows, best], offsets, origins
            )
    return poses.score


@dataclass(frozen=True)
class JunkThreshold:
    """The score below which an image is noise.

    Parameters
    ----------
    value : float
        -inf where the test is off.
    quantiles : (4,)
        50, 95, 99 and 99.5 % of the decoys' scores.
    """

    value: float
    quantiles: np.ndarray


def junk_threshold(scores: np.ndarray, rate: float) -> JunkThreshold:
    """Return the 1 - rate quantile of decoys' scores; from a Gumbel fit where too few lie beyond it."""
    quantiles = np.quantile(scores, [0.5, 0.95, 0.99, 0.995])
    if rate == 0:
        return JunkThreshold(-np.inf, quantiles)
    if rate * len(scores) >= LEAST_TAIL:
        return JunkThreshold(float(np.quantile(scores, 1 - rate)), quantiles)
    scale = scores.std() * np.sqrt(6) / np.pi
    location = scores.mean() - np.euler_gamma * scale
    return JunkThreshold(float(gumbel_r.ppf(1 - rate, location, scale)), quantiles)


def margins(shortlist: Shortlist, label: np.ndarray, alike: np.ndarray) -> np.ndarray:
    """Return own score less the best of a class that is not similar, (n,) float32; +inf where there is none.

    Parameters
    ----------
    shortlist : Shortlist
    label : (n,)
        The class each image is in.
    alike : (K, K)
        Similarity of references.
    """
    own = np.where(shortlist.ids == label[:, None], shortlist.score, -np.inf).max(axis=1)
    own = np.where(np.isfinite(own), own, shortlist.score.min(axis=1))
    foreign = (alike[label[:, None], shortlist.ids] < ALIKE) & (shortlist.ids != label[:, None])
    best = np.where(foreign, shortlist.score, -np.inf).max(axis=1)
    return (own - best).astype(np.float32)
