"""The band that a search uses: a low-pass less a high-pass, both with Gaussian falls."""

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy.interpolate import PchipInterpolator

# STOPGAP cuts its Gaussian falls at two of their widths
_CUT = math.exp(-2.0)


@dataclass(frozen=True)
class BandPass:
    """A band-pass with the falls of STOPGAP; radii and widths in Fourier pixels of the template box.

    Parameters
    ----------
    lp_rad, lp_sigma
        The low-pass is 1 up to `lp_rad` and falls as exp(-(x/sigma)^2); an infinite radius switches it off.
    hp_rad, hp_sigma
        The high-pass takes away everything up to `hp_rad` and falls likewise; a radius of 0 switches it off.
    interpolation
        ``formula`` evaluates the curve at every radius; ``pchip`` only at whole ones, and interpolates as
        STOPGAP does.
    """

    lp_rad: float
    lp_sigma: float = 3.0
    hp_rad: float = 0.0
    hp_sigma: float = 2.0
    interpolation: Literal["formula", "pchip"] = "formula"

    @property
    def edge(self) -> float:
        """Radius beyond which the band is empty, Fourier pixels of the template box."""
        return self.lp_rad + self.lp_sigma * math.sqrt(2.0)

    def scaled(self, factor: float) -> "BandPass":
        """Return the same band in the Fourier pixels of a box that is larger by a factor."""
        return replace(
            self,
            lp_rad=self.lp_rad * factor,
            lp_sigma=self.lp_sigma * factor,
            hp_rad=self.hp_rad * factor,
            hp_sigma=self.hp_sigma * factor,
        )

    def curve(self, r: np.ndarray, box: int) -> np.ndarray:
        """Return the band-pass at radii.

        Parameters
        ----------
        r
            Any shape, Fourier pixels of the template box.
        box
            Edge of the template box, voxels; a low-pass ends the band at ceil(box / 2).
        """
        r = np.asarray(r, dtype=np.float64)
        if math.isinf(self.lp_rad):
            return self._formula(r)
        last = math.ceil(box / 2)
        if self.interpolation == "formula":
            return np.where(r <= last, self._formula(r), 0.0)
        whole = np.arange(last + 1)
        curve = PchipInterpolator(whole, self._formula(whole))
        return np.where(r <= last, curve(np.minimum(r, last)), 0.0)

    def _formula(self, r: np.ndarray) -> np.ndarray:
        high_pass = _gaussian_fall(r, self.hp_rad, self.hp_sigma) if self.hp_rad > 0 else 0.0
        return np.where(r > 0, _gaussian_fall(r, self.lp_rad, self.lp_sigma) - high_pass, 0.0)


def _gaussian_fall(r: np.ndarray, radius: float, sigma: float) -> np.ndarray:
    fall = np.exp(-((np.maximum(r - radius, 0.0) / sigma) ** 2))
    return np.where(fall < _CUT, 0.0, fall)
