"""How sharp a peak must be: the white top-hat of a score map and the noise in its histogram."""

import math
from collections.abc import Iterator

import numpy as np
import xarray as xr
from scipy.ndimage import generate_binary_structure, white_tophat
from scipy.special import erfcinv

from cryodask.errors import InputError
from cryodask.picking.regions import Block, grow, regions, shape_of
from cryodask.picking.thresholds import source_name

# Erosion and dilation by one voxel each.
HALO = 2
# The lowest bins hold the many voxels that are no maximum and so have a top-hat of almost nothing.
DROPPED_BINS = 2
LEAST_POINTS = 4


def top_hat(block: Block, name: str) -> np.ndarray:
    """Return the white top-hat of a score map: the height of each voxel above its opening.

    Parameters
    ----------
    block
        Region of a result; correct `HALO` voxels inside its cuts.
    name
        Score map.

    Returns
    -------
    numpy.ndarray
        (z, y, x) float32 >= 0; the opening is by the 6-neighbour cross, unsearched voxels count as 0.
    """
    scores = np.where(block.searched & np.isfinite(block[name]), block[name], np.float32(0))
    return np.asarray(white_tophat(scores, structure=generate_binary_structure(3, 1)))


def sharpness_threshold(
    dataset: xr.Dataset, name: str, template: int, *, bins: int = 50, false_positives: float = 1.0
) -> float:
    """Return the top-hat value that noise passes `false_positives` times (pytom-match-pick's rule).

    A Gaussian (A, μ, σ) is fitted to the logarithm of the histogram of the top-hat over the searched voxels,
    without its two lowest bins, up to where the second derivative turns from negative to positive: beyond
    lie the particles. The threshold is μ + √2 σ erfc⁻¹(2Fσ√(2π)/A).

    Parameters
    ----------
    dataset
        Result with maps (template, z, y, x).
    name
        Score map.
    template
        Index on the template axis.
    bins
        Of the histogram, from the least to the largest top-hat.
    false_positives
        F, above 0.

    Raises
    ------
    InputError
        The histogram does not look like noise and particles.
    """
    counts, edges = _histogram(dataset, name, template, bins)
    centres = (edges[1:] + edges[:-1]) / 2
    amplitude, mean, width = _noise_fit(centres[DROPPED_BINS:], counts[DROPPED_BINS:]) or (0.0, 0.0, 0.0)
    share = 2 * false_positives * width * math.sqrt(2 * math.pi) / amplitude if amplitude > 0 else math.inf
    if not 0 < share < 1:
        raise InputError(
            f"{source_name(dataset)}: --top-hat {bins}: no Gaussian fits the noise in the histogram of "
            f"{name}; try another number of bins or leave --top-hat out"
        )
    return mean + math.sqrt(2) * width * float(erfcinv(share))


def _histogram(dataset: xr.Dataset, name: str, template: int, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Return counts and edges; the map is read twice, first for the range."""
    low, high = math.inf, -math.inf
    for values in _searched_values(dataset, name, template):
        low, high = min(low, float(values.min())), max(high, float(values.max()))
    if not low < high:
        return np.zeros(bins), np.linspace(0, 1, bins + 1)
    parts = (np.histogram(v, bins, (low, high))[0] for v in _searched_values(dataset, name, template))
    return np.sum(list(parts), axis=0), np.linspace(low, high, bins + 1)


def _searched_values(dataset: xr.Dataset, name: str, template: int) -> Iterator[np.ndarray]:
    """Yield the top-hat of the searched voxels, region by region."""
    for region in regions(dataset):
        outer, inner = grow(region, HALO, shape_of(dataset))
        block = Block(dataset, template, outer)
        values = top_hat(block, name)[inner][block.searched[inner]]
        if values.size:
            yield values


def _noise_fit(x: np.ndarray, counts: np.ndarray) -> tuple[float, float, float] | None:
    """Return amplitude, mean and width of the Gaussian, or None where there is none."""
    filled = counts > 0
    stop = len(counts) if filled.all() else int(np.argmin(filled))
    logarithms = np.log(counts[:stop])
    stop = _noise_end(logarithms)
    if stop < LEAST_POINTS:
        return None
    # The logarithm of a Gaussian is a parabola.
    square, slope, offset = np.polyfit(x[:stop] - x[0], logarithms[:stop], 2)
    if not square < 0:
        return None
    mean, width = -slope / (2 * square), math.sqrt(-1 / (2 * square))
    return math.exp(offset - square * mean**2), float(mean + x[0]), width


def _noise_end(logarithms: np.ndarray) -> int:
    """Return how many bins lie before the second derivative turns from negative to positive."""
    if len(logarithms) < LEAST_POINTS:
        return 0
    bend = np.gradient(np.gradient(logarithms))
    # One-sided differences at the lower end say nothing of the bend there.
    turns = np.flatnonzero((bend[2:-1] < 0) & (bend[3:] > 0))
    return int(turns[0]) + 3 if len(turns) else len(logarithms)
