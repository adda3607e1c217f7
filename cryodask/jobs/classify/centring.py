"""Centres of single images, before anything is averaged: the methods of ISAC's `center_method`."""

import numpy as np
import scipy.fft

from cryodask.jobs.classify.preparation import WorkingShape
from cryodask.jobs.classify.shards import Images
from cryodask.search.rounds import Rounds

MEAN, MASS = -1, 1


def centred_images(images: Images, method: int, shape: WorkingShape, rounds: Rounds) -> np.ndarray:
    """Return centres (n, 2) float32, x y, working pixels, that keep the particle's circle in the box.

    Parameters
    ----------
    images : Images
    method : int
        -1 the mean shift: centre of mass of all pixels above the median; 1 centre of mass of the positive
        part; others cross-correlation with the rotational average.
    shape : WorkingShape
    """
    tasks = [
        (images, np.arange(part.start, part.stop), method, shape.working_radius)
        for _, part in images.parts(np.arange(images.count))
    ]
    reach = max(0.0, (shape.working_box - 2 * (shape.working_radius + 1)) // 2)
    return np.clip(np.concatenate(rounds.map(_centres, tasks)), -reach, reach).astype(np.float32)


def _centres(images: Images, indices: np.ndarray, method: int, radius: float) -> np.ndarray:
    pictures = images.read(indices).astype(np.float64)
    if method == MEAN:
        return _centre_of_mass(np.maximum(pictures - np.median(pictures, axis=(1, 2), keepdims=True), 0))
    if method == MASS:
        return _centre_of_mass(np.maximum(pictures, 0))
    return _round_centre(pictures, radius)


def _centre_of_mass(weights: np.ndarray) -> np.ndarray:
    """Return the centres of mass of images (n, L, L) from voxel L//2."""
    axis = np.arange(weights.shape[1]) - weights.shape[1] // 2
    total = np.maximum(weights.sum(axis=(1, 2)), 1e-12)
    x, y = (weights.sum(axis=1) @ axis) / total, (weights.sum(axis=2) @ axis) / total
    return np.stack([x, y], axis=1)


def _round_centre(pictures: np.ndarray, radius: float) -> np.ndarray:
    """Return where the rotational average of each image fits it best, whole pixels."""
    box = pictures.shape[1]
    axis = np.arange(box) - box // 2
    ring = np.rint(np.hypot(axis[:, None], axis)).astype(np.int64)
    counts = np.bincount(ring.ravel())
    means = np.stack([np.bincount(ring.ravel(), each.ravel()) / counts for each in pictures])
    averages = np.where(ring <= radius, means[:, ring], 0)
    product = scipy.fft.rfft2(pictures) * scipy.fft.rfft2(averages).conj()
    correlation = scipy.fft.fftshift(scipy.fft.irfft2(product, s=(box, box)), axes=(1, 2))
    best = correlation.reshape(len(pictures), -1).argmax(axis=1)
    return np.stack([best % box - box // 2, best // box - box // 2], axis=1).astype(np.float64)
