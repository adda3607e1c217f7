"""Which rotations are near others: within a cone about an axis, and within a turn about that axis."""

import numpy as np

from cryodask.geometry.symmetry import symmetry_group

# so that a rotation on the border of a cone counts whichever way its numbers were rounded
TOLERANCE = 1e-7


def are_near(
    rotations: np.ndarray,
    centres: np.ndarray,
    *,
    cone: float | None = None,
    inplane_range: float | None = None,
    symmetry: str = "C1",
) -> np.ndarray:
    """Return which rotations lie near which centres, modulo the symmetry of what is rotated.

    Q = Cᵀ R g, g of the group, is a twist about z followed by a swing about an axis across z: the swing is
    the angle between the z axes of C and R g, the twist the in-plane angle. Each pair is computed by itself,
    so that the answer does not depend on what else is asked.

    Parameters
    ----------
    rotations, centres
        (R, 3, 3) and (C, 3, 3) matrices in (x, y, z).
    cone
        Largest swing, degrees; None: any.
    inplane_range
        Largest twist either way, degrees; None: any.
    symmetry
        Point group, as in `symmetry_group`.

    Returns
    -------
    numpy.ndarray
        (R, C) bool.
    """
    found = np.zeros((len(rotations), len(centres)), bool)
    for element in symmetry_group(symmetry).as_matrix():
        near = np.ones_like(found)
        turned = rotations @ element
        if cone is not None:
            near &= _entry(turned, centres, 2, 2) >= np.cos(np.radians(cone)) - TOLERANCE
        if inplane_range is not None:
            near &= _twist_cosine(turned, centres) >= np.cos(np.radians(inplane_range)) - TOLERANCE
        found |= near
        if cone is None and inplane_range is None:
            break
    return found


def _entry(rotations: np.ndarray, centres: np.ndarray, i: int, j: int) -> np.ndarray:
    """Return element (i, j) of CᵀR of every pair, summed in one order whatever the shapes."""
    first, second, third = (
        rotations[:, axis, j, None] * centres[None, :, axis, i].astype(np.float64) for axis in range(3)
    )
    return np.asarray(first + second + third)


def _twist_cosine(rotations: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Return the cosine of the twist; 1 where the z axes are opposite, which leaves it undefined."""
    along = _entry(rotations, centres, 0, 0) + _entry(rotations, centres, 1, 1)
    across = _entry(rotations, centres, 1, 0) - _entry(rotations, centres, 0, 1)
    length = np.hypot(along, across)
    return np.where(length > TOLERANCE, along / np.maximum(length, TOLERANCE), 1.0)
