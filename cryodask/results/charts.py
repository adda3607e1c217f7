"""Charts of a search: its scores, its orientations, its errors."""

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.stats import norm

from cryodask.geometry.euler import rotation_from_euler
from cryodask.picking.compare import Comparison
from cryodask.picking.regions import Block, regions
from cryodask.picking.thresholds import map_moments
from cryodask.results.pictures import FALSE, FOUND, INK, SOFT, TRUTH, new_figure, style

BINS = 180


def score_histogram(
    dataset: xr.Dataset,
    *,
    template: int = 0,
    name: str = "score_raw",
    threshold: float | None = None,
    picked: np.ndarray | None = None,
) -> Figure:
    """Draw the histogram of a score map with the curve that noise alone would give.

    The curve is the density of the largest of R independent normal scores, R·φ(s/σ)·Φ(s/σ)^(R-1)/σ, times
    the number of voxels; rotations are correlated, so measured noise lies to its left.

    Parameters
    ----------
    dataset
        Result with maps (template, z, y, x), read region by region.
    template
        Index of the template.
    name
        Score map; the noise curve is drawn for the raw score.
    threshold
        Marked by a line.
    picked
        (n,) scores of the picks, marked below the histogram.
    """
    edges, counts = histogram(dataset, template, name)
    figure = new_figure(8.4, 3.9)
    axes = style(figure.subplots(), xlabel=name.replace("_", " "), ylabel="voxels", yscale="log")
    axes.stairs(counts, edges, fill=True, color="#cfd6e2", label="searched voxels")
    if {"sigma", "n_rotations"} <= set(dataset.variables) and name == "score_raw":
        sigma = float(dataset["sigma"].values[template])
        rotations = int(dataset["n_rotations"].values[template])
        expected = counts.sum() * np.diff(edges)[0] * maximum_density(edges, sigma, rotations)
        seen = expected > 0.3
        axes.plot(edges[seen], expected[seen], color=INK, lw=1.6, label=f"noise, best of {rotations}")
    if threshold is not None:
        axes.axvline(threshold, color=FALSE, lw=1.4, ls="--", label=f"threshold {threshold:.4g}")
    if picked is not None and len(picked):
        axes.plot(picked, np.full(len(picked), 0.45), "|", ms=9, color=FOUND, label=f"picks ({len(picked)})")
    axes.set_ylim(0.3, counts.max() * 2)
    axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    return figure


def histogram(dataset: xr.Dataset, template: int, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the edges and counts of a score map's searched voxels, region by region."""
    moments = map_moments(dataset, name, template)
    low = moments.mean - 6 * moments.std
    top = max(moments.maximum, low + 1e-6)
    edges = np.linspace(low, top + 0.02 * (top - low), BINS + 1)
    counts = np.zeros(BINS, np.int64)
    for region in regions(dataset):
        counts += np.histogram(Block(dataset, template, region).finite_scores(name), edges)[0]
    return edges, counts


def maximum_density(scores: np.ndarray, sigma: float, rotations: int) -> np.ndarray:
    """Return the density of the largest of `rotations` independent normal scores of deviation `sigma`."""
    z = np.asarray(scores, float) / sigma
    return np.exp(np.log(rotations) + norm.logpdf(z) + (rotations - 1) * norm.logcdf(z)) / sigma


def orientation_map(picks: pd.DataFrame) -> Figure:
    """Draw where the z axis of each particle points, on an equal-area map of the sphere.

    Parameters
    ----------
    picks
        Particle table with phi, theta, psi (zxz, degrees); the map's poles are the beam direction.
    """
    figure = new_figure(8.4, 4.1)
    axes = figure.add_subplot(projection="mollweide")
    axes.grid(color="#e3e7ee", lw=0.8)
    axes.set_xticklabels([])
    axes.tick_params(colors=SOFT, labelsize=8)
    axes.spines["geo"].set_edgecolor(SOFT)
    angles = picks[["phi", "theta", "psi"]].dropna().to_numpy(float)
    if len(angles):
        x, y, z = rotation_from_euler(angles).apply([0.0, 0.0, 1.0]).T
        size = float(np.clip(4000 / len(angles), 4, 45))
        axes.scatter(
            np.arctan2(y, x), np.arcsin(np.clip(z, -1, 1)), s=size, color=FOUND, alpha=0.65, edgecolors="none"
        )
    return figure


def roc_figure(comparison: Comparison) -> Figure:
    """Draw recall against false picks over all thresholds, and recall and precision by threshold."""
    table = comparison.table
    figure = new_figure(8.4, 3.6)
    left, right = figure.subplots(1, 2)
    style(left, xlabel="false picks", ylabel="recall", ylim=(0, 1.04))
    false = np.concatenate([[0], table["picks"] - table["found"]])
    recall = np.concatenate([[0.0], table["recall"]])
    left.step(false, recall, where="post", color=FOUND, lw=2)
    left.plot(false[-1], recall[-1], "o", color=FALSE, label="threshold used")
    left.set_xlim(-0.4, max(false[-1] * 1.05, 4))
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    style(right, xlabel="threshold", ylim=(0, 1.04))
    for name, colour in (("recall", FOUND), ("precision", TRUTH), ("f1", INK)):
        right.plot(table["threshold"], table[name], color=colour, lw=1.8, label=name.replace("f1", "F1"))
    for axes in (left, right):
        axes.legend(frameon=False, fontsize=9, labelcolor=INK, loc="lower right" if axes is left else "best")
    return figure
