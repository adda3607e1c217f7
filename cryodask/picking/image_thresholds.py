"""The metrics by which peaks of a micrograph are ranked, and the value from which on they count."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from scipy.special import ndtri

from cryodask.errors import InputError
from cryodask.picking.thresholds import false_positive_threshold

Metric = Literal["zscore", "local", "global", "pvalue"]
PVALUE_CUTOFF = 8.0  # -ln p


@dataclass(frozen=True)
class ImageThreshold:
    """A peak's `metric` is above `value`; `rule` says how it was found."""

    metric: Metric
    value: float
    rule: str


def image_threshold(
    metric: Metric,
    positions: int,
    hypotheses: int,
    *,
    false_positives: float | None = None,
    cutoff: float | None = None,
) -> ImageThreshold:
    """Return the value from which on peaks count.

    Parameters
    ----------
    metric
        ``zscore``, ``local``, ``global`` (normal noise: sqrt(2) erfcinv(2F/(V M))) or ``pvalue`` (-ln p: 8,
        or ln(V/F) for expected false positives).
    positions
        V, the valid positions that the mask leaves.
    hypotheses
        M.
    false_positives
        F, expected in the micrograph; 1 by default.
    cutoff
        The value itself.

    Raises
    ------
    InputError
        An unknown metric; both or an impossible number of false positives.
    """
    if metric not in get_args(Metric):
        raise InputError(f"--metric {metric}: expected {', '.join(get_args(Metric))}")
    if cutoff is not None and false_positives is not None:
        raise InputError("choose one of --cutoff and --false-positives")
    if cutoff is not None:
        return ImageThreshold(metric, float(cutoff), f"cutoff = {cutoff:g}")
    if metric == "pvalue":
        return _pvalue_threshold(positions, false_positives)
    expected = 1.0 if false_positives is None else false_positives
    value = false_positive_threshold(1.0, float(positions) * hypotheses, expected)
    return ImageThreshold(metric, value, f"false_positives = {expected:g}")


def _pvalue_threshold(positions: int, false_positives: float | None) -> ImageThreshold:
    if false_positives is None:
        return ImageThreshold("pvalue", PVALUE_CUTOFF, f"-ln p = {PVALUE_CUTOFF:g}")
    if not 0 < false_positives < positions:
        expected = f"a number above 0 and below {positions}, the positions"
        raise InputError(f"--false-positives {false_positives:g}: expected {expected}")
    value = float(np.log(positions / false_positives))
    return ImageThreshold("pvalue", value, f"false_positives = {false_positives:g}")


def global_score(mip: np.ndarray, total: float, square_total: float, count: float) -> np.ndarray:
    """Return (mip - mu)/sigma with the mean and deviation of all scores of all positions.

    cisTEM's score without flat-fielding (Lucas et al. 2021).

    Parameters
    ----------
    mip
        Any shape.
    total, square_total
        Sums of the scores and of their squares over positions and hypotheses.
    count
        How many scores there are.
    """
    mean = total / count
    deviation = np.sqrt(max(square_total / count - mean**2, 0.0))
    centred = np.asarray(mip, np.float64) - mean
    return np.divide(centred, deviation, out=np.zeros_like(centred), where=deviation > 0)


def negative_log_pvalue(z: np.ndarray, mip: np.ndarray) -> np.ndarray:
    """Return -ln p of the joint rank of z-score and maximum at every position.

    The 2DTM p-value of Zhang et al. (2025) in closed form: of probit scores x1, x2 the moment matrix has its
    axes at 45 degrees whatever the data, so that with rho = mean(x1 x2)/mean(x1^2)
    r^2 = (x1 + x2)^2/(2(1 + rho)) + (x1 - x2)^2/(2(1 - rho)) and p = exp(-r^2/2)(1/4 + asin(rho)/2 pi) where
    both are positive, else 1.

    Parameters
    ----------
    z, mip
        Of one shape.

    Returns
    -------
    numpy.ndarray
        float64, of the same shape.
    """
    first, second = _probit(np.ravel(z)), _probit(np.ravel(mip))
    rho = float(np.mean(first * second) / np.mean(first**2))
    rho = min(max(rho, -1.0), 1.0)
    plus = (first + second) ** 2 / (2.0 * (1.0 + rho)) if rho > -1.0 else np.zeros_like(first)
    minus = (first - second) ** 2 / (2.0 * (1.0 - rho)) if rho < 1.0 else np.zeros_like(first)
    log_p = -0.5 * (plus + minus) + np.log(0.25 + np.arcsin(rho) / (2.0 * np.pi))
    both = (first > 0) & (second > 0)
    return np.where(both, -log_p, 0.0).reshape(np.shape(z))


def _probit(values: np.ndarray) -> np.ndarray:
    """Return the normal score of each value's rank; ties go by their place."""
    ranks = np.empty(len(values))
    ranks[np.argsort(values, kind="stable")] = np.arange(1, len(values) + 1)
    return ndtri((ranks - 0.5) / len(values))
