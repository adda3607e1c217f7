"""Pre-alignment: every image brought to the centre of the one class of all, rotations thrown away."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.fft

from cryodask.arrays.npy import load_npy
from cryodask.jobs.classify.frc import first_crossing, ring_correlation
from cryodask.jobs.classify.model import STILL, Model, offset_grid
from cryodask.jobs.classify.passes import Population, take_poses
from cryodask.jobs.classify.poses import Poses, first_poses, joined
from cryodask.jobs.classify.shards import Images, borrowed
from cryodask.kernels.class_sums import sum_classes
from cryodask.kernels.polar_correlation import correlate, in_lanes

ITERATIONS = 14  # of each step
BAR_ITERATIONS = 5  # in which filaments are laid on a bar
LOWEST, HIGHEST = 0.12, 0.40  # cycles per pixel, of the reference's low-pass
SHARPEST = 0.2  # its fall-off


@dataclass(frozen=True)
class Prealignment:
    """Centres, and how they came about.

    Parameters
    ----------
    centres : (n, 2) float32, x y
        Working pixels from voxel L//2.
    kept : bool
        False where the images fit their average no better than about the middles of their boxes; then all
        centres are 0.
    pictures : (iterations, L, L) float32
        The average of every iteration.
    table : DataFrame
        iteration, range, step, cutoff, score.
    """

    centres: np.ndarray
    kept: bool
    pictures: np.ndarray
    table: pd.DataFrame


def steps(box: int, radius: int) -> Iterator[tuple[int, int]]:
    """Yield range and step of the offsets, coarse to fine, pixels."""
    step = (box - 2 * (radius + 1)) // 2
    while step // 4 > 0:
        yield 4 * (step // 4), step // 4
        step //= 2
    if step > 0:
        yield step, 1


def prealign(population: Population, tell: Callable[[str], None]) -> Prealignment:
    """Align all images to their average, coarse to fine.

    Parameters
    ----------
    population : Population
        Whose model is one for unaligned images.
    """
    model, count = population.images.model, len(population.indices)
    farthest = float((model.box - 2 * (model.grid.last + 1)) // 2)
    poses = first_poses(population.origins)
    sums = _round(population, poses, None, STILL, farthest)[1]
    rows: list[tuple[int, int, int, float, float]] = []
    pictures: list[np.ndarray] = []
    average = sums.sum(axis=0) / count
    cutoff = model.cutoff
    for reach, step in steps(model.box, model.grid.last):
        offsets = offset_grid(0 if model.bar else reach, reach, step)
        for _ in range(ITERATIONS):
            if not model.bar:
                average = _centred(model, average)
            elif len(rows) < BAR_ITERATIONS:
                average = _bar(model)
            cutoff = _cutoff(model, sums)
            references = replace(model, falloff=min(model.falloff, SHARPEST)).references(
                average[None].astype(np.complex64), offsets, cutoff
            )
            poses, sums = _round(population, poses, references, offsets, farthest)
            average = sums.sum(axis=0) / count
            pictures.append(model.grid.images(average[None].astype(np.complex64), model.box)[0])
            rows.append((len(rows) + 1, reach, step, cutoff, float(poses.score.mean(dtype=np.float64))))
    table = pd.DataFrame(rows, columns=["iteration", "range", "step", "cutoff", "score"])
    kept = bool(rows) and _is_better(population, poses, average, cutoff, farthest)
    if rows and not kept:
        tell(
            "pre-alignment is undone: images fit the average no better than about the middles of their boxes"
        )
    centres = poses.centre if kept else population.origins
    if model.bar:
        centres = np.rint(centres).astype(np.float32)
    shown = np.array(pictures, np.float32).reshape(-1, model.box, model.box)
    return Prealignment(centres, kept, shown, table)


def _is_better(
    population: Population, poses: Poses, average: np.ndarray, cutoff: float, farthest: float
) -> bool:
    """Say whether the final average fits images better about their new centres than about the old."""
    references = population.images.model.references(average[None].astype(np.complex64), STILL, cutoff)
    fits = [
        _round(population, first_poses(centres), references, STILL, farthest)[0].score.mean(dtype=np.float64)
        for centres in (poses.centre, population.origins)
    ]
    return bool(fits[0] > fits[1])


def _round(
    population: Population,
    poses: Poses,
    references: np.ndarray | None,
    offsets: np.ndarray,
    farthest: float,
) -> tuple[Poses, np.ndarray]:
    """Align every image and return poses and the sums of even and odd images, (2, R, M)."""
    images = population.images
    path = None if references is None else images.publish("average", references)
    tasks = [
        (images, chunk, population.indices[p], population.origins[p], poses[p], path, offsets, farthest)
        for chunk, p in population.parts
    ]
    parts: list[Poses] = []
    total: np.ndarray | float = 0.0
    for aligned, sums in population.rounds.each(_align_chunk, tasks):
        parts.append(aligned)
        total = total + sums
    if path is not None:
        Path(path).unlink(missing_ok=True)
    return joined(parts), np.asarray(total)


def _align_chunk(
    images: Images,
    chunk: int,
    indices: np.ndarray,
    origins: np.ndarray,
    poses: Poses,
    path: str | None,
    offsets: np.ndarray,
    farthest: float,
) -> tuple[Poses, np.ndarray]:
    model = images.model
    poses = poses.replaced(label=np.zeros(len(indices), np.int32))
    with borrowed(images, "prealignment", chunk, indices, poses.centre) as coefficients:
        if path is not None:
            references = load_npy(path)
            code = correlate(in_lanes(coefficients.basis), references, model.basis, model.table)[1]
            poses = take_poses(
                images,
                coefficients.basis,
                references,
                poses,
                code[: len(indices), 0],
                offsets,
                origins,
                farthest=farthest,
            )
            coefficients.move(images, poses.centre)
        half = indices % 2
        return poses, sum_classes(coefficients.rings, half, poses.angle, poses.mirror, 2)


def _cutoff(model: Model, sums: np.ndarray) -> float:
    """Return the frequency at which the averages of even and odd images agree by half, within bounds."""
    halves = model.grid.images(sums.astype(np.complex64), model.box) * model.inside
    crossing = first_crossing(ring_correlation(halves[0], halves[1]), 0.5) / model.box
    return float(np.clip(crossing, LOWEST, HIGHEST))


def _centred(model: Model, average: np.ndarray) -> np.ndarray:
    """Return an average moved onto its own rotational average: else the reference drifts off the middle."""
    round_part = np.zeros_like(average)
    round_part[:, 0] = average[:, 0]
    pictures = model.grid.images(np.stack([average, round_part]).astype(np.complex64), model.box)
    spectra = scipy.fft.rfft2(pictures * model.inside)
    correlation = scipy.fft.fftshift(scipy.fft.irfft2(spectra[0] * spectra[1].conj(), s=pictures.shape[1:]))
    y, x = np.unravel_index(correlation.argmax(), correlation.shape)
    offset = np.array([_peak(correlation[y], int(x)), _peak(correlation[:, x], int(y))]) - model.box // 2
    return model.grid.coefficients(pictures[:1], offset[None])[0].astype(np.complex128)


def _bar(model: Model) -> np.ndarray:
    """Return a bar of the width of filaments along x, (R, M)."""
    axis = np.arange(model.box) - model.box // 2
    picture = np.tile((np.abs(axis) <= model.bar / 2)[:, None], (1, model.box)).astype(np.float32)
    return model.grid.coefficients(picture[None], np.zeros((1, 2)))[0].astype(np.complex128)


def _peak(line: np.ndarray, place: int) -> float:
    """Return the place of a maximum by the parabola through its neighbours."""
    if not 0 < place < len(line) - 1:
        return float(place)
    low, middle, high = line[place - 1 : place + 2]
    curvature = low - 2 * middle + high
    return float(place + (0.5 * (low - high) / curvature if curvature < 0 else 0.0))
