"""The picture of a matched micrograph: particles, maps, and the z-scores beside what noise would give."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.special import erfc

from cryodask.picking.image_picks import MatchMaps
from cryodask.picking.image_thresholds import ImageThreshold
from cryodask.results.pictures import FALSE, FOUND, INK, new_figure, style

PIXELS = 900  # longest edge of a drawn image: more are averaged
BINS = 160


def montage_figure(
    image: np.ndarray, maps: MatchMaps, table: pd.DataFrame, threshold: ImageThreshold, title: str
) -> Figure:
    """Draw a micrograph with its peaks, the maps, and the z histogram.

    Parameters
    ----------
    image
        (y, x), the micrograph.
    maps
        Its maps.
    table
        Its particles.
    threshold
        The value that decided.
    title
        Of the picture.
    """
    figure = new_figure(13.2, 8.0)
    figure.suptitle(title, color=INK, fontsize=11)
    grid = figure.add_gridspec(2, 4, width_ratios=(1.0, 1.0, 1.0, 1.0))
    centres = table[["pos_y_img", "pos_x_img"]].to_numpy(int)
    heading = f"micrograph, {len(table)} particle{'' if len(table) == 1 else 's'}"
    _draw(figure.add_subplot(grid[:, :2]), image, heading, centres, maps.edge)
    _draw(figure.add_subplot(grid[0, 2]), maps.scaled_mip, "z-score", bar=True, floor=0.0)
    _draw(figure.add_subplot(grid[0, 3]), maps.std, "standard deviation of scores", bar=True)
    _draw(figure.add_subplot(grid[1, 2]), maps.mip, "largest score (mip)", bar=True)
    _histogram(figure.add_subplot(grid[1, 3]), maps, threshold, table["scaled_mip"].to_numpy(float))
    return figure


def expected_counts(edges: np.ndarray, positions: int, hypotheses: float) -> np.ndarray:
    """Return how many positions of pure noise have their largest of M normal scores in each bin."""
    above = 0.5 * erfc(edges / np.sqrt(2.0))
    below = np.exp(hypotheses * np.log1p(-np.minimum(above, 1.0 - 1e-16)))
    return positions * np.diff(below)


def _draw(
    axes: Axes,
    image: np.ndarray,
    title: str,
    centres: Sequence[Sequence[int]] | np.ndarray = (),
    edge: int = 0,
    *,
    bar: bool = False,
    floor: float | None = None,
) -> None:
    """Draw an image, averaged to what can be seen, with a circle around each centre."""
    shown = _thinned(image, np.max if bar else np.mean)
    low, high = np.nanpercentile(shown, (1.0, 99.0) if not bar else (0.5, 99.98))
    low = low if floor is None else min(floor, low)
    height, width = image.shape
    drawn = axes.imshow(
        shown, cmap="gray" if not bar else "magma", vmin=low, vmax=high, origin="upper",
        extent=(0, width, height, 0), interpolation="nearest",
    )  # fmt: skip
    if len(centres):
        y, x = np.asarray(centres).T
        size = 0.25 * edge
        axes.plot(x, y, "o", ms=max(6.0, 280.0 * size / max(width, height)), mfc="none", mec=FOUND, mew=1.2)
    axes.set_title(title, color=INK, fontsize=10)
    axes.set_xticks([])
    axes.set_yticks([])
    if bar:
        axes.figure.colorbar(drawn, ax=axes, shrink=0.8, pad=0.02).ax.tick_params(labelsize=8, colors=INK)


def _thinned(image: np.ndarray, of: Callable[..., np.ndarray]) -> np.ndarray:
    """Return an image of at most `PIXELS` an edge, blocks made one by their mean or their largest value."""
    step = -(-max(image.shape) // PIXELS)
    if step == 1:
        return image
    height, width = (n // step * step for n in image.shape)
    blocks = image[:height, :width].reshape(height // step, step, width // step, step)
    return np.asarray(of(blocks, axis=(1, 3)))


def _histogram(axes: Axes, maps: MatchMaps, threshold: ImageThreshold, found: np.ndarray) -> None:
    """Draw the z-scores of all positions, and the largest of M independent normal scores."""
    style(axes, xlabel="z-score of a position", ylabel="positions", yscale="log")
    z = maps.scaled_mip[np.isfinite(maps.scaled_mip)]
    edges = np.linspace(float(z.min()), max(float(z.max()), threshold.value) + 0.5, BINS)
    counts = np.histogram(z, edges)[0]
    axes.stairs(counts, edges, fill=True, color="#cfd6e2", label="measured")
    expected = expected_counts(edges, z.size, float(maps.hypotheses))
    seen = expected > 0.3
    middles = 0.5 * (edges[1:] + edges[:-1])
    axes.plot(middles[seen], expected[seen], color=INK, lw=1.5, label=f"noise, best of {maps.hypotheses:,}")
    if threshold.metric == "zscore":
        axes.axvline(threshold.value, color=FALSE, lw=1.3, ls="--", label=f"threshold {threshold.value:.2f}")
    if len(found):
        axes.plot(found, np.full(len(found), 0.45), "|", ms=9, color=FOUND, label="particles")
    axes.set_ylim(0.3, max(float(counts.max()), 1.0) * 3)
    # below the axes: the threshold's line runs through every corner of them
    axes.legend(
        frameon=False, fontsize=8, labelcolor=INK, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.17)
    )
