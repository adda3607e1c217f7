"""Which images are accounted for, and the first rule that each of the others fails."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

import numpy as np

from cryodask.jobs.classify.reproducibility import Agreement
from cryodask.jobs.classify.stability import Stability

Rule = Literal["auto", "members", "views", "stability"]
REPRODUCIBLE = 0.7  # Jaccard index of a class whose set of members is the same in every run
HALF = 0.5  # of the witnesses


class Reason(IntEnum):
    """Why an image is not accounted for."""

    ACCOUNTED = 0
    JUNK = 1
    UNSTABLE = 2
    UNREPRODUCIBLE = 3
    MARGIN = 4
    SMALL_CLASS = 5
    LEFTOVER = 6

    @property
    def word(self) -> str:
        """The reason as files write it."""
        return self.name.lower()


@dataclass(frozen=True)
class Thresholds:
    """What an image must reach.

    Parameters
    ----------
    junk : float
        Score of an image that is not noise.
    error : float
        Pixel error.
    margin : float
        Margin to classes that are not alike; -inf for none.
    agreement : float
        Of views.
    rule : str
    least : int
        g_min.
    """

    junk: float
    error: float
    margin: float
    agreement: float
    rule: Rule
    least: int


def agreed(label: np.ndarray, found: Agreement, thresholds: Thresholds) -> np.ndarray:
    """Return which images independent runs agree about, (n,) bool."""
    if thresholds.rule == "stability" or np.isnan(found.vote).all():
        return np.ones(len(label), bool)
    if thresholds.rule == "members":
        return (found.vote == 1) & (found.common[label] >= thresholds.least)
    alike = found.views >= thresholds.agreement
    if thresholds.rule == "views":
        return alike
    voted = found.vote >= HALF
    return np.where(found.jaccard[label] >= REPRODUCIBLE, voted, voted | alike)


def reasons(
    label: np.ndarray,
    score: np.ndarray,
    margin: np.ndarray,
    stability: Stability,
    found: Agreement,
    thresholds: Thresholds,
) -> np.ndarray:
    """Return the `Reason` of each image, (n,) uint8: the first rule it fails, 0 for none.

    Parameters
    ----------
    label : (n,)
        Class of each image.
    score, margin : (n,)
        Sigma of the noise.
    """
    failed = {
        Reason.JUNK: score < thresholds.junk,
        Reason.UNSTABLE: ~(stability.error < thresholds.error),
        Reason.MARGIN: margin < thresholds.margin,
        Reason.UNREPRODUCIBLE: ~agreed(label, found, thresholds),
    }
    reason = np.zeros(len(label), np.uint8)
    for name, rows in reversed(failed.items()):
        reason[rows] = name
    sizes = np.bincount(label[reason == 0], minlength=len(stability.mirror_rate))
    small = (reason == 0) & (sizes[label] < thresholds.least)
    reason[small] = Reason.SMALL_CLASS
    return reason
