"""How likely a coarse first stage of a search misses a particle that the whole search would find.

Both stages correlate the same data with one template, so their scores of one particle are jointly normal:
given the fine score s_f, the coarse one has mean κ s_f and variance σ_c² + κ²σ_f² - 2κc.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr


@dataclass(frozen=True, eq=False)
class MissModel:
    """What a coarse stage sees of particles that the fine stage scores, a value a draw.

    Parameters
    ----------
    fine_signal, coarse_signal
        Scores of the particle without noise, for unit amplitude: their ratio is κ.
    fine_power, coarse_power
        Variance of the particle's own signal under the mask, for unit amplitude and unit noise.
    fine_variance, coarse_variance, covariance
        σ_f², σ_c² and c of the noise.
    """

    fine_signal: np.ndarray
    fine_power: np.ndarray
    fine_variance: np.ndarray
    coarse_signal: np.ndarray
    coarse_power: np.ndarray
    coarse_variance: np.ndarray
    covariance: np.ndarray

    @property
    def kappa(self) -> np.ndarray:
        """(draw,) the coarse score of a weak particle over its fine score."""
        return self.coarse_signal / self.fine_signal

    @property
    def likeness(self) -> np.ndarray:
        """(draw,) κ of scores in units of their noise: the correlation of both templates."""
        return self.kappa * np.sqrt(self.fine_variance / self.coarse_variance)

    @property
    def regression(self) -> float:
        """The fine score that a coarse score of noise lets expect, for each unit of it."""
        return float(self.covariance.mean() / self.coarse_variance.mean())

    @property
    def fine_sigma(self) -> float:
        """Standard deviation of a fine score of noise."""
        return math.sqrt(float(self.fine_variance.mean()))

    @property
    def coarse_sigma(self) -> float:
        """Standard deviation of a coarse score of noise."""
        return math.sqrt(float(self.coarse_variance.mean()))

    def expected(self, fine_score: float) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and standard deviation (draw,) of the coarse score, given a fine score in (0, 1).

        A particle adds to the variance that its own score is divided by, the more the stronger the low-pass;
        both scores are what they would be without that, divided by √(1 + that variance).
        """
        room = self.fine_signal**2 - fine_score**2 * self.fine_power
        if np.any(room <= 0):
            raise ValueError(f"no particle has a fine score of {fine_score:g}")
        amplitude = fine_score / np.sqrt(room)
        damping = 1.0 / np.sqrt(1.0 + amplitude**2 * self.coarse_power)
        spread = self.coarse_variance + self.kappa * (self.kappa * self.fine_variance - 2.0 * self.covariance)
        return amplitude * self.coarse_signal * damping, np.sqrt(np.maximum(spread, 1e-20)) * damping

    def miss_probability(self, threshold: float, fine_score: float) -> float:
        """Return the probability that a particle's coarse score is below a threshold.

        Parameters
        ----------
        threshold
            τ, on the coarse score.
        fine_score
            s_f of the particle: at the threshold of the run the probability is the largest.
        """
        mean, spread = self.expected(fine_score)
        return float(ndtr((threshold - mean) / spread).mean())

    def coarse_threshold(self, fine_score: float, miss_rate: float) -> float:
        """Return the largest threshold τ at which at most `miss_rate` of the particles are missed.

        Parameters
        ----------
        fine_score
            s_f of the faintest particles that count.
        miss_rate
            ε, 0..1.
        """
        mean, spread = self.expected(fine_score)
        low, high = (mean - 40.0 * spread).min(), (mean + 40.0 * spread).max()
        found = brentq(lambda tau: self.miss_probability(tau, fine_score) - miss_rate, low, high, xtol=1e-12)
        # the root may lie on the far side by its tolerance
        return float(found) - 1e-9
