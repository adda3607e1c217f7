"""The filter of a whole tomogram, evaluated on any slab of its half spectrum."""

from collections.abc import Sequence

import numpy as np

from cryodask.errors import InputError
from cryodask.optics.bandpass import BandPass
from cryodask.optics.frequency import template_radius
from cryodask.optics.template_filter import RadialWeight, Wedge
from cryodask.optics.tilts import TiltSeries
from cryodask.optics.wedge import filled_wedge, slice_wedge


def tomogram_filter(
    kz: np.ndarray,
    ky: np.ndarray,
    kx: np.ndarray,
    box: int,
    voxel_size: float,
    tilts: TiltSeries | None,
    band: BandPass,
    *,
    wedge: Wedge = "filled",
    longest_edge: int | None = None,
    radial_weights: Sequence[RadialWeight] = (),
) -> np.ndarray:
    """Return the band times the sampled region at frequencies of a tomogram; 0 at the origin.

    Parameters
    ----------
    kz, ky, kx
        Broadcastable, 1/angstrom: `half_frequencies` of the (padded) tomogram, or slices of them.
    box
        Edge of the template box, voxels; the band and the wedge are measured in its Fourier pixels.
    voxel_size
        Angstrom.
    tilts
        The series; None for data without a missing wedge.
    band
        The band of the search.
    wedge
        ``filled``: between the limits of the series. ``slices``: the slabs of the tilts, as thin as Fourier
        pixels of the tomogram (STOPGAP). ``none``: everywhere.
    longest_edge
        The longer of the tomogram's edges along x and z, voxels; for ``slices``.
    radial_weights
        Further factors, functions of the frequency in 1/angstrom (whitening; `numpy.square` for |k|^2).

    Returns
    -------
    numpy.ndarray
        float32, the shape that kz, ky, kx broadcast to.

    Raises
    ------
    InputError
        ``slices`` without `longest_edge`, or with a range of angles alone.
    """
    radius = template_radius(kz, ky, kx, box, voxel_size)
    weights = band.curve(radius, box)
    if tilts is not None and wedge == "filled":
        weights *= filled_wedge(kz, ky, kx, tilts.angle_range, box, voxel_size)
    elif tilts is not None and wedge == "slices":
        if longest_edge is None or tilts.is_range:
            raise InputError("wedge = slices: needs the angle of every tilt and the tomogram's longest edge")
        weights *= slice_wedge(kz, ky, kx, tilts.angles, longest_edge, voxel_size) > 0
    for factor in radial_weights:
        weights *= factor(radius / (box * voxel_size))
    return weights.astype(np.float32)
