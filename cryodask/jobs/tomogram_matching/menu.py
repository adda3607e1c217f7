"""The first stages that a coarse-to-fine search may choose from, and what each would cost."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from scipy.ndimage import maximum_filter
from scipy.special import ndtr

from cryodask.jobs.miss_model import MissModel
from cryodask.jobs.tomogram_matching.search_grid import AUTOMATIC
from cryodask.picking.thresholds import false_positive_threshold

STEP_FACTORS = (2, 3, 4, 6)
LOWPASS_SHARES = (1 / 2, 2 / 3, 1)
FACTORS = (*AUTOMATIC, Fraction(1))
# fall of the extra low-pass, Fourier pixels of the template box: a steep one ends sooner, on a coarser grid
LOWPASS_SIGMA = 1.0
GRIDS = 2  # of those that hold the band, the coarsest
LARGEST_STEP = 60.0
PILOT_SHARE = 0.05  # of the coarse rows that are searched on one tile before the choice
LEAST_PILOT = 8
NEIGHBOURS = 27  # voxels of a candidate: its own and those around it


@dataclass(frozen=True)
class CoarseChoice:
    """A coarse search of everything.

    Parameters
    ----------
    step
        Of its rotation list, degrees.
    lowpass
        Beyond the band of the search, angstrom; None for none.
    factor
        Its voxels in one of the full grid, along an axis.
    """

    step: float
    lowpass: float | None
    factor: Fraction

    def __str__(self) -> str:
        low = "" if self.lowpass is None else f", low-pass {self.lowpass:.0f} angstrom"
        grid = "full grid" if self.factor == 1 else f"grid {self.factor}"
        return f"step {self.step:g} degrees{low}, {grid}"


def coarse_choices(
    step: float, diameter: float, *, box: int, voxel_size: float, band_edge: float
) -> list[CoarseChoice]:
    """Return the menu: steps of 2, 3, 4 and 6 times the fine one, low-passes, and the grids that hold these.

    The low-passes are none and those at which the rim of a particle moves by 1/2, 2/3 and all of a step. What
    a grid or a low-pass costs in score is in the miss probability; so a grid need only hold the band itself.

    Parameters
    ----------
    step
        Of the fine list, degrees.
    diameter
        Of the particle, angstrom.
    box
        Edge n of the template box, voxels.
    voxel_size
        Angstrom.
    band_edge
        Radius at which the band of the search ends, Fourier pixels of the box.
    """
    found = []
    band_edge = min(band_edge, box / 2)
    for factor in STEP_FACTORS:
        coarse = factor * step
        if coarse > LARGEST_STEP:
            break
        for share in (None, *LOWPASS_SHARES):
            lowpass = None if share is None else share * math.radians(coarse) * diameter
            edge = band_edge
            if lowpass is not None:
                edge = box * voxel_size / lowpass + LOWPASS_SIGMA * math.sqrt(2.0)
            grids = [grid for grid in FACTORS if grid * box / 2 >= edge] or [Fraction(1)]
            if lowpass is not None and (edge >= band_edge or grids[0] == 1):
                continue  # loses signal and saves nothing
            found += [CoarseChoice(coarse, lowpass, grid) for grid in grids[:GRIDS]]
    return found


@dataclass(frozen=True)
class Rates:
    """CPU seconds of the elementary work of a search.

    They are figures of one processor (benchmarks/RESULTS.md), not measured in each run, so that a run repeats
    its choice: only their ratios count.

    Parameters
    ----------
    search
        A voxel and a rotation of a search of all voxels.
    rotation
        A voxel of the box in rotating, filtering and normalising a template.
    product
        A voxel of the mask's support in the sum of an exact score.
    """

    search: float = 3.3e-9
    rotation: float = 2.4e-8
    product: float = 1.2e-10


@dataclass(frozen=True)
class Work:
    """The size of a search.

    Parameters
    ----------
    voxels
        Searched, of the full grid.
    rotations
        Of the fine list.
    box
        Edge of the template box, voxels.
    support
        Voxels of the mask, full grid.
    tiles
        Of the full grid; rotated templates are shared within one.
    copies
        Times that everything is scored: twice with a decoy, which finds candidates of its own.
    """

    voxels: float
    rotations: int
    box: int
    support: int
    tiles: int = 1
    copies: int = 1

    def exhaustive_seconds(self, rates: Rates) -> float:
        """Return the CPU seconds of scoring everything."""
        return self.copies * self.voxels * self.rotations * rates.search


@dataclass(frozen=True)
class Offer:
    """A first stage with its threshold and its price.

    Parameters
    ----------
    choice
        The first stage.
    rotations
        Of its list.
    local_rows
        Fine rows tried for each candidate voxel, on average.
    threshold, sigma
        τ and the standard deviation of noise, both of coarse scores.
    miss
        Probability that a particle at the threshold of the run is missed.
    candidates
        Coarse voxels expected to go to the second stage.
    is_measured
        Whether `candidates` comes from a pilot search rather than from normal noise.
    """

    choice: CoarseChoice
    rotations: int
    local_rows: float
    threshold: float
    sigma: float
    miss: float
    candidates: float
    is_measured: bool = False

    def seconds(self, work: Work, rates: Rates) -> float:
        """Return the CPU seconds of both stages."""
        volume = float(self.choice.factor) ** 3
        search = self.rotations * work.voxels * volume * rates.search
        candidates = self.candidates * work.copies
        # candidates come in groups of neighbours, which share their rows
        wanted = candidates / NEIGHBOURS * self.local_rows / work.tiles
        rotated = work.tiles * work.rotations * -math.expm1(-wanted / work.rotations)
        made = rotated * work.box**3 * rates.rotation
        scored = candidates / volume * self.local_rows * work.support * rates.product
        return work.copies * (search + made + scored)


def make_offer(
    choice: CoarseChoice,
    model: MissModel,
    work: Work,
    *,
    rotations: int,
    local_rows: float,
    miss_rate: float,
    false_positives: float,
) -> Offer:
    """Return a first stage with the largest threshold that misses few enough particles.

    Parameters
    ----------
    choice, model
        The first stage, and what it sees of particles.
    work
        Of the whole search.
    rotations
        Of the coarse list.
    local_rows
        From `count_local_rows`.
    miss_rate
        ε.
    false_positives
        Expected number of noise peaks at the threshold of the run, all scores of the fine search counting.
    """
    fine_score = run_threshold(model, work, false_positives)
    threshold = model.coarse_threshold(fine_score, miss_rate)
    voxels = work.voxels * float(choice.factor) ** 3
    noise = voxels * rotations * float(ndtr(-threshold / model.coarse_sigma))
    return Offer(
        choice,
        rotations,
        local_rows,
        threshold,
        model.coarse_sigma,
        model.miss_probability(threshold, fine_score),
        min(NEIGHBOURS * noise, voxels),
    )


def run_threshold(model: MissModel, work: Work, false_positives: float) -> float:
    """Return the fine score from which a peak counts, as picking will set it on noise of this power."""
    return false_positive_threshold(model.fine_sigma, work.voxels * work.rotations, false_positives)


def choose_offers(
    menu: Sequence[tuple[Offer, ...]],
    works: Sequence[Work],
    rates: Sequence[Rates],
    measure: Callable[[int, Offer], float],
) -> tuple[Offer, ...] | None:
    """Return the cheapest entry by measured candidates, or None where scoring everything costs no more.

    Parameters
    ----------
    menu
        An offer of each template an entry, of one low-pass and grid; priced for normal noise.
    works, rates
        Of the whole search of each template.
    measure
        Returns the candidates of a template's offer by a pilot search (`scaled_candidates`); called for the
        cheapest entry until that is one already measured.
    """
    left = list(menu)
    while left:
        cheapest = min(left, key=lambda offers: joint_seconds(offers, works, rates))
        if joint_seconds(cheapest, works, rates) >= whole_seconds(works, rates):
            return None
        if all(offer.is_measured for offer in cheapest):
            return cheapest
        # real data hold more than noise, never less
        left[left.index(cheapest)] = tuple(
            replace(offer, candidates=max(offer.candidates, measure(number, offer)), is_measured=True)
            for number, offer in enumerate(cheapest)
        )
    return None


def joint_seconds(offers: Sequence[Offer], works: Sequence[Work], rates: Sequence[Rates]) -> float:
    """Return the CPU seconds of both stages of all templates: a candidate of one is scored with each."""
    candidates = sum(offer.candidates for offer in offers)
    return sum(
        replace(offer, candidates=candidates).seconds(work, rate)
        for offer, work, rate in zip(offers, works, rates, strict=True)
    )


def whole_seconds(works: Sequence[Work], rates: Sequence[Rates]) -> float:
    """Return the CPU seconds of scoring everything with every template."""
    return sum(work.exhaustive_seconds(rate) for work, rate in zip(works, rates, strict=True))


def pilot_rows(rotations: int) -> np.ndarray:
    """Return the rows of a coarse list that a pilot searches: a twentieth, evenly chosen."""
    count = min(rotations, max(LEAST_PILOT, round(PILOT_SHARE * rotations)))
    return np.unique(np.linspace(0, rotations - 1, count).round().astype(np.int64))


def candidate_voxels(score: np.ndarray, threshold: float) -> np.ndarray:
    """Return where a map (z, y, x) or a neighbour of the 26 around reaches a threshold."""
    return np.asarray(maximum_filter(score >= threshold, size=3, mode="constant"))


def scaled_candidates(
    counts: Sequence[int], rows: Sequence[int], voxels: int, offer: Offer, work: Work
) -> float:
    """Return the candidates that a pilot lets expect of the whole search.

    More rows find more in noise, in proportion, but not in a particle that is found already: the count is
    taken to grow on as a power of the rows, as it did in the pilot.

    Parameters
    ----------
    counts
        Candidate voxels after half of the pilot's rows, and after all.
    rows
        How many rows these are.
    voxels
        Of the pilot, on the coarse grid.
    offer
        Gives rows and grid.
    work
        Of the whole search.
    """
    half, whole = counts
    if not whole:
        return 0.0
    power = 1.0
    if half:
        power = min(math.log(whole / half) / math.log(rows[1] / rows[0]), 1.0)
    share = min(whole / voxels * (offer.rotations / rows[1]) ** power, 1.0)
    return share * work.voxels * float(offer.choice.factor) ** 3


def describe(offers: Sequence[Offer] | None, works: Sequence[Work], rates: Sequence[Rates]) -> str:
    """Return in one line for a user what was chosen and why."""
    whole = whole_seconds(works, rates)
    if offers is None:
        return f"coarse_to_fine: searching everything is cheapest ({whole:.0f} CPU s), exhaustive is used"
    times = whole / joint_seconds(offers, works, rates)
    rows, of = sum(offer.rotations for offer in offers), sum(work.rotations for work in works)
    thresholds = ", ".join(f"{offer.threshold / offer.sigma:.2f}" for offer in offers)
    return (
        f"coarse_to_fine: {offers[0].choice}, {rows} of {of} rotations; candidates from "
        f"{thresholds} sigma, which misses at most {100 * max(offer.miss for offer in offers):.2g} % of the "
        f"particles at the threshold of the run; about {sum(offer.candidates for offer in offers):.2g} "
        f"candidate voxels; 1/{times:.0f} of the work of exhaustive"
    )
