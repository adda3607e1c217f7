"""What a pass decides for every image: class, angle, mirror, centre and score."""

from dataclasses import dataclass, fields, replace

import numpy as np

from cryodask.kernels.class_sums import turned_vectors

FARTHEST = 4.0  # pixels of a centre from the pre-aligned one, along x and along y


@dataclass(frozen=True)
class Poses:
    """Poses of n images.

    Parameters
    ----------
    label : (n,) int32
        Class, or -1.
    angle : (n,) float64, radians
    mirror : (n,) bool
    centre : (n, 2) float32, x y
        Working pixels from voxel L//2.
    score : (n,) float32
        Correlation with the image's reference, sigma of the noise.
    """

    label: np.ndarray
    angle: np.ndarray
    mirror: np.ndarray
    centre: np.ndarray
    score: np.ndarray

    def __getitem__(self, rows: slice | np.ndarray) -> "Poses":
        return Poses(*(getattr(self, each.name)[rows] for each in fields(self)))

    def __len__(self) -> int:
        return len(self.label)

    def replaced(self, **values: np.ndarray) -> "Poses":
        """Return the poses with some columns replaced."""
        return replace(self, **values)


def first_poses(centres: np.ndarray) -> Poses:
    """Return poses of no class about given centres."""
    n = len(centres)
    return Poses(
        np.full(n, -1, np.int32),
        np.zeros(n),
        np.zeros(n, bool),
        np.asarray(centres, np.float32),
        np.zeros(n, np.float32),
    )


def joined(parts: list[Poses]) -> Poses:
    """Return the poses of several sets of images, one after the other."""
    return Poses(*(np.concatenate([getattr(p, each.name) for p in parts]) for each in fields(Poses)))


def moved_centres(
    centres: np.ndarray,
    origins: np.ndarray,
    offsets: np.ndarray,
    angle: np.ndarray,
    mirror: np.ndarray,
    *,
    farthest: float | np.ndarray = FARTHEST,
) -> np.ndarray:
    """Return s - M^mu Rot(phi) d, kept within reach of the pre-aligned centres.

    Parameters
    ----------
    centres, origins : (n, 2) float32
        Present and pre-aligned centres s.
    offsets : (n, 2)
        d, in the reference's frame.
    angle, mirror : (n,)
    farthest : float or (2,)
        Pixels from the origins, along x and along y.
    """
    moved = centres - turned_vectors(offsets, angle, mirror)
    return np.clip(moved, origins - farthest, origins + farthest).astype(np.float32)
