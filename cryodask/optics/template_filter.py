"""The filter that gives a template the missing wedge, the optics and the band of its tomogram."""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from cryodask.errors import InputError
from cryodask.optics.bandpass import BandPass
from cryodask.optics.ctf import CtfForm, box_ctf
from cryodask.optics.dose import DoseFilter
from cryodask.optics.frequency import half_frequencies, template_radius
from cryodask.optics.tilts import TiltSeries
from cryodask.optics.wedge import filled_wedge, in_slab

Wedge = Literal["filled", "slices", "none"]
RadialWeight = Callable[[np.ndarray], np.ndarray]
# a factor of one tilt, over the frequency in Fourier pixels of the box
_TiltFactor = Callable[[int, np.ndarray], np.ndarray]


def template_filter(
    box: int,
    voxel_size: float,
    tilts: TiltSeries | None,
    band: BandPass,
    *,
    wedge: Wedge = "filled",
    ctf: CtfForm | None = None,
    dose: DoseFilter | None = None,
    tilt_weight: Literal["none", "cos"] = "none",
    filter_average: Literal["tilts", "product"] = "tilts",
    radial_weights: Sequence[RadialWeight] = (),
) -> np.ndarray:
    """Return the band times the mean, over the tilts that sample a frequency, of their optics.

    Parameters
    ----------
    box
        Edge of the template box, voxels.
    voxel_size
        Angstrom.
    tilts
        The series; None for data without a missing wedge.
    band
        The band of the search.
    wedge
        ``none``: every tilt samples every frequency. ``filled`` and ``slices``, which tell tomogram filters
        apart, are one here: a tilt samples its slab, a range of angles all between its limits.
    ctf, dose
        Contrast transfer and exposure filter of each tilt; None leaves them out.
    tilt_weight
        ``cos`` weights tilts with the cosine of their angle.
    filter_average
        ``tilts``: the mean over tilts of all their factors. ``product``: the mean exposure filter times the
        mean contrast transfer, STOPGAP's form.
    radial_weights
        Further factors, functions of the frequency in 1/angstrom (whitening; `numpy.square` for |k|^2).

    Returns
    -------
    numpy.ndarray
        (box, box, box//2 + 1) float32, half spectrum in un-shifted order.

    Raises
    ------
    InputError
        The tilts lack what `ctf`, `dose` or `tilt_weight` needs.
    """
    kz, ky, kx = half_frequencies((box, box, box), voxel_size)
    factors = _tilt_factors(box, voxel_size, tilts, ctf, dose, tilt_weight, filter_average)

    def optics(kz: np.ndarray, kx: np.ndarray) -> np.ndarray:
        return _mean_over_tilts(kz, ky, kx, box, voxel_size, tilts, wedge, factors)

    weights = optics(kz, kx)
    if box % 2 == 0:
        # a Nyquist index stands for both signs
        half = box // 2
        weights[half] = 0.5 * (weights[half] + optics(-kz[half:][:1], kx)[0])
        weights[:, :, half] = 0.5 * (weights[:, :, half] + optics(kz, -kx[:, :, half:])[:, :, 0])
    radius = template_radius(kz, ky, kx, box, voxel_size)
    weights *= band.curve(radius, box)
    for factor in radial_weights:
        weights *= factor(radius / (box * voxel_size))
    return weights.astype(np.float32)


def _tilt_factors(
    box: int,
    voxel_size: float,
    tilts: TiltSeries | None,
    ctf: CtfForm | None,
    dose: DoseFilter | None,
    tilt_weight: str,
    filter_average: str,
) -> list[_TiltFactor]:
    """Return the factors whose means over the tilts are multiplied; none where all would be 1."""
    exposures: list[_TiltFactor] = []
    transfers: list[_TiltFactor] = []
    if tilts is None or tilts.is_range:
        if ctf or dose or tilt_weight != "none":
            raise InputError("ctf, dose and tilt_weight need the angle of every tilt")
        return []
    if dose is not None:
        exposures.append(_dose_factor(tilts, dose, box * voxel_size))
    if ctf is not None:
        curves = [box_ctf(tilts, i, ctf, box, voxel_size) for i in range(len(tilts.angles))]
        transfers.append(lambda i, r: curves[i](r))
    if tilt_weight == "cos":
        cosines = np.cos(np.radians(tilts.angles))
        exposures.append(lambda i, r: np.full(r.shape, cosines[i]))
    groups = [exposures, transfers] if filter_average == "product" else [exposures + transfers]
    return [_product(group) for group in groups if group]


def _dose_factor(tilts: TiltSeries, dose: DoseFilter, edge: float) -> _TiltFactor:
    exposure = tilts.exposure
    if exposure is None:
        raise InputError("dose: the tilts have no exposure")
    return lambda i, r: dose.curve(r / edge, exposure[i], tilts.voltage)


def _product(factors: list[_TiltFactor]) -> _TiltFactor:
    return lambda i, r: math.prod((factor(i, r) for factor in factors), start=np.ones(r.shape))


def _mean_over_tilts(
    kz: np.ndarray,
    ky: np.ndarray,
    kx: np.ndarray,
    box: int,
    voxel_size: float,
    tilts: TiltSeries | None,
    wedge: Wedge,
    factors: list[_TiltFactor],
) -> np.ndarray:
    """Return the product of the factors' means over the tilts that sample a frequency, 0 where none does."""
    radius = template_radius(kz, ky, kx, box, voxel_size)
    shape = (radius.shape[0], 1, radius.shape[2])
    if tilts is None or tilts.is_range:
        sampled = np.ones(shape, dtype=bool)
        if tilts is not None and wedge != "none":
            sampled = filled_wedge(kz, ky, kx, tilts.angle_range, box, voxel_size)
        return np.broadcast_to(sampled, radius.shape).astype(np.float64)
    count = np.zeros(shape)
    sums = [np.zeros(radius.shape) for _ in factors]
    for i, angle in enumerate(tilts.angles):
        sampled = np.ones(shape, dtype=bool) if wedge == "none" else in_slab(kz, kx, angle, box, voxel_size)
        count += sampled
        # a slab holds few columns along y, and the curves are evaluated on those alone
        z, x = np.nonzero(sampled[:, 0])
        for total, factor in zip(sums, factors, strict=True):
            total[z, :, x] += factor(i, radius[z, :, x])
    weights = np.broadcast_to(count > 0, radius.shape).astype(np.float64)
    for total in sums:
        weights *= total / np.maximum(count, 1)
    return weights
