"""One pass: score images against references, share them out equally, take poses, average.

Two tasks a chunk: the first returns a shortlist of classes for each image; after the assignment the second
takes the winner's pose, moves the centre and sums the classes.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cryodask.arrays.npy import load_npy
from cryodask.jobs.classify.model import STILL
from cryodask.jobs.classify.poses import FARTHEST, Poses, joined, moved_centres
from cryodask.jobs.classify.shards import Images, borrowed
from cryodask.kernels.class_sums import sum_classes
from cryodask.kernels.polar_correlation import correlate, in_lanes, pair_spectra, refine_angles
from cryodask.kernels.polar_correlation_arrays import correlate_on_device
from cryodask.search.assignment import assign, assign_by_rank
from cryodask.search.rounds import Rounds

SHORTLIST = 16  # classes of an image that can be assigned, where there are more than FEW
FEW = 32


@dataclass(frozen=True)
class Shortlist:
    """The best classes of n images, in rising order of class.

    Parameters
    ----------
    ids : (n, q) int32
    score : (n, q) float32
    code : (n, q) int32
        Offset, mirror and angle, for `AngleTable.decode`.
    """

    ids: np.ndarray
    score: np.ndarray
    code: np.ndarray


@dataclass(frozen=True)
class Classes:
    """A classification after a pass.

    Parameters
    ----------
    poses : Poses
        Of the population.
    averages : (K, R, M) complex64
        Class means.
    prices : (K,) float64
    shortlist : Shortlist or None
        Of the last pass.
    """

    poses: Poses
    averages: np.ndarray
    prices: np.ndarray
    shortlist: Shortlist | None = None

    @property
    def count(self) -> int:
        """Number of classes."""
        return len(self.averages)

    @property
    def sizes(self) -> np.ndarray:
        """Images of each class, (K,) int."""
        return np.bincount(self.poses.label[self.poses.label >= 0], minlength=self.count)

    @property
    def objective(self) -> float:
        """Mean score of all images."""
        return float(self.poses.score.mean(dtype=np.float64))


@dataclass(frozen=True)
class Population:
    """The images that a run classifies, and where its passes run.

    Parameters
    ----------
    images : Images
    indices : (n,) int
        Rising indices.
    origins : (n, 2) float32
        Pre-aligned centres, from which none moves far.
    owner : str
        Name of the run.
    rounds : Rounds
    """

    images: Images
    indices: np.ndarray
    origins: np.ndarray
    owner: str
    rounds: Rounds

    @property
    def parts(self) -> list[tuple[int, slice]]:
        """Chunks and the place of their images in the population."""
        return self.images.parts(self.indices)


def run_pass(
    population: Population,
    classes: Classes,
    *,
    offsets: np.ndarray,
    capacity: int,
    number: int,
    cutoff: float | None = None,
    by_rank: bool = False,
) -> Classes:
    """Return the classification after one pass.

    Parameters
    ----------
    population : Population
    classes : Classes
        Averages and centres are taken from it.
    offsets : (S, 2)
        Searched about each reference.
    capacity : int
        Most images of a class.
    number : int
        Of the pass, to name its file of references.
    cutoff : float
        Low-pass of the references, cycles per pixel; the model's by default.
    by_rank : bool
        Fill classes of strictly equal size by falling score, without prices and whatever the capacity.
    """
    references = population.images.model.references(classes.averages, offsets, cutoff)
    path = population.images.publish(f"references_{population.owner}_{number:04d}", references)
    shortlist = score_population(population, classes, path)
    if by_rank:
        chosen = assign_by_rank(shortlist.score, shortlist.ids, classes.count)
    else:
        chosen = assign(shortlist.score, shortlist.ids, classes.count, capacity=capacity)
    rows = np.arange(len(chosen.choice))
    code = np.where(chosen.choice >= 0, shortlist.code[rows, chosen.choice], -1)
    poses = classes.poses.replaced(label=chosen.label.astype(np.int32))
    updated, averages = _update(population, poses, code, path, offsets, classes.count)
    Path(path).unlink(missing_ok=True)
    return Classes(updated, averages, chosen.prices, shortlist)


def score_population(population: Population, classes: Classes, path: str) -> Shortlist:
    """Return the shortlist of every image."""
    tasks = [
        (
            population.images,
            population.owner,
            chunk,
            population.indices[part],
            classes.poses.centre[part],
            path,
        )
        for chunk, part in population.parts
    ]
    found = population.rounds.map(_score_chunk, tasks)
    return Shortlist(*(np.concatenate(columns) for columns in zip(*found, strict=True)))


def _score_chunk(
    images: Images, owner: str, chunk: int, indices: np.ndarray, centres: np.ndarray, path: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Score a chunk: ids, scores and codes of the shortlist."""
    model = images.model
    with borrowed(images, owner, chunk, indices, centres) as coefficients:
        references = load_npy(path)
        if images.device == "cuda":
            table, memory = model.table, images.device_memory
            found = correlate_on_device(coefficients.basis, references, model.basis, table, memory=memory)
        else:
            found = correlate(in_lanes(coefficients.basis), references, model.basis, model.table)
    return shortlisted(*(values[: len(indices)] for values in found))


