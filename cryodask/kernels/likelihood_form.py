"""The likelihood of an image given a pose, with scale, offset and noise level integrated out.

Model of an image I: alpha x + beta b + noise of variance v, x the template in its pose times the CTF, b the
box. With inner products A = Iss Ixx - Isx^2, B = Iss Ixy - Isx Isy, E = Iss Iyy - Isy^2, r = B / sqrt(A E):
ln L = -p ln E - p ln(1 - r^2) - ln(A) / 2 + c, for flat alpha and beta and a variance prior v^-a; where only
alpha > 0 counts, plus ln h, Student's t with 2 p degrees of freedom at r sqrt(2 p / (1 - r^2)).
"""

import importlib
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from cryodask.arrays.module import array_module

Offset = Literal["exact", "template", "none"]
Scale = Literal["positive", "free"]
NOISE_PRIORS = {"variance": 0.0, "sigma": 0.5, "jeffreys": 1.0}


@dataclass(frozen=True)
class LikelihoodForm:
    """How ln L is formed.

    Parameters
    ----------
    samples
        Effective number of samples N_eff.
    noise_prior
        a: 0 flat in the variance, 1/2 in sigma, 1 scale-free.
    offset
        ``exact``: Isx of the template in its pose; ``template``: of the undisplaced, unrotated one, as
        CryoLike has it; ``none``: no offset.
    scale
        ``positive``: poses of inverted contrast do not count; ``free``: both signs.
    """

    samples: float
    noise_prior: float = 0.0
    offset: Offset = "exact"
    scale: Scale = "positive"

    @property
    def exponent(self) -> float:
        """The exponent p."""
        return self.samples / 2 - 2 + self.noise_prior + (0.5 if self.offset == "none" else 0.0)

    def constant(self, iss: np.ndarray) -> np.ndarray:
        """Return c for the box's norm Iss."""
        from scipy.special import gammaln

        p = self.exponent
        iss = np.ones_like(iss) if self.offset == "none" else iss
        fixed = (3 - self.samples) / 2 * np.log(2 * np.pi) - np.log(2) + gammaln(p) + p * np.log(2)
        return fixed + (p - 0.5) * np.log(iss)

    def log_likelihood(self, xy: Any, xx: Any, sx: Any, iss: Any, isy: Any, iyy: Any) -> tuple[Any, Any]:
        """Return ln L without c, and r, from inner products (broadcastable, float64)."""
        xp = array_module(xy)
        a, b, e = (
            (xx, xy, iyy)
            if self.offset == "none"
            else (iss * xx - sx * sx, iss * xy - sx * isy, iss * iyy - isy * isy)
        )
        square = xp.minimum(b * b / (a * e), 1 - 1e-15)
        u = -xp.log1p(-square)
        r = xp.sign(b) * xp.sqrt(square)
        score = self.exponent * (u - xp.log(e)) - 0.5 * xp.log(a)
        if self.scale == "positive":
            score = score + log_positive_share(r, u, self.exponent)
        return score, r


def log_positive_share(r: Any, u: Any, p: float) -> Any:
    """Return ln h, the log share of alpha > 0, from r and u = -ln(1 - r^2).

    Within 2e-3 of Student's t for p >= 100, |r| <= 0.5.
    For r < 0 the terms -p u of ln h and p u of ln L cancel in part; here they are not separated, which costs
    about 1e-16 p u.
    """
    xp = array_module(r)
    special: Any = importlib.import_module("scipy.special" if xp is np else "cupyx.scipy.special")
    z = xp.sqrt(2 * p * u) * ((16 * p + 1) / (16 * p + 3))
    below = -0.5 * z * z + xp.log(0.5 * special.erfcx(z / np.sqrt(2.0)))
    return xp.where(r < 0, below, special.log_ndtr(z))
