"""The score from which on a peak counts: fixed, from the map's statistics, or from its noise."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from scipy.special import erfcinv

from cryodask.errors import InputError
from cryodask.picking.regions import Block, regions

log = logging.getLogger("cryodask")
TRIANGLE_BINS = 2**20


@dataclass(frozen=True)
class Threshold:
    """A voxel counts where `name` is at least its template's value.

    Attributes
    ----------
    name
        Map that is compared.
    values
        One threshold for each template.
    rule
        How it was found, for reports: "false_positives = 1".
    """

    name: str
    values: tuple[float, ...]
    rule: str


def false_positive_threshold(sigma: float, searched: float, false_positives: float = 1.0) -> float:
    """Return the score that normal noise passes `false_positives` times in the whole search.

    θ = √2·σ·erfc⁻¹(2F/H), the expected-false-positive threshold of Rickgauer, Grigorieff and Denk (2017).

    Parameters
    ----------
    sigma
        Standard deviation of a score over positions and rotations.
    searched
        Number H of scores made: voxels x rotations, summed over templates.
    false_positives
        Expected number F of noise peaks, 0 < F < H/2; below 1 allowed.

    Raises
    ------
    InputError
        F outside that range.
    """
    if not 0 < false_positives < searched / 2:
        raise InputError(
            f"--false-positives {false_positives:g}: expected a number above 0 and below {searched / 2:g} "
            "(half of the scores made)"
        )
    return math.sqrt(2) * sigma * float(erfcinv(2 * false_positives / searched))


@dataclass(frozen=True)
class MapMoments:
    """Mean, standard deviation, maximum and number of the searched voxels of one map."""

    mean: float
    std: float
    maximum: float
    count: int


def map_moments(dataset: xr.Dataset, name: str, template: int) -> MapMoments:
    """Return the moments of one map over its searched voxels, region by region in float64."""
    total, squares, maximum, count = 0.0, 0.0, -math.inf, 0
    for region in regions(dataset):
        values = Block(dataset, template, region).finite_scores(name)
        if values.size:
            total, squares = total + values.sum(), squares + np.square(values).sum()
            maximum, count = max(maximum, float(values.max())), count + values.size
    if count == 0:
        raise InputError(f"{source_name(dataset)}: no searched voxel in {name}")
    mean = total / count
    return MapMoments(mean, math.sqrt(max(squares / count - mean**2, 0.0)), maximum, count)


def triangle_threshold(dataset: xr.Dataset, name: str, template: int) -> float:
    """Return the positive score farthest below the chord of the sorted scores.

    Positive scores sorted ascending; the chord joins (first rank, 0) and (last rank, maximum) (after
    Zack, Rogers and Latt 1977, as cryoCAT applies it). Ranks come from a histogram of 2^20 bins, so the
    threshold is exact to one part in a million of the maximum.

    Raises
    ------
    InputError
        No positive score.
    """
    maximum = map_moments(dataset, name, template).maximum
    if maximum <= 0:
        raise InputError(f"{source_name(dataset)}: --triangle needs positive scores in {name}")
    counts = np.zeros(TRIANGLE_BINS, np.int64)
    for region in regions(dataset):
        values = Block(dataset, template, region).finite_scores(name)
        bins = np.minimum((values[values > 0] / maximum * TRIANGLE_BINS).astype(np.int64), TRIANGLE_BINS - 1)
        counts += np.bincount(bins, minlength=TRIANGLE_BINS)
    ranks = np.cumsum(counts)
    filled = np.flatnonzero(counts)
    scores = filled / TRIANGLE_BINS * maximum
    # The first score of a rank interval lies on its left end, the farthest below the chord on its right.
    depth = (ranks[filled] - 1) / max(ranks[-1] - 1, 1) * maximum - scores
    return float(scores[np.argmax(depth)])


def source_name(dataset: xr.Dataset) -> str:
    """Return the name a message calls this result by."""
    return str(dataset.attrs.get("source") or dataset.attrs.get("tomo_name") or "result")


def raw_name(dataset: xr.Dataset, score: str) -> str:
    """Return the map that noise thresholds apply to: the z-score if it ranks, else the raw score."""
    if score == "zscore":
        return score
    return "score_raw" if "score_raw" in dataset else "score"


def scores_made(dataset: xr.Dataset) -> np.ndarray:
    """Return (template,) how many scores a search made: voxels times rotations, fewer near seeds."""
    if "n_scores" in dataset:
        return np.asarray(dataset["n_scores"].values, float)
    return np.asarray(dataset["n_voxels"].values.astype(float) * dataset["n_rotations"].values)


def _noise_values(
    dataset: xr.Dataset, score: str, false_positives: float, independent: np.ndarray | None
) -> list[float]:
    """Return the false-positive threshold of every template."""
    missing = [name for name in ("sigma", "n_rotations", "n_voxels") if name not in dataset]
    if missing:
        raise InputError(
            f"{source_name(dataset)}: --false-positives needs {', '.join(missing)} in the result; "
            "use --threshold, --sigma or --triangle"
        )
    made = scores_made(dataset)
    searched = float((made if independent is None else independent).sum())
    sigmas = np.ones(dataset.sizes["template"]) if score == "zscore" else dataset["sigma"].values
    if not np.all(np.isfinite(sigmas) & (sigmas > 0)):
        raise InputError(
            f"{source_name(dataset)}: sigma is {sigmas.tolist()}, expected positive numbers; "
            "use --threshold, --sigma or --triangle"
        )
    return [false_positive_threshold(float(s), searched, false_positives) for s in sigmas]


def _given_threshold(dataset: xr.Dataset, score: str, threshold: float | Sequence[float]) -> Threshold:
    given = np.atleast_1d(np.asarray(threshold, float)).tolist()
    templates = dataset.sizes["template"]
    rule = "threshold = " + ", ".join(f"{value:g}" for value in given)
    if len(given) not in (1, templates):
        raise InputError(
            f"{source_name(dataset)}: --{rule}: expected one number, or one for each of {templates} templates"
        )
    return Threshold(score, tuple(given if len(given) == templates else given * templates), rule)


def choose_threshold(
    dataset: xr.Dataset,
    *,
    score: str = "score",
    threshold: float | Sequence[float] | None = None,
    sigma: float | None = None,
    false_positives: float | None = None,
    triangle: bool = False,
    independent: np.ndarray | None = None,
) -> Threshold:
    """Turn the one rule that is given into a threshold for each template.

    Parameters
    ----------
    dataset
        Result with maps (template, z, y, x).
    score
        Map that ranks peaks.
    threshold
        Score itself, on the ranking map: one for all templates or one for each.
    sigma
        Standard deviations above the mean of the searched voxels of the ranking map.
    false_positives
        Expected number of noise peaks, on score_raw (zscore if it ranks).
    triangle
        Take the bend of the sorted scores of the ranking map.
    independent
        (template,) number of independent scores, for `false_positives`; None: every score made counts.

    Raises
    ------
    InputError
        The rule cannot be applied to this result.
    """
    templates = range(dataset.sizes["template"])
    if threshold is not None:
        return _given_threshold(dataset, score, threshold)
    if sigma is not None:
        moments = [map_moments(dataset, score, t) for t in templates]
        return Threshold(score, tuple(m.mean + sigma * m.std for m in moments), f"sigma = {sigma:g}")
    if triangle:
        values = tuple(triangle_threshold(dataset, score, t) for t in templates)
        return Threshold(score, values, "triangle")
    expected = 1.0 if false_positives is None else false_positives
    values = tuple(_noise_values(dataset, score, expected, independent))
    if score != "zscore" and min(values) > 1:
        note = "%s: threshold %.3g is above every possible score: sigma %s holds particles, not noise alone"
        sigmas = ", ".join(f"{s:.3g}" for s in dataset["sigma"].values)
        log.warning(f"{note}; use --threshold, --sigma or --fdr", source_name(dataset), min(values), sigmas)
    counted = "" if independent is None else " of the independent scores"
    return Threshold(raw_name(dataset, score), values, f"false_positives = {expected:g}{counted}")
