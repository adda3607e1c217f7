"""What independent runs agree about: who belongs together, and which picture in which pose an image shows."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import linear_sum_assignment

from cryodask.arrays.npy import load_npy
from cryodask.jobs.classify.passes import Classes, Population
from cryodask.jobs.classify.poses import Poses
from cryodask.jobs.classify.shards import Images
from cryodask.kernels.class_sums import laid_back, turned_back


@dataclass(frozen=True)
class Agreement:
    """Agreement of a run with witnesses.

    Parameters
    ----------
    vote : (n,) float32
        Share of witnesses that put the image into the class matched to its own; NaN without witnesses.
    jaccard : (K,) float32
        Median over witnesses of the overlap of matched classes.
    common : (K,) int
        Members that all runs have in common.
    views : (n,) float32
        Median over witnesses of the correlation of the pictures laid into the image; NaN without.
    """

    vote: np.ndarray
    jaccard: np.ndarray
    common: np.ndarray
    views: np.ndarray


def agreement(population: Population, chosen: Classes, witnesses: list[Classes]) -> Agreement:
    """Return how far witnesses, restricted to the population, agree with the chosen classes."""
    label, n = chosen.poses.label, len(chosen.poses)
    if not witnesses:
        nothing = np.full(n, np.nan, np.float32)
        return Agreement(nothing, np.full(chosen.count, np.nan, np.float32), chosen.sizes, nothing)
    matched = np.stack([matched_labels(label, w.poses.label, chosen.count, w.count) for w in witnesses])
    same = matched == label
    overlaps = np.stack([_jaccard(label, other, chosen.count) for other in matched])
    common = np.bincount(label[same.all(axis=0)], minlength=chosen.count)
    views = np.median(_view_agreements(population, chosen, witnesses), axis=0)
    jaccard = np.median(overlaps, axis=0).astype(np.float32)
    return Agreement(same.mean(axis=0).astype(np.float32), jaccard, common, views.astype(np.float32))


def matched_labels(label: np.ndarray, other: np.ndarray, count: int, others: int) -> np.ndarray:
    """Return another run's classes under the numbers of the classes they overlap most with, -1 for the rest.

    The matching is of maximum weight, one to one (Kuhn 1955).
    """
    overlap = np.zeros((count, others))
    both = (label >= 0) & (other >= 0)
    np.add.at(overlap, (label[both], other[both]), 1)
    own, theirs = linear_sum_assignment(-overlap)
    names = np.full(others + 1, -1)
    names[theirs] = own
    return names[other]


def _jaccard(label: np.ndarray, other: np.ndarray, count: int) -> np.ndarray:
    both = np.bincount(label[label == other], minlength=count)
    either = np.bincount(label, minlength=count) + np.bincount(other[other >= 0], minlength=count) - both
    return both / np.maximum(either, 1)


def _view_agreements(population: Population, chosen: Classes, witnesses: list[Classes]) -> np.ndarray:
    """Return the correlation (witness, n) of the pictures that two runs draw into each image."""
    images, runs = population.images, [chosen, *witnesses]
    model = images.model
    paths = [
        images.publish(f"pictures_{population.owner}_{number}", model.grid.images(run.averages, model.box))
        for number, run in enumerate(runs)
    ]
    tasks = [(images, paths, [run.poses[part] for run in runs]) for _, part in population.parts]
    found = np.concatenate(population.rounds.map(_agree, tasks), axis=1)
    for path in paths:
        Path(path).unlink(missing_ok=True)
    return found


def _agree(images: Images, paths: list[str], poses: list[Poses]) -> np.ndarray:
    drawn = [
        drawn_into(images, load_npy(path), own, poses[0].centre)
        for path, own in zip(paths, poses, strict=True)
    ]
    return np.stack([images.model.basis.dot(drawn[0], other) for other in drawn[1:]])


def drawn_into(images: Images, pictures: np.ndarray, poses: Poses, centres: np.ndarray) -> np.ndarray:
    """Return the references of images laid into them, about common centres, unit norm.

    Parameters
    ----------
    pictures : (K, L, L) float32
    poses : Poses
        Of n images.
    centres : (n, 2)
        About which all runs are compared.

    Returns
    -------
    (n, P) complex64
    """
    model = images.model
    offset = turned_back((centres - poses.centre).astype(np.float64), poses.angle, poses.mirror)
    rings = model.grid.coefficients(pictures[poses.label], offset)
    lying = model.unit(model.weighted(rings))
    return laid_back(lying, model.basis.frequency, poses.angle, poses.mirror)
