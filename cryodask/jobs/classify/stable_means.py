"""Class means of stably aligned members alone: the references of the next stage, as ISAC takes them."""

from dataclasses import replace

import numpy as np

from cryodask.jobs.classify.passes import Classes, Population
from cryodask.jobs.classify.poses import Poses
from cryodask.jobs.classify.shards import Images, borrowed
from cryodask.jobs.classify.stability import LEAST_MEMBERS, StabilitySettings, class_stability
from cryodask.kernels.class_sums import sum_classes


def stable_classes(population: Population, classes: Classes, settings: StabilitySettings) -> Classes:
    """Return the classes with the means of their stable members; a class with too few keeps its mean."""
    stable = class_stability(population, classes, settings).error < settings.threshold
    label = np.where(stable, classes.poses.label, -1).astype(np.int32)
    sizes = np.bincount(label[stable], minlength=classes.count)
    total = _sums(population, classes.poses.replaced(label=label), classes.count)
    means = (total / np.maximum(sizes, 1)[:, None, None]).astype(np.complex64)
    enough = (sizes >= LEAST_MEMBERS)[:, None, None]
    return replace(classes, averages=np.where(enough, means, classes.averages))


def _sums(population: Population, poses: Poses, count: int) -> np.ndarray:
    images, owner = population.images, population.owner
    tasks = [(images, owner, chunk, population.indices[p], poses[p], count) for chunk, p in population.parts]
    total: np.ndarray | float = 0.0
    for sums in population.rounds.each(_sum_chunk, tasks):
        total = total + sums
    return np.asarray(total)


def _sum_chunk(
    images: Images, owner: str, chunk: int, indices: np.ndarray, poses: Poses, count: int
) -> np.ndarray:
    with borrowed(images, owner, chunk, indices, poses.centre) as coefficients:
        return sum_classes(coefficients.rings, poses.label, poses.angle, poses.mirror, count)