def shortlisted(score: np.ndarray, code: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return ids, scores and codes (n, q) of the best classes of each image, by rising class."""
    n, count = score.shape
    if count <= FEW:
        return np.broadcast_to(np.arange(count, dtype=np.int32), score.shape), score, code
    order = np.argsort(-score, axis=1, kind="stable")[:, :SHORTLIST]
    ids = np.sort(order, axis=1)
    rows = np.arange(n)[:, None]
    return ids.astype(np.int32), score[rows, ids], code[rows, ids]


def _update(
    population: Population, poses: Poses, code: np.ndarray, path: str, offsets: np.ndarray, count: int
) -> tuple[Poses, np.ndarray]:
    """Take the winners' poses in every chunk, and the class means over all."""
    images, owner = population.images, population.owner
    tasks = [
        (
            images,
            owner,
            chunk,
            population.indices[p],
            population.origins[p],
            poses[p],
            code[p],
            path,
            offsets,
            count,
        )
        for chunk, p in population.parts
    ]
    parts: list[Poses] = []
    total: np.ndarray | None = None
    for updated, sums in population.rounds.each(_update_chunk, tasks):
        parts.append(updated)
        total = sums if total is None else total + sums
    found = joined(parts)
    sizes = np.bincount(found.label, minlength=count)
    assert total is not None
    return found, (total / np.maximum(sizes, 1)[:, None, None]).astype(np.complex64)


def _update_chunk(
    images: Images,
    owner: str,
    chunk: int,
    indices: np.ndarray,
    origins: np.ndarray,
    poses: Poses,
    code: np.ndarray,
    path: str,
    offsets: np.ndarray,
    count: int,
) -> tuple[Poses, np.ndarray]:
    references = load_npy(path)
    with borrowed(images, owner, chunk, indices, poses.centre) as coefficients:
        taken = take_poses(images, coefficients.basis, references, poses, code, offsets, origins)
        coefficients.move(images, taken.centre)
        sums = sum_classes(coefficients.rings, taken.label, taken.angle, taken.mirror, count)
    return taken, sums


def take_poses(
    images: Images,
    basis: np.ndarray,
    references: np.ndarray,
    poses: Poses,
    code: np.ndarray,
    offsets: np.ndarray,
    origins: np.ndarray,
    *,
    farthest: float = FARTHEST,
) -> Poses:
    """Return the refined poses of images in their classes; codes below 0 are searched for first."""
    model = images.model
    code = code.copy()
    for i in np.flatnonzero(code < 0):
        own = references[poses.label[i]][None]
        code[i] = correlate(in_lanes(basis[i : i + 1]), own, model.basis, model.table)[1][0, 0]
    angle, mirror, offset = model.table.decode(code)
    spectra = pair_spectra(basis, references[poses.label, offset], mirror, model.basis)
    angle, score = refine_angles(spectra, angle, model.table.step)
    centre = poses.centre
    if len(offsets) > 1:
        centre = moved_centres(
            centre, origins, offsets[offset], angle, mirror, farthest=model.reach(farthest)
        )
    return Poses(poses.label, angle, mirror, centre, score)


def pass_offsets(offsets: np.ndarray, number: int, last: int) -> np.ndarray:
    """Return the offsets of a pass: all in every second one and at the end, else none."""
    return offsets if number % 2 == 0 or number >= last else STILL
