"""The first stage of a coarse-to-fine match: chosen from a menu of steps and binnings before the search."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import maximum_filter
from scipy.spatial import KDTree
from scipy.special import ndtr

from cryodask.errors import InputError
from cryodask.geometry.ladder import Ladder, count_local_rows
from cryodask.geometry.neighbours import RowFinder, coarser_grid
from cryodask.geometry.zyz import zyz_angles, zyz_rotations
from cryodask.io.image import read_image
from cryodask.jobs.micrograph_matching.binning import Binning, exact_binnings
from cryodask.jobs.micrograph_matching.coarse_model import StageView, local_thresholds, miss_model
from cryodask.jobs.micrograph_matching.coarse_pilot import pilot_candidates
from cryodask.jobs.micrograph_matching.inputs import MatchInputs
from cryodask.jobs.micrograph_matching.planning import (
    Resources,
    make_problem,
    rough_seconds,
    run_threshold,
    searched_spectrum,
)
from cryodask.jobs.micrograph_matching.preparation import check_image, filtered_image, template_filters
from cryodask.jobs.micrograph_matching.problem import MicrographProblem
from cryodask.jobs.miss_model import MissModel
from cryodask.optics.image_filters import Curve

STEP_FACTORS = (1, 2, 3, 4, 6)
LARGEST_STEP = 60.0
COARSEST = 0.25  # least ratio of the menu
MENU_RATIOS = 6  # of the exact binnings, evenly chosen
LARGEST_SHARE = 0.5  # of the work of searching everything that a first stage may be
# Of the positions, whose noise may reach τ: were it more, noise would often lead a climb, not the particle
MOST_NOISE = 0.02
# CPU seconds of the second stage: of a slice by n², of a score by its products, of a row whatever its size
SLICE_COST, PRODUCT_COST, ROW_COST = 1.3e-8, 1.1e-10, 2.5e-5
SAMPLED = 256


@dataclass(frozen=True, eq=False)
class CoarseChoice:
    """The first stage of a coarse-to-fine match.

    Parameters
    ----------
    binning
        Of its image.
    angles
        (row, 3) its orientations, degrees.
    step, fine_step
        Of its list and of the whole one, degrees.
    symmetry
        Point group on which the search counts.
    text
        For the user.
    """

    binning: Binning
    angles: np.ndarray
    step: float
    fine_step: float
    symmetry: str
    text: str

    def described(self) -> dict[str, Any]:
        """Return it as plain numbers, from which `restored` makes it again."""
        ratio = [self.binning.ratio_up, self.binning.ratio_down]
        return {"ratio": ratio, "step": self.step, "fine_step": self.fine_step, "text": self.text}


def restored(inputs: MatchInputs, stored: dict[str, Any]) -> CoarseChoice:
    """Make a choice again from what `CoarseChoice.described` returned."""
    up, down = stored["ratio"]
    binning = Binning(up, down, inputs.box, inputs.image_shape)
    angles = coarse_angles(inputs.angles, stored["step"], stored["fine_step"], searched_symmetry(inputs))
    return CoarseChoice(
        binning, angles, stored["step"], stored["fine_step"], searched_symmetry(inputs), stored["text"]
    )


def searched_symmetry(inputs: MatchInputs) -> str:
    """Return a point group of the template that is certain: views that it makes equal need not be tried.

    A search allows either of two settings of D and I; the axis on z is certain of D, nothing of I.
    """
    groups = set(inputs.config.orientation_search_config.groups)
    if len(groups) != 1 or inputs.explicit.angles is not None:
        return "C1"
    group = groups.pop().strip().upper()
    if group[0] == "I":
        return "C1"
    return f"C{group[1:]}" if group[0] == "D" else group


def list_step(angles: np.ndarray) -> float:
    """Return the step of an orientation list, degrees: the largest gap around its rows, in the median.

    A list has one step in psi and another in theta; what must be reached from a row is the farther of its
    neighbours, here the sixth nearest.
    """
    quaternions = zyz_rotations(angles).as_quat()
    chosen = np.unique(np.linspace(0, len(angles) - 1, SAMPLED).round().astype(int))
    tree = KDTree(np.concatenate([quaternions, -quaternions]))
    chords = np.asarray(tree.query(quaternions[chosen], k=min(7, len(angles)))[0])[:, -1]
    return float(np.degrees(4 * np.arcsin(min(1.0, float(np.median(chords)) / 2))))


def coarse_angles(angles: np.ndarray, step: float, fine_step: float, symmetry: str) -> np.ndarray:
    """Return the orientations of a first stage: the list itself, or an even grid over what it covers."""
    if step <= fine_step:
        return angles
    coarse = coarser_grid(RowFinder(zyz_rotations(angles), symmetry), step)
    return zyz_angles(np.swapaxes(coarse.as_matrix(), 1, 2))


def on_first_stage(inputs: MatchInputs, binning: Binning, angles: np.ndarray) -> MatchInputs:
    """Return the inputs of a first stage; its mask holds every pixel next to which a centre may lie."""
    allowed = inputs.allowed
    if allowed is not None:
        allowed = maximum_filter(allowed, 2 * math.ceil(1 / binning.ratio) + 1)
    return replace(inputs, binning=binning, angles=angles, allowed=allowed)


@dataclass(frozen=True, eq=False)
class Offer:
    """A first stage with its price.

    Parameters
    ----------
    binning, step, angles
        The first stage.
    model, share
        What it sees of particles, and keeps of their energy.
    threshold, miss
        τ of its scores, and the probability that a particle at the threshold of the run lies below.
    candidates
        Places expected to go to the second stage.
    first, each
        CPU seconds of the first stage, and of a candidate in the second.
    is_measured
        Whether `candidates` comes from a pilot search rather than from normal noise.
    """

    binning: Binning
    step: float
    angles: np.ndarray
    model: MissModel
    share: float
    threshold: float
    miss: float
    candidates: float
    first: float
    each: float
    is_measured: bool = False

    @property
    def seconds(self) -> float:
        """CPU seconds of both stages."""
        return self.first + self.candidates * self.each


def choose_first_stage(inputs: MatchInputs, resources: Resources) -> tuple[CoarseChoice | None, str]:
    """Choose how a match is searched coarsely first; None where searching everything is cheaper.

    Parameters
    ----------
    inputs
        Of the match at full size.
    resources
        Of the run.

    Returns
    -------
    The choice, and the text that a user reads.

    Raises
    ------
    InputError
        An image that cannot be used.
    """
    planner = _Planner(inputs, resources)
    whole = planner.exhaustive_seconds
    best = planner.cheapest()
    if best is None:
        return (
            None,
            f"coarse_to_fine: searching everything is cheapest ({whole:.0f} CPU s), exhaustive is used",
        )
    pixel = inputs.config.optics_group.pixel_size / best.binning.ratio
    text = (
        f"coarse_to_fine: step {best.step:.3g} degrees, pixel {pixel:.3g} angstrom, {len(best.angles)} of "
        f"{len(inputs.angles)} orientations; candidates from {best.threshold:.2f} sigma, which misses at "
        f"most {100 * best.miss:.2g} % of the particles at the threshold of the run; about "
        f"{best.candidates:.2g} candidates; about 1/{whole / best.seconds:.1f} of the work of exhaustive"
    )
    return CoarseChoice(best.binning, best.angles, best.step, planner.step, planner.symmetry, text), text


class _Planner:
    """Makes and prices the first stages of one match."""

    def __init__(self, inputs: MatchInputs, resources: Resources) -> None:
        self.inputs, self.resources = inputs, resources
        self.problem = self._problem(inputs)
        self.symmetry, self.step = searched_symmetry(inputs), list_step(inputs.angles)
        self.image, self.whitening = self._filtered()
        self.fine = self._view(inputs, self.problem)
        self.exhaustive_seconds = _search_seconds(self.problem, len(inputs.angles))
        self.threshold = run_threshold(inputs)

    def cheapest(self) -> Offer | None:
        """Return the cheapest first stage by measured candidates, None where everything is cheaper."""
        left = self.offers()
        while left:
            best = min(left, key=lambda offer: offer.seconds)
            if best.seconds >= self.exhaustive_seconds:
                return None
            if best.is_measured or self.image is None:
                return best
            stage = on_first_stage(self.inputs, best.binning, best.angles)
            found = pilot_candidates(
                stage, self.resources, self.image, self.whitening, partial(self._thresholds, best)
            )
            left[left.index(best)] = replace(best, candidates=found, is_measured=True)
        return None

    def offers(self) -> list[Offer]:
        """Return every first stage that may be worth it."""
        found = []
        for factor in STEP_FACTORS:
            step = factor * self.step
            if factor > 1 and step > LARGEST_STEP:
                break
            angles = coarse_angles(self.inputs.angles, step, self.step, self.symmetry)
            rows = cache(partial(self._local_rows, angles, step))
            for binning in self._binnings():
                if factor > 1 or binning.is_on:
                    offer = self._offer(binning, step, angles, rows)
                    found += [] if offer is None else [offer]
        return found

    def _binnings(self) -> list[Binning]:
        own, inputs = self.inputs.config.cryodask, self.inputs
        every = exact_binnings(inputs.box, inputs.image_shape)
        if own.bin_to is not None:
            wanted = 2.0 * inputs.config.optics_group.pixel_size / own.bin_to
            return [next(each for each in every if each.ratio >= min(1.0, wanted) - 1e-9)]
        every = [each for each in every if each.ratio >= COARSEST]
        chosen = np.unique(np.linspace(0, len(every) - 1, MENU_RATIOS).round().astype(int))
        return [every[int(place)] for place in chosen]

    def _offer(
        self, binning: Binning, step: float, angles: np.ndarray, local_rows: Callable[[], float]
    ) -> Offer | None:
        inputs = on_first_stage(self.inputs, binning, angles)
        problem = self._problem(inputs)
        first = _search_seconds(problem, len(angles))
        if first > LARGEST_SHARE * self.exhaustive_seconds:
            return None
        own = self.inputs.config.cryodask
        model, share = miss_model(
            self.fine, self._view(inputs, problem), symmetry=self.symmetry, seed=own.seed
        )
        threshold = model.coarse_threshold(self.threshold, own.miss_rate)
        positions = float(math.prod(problem.shape))
        scores = positions * len(angles) * problem.scores_each
        candidates = scores * float(ndtr(-threshold))
        if candidates > MOST_NOISE * positions:
            return None
        miss = model.miss_probability(threshold, self.threshold)
        each = local_rows() * self._score_seconds(binning)
        return Offer(binning, step, angles, model, share, threshold, miss, candidates, first, each)

    def _thresholds(self, offer: Offer, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
        return local_thresholds(
            offer.model,
            offer.share,
            (mean, std),
            zscore=self.threshold,
            miss_rate=self.inputs.config.cryodask.miss_rate,
        )

    def _score_seconds(self, binning: Binning) -> float:
        """Return the CPU seconds of one orientation in the window of a candidate."""
        area, each = float(self.problem.box**2), self.problem.scores_each
        window = float((2 * int(1 / binning.ratio) + 1) ** 2)
        per_pixel = SLICE_COST * len(self.problem.scales) + PRODUCT_COST * each * (window + 1)
        return area * per_pixel + ROW_COST

    def _local_rows(self, angles: np.ndarray, step: float) -> float:
        ladder = Ladder(self.fine.rotations, self.step, zyz_rotations(angles), step, self.symmetry)
        return count_local_rows(ladder, self.symmetry)

    def _problem(self, inputs: MatchInputs) -> MicrographProblem:
        return make_problem(inputs, Path("constants"), self.resources)

    def _view(self, inputs: MatchInputs, problem: MicrographProblem) -> StageView:
        return StageView(
            angles=inputs.angles,
            spectrum=searched_spectrum(inputs),
            filters=template_filters(problem.preparation, self.whitening),
            scales=problem.scales,
            limit=problem.limit,
            magnification=problem.preparation.optics.ctf.magnification,
            binning=inputs.binning,
        )

    def _filtered(self) -> tuple[np.ndarray | None, Curve | None]:
        settings = self.problem.preparation
        try:
            image = read_image(settings.path)
            check_image(image, settings.label)
        except InputError:
            if self.inputs.is_one_of_many:  # it fails alone, when its turn comes
                return None, None
            raise
        return filtered_image(image, settings.filters, settings.clip_sigma)


def _search_seconds(problem: MicrographProblem, orientations: int) -> float:
    """Return the CPU seconds of a search in one piece."""
    block = [length + problem.box - 1 for length in problem.shape]
    return rough_seconds(problem, block) * orientations
