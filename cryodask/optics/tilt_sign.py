"""Whether tilt angles have the sign of the tomogram, told from where its spectrum has power."""

import warnings
from dataclasses import dataclass

import numpy as np

from cryodask.errors import InputError
from cryodask.optics.frequency import half_frequencies, template_radius
from cryodask.optics.periodogram import hann_power
from cryodask.optics.wedge import filled_wedge

# a series whose limits add up to less (degrees) looks the same with either sign
_LEAST_ASYMMETRY = 2.0
_LEAST_RADIUS = 5.0
_LARGEST_RADIUS = 0.45


@dataclass(frozen=True)
class WedgePower:
    """Power found where only the given, or only the opposite, tilt sign samples; sums of slabs add up."""

    given: float = 0.0
    given_count: int = 0
    opposite: float = 0.0
    opposite_count: int = 0

    def __add__(self, other: "WedgePower") -> "WedgePower":
        return WedgePower(
            self.given + other.given,
            self.given_count + other.given_count,
            self.opposite + other.opposite,
            self.opposite_count + other.opposite_count,
        )

    @property
    def ratio(self) -> float:
        """Mean power of the given sign over that of the opposite; nan where either samples nothing alone."""
        if not (self.given_count and self.opposite_count and self.opposite > 0):
            return float("nan")
        return (self.given / self.given_count) / (self.opposite / self.opposite_count)


def wedge_power(
    power: np.ndarray,
    kz: np.ndarray,
    ky: np.ndarray,
    kx: np.ndarray,
    angle_range: tuple[float, float],
    box: int,
    voxel_size: float,
) -> WedgePower:
    """Return the power of a slab of a spectrum in the wedges of both tilt signs.

    Parameters
    ----------
    power
        (z, y, x) squared modulus of the spectrum, before any wedge.
    kz, ky, kx
        Its frequencies, broadcastable, 1/angstrom.
    angle_range
        Least and greatest tilt, degrees.
    box
        Edge of the template box, voxels: radii from 5 to 0.45 box of its Fourier pixels count.
    voxel_size
        Angstrom.
    """
    least, greatest = angle_range
    radius = template_radius(kz, ky, kx, box, voxel_size)
    counted = (radius >= _LEAST_RADIUS) & (radius < _LARGEST_RADIUS * box)
    given = filled_wedge(kz, ky, kx, (least, greatest), box, voxel_size)
    opposite = filled_wedge(kz, ky, kx, (-greatest, -least), box, voxel_size)
    only_given = power[counted & given & ~opposite]
    only_opposite = power[counted & opposite & ~given]
    return WedgePower(
        float(only_given.sum(dtype=np.float64)),
        only_given.size,
        float(only_opposite.sum(dtype=np.float64)),
        only_opposite.size,
    )


def volume_wedge_power(
    volume: np.ndarray, angle_range: tuple[float, float], box: int, voxel_size: float
) -> WedgePower:
    """Return the power of a piece of a tomogram, under a Hann window, in the wedges of both tilt signs.

    Parameters
    ----------
    volume
        (z, y, x).
    angle_range
        Least and greatest tilt, degrees.
    box
        Edge of the template box, voxels.
    voxel_size
        Angstrom.
    """
    frequencies = half_frequencies(volume.shape, voxel_size)
    return wedge_power(hann_power(volume), *frequencies, angle_range, box, voxel_size)


def check_tilt_sign(ratio: float, angle_range: tuple[float, float]) -> None:
    """Raise or warn where the power ratio says that tilt angles have the wrong sign.

    Parameters
    ----------
    ratio
        Of `WedgePower`; nan passes.
    angle_range
        Least and greatest tilt, degrees; symmetric limits pass, for they cannot tell.

    Raises
    ------
    InputError
        There is more than twice the power in the opposite wedge.
    """
    if abs(sum(angle_range)) < _LEAST_ASYMMETRY:
        return
    if ratio < 0.5:
        raise InputError(f"tilt angles look inverted (power ratio {ratio:.2f}), set tilt_sign: -1")
    if ratio <= 2.0:
        warnings.warn(f"the sign of the tilt angles is uncertain (power ratio {ratio:.2f})", stacklevel=2)
