"""How many candidates a first stage will find: a twentieth of its orientations, on a piece of the image."""

import math
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from cryodask.arrays.lengths import fast_even_length
from cryodask.jobs.micrograph_matching import constants
from cryodask.jobs.micrograph_matching.binning import crop_image
from cryodask.jobs.micrograph_matching.inputs import MatchInputs
from cryodask.jobs.micrograph_matching.planning import Resources, make_problem, write_constants
from cryodask.jobs.micrograph_matching.preparation import template_filters
from cryodask.optics.image_filters import Curve
from cryodask.picking.image_peaks import image_peaks
from cryodask.search.aggregates import ExactMoments
from cryodask.search.tiles import Batch, Tile

EDGE = 512  # positions that are searched, on an axis
SHARE, LEAST = 0.05, 16  # of the orientations, and how many at least
APART = 1.5  # pixels of the first stage: a candidate stands for the eight around it


def pilot_candidates(
    inputs: MatchInputs,
    resources: Resources,
    image: np.ndarray,
    whitening: Curve | None,
    threshold: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> float:
    """Return the candidates to expect of a first stage.

    More orientations find more in noise, in proportion, but not in a particle that is found already: the
    count is taken to grow on as a power of the orientations, as it did from half of the pilot to all of it.

    Parameters
    ----------
    inputs
        Of the first stage.
    resources
        Of the run.
    image
        (H, W), filtered, at full size.
    whitening
        Of its templates.
    threshold
        Returns τ for maps of mean and standard deviation of the first stage's scores.
    """
    count = len(inputs.angles)
    rows = np.unique(
        np.linspace(0, count - 1, min(count, max(LEAST, round(SHARE * count)))).round().astype(int)
    )
    rows = np.concatenate([rows[::2], rows[1::2]])
    half = -(-len(rows) // 2)
    few = replace(inputs, angles=inputs.angles[rows])
    with tempfile.TemporaryDirectory(prefix="cryodask-") as name:
        folder = Path(name)
        problem = replace(make_problem(few, folder, resources), device="cpu")
        write_constants(few, problem)
        filters = template_filters(problem.preparation, whitening)
        constants.write_prepared(folder, crop_image(image, inputs.binning), filters, {})
        tile = _middle(problem.shape, problem.box)
        block = constants.read_block(str(folder), tile, wrap=False)
        batches = [batch for batch in (Batch(0, half), Batch(half, len(rows))) if len(batch)]
        states = [problem.fold_block(block, np, tile, batch) for batch in batches]
    maxima = np.maximum.accumulate([state["score"]["value"] for state in states])
    moments = [state["moments"] for state in states]
    exact = ExactMoments()
    all_moments = exact.finalize(moments[0] if len(moments) == 1 else exact.merge(*moments))
    tau = threshold(all_moments["mean"], all_moments["std"])
    counts = [len(image_peaks(value - tau, 0.0, mask_radius=APART)) for value in maxima]
    found, positions = counts[-1], math.prod(tile.shape)
    if not found:
        return 0.0
    power = 1.0
    if counts[0] and half < len(rows):
        power = min(max(math.log(found / counts[0]) / math.log(len(rows) / half), 0.0), 1.0)
    return found * (count / len(rows)) ** power / positions * math.prod(inputs.positions_shape)


def _middle(shape: tuple[int, int], box: int) -> Tile:
    """Return a tile in the middle of all positions."""
    size = tuple(min(EDGE, length) for length in shape)
    start = tuple((length - edge) // 2 for length, edge in zip(shape, size, strict=True))
    stop = tuple(a + edge for a, edge in zip(start, size, strict=True))
    return Tile(0, start, stop, tuple(fast_even_length(edge + box - 1) for edge in size))
