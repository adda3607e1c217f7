"""What a volume's file says about itself, whatever its format."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

Slices = tuple[slice, slice, slice]
Triple = tuple[float, float, float]

ISOTROPY = 0.01


@dataclass(frozen=True)
class VolumeHeader:
    """Format, shape and place of a volume; every triple is in (z, y, x) order.

    Attributes
    ----------
    format : str
        "mrc", "em", "zarr" or "hdf5".
    shape : tuple of int
        Voxels along z, y, x.
    dtype : numpy.dtype
        Type of a voxel as stored, in native byte order.
    spacing : tuple of float or None
        Voxel size along z, y, x in angstrom; None where the file does not know (0 or exactly 1).
    origin : tuple of float
        Position of voxel (0, 0, 0) in angstrom.
    chunks : tuple of int or None
        Shape of a stored chunk, None for a contiguous file.
    """

    format: str
    shape: tuple[int, int, int]
    dtype: np.dtype
    spacing: Triple | None
    origin: Triple = (0.0, 0.0, 0.0)
    chunks: tuple[int, int, int] | None = None

    @property
    def voxel_size(self) -> float | None:
        """Edge of a voxel in angstrom; None where it is unknown or the axes differ by more than 1 %."""
        if self.spacing is None or max(self.spacing) > (1 + ISOTROPY) * min(self.spacing):
            return None
        return float(f"{sum(self.spacing) / 3:.6g}")


def known_spacing(values: Sequence[float]) -> Triple | None:
    """Return the spacing (3,) in angstrom to six digits, None if a value is 0 or all are exactly 1."""
    z, y, x = (float(f"{float(value):.6g}") for value in values)
    if min(z, y, x) <= 0 or not np.isfinite([z, y, x]).all() or (z, y, x) == (1.0, 1.0, 1.0):
        return None
    return z, y, x


def as_spacing(voxel_size: float | Sequence[float] | None) -> Triple | None:
    """Return a spacing (z, y, x) from one voxel size, from three, or from None (unknown)."""
    if voxel_size is None:
        return None
    z, y, x = np.broadcast_to(np.asarray(voxel_size, dtype=float), 3).tolist()
    return z, y, x


def bounded_slices(slices: Sequence[slice], shape: Sequence[int]) -> Slices:
    """Return slices (z, y, x) with explicit bounds inside the shape and step 1."""
    z, y, x = (slice(*s.indices(n)[:2]) for s, n in zip(slices, shape, strict=True))
    return z, y, x


def block_slices(shape: Sequence[int], block: Sequence[int]) -> Iterator[Slices]:
    """Yield the slices (z, y, x) of consecutive blocks that cover the shape, x fastest."""
    starts = [range(0, n, b) for n, b in zip(shape, block, strict=True)]
    for corner in product(*starts):
        z, y, x = (slice(c, min(c + b, n)) for c, b, n in zip(corner, block, shape, strict=True))
        yield z, y, x
