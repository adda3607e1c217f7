"""Class averages at full size: CTF-weighted, filtered by what two halves of the class agree about.

Scheres (2012), "RELION: implementation of a Bayesian approach to cryo-EM structure determination", for the
filter; Rosenthal and Henderson (2003) for 0.143.
"""

from dataclasses import dataclass

import numpy as np
import scipy.fft
from scipy.ndimage import affine_transform

from cryodask.jobs.classify.frc import first_crossing, half_shells, shell_sums
from cryodask.jobs.classify.poses import Poses
from cryodask.jobs.classify.prepare import RawStack
from cryodask.jobs.classify.randomness import Purpose, hashed
from cryodask.kernels.class_sums import turned_vectors
from cryodask.optics.ctf_image import ImageCtf, ctf_at, half_plane

EDGE_START, EDGE = 2.0, 5.0  # pixels of the soft disc: where it begins inside the radius, and its width
BATCH = 128  # images read at once
HALF_RIDGE = 1e-3  # of the largest sum of squared transfer functions
NO_SIGNAL = 1e-3  # the correlation beyond the resolution
LIMIT = 0.143


@dataclass(frozen=True)
class FullAverage:
    """The average of a class at the size of the input.

    Parameters
    ----------
    image : (n, n) float32
    frc : (n//2 + 1,) float32
        Between halves of the class.
    resolution, resolution_0143 : float
        Angstrom, at 0.5 and at 0.143.
    ssnr : float
        Mean of 2 FRC / (1 - FRC) up to the resolution at 0.5.
    """

    image: np.ndarray
    frc: np.ndarray
    resolution: float
    resolution_0143: float
    ssnr: float


def full_average(
    raw: RawStack, indices: np.ndarray, poses: Poses, pixel_size: float, seed: int
) -> FullAverage:
    """Average the members of a class.

    Parameters
    ----------
    raw : RawStack
        Of the members alone.
    indices : (n,) int
        Their rows in the stack; the parity of their hash halves the class.
    poses : Poses
        Centres in input pixels from voxel n//2.
    pixel_size : angstrom
    """
    box = raw.shape.box
    sums = np.zeros((2, box, box // 2 + 1), np.complex128)
    weights = np.zeros((2, box, box // 2 + 1))
    half = (hashed(indices, seed, Purpose.HALVES) & np.uint64(1)).astype(np.int64)
    for start in range(0, len(indices), BATCH):
        rows = slice(start, start + BATCH)
        part = raw.take(rows)
        images = part.backgrounds_removed()
        for i, each in enumerate(images):
            j = start + i
            lying = laid_on_reference(each, poses.centre[j], poses.angle[j], poses.mirror[j])
            spectrum = scipy.fft.rfft2(lying.astype(np.float64))
            ctf = _transfer(part.optics, i, box, poses.angle[j], poses.mirror[j])
            sums[half[j]] += ctf * spectrum
            weights[half[j]] += np.square(ctf)
    return combine(sums, weights, soft_disc(box, raw.shape.radius), pixel_size)


def _transfer(
    optics: tuple[ImageCtf, ...] | None, number: int, box: int, angle: float, mirror: bool
) -> np.ndarray | float:
    """Return the transfer function of an image in its reference's frame."""
    if optics is None:
        return 1.0
    ky, kx = np.broadcast_arrays(*half_plane((box, box)))
    vectors = np.stack([kx.ravel(), ky.ravel()], axis=1)
    turned = turned_vectors(vectors, np.full(len(vectors), angle), np.full(len(vectors), mirror))
    return ctf_at(turned[:, 1], turned[:, 0], optics[number]).reshape(box, -1)


def laid_on_reference(image: np.ndarray, centre: np.ndarray, angle: float, mirror: bool) -> np.ndarray:
    """Return an image (n, n) laid onto its reference by a cubic spline: I(c + s + M^mu Rot(phi) x)."""
    middle = np.full(2, image.shape[0] // 2, np.float64)
    axes = turned_vectors(np.eye(2), np.full(2, angle), np.full(2, mirror))  # images of x and y
    matrix = axes.T[::-1, ::-1]  # in (y, x)
    offset = middle + np.asarray(centre, np.float64)[::-1] - matrix @ middle
    return affine_transform(image, matrix, offset, order=3, mode="constant", cval=0.0)


def soft_disc(box: int, radius: float) -> np.ndarray:
    """Return a disc of 1 up to 2 pixels inside the radius, falling as a cosine over 5 pixels, (n, n)."""
    axis = np.arange(box) - box // 2
    distance = np.hypot(axis[:, None], axis)
    fall = np.clip((distance - (radius - EDGE_START)) / EDGE, 0, 1)
    return 0.5 + 0.5 * np.cos(np.pi * fall)


def combine(sums: np.ndarray, weights: np.ndarray, disc: np.ndarray, pixel_size: float) -> FullAverage:
    """Join the halves of a class.

    Parameters
    ----------
    sums : (2, n, n//2 + 1) complex128
        Sum of CTF F of each half.
    weights : (2, n, n//2 + 1) float64
        Sum of CTF^2.
    disc : (n, n)
        Within which the halves are compared.
    pixel_size : angstrom
    """
    box = len(disc)
    ridge = HALF_RIDGE * max(weights.max(), 1e-12)
    halves = scipy.fft.irfft2(sums / (weights + ridge), s=disc.shape) * disc
    a, b = scipy.fft.rfft2(halves[0]), scipy.fft.rfft2(halves[1])
    joint, total = shell_sums((a * b.conj()).real, box), weights.sum(axis=0)
    power = shell_sums(np.abs(a) ** 2, box) * shell_sums(np.abs(b) ** 2, box)
    frc = np.where(power > 0, joint / np.sqrt(np.maximum(power, 1e-300)), 0.0)
    tau = _signal_to_noise(frc, shell_sums(total, box) / shell_sums(np.ones_like(total), box))
    inverse = 1 / tau[np.minimum(half_shells(box), box // 2)]
    image = scipy.fft.irfft2(sums.sum(axis=0) / (total + inverse), s=disc.shape)
    length = pixel_size * box
    at_half = max(first_crossing(frc, 0.5), 1e-3)
    good = frc[1 : max(2, int(at_half) + 1)]
    ssnr = float(np.mean(2 * good / np.maximum(1 - good, 1e-3)))
    resolution = length / at_half
    return FullAverage(
        image.astype(np.float32),
        frc.astype(np.float32),
        resolution,
        length / max(first_crossing(frc, LIMIT), 1e-3),
        ssnr,
    )


def _signal_to_noise(frc: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return tau of each ring: signal over noise of the whole class, per unit of squared transfer."""
    smooth = np.convolve(np.pad(frc, 1, mode="edge"), [0.25, 0.5, 0.25], mode="valid")
    below = np.flatnonzero(smooth < LIMIT)
    if len(below):
        smooth[below[0] :] = NO_SIGNAL
    smooth = np.clip(smooth, NO_SIGNAL, 0.999)
    tau = 2 * smooth / (1 - smooth) / np.maximum(weight, 1e-12)
    return np.maximum(tau, 1e-4 * tau.max())
