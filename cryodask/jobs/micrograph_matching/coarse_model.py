"""What a binned first stage with fewer orientations sees of particles that the whole search scores.

The filtered image is white: the scores of both stages are inner products with unit noise, and so is their
covariance. A particle's coarse score is κ times its fine one, κ the likeness of both templates on the pixels
of the first stage.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from cryodask.geometry.neighbours import RowFinder
from cryodask.geometry.zyz import zyz_matrices, zyz_rotations
from cryodask.jobs.micrograph_matching import constants
from cryodask.jobs.micrograph_matching.binning import Binning, crop_stamp
from cryodask.jobs.micrograph_matching.problem import MicrographProblem
from cryodask.jobs.miss_model import MissModel
from cryodask.kernels.slices import extract_slices, project, slice_axes, unit_energy

DRAWS = 64
LEVELS = 16  # fine scores at which τ is computed, and interpolated between
NEAREST = 4
DRAW_STREAM = 13
PLACES = 2**20  # pixels of an image of any size among which a draw falls


@dataclass(frozen=True, eq=False)
class StageView:
    """A template as one stage of a search scores it.

    Parameters
    ----------
    angles
        (n_o, 3) phi, theta, psi of the stage, degrees.
    spectrum
        (m, m, m//2 + 1) complex64 from `template_spectrum`.
    filters
        (n_p, n_d, n, n//2 + 1): CTF times filters.
    scales
        (n_p,) voxel size over pixel size.
    limit
        Longest frequency that the filters leave, cycles per pixel.
    magnification
        As in `slice_axes`.
    binning
        Ratio of the stage's pixels to the full ones.
    """

    angles: np.ndarray
    spectrum: Any
    filters: np.ndarray
    scales: tuple[float, ...]
    limit: float
    magnification: tuple[float, float, float, float] | None
    binning: Binning

    @property
    def rotations(self) -> Rotation:
        """The orientations as rotations of the template into the data."""
        return zyz_rotations(self.angles)

    def templates(self, rows: np.ndarray, size: int, defocus: int) -> np.ndarray:
        """Return the templates (rows, n, n) of some orientations at one pixel size and defocus."""
        matrices = zyz_matrices(self.angles[rows])
        axes = slice_axes(matrices, scale=self.scales[size], magnification=self.magnification)
        slices = extract_slices(self.spectrum, axes, self.filters.shape[-2], limit=self.limit)
        return np.asarray(unit_energy(project(slices, self.filters[size, defocus])))


def stage_view(problem: MicrographProblem) -> StageView:
    """Return the view of a problem whose constants are written and whose image is prepared."""
    tables = constants.read_tables(problem.folder, np)
    return StageView(
        angles=np.asarray(constants.read_angles(problem.folder)),
        spectrum=tables.spectrum,
        filters=tables.filters,
        scales=problem.scales,
        limit=problem.limit,
        magnification=problem.preparation.optics.ctf.magnification,
        binning=problem.preparation.binning,
    )


def miss_model(
    fine: StageView, coarse: StageView, *, symmetry: str = "C1", seed: int = 0, draws: int = DRAWS
) -> tuple[MissModel, float]:
    """Return what a first stage sees of randomly drawn particles, and the share of their energy it keeps.

    A draw is an orientation, defocus and pixel size of the whole search and a pixel of the full image. Its
    coarse score is that of the best of the four nearest orientations of the first stage at its nearest pixel.

    Parameters
    ----------
    fine, coarse
        The whole search and the first stage.
    symmetry
        Point group of the template, where the search counts on one.
    seed
        Of the run.
    draws
        How many.
    """
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, DRAW_STREAM])))
    sizes, defoci = fine.filters.shape[:2]
    rows = generator.integers(0, len(fine.angles), draws)
    hypotheses = generator.integers(0, [sizes, defoci], (draws, 2))
    places = generator.integers(0, PLACES, (draws, 2))
    finder = RowFinder(coarse.rotations, symmetry)
    nearest = finder.nearest(zyz_rotations(fine.angles[rows]), NEAREST)[1]
    likeness, shares = np.empty(draws), np.empty(draws)
    for draw, (size, defocus) in enumerate(hypotheses):
        particle = fine.templates(rows[draw : draw + 1], size, defocus)[0]
        exact = places[draw] * coarse.binning.ratio
        seen = crop_stamp(particle, coarse.binning, np.rint(exact) - exact)
        shares[draw] = np.square(seen).sum()
        likeness[draw] = np.tensordot(coarse.templates(nearest[draw], size, defocus), seen, 2).max()
    one, none = np.ones(draws), np.zeros(draws)
    model = MissModel(one, none, one, likeness, none, one, likeness)
    return model, float(min(shares.mean(), 1.0))


def full_moments(mean: np.ndarray, std: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of scores at full size from those of a binned search.

    A template of unit energy has a share f of it on the binned pixels; the rest sees noise of its own. So the
    mean is √f of the binned one, and the variance f of it plus 1 - f.

    Parameters
    ----------
    mean, std
        Any shape, of the binned search.
    share
        f.
    """
    return np.sqrt(share) * mean, np.sqrt(share * np.square(std) + 1.0 - share)


def coarse_thresholds(model: MissModel, fine_scores: np.ndarray, miss_rate: float) -> np.ndarray:
    """Return τ for fine scores of any shape, interpolated between few at which it is computed."""
    low, high = float(np.nanmin(fine_scores)), float(np.nanmax(fine_scores))
    levels = np.linspace(low, max(high, low + 1e-6), LEVELS)
    known = [model.coarse_threshold(level, miss_rate) for level in levels.tolist()]
    return np.interp(fine_scores, levels, known)


def local_thresholds(
    model: MissModel, share: float, moments: tuple[np.ndarray, np.ndarray], *, zscore: float, miss_rate: float
) -> np.ndarray:
    """Return τ at every position of a first stage, for particles of one z-score.

    Parameters
    ----------
    model, share
        From `miss_model`.
    moments
        Mean and standard deviation of the first stage's scores.
    zscore
        Of the faintest particles that count.
    miss_rate
        Share of them that may be missed.
    """
    mean, std = full_moments(*moments, share)
    return coarse_thresholds(model, zscore * std + mean, miss_rate)
