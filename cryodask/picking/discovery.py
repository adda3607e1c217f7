"""False discovery rates from decoys: peaks that the same rules find in a map of noise."""

import json

import numpy as np
import xarray as xr

from cryodask.errors import InputError
from cryodask.picking.thresholds import Threshold, map_moments, source_name

# Decoys are held against all peaks this many standard deviations above the mean of the noise map: lower ones
# only decide rates near one half.
FLOOR_SIGMA = 2.0


def q_values(targets: np.ndarray, decoys: np.ndarray) -> np.ndarray:
    """Return the least false discovery rate at which each target is kept.

    q(s) = min over s' <= s of (1 + #decoys >= s')/max(1, #targets >= s'), at most 1 (target-decoy
    competition, Elias and Gygi 2007; the q-value of Storey 2003).

    Parameters
    ----------
    targets, decoys
        (n,) and (m,) scores.

    Returns
    -------
    numpy.ndarray
        (n,) float64.
    """
    order = np.argsort(-targets, kind="stable")
    falling = targets[order]
    n_targets = np.searchsorted(-falling, -falling, side="right")
    n_decoys = len(decoys) - np.searchsorted(np.sort(decoys), falling, side="left")
    rates = (1 + n_decoys) / np.maximum(n_targets, 1)
    found = np.empty(len(targets))
    # Between two targets only decoys are added, so the least rate is at a target.
    found[order] = np.minimum.accumulate(rates[::-1])[::-1]
    return np.minimum(found, 1.0)


def decoy_maps(dataset: xr.Dataset) -> xr.Dataset:
    """Return a result whose scores are its noise and whose noise is its raw scores.

    Raises
    ------
    InputError
        No noise map, or one that is the mean of several copies and so lower than the noise of the scores.
    """
    if "noise" not in dataset or "score_raw" not in dataset:
        raise InputError(
            f"{source_name(dataset)}: --fdr needs the noise map for its decoys; match with noise_correction "
            "ratio or subtract (the mirrored template as decoy is not in this release)"
        )
    copies = int(json.loads(dataset.attrs.get("parameters", "{}")).get("noise_copies", 1))
    if copies > 1:
        raise InputError(
            f"{source_name(dataset)}: --fdr needs the noise of one copy, the result has the mean of "
            f"{copies}; match with noise_copies: 1"
        )
    swapped = dataset.assign(score=dataset["noise"], score_raw=dataset["noise"], noise=dataset["score_raw"])
    return swapped.drop_vars([name for name in ("zscore", "class_id", "margin") if name in swapped])


def floor_threshold(dataset: xr.Dataset) -> Threshold:
    """Return the raw score from which on peaks and decoys are counted, for each template."""
    moments = [map_moments(dataset, "noise", t) for t in range(dataset.sizes["template"])]
    return Threshold("score_raw", tuple(m.mean + FLOOR_SIGMA * m.std for m in moments), "floor")


def discovery_threshold(scores: np.ndarray, q: np.ndarray, rate: float, count: int) -> Threshold:
    """Return the least score whose q-value is within a rate, as one threshold for `count` templates.

    Where there is none it lies above every score.
    """
    kept = scores[q <= rate]
    least = kept.min() if len(kept) else np.nextafter(scores.max(initial=0.0), np.inf)
    return Threshold("score_raw", (float(least),) * count, f"fdr = {rate:g}")
