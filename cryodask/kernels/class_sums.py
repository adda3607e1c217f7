"""Poses applied to ring coefficients: sums over classes, and single images in their references' frames.

A pose is an angle phi and a mirror mu: conj^mu(A) e^(i m phi) lies on the reference, so the image is its
reference rotated by phi and, where mu is set, mirrored (y -> -y) after that.
"""

import numba
import numpy as np

from cryodask.kernels.transforms import JIT


def sum_classes(
    coefficients: np.ndarray, label: np.ndarray, angle: np.ndarray, mirror: np.ndarray, count: int
) -> np.ndarray:
    """Return the sum of the aligned coefficients of each class.

    Parameters
    ----------
    coefficients : (n, R, M) complex64
    label : (n,) int
        Class of each image; those below 0 count nowhere.
    angle : (n,) radians
    mirror : (n,) bool
    count : int
        Number of classes K.

    Returns
    -------
    (K, R, M) complex128
        Added in the order of the images.
    """
    total = np.zeros((count, *coefficients.shape[1:]), np.complex128)
    _add(coefficients, np.asarray(label, np.int64), np.asarray(angle, np.float64), np.asarray(mirror), total)
    return total


def aligned(
    coefficients: np.ndarray, frequency: np.ndarray, angle: np.ndarray, mirror: np.ndarray
) -> np.ndarray:
    """Return coefficients (n, .., c) laid onto their references; `frequency` (c,) is m of the last axis."""
    shape = (len(coefficients),) + (1,) * (coefficients.ndim - 1)
    turned = np.where(np.reshape(mirror, shape), coefficients.conj(), coefficients)
    return (turned * np.exp(1j * frequency * np.reshape(angle, shape))).astype(np.complex64)


def laid_back(
    coefficients: np.ndarray, frequency: np.ndarray, angle: np.ndarray, mirror: np.ndarray
) -> np.ndarray:
    """Return coefficients (n, c) of references laid onto their images: the inverse of `aligned`."""
    turned = coefficients * np.exp(-1j * frequency * angle[:, None])
    return np.where(mirror[:, None], turned.conj(), turned).astype(np.complex64)


def turned_vectors(vectors: np.ndarray, angle: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    """Return M^mu Rot(phi) v: vectors (n, 2), x y, of the reference's frame in that of the image."""
    c, s = np.cos(angle), np.sin(angle)
    x, y = vectors[..., 0], vectors[..., 1]
    return np.stack([c * x - s * y, np.where(mirror, -1.0, 1.0) * (s * x + c * y)], axis=-1)


def turned_back(vectors: np.ndarray, angle: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    """Return Rot(-phi) M^mu v: vectors (n, 2), x y, of the image's frame in that of the reference."""
    c, s = np.cos(angle), np.sin(angle)
    x, y = vectors[..., 0], np.where(mirror, -1.0, 1.0) * vectors[..., 1]
    return np.stack([c * x + s * y, c * y - s * x], axis=-1)


@numba.njit(fastmath=True, **JIT)
def _add(a: np.ndarray, label: np.ndarray, angle: np.ndarray, mirror: np.ndarray, total: np.ndarray) -> None:
    frequencies = a.shape[2]
    cosine, sine = np.empty(frequencies), np.empty(frequencies)
    for i in range(a.shape[0]):
        if label[i] < 0:
            continue
        for m in range(frequencies):
            cosine[m], sine[m] = np.cos(m * angle[i]), np.sin(m * angle[i])
        sign = -1.0 if mirror[i] else 1.0
        for r in range(a.shape[1]):
            for m in range(frequencies):
                re, im = a[i, r, m].real, sign * a[i, r, m].imag
                total[label[i], r, m] += complex(re * cosine[m] - im * sine[m], re * sine[m] + im * cosine[m])
