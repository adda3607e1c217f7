"""Whether a template has the contrast of the tomogram, told by the sign of their skewness.

Matter is sparse: where it is bright, bright voxels are few and far from the mean, and skewness is positive;
where it is dark, negative. Noise has none. Membranes and gold have the contrast of the particles.
"""

import math
from dataclasses import dataclass

import numpy as np
import scipy.fft

from cryodask.optics.bandpass import BandPass
from cryodask.optics.frequency import half_frequencies, template_radius

_FAR = 5.0  # standard deviations: further out lie artefacts, which must not decide
_CLEAR_TEMPLATE, _CLEAR_TOMOGRAM, _CLEAR_ERRORS = 0.2, 0.02, 6.0


@dataclass(frozen=True)
class PowerSums:
    """Sums of powers of voxels, which add over the parts of a volume."""

    count: int = 0
    first: float = 0.0
    second: float = 0.0
    third: float = 0.0

    def __add__(self, other: "PowerSums") -> "PowerSums":
        return PowerSums(
            self.count + other.count,
            self.first + other.first,
            self.second + other.second,
            self.third + other.third,
        )

    @property
    def variance(self) -> float:
        """Variance of the voxels."""
        mean = self.first / max(self.count, 1)
        return self.second / max(self.count, 1) - mean**2

    @property
    def skewness(self) -> float:
        """Skewness of the voxels; 0 where all are equal."""
        if not self.variance > 0:
            return 0.0
        mean = self.first / self.count
        moment = self.third / self.count - 3 * mean * self.second / self.count + 2 * mean**3
        return float(moment / self.variance**1.5)


def power_sums(values: np.ndarray) -> PowerSums:
    """Return the power sums of voxels; in the third, values beyond five standard deviations are cut."""
    if not values.size:
        return PowerSums()
    mean, spread = float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64))
    near = np.clip(values, mean - _FAR * spread, mean + _FAR * spread)
    cubes = np.einsum("i,i,i->", *(near.ravel(),) * 3, dtype=np.float64)
    return PowerSums(
        values.size,
        float(values.sum(dtype=np.float64)),
        float(np.square(values, dtype=np.float64).sum()),
        float(cubes),
    )


def template_skewness(template: np.ndarray, band: BandPass | None) -> float:
    """Return the skewness of a template (n, n, n) in the band of the search."""
    box = len(template)
    if band is not None:
        radius = template_radius(*half_frequencies(template.shape, 1.0), box, 1.0)
        spectrum = scipy.fft.rfftn(template.astype(np.float64)) * band.curve(radius, box)
        template = scipy.fft.irfftn(spectrum, template.shape)
    return power_sums(template).skewness


def contrasts_differ(tomogram: PowerSums, template: float, *, box: int, band: BandPass | None) -> bool:
    """Say whether the contrasts of a filtered tomogram and a template clearly differ.

    Parameters
    ----------
    tomogram
        Of the searched voxels after filtering.
    template
        Its skewness in the same band.
    box
        Edge of the template box, voxels.
    band
        With `box`, how many voxels of the tomogram are independent.
    """
    radius = min(band.lp_rad, box / 2) if band is not None else math.inf
    share = min(1.0, 4 / 3 * math.pi * (radius / box) ** 3)
    error = math.sqrt(6.0 / max(tomogram.count * share, 1.0))
    skewness = tomogram.skewness
    clear = abs(skewness) > max(_CLEAR_TOMOGRAM, _CLEAR_ERRORS * error) and abs(template) > _CLEAR_TEMPLATE
    return clear and skewness * template < 0
