"""Alignment stability: members of a class aligned anew from random poses, and how far the results differ.

Yang, Fang, Chittuluru, Asturias and Penczek (2012), "Iterative stable alignment and clustering of 2D
transmission electron microscope images".
"""

from dataclasses import dataclass

import numpy as np

from cryodask.jobs.classify.model import STILL
from cryodask.jobs.classify.passes import Classes, Population, take_poses
from cryodask.jobs.classify.poses import Poses
from cryodask.jobs.classify.randomness import Purpose, uniform
from cryodask.jobs.classify.shards import Coefficients, Images, transformed
from cryodask.kernels.class_sums import sum_classes, turned_back
from cryodask.kernels.polar_correlation import correlate, in_lanes, pair_spectra

LEAST_MEMBERS = 5
FIRST_CUTOFF = 0.1  # cycles per pixel, of the first reference of a restart
OUTLIER = 3.0  # times the threshold: images beyond it are left out of the runs' superposition
MOST_IN_TASK = 4096  # members of a class; a larger one has a task a restart
KICK = 4  # every so many iterations angles are multiples of dst


@dataclass(frozen=True)
class StabilitySettings:
    """What decides the stability test.

    Parameters
    ----------
    restarts, iterations : int
        J and the most iterations of each.
    threshold : float
        Pixel error of a stable image at the last ring.
    offsets : (S, 2)
    kick : float
        Degrees; 0 for none.
    seed : int
    """

    restarts: int
    iterations: int
    threshold: float
    offsets: np.ndarray
    kick: float
    seed: int


@dataclass(frozen=True)
class Stability:
    """Stability of a population.

    Parameters
    ----------
    error : (n,) float32
        Pixel error; infinite where mirrors differ, NaN where not tested.
    mirror_rate : (K,) float32
        Share of members whose mirror is the same in all restarts.
    class_error : (K,) float32
        Root mean square error of the members of stable mirror.
    """

    error: np.ndarray
    mirror_rate: np.ndarray
    class_error: np.ndarray


def class_stability(population: Population, classes: Classes, settings: StabilitySettings) -> Stability:
    """Test every class."""
    members = [np.flatnonzero(classes.poses.label == k) for k in range(classes.count)]
    tasks = []
    for k, rows in enumerate(members):
        groups = [range(settings.restarts)]
        if len(rows) > MOST_IN_TASK:
            groups = [range(j, j + 1) for j in range(settings.restarts)]
        for restarts in groups if len(rows) >= LEAST_MEMBERS else ():
            own = (population.images, population.indices[rows], classes.poses.centre[rows], k)
            tasks.append((*own, list(restarts), settings))
    error = np.full(len(population.indices), np.nan, np.float32)
    rate, mean = np.full(classes.count, np.nan, np.float32), np.full(classes.count, np.nan, np.float32)
    found: dict[int, list[Poses]] = {}
    for k, poses in population.rounds.each(_align_class, tasks):
        found.setdefault(k, []).extend(poses)
    radius = population.images.model.grid.last
    for k, aligned in found.items():
        own_error = pixel_errors(aligned, radius, settings.threshold)
        same = np.isfinite(own_error)
        error[members[k]], rate[k] = own_error, same.mean()
        mean[k] = np.sqrt(np.square(own_error[same]).mean()) if same.any() else np.inf
    return Stability(error, rate, mean)


def _align_class(
    images: Images,
    indices: np.ndarray,
    centres: np.ndarray,
    number: int,
    restarts: list[int],
    settings: StabilitySettings,
) -> tuple[int, list[Poses]]:
    """Align the members of a class from several random starts; centres of the poses are relative ones."""
    first = transformed(images, indices, centres)
    found = []
    for restart in restarts:
        start = Coefficients(first.indices, first.centres, first.rings.copy(), first.basis.copy())
        found.append(_restart(images, start, number, restart, settings))
    return number, found


