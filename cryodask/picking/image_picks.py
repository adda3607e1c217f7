"""From the maps of a matched micrograph to a particle table."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from cryodask.errors import InputError
from cryodask.picking.image_peaks import image_peaks
from cryodask.picking.image_thresholds import (
    ImageThreshold,
    Metric,
    global_score,
    image_threshold,
    negative_log_pvalue,
)


@dataclass(frozen=True, eq=False)
class MatchMaps:
    """The maps of one micrograph and template, (y, x) over the template's first pixel.

    Parameters
    ----------
    mip, scaled_mip, mean, std
        Largest score, z-score, mean and standard deviation over all hypotheses.
    phi, theta, psi
        Of the largest score, ZYZ degrees.
    defocus, pixel_size
        Of the largest score: relative to the mean of u and v, and absolute; angstrom.
    hypotheses
        M, how many were tried at each position.
    edge
        Of the template, pixels.
    local
        z-score against the surroundings, where it was made.
    hypothesis
        Number of the best hypothesis, where it is known.
    exact
        (y, x) where scores are those of the whole search, and peaks may lie; everywhere if None.
    rows, columns
        (y,) and (x,) first pixel of the template in the micrograph, where a position is no pixel.
    facts
        Columns that are the same for every particle: optics and paths, in the names of Leopard-EM's table.
    source
        What messages call it.
    """

    mip: np.ndarray
    scaled_mip: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    phi: np.ndarray
    theta: np.ndarray
    psi: np.ndarray
    defocus: np.ndarray
    hypotheses: int
    edge: int
    pixel_size: np.ndarray | None = None
    local: np.ndarray | None = None
    hypothesis: np.ndarray | None = None
    exact: np.ndarray | None = None
    rows: np.ndarray | None = None
    columns: np.ndarray | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    source: str = "maps"

    def corners(self, places: np.ndarray) -> np.ndarray:
        """Return the first pixel (y, x) of the template in the micrograph at places (P, 2) of the maps."""
        y, x = places.T
        rows = y if self.rows is None else self.rows[y]
        columns = x if self.columns is None else self.columns[x]
        return np.stack([rows, columns], axis=1)

    def score(self, metric: Metric) -> np.ndarray:
        """Return the map that a metric ranks by, float64 or float32.

        Raises
        ------
        InputError
            No local statistics in the result.
        """
        match metric:
            case "zscore":
                return self.scaled_mip
            case "local":
                if self.local is None:
                    raise InputError(f"{self.source}: --metric local needs a match with statistics: local")
                return self.local
            case "global":
                return self._global
            case "pvalue":
                return self._negative_log_pvalue

    @cached_property
    def _global(self) -> np.ndarray:
        mean, std = self.mean.astype(np.float64), self.std.astype(np.float64)
        count = self.mean.size
        return global_score(self.mip, float(mean.sum()), float((std**2 + mean**2).sum()), float(count))

    @cached_property
    def _negative_log_pvalue(self) -> np.ndarray:
        return negative_log_pvalue(self.scaled_mip, self.mip)


def pick_image(
    maps: MatchMaps,
    *,
    metric: Metric = "zscore",
    false_positives: float | None = None,
    cutoff: float | None = None,
    mask_radius: float = 5.0,
    allowed: np.ndarray | None = None,
) -> tuple[pd.DataFrame, ImageThreshold]:
    """Choose the particles of a micrograph.

    Parameters
    ----------
    maps
        The maps.
    metric, false_positives, cutoff
        As in `image_threshold`.
    mask_radius
        Pixels between particles.
    allowed
        (y, x) over the maps; peaks lie where it is true.

    Returns
    -------
    table, threshold
        One row a particle, by falling score, columns of Leopard-EM's table and cryodask's own; and the value
        that decided.

    Raises
    ------
    InputError
        A metric the maps do not have, an impossible threshold, or no position left to pick from.
    """
    score = maps.score(metric)
    valid = np.isfinite(maps.scaled_mip) if allowed is None else allowed & np.isfinite(maps.scaled_mip)
    positions = int(valid.sum())
    if positions == 0:
        raise InputError(f"{maps.source}: no position is left to pick from")
    threshold = image_threshold(
        metric, positions, maps.hypotheses, false_positives=false_positives, cutoff=cutoff
    )
    # noise outside was searched too, and counts in the threshold
    valid = valid if maps.exact is None else valid & maps.exact
    peaks = image_peaks(score, threshold.value, mask_radius=mask_radius, allowed=valid)
    return _table(maps, peaks, score, metric), threshold


def _table(maps: MatchMaps, peaks: np.ndarray, score: np.ndarray, metric: Metric) -> pd.DataFrame:
    at = (peaks[:, 0], peaks[:, 1])
    y, x = maps.corners(peaks).T
    centre_y, centre_x = y + maps.edge // 2, x + maps.edge // 2
    pixel_size, defocus = float(maps.facts["pixel_size"]), maps.defocus[at].astype(float)
    searched = maps.pixel_size[at].astype(float) if maps.pixel_size is not None else pixel_size
    columns: dict[str, Any] = {
        "particle_index": np.arange(len(peaks)),
        "mip": maps.mip[at],
        "scaled_mip": maps.scaled_mip[at],
        "correlation_mean": maps.mean[at],
        "correlation_variance": maps.std[at],
        "correlation_std": maps.std[at],
        "total_correlations": maps.hypotheses,
        "pos_x": x,
        "pos_y": y,
        "pos_x_img": centre_x,
        "pos_y_img": centre_y,
        "pos_x_img_angstrom": centre_x * pixel_size,
        "pos_y_img_angstrom": centre_y * pixel_size,
        "phi": maps.phi[at],
        "theta": maps.theta[at],
        "psi": maps.psi[at],
        "relative_defocus": defocus,
        "score": score[at],
        "score_name": metric,
    }
    if maps.hypothesis is not None:
        columns["hypothesis"] = maps.hypothesis[at]
    columns |= {**maps.facts, "refined_pixel_size": searched}
    return pd.DataFrame(columns, index=pd.RangeIndex(len(peaks)))
