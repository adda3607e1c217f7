"""Masks in the template box: making one, and finding what symmetry about the centre one has."""

from typing import Literal

import numpy as np

MaskKind = Literal["spherical", "axial", "general"]

# largest change on averaging that still counts as unchanged
_TOLERANCE = 0.05


def sphere_mask(box: int, radius_voxels: float, edge_voxels: float) -> np.ndarray:
    """Return a sphere about voxel box//2 with a cosine edge outside its radius.

    Parameters
    ----------
    box
        Edge of the box, voxels.
    radius_voxels
        The mask is 1 up to this radius.
    edge_voxels
        It falls to 0 over this width; 0 for a hard edge.

    Returns
    -------
    numpy.ndarray
        (box, box, box) float32, 0 to 1.
    """
    offset = np.square(np.arange(box) - box // 2)
    distance = np.sqrt(offset[:, None, None] + offset[:, None] + offset)
    if edge_voxels == 0:
        return (distance <= radius_voxels).astype(np.float32)
    fall = np.clip((distance - radius_voxels) / edge_voxels, 0.0, 1.0)
    return (0.5 + 0.5 * np.cos(np.pi * fall)).astype(np.float32)


def mask_kind(mask: np.ndarray) -> MaskKind:
    """Say whether rotations leave a mask as it is: all of them, those about z, or none.

    Parameters
    ----------
    mask
        (n, n, n), 0 to 1, centred on voxel n//2.

    Returns
    -------
    str
        ``spherical``, ``axial`` or ``general``.
    """
    z, y, x = (np.square(np.arange(n) - n // 2) for n in mask.shape)
    around_z = y[:, None] + x
    if _change_on_averaging(mask, z[:, None, None] + around_z) <= _TOLERANCE:
        return "spherical"
    height = np.arange(len(z)) * (around_z.max() + 1)
    if _change_on_averaging(mask, height[:, None, None] + around_z) <= _TOLERANCE:
        return "axial"
    return "general"


def _change_on_averaging(mask: np.ndarray, label: np.ndarray) -> float:
    """Return the largest change of a voxel on replacing each by the mean over its label."""
    label = label.ravel()
    values = mask.ravel().astype(np.float64)
    means = np.bincount(label, values) / np.maximum(np.bincount(label), 1)
    return float(np.abs(means[label] - values).max())