def _restart(
    images: Images, members: Coefficients, number: int, restart: int, settings: StabilitySettings
) -> Poses:
    model, origins = images.model, members.centres.copy()
    count = len(origins)
    key = (settings.seed, number, restart)
    poses = Poses(
        np.zeros(count, np.int32),
        model.random_angles(uniform(members.indices, Purpose.RESTART, *key)),
        uniform(members.indices, Purpose.MIRROR, *key) < 0.5,
        origins,
        np.zeros(count, np.float32),
    )
    last = settings.iterations - 1
    for iteration in range(settings.iterations):
        mean = sum_classes(members.rings, poses.label, poses.angle, poses.mirror, 1) / count
        cutoff = FIRST_CUTOFF + (model.cutoff - FIRST_CUTOFF) * iteration / last
        offsets = settings.offsets if iteration % 2 or iteration >= last - 1 else STILL
        references = model.references(mean.astype(np.complex64), offsets, cutoff)
        code = correlate(in_lanes(members.basis), references, model.basis, model.table)[1][:count, 0]
        poses = take_poses(images, members.basis, references, poses, code, offsets, origins)
        if settings.kick and iteration % KICK == KICK - 1 and iteration < last:
            poses = _kicked(images, members, references[:, 0], poses, settings.kick)
        if iteration < last:
            members.move(images, poses.centre)
    return poses.replaced(centre=poses.centre - origins)


def _kicked(
    images: Images, members: Coefficients, references: np.ndarray, poses: Poses, step: float
) -> Poses:
    """Return the poses at the best multiples of a step, degrees."""
    model = images.model
    angles = np.radians(np.arange(0, 360, step))
    spectra = pair_spectra(members.basis, references[poses.label], poses.mirror, model.basis)
    waves = np.exp(1j * np.outer(np.arange(model.grid.frequencies), angles))
    return poses.replaced(angle=angles[(spectra @ waves).real.argmax(axis=1)])


def pixel_errors(restarts: list[Poses], radius: float, threshold: float) -> np.ndarray:
    """Return the pixel error of each image over restarts.

    The error is the root mean square displacement over the disc of pixels, about the mean rotation and shift:
    e^2 = R^2 (1 - |mean e^(i phi)|) + var x + var y.

    Parameters
    ----------
    restarts : J poses of the same images
        Centres relative to the common ones.
    radius : float
        R, pixels.
    threshold : float
        Images beyond three times it are left out once when restarts are superposed.

    Returns
    -------
    (n,) float64
        Infinite where mirrors differ.
    """
    angle = np.stack([p.angle for p in restarts])
    mirror = np.stack([p.mirror for p in restarts])
    shift = np.stack([turned_back(p.centre.astype(np.float64), p.angle, p.mirror) for p in restarts])
    for j in range(len(restarts) - 1):
        if (mirror[j] == mirror[-1]).mean() < 0.5:  # the whole restart found the mirror image
            mirror[j], angle[j] = ~mirror[j], -angle[j]
            shift[j, :, 1] *= -1
    same = (mirror == mirror[-1]).all(axis=0)
    if not same.any():
        return np.full(angle.shape[1], np.inf)
    error = _errors(*_superposed(angle, shift, same), radius)
    near = same & (error <= OUTLIER * threshold)
    if near.any():
        error = _errors(*_superposed(angle, shift, near), radius)
    return np.where(same, error, np.inf)


def _superposed(angle: np.ndarray, shift: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Turn and move every restart onto the last, by the images in `rows`."""
    angle, shift = angle.copy(), shift.copy()
    for j in range(len(angle) - 1):
        turn = np.angle(np.exp(1j * (angle[-1] - angle[j]))[rows].sum())
        angle[j] += turn
        shift[j] = turned_back(shift[j], np.full(len(shift[j]), turn), np.zeros(len(shift[j]), bool))
        shift[j] += (shift[-1] - shift[j])[rows].mean(axis=0)
    return angle, shift


def _errors(angle: np.ndarray, shift: np.ndarray, radius: float) -> np.ndarray:
    turned = radius**2 * (1 - np.abs(np.exp(1j * angle).mean(axis=0)))
    return np.sqrt(np.maximum(turned + shift.var(axis=0).sum(axis=1), 0.0))
