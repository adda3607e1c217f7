"""One generation: the best of independent runs consolidated without noise, and what the tests leave of it."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cryodask.jobs.classify.acceptance import Reason, Rule, Thresholds, reasons
from cryodask.jobs.classify.evidence import (
    JunkThreshold,
    junk_threshold,
    left_out_scores,
    margins,
    ridden_scores,
)
from cryodask.jobs.classify.model import STILL
from cryodask.jobs.classify.passes import Classes, Population, pass_offsets, run_pass, score_population
from cryodask.jobs.classify.poses import Poses
from cryodask.jobs.classify.reproducibility import Agreement, agreement
from cryodask.jobs.classify.run import RunSettings
from cryodask.jobs.classify.spread import Spread, class_spreads, similarities
from cryodask.jobs.classify.stability import Stability, StabilitySettings

CONSOLIDATION = 4  # passes


@dataclass(frozen=True)
class Tests:
    """What decides the tests of a generation.

    Parameters
    ----------
    junk_rate : float
    margin, agreement : float
    rule : str
    stability : StabilitySettings
    """

    junk_rate: float
    margin: float
    agreement: float
    rule: Rule
    stability: StabilitySettings


@dataclass(frozen=True)
class Tested:
    """A generation after its tests, of the images that are not noise; K' classes.

    Parameters
    ----------
    indices : (n,) int
        The images.
    classes : Classes
    score, margin : (n,) float32
    stability : Stability
    agreement : Agreement
    spreads : list of Spread
    reason : (n,) uint8
    junk : JunkThreshold
    chosen : int
        The run it was made of, from 0.
    """

    indices: np.ndarray
    classes: Classes
    score: np.ndarray
    margin: np.ndarray
    stability: Stability
    agreement: Agreement
    spreads: list[Spread]
    reason: np.ndarray
    junk: JunkThreshold
    chosen: int


@dataclass(frozen=True)
class Screened:
    """The chosen run's verdict on noise, of all images of a generation.

    Parameters
    ----------
    score : (n,) float32
        Without the image itself.
    junk : JunkThreshold
    """

    score: np.ndarray
    junk: JunkThreshold

    @property
    def kept(self) -> np.ndarray:
        """Rows of the images that are not noise."""
        return np.flatnonzero(self.score >= self.junk.value)


def screen(
    population: Population, chosen: Classes, decoys: Population, settings: RunSettings, rate: float
) -> Screened:
    """Tell noise from particles by the chosen run."""
    score = left_out_scores(population, chosen)
    return Screened(score, junk_threshold(ridden_scores(decoys, chosen.averages, settings.offsets), rate))


@dataclass(frozen=True)
class Consolidation:
    """Where a consolidation stands after a pass.

    Parameters
    ----------
    classes : Classes
    passes : int
        Done so far.
    settled : int
        Of them, those after the last small reference went.
    """

    classes: Classes
    passes: int = 0
    settled: int = 0


def consolidations(
    population: Population, state: Consolidation, settings: RunSettings, whole: int
) -> Iterator[Consolidation]:
    """Yield passes over references with enough members, noise left out; none where no reference is left.

    Small references go by halves, the smallest first, with a pass between: the two halves of a view that a
    run cut in two would otherwise go both, and their images into classes of other views.

    Parameters
    ----------
    population : Population
        The images that are not noise.
    state : Consolidation
        The chosen run, of these images, or a stored state.
    whole : int
        Images of the generation, noise included; the capacity of a class stays that of the generation.
    """
    generous = math.ceil((1 + settings.slack) * whole / settings.classes)
    while state.settled < CONSOLIDATION:
        classes, offsets, settled = state.classes, STILL, 0
        small = np.flatnonzero(classes.sizes < settings.least)
        if len(small) and not state.settled:
            smallest = small[np.argsort(classes.sizes[small], kind="stable")][: math.ceil(len(small) / 2)]
            kept = np.setdiff1d(np.arange(classes.count), smallest)
            if not len(kept):
                return
            columns = (classes.averages[kept], classes.prices[kept], classes.losses[kept])
            classes = Classes(classes.poses, *columns)
        else:
            offsets = pass_offsets(settings.offsets, state.settled, CONSOLIDATION - 1)
            settled = state.settled + 1
        capacity = max(generous, math.ceil(len(population.indices) / classes.count))
        # the price of a full class has led the search; where an image stays is for its score to say
        classes = run_pass(
            population, classes, offsets=offsets, capacity=capacity, number=state.passes, worth=0.0
        )
        state = Consolidation(classes, state.passes + 1, settled)
        yield state


def apply_tests(
    population: Population,
    classes: Classes,
    witnesses: list[Classes],
    decoys: Population,
    settings: RunSettings,
    tests: Tests,
    stability: Stability,
    chosen: int,
    earlier: np.ndarray,
    tell: Callable[[str], None],
) -> Tested:
    """Apply every test to consolidated classes.

    Parameters
    ----------
    population, classes
        The consolidated ones.
    witnesses
        The other runs.
    decoys, settings, tests, stability, chosen
    earlier : (k, R, M) complex64
        Means of the classes that earlier generations accepted; the margin counts them.
    tell : callable
    """
    tell("junk")
    score = left_out_scores(population, classes)
    junk = junk_threshold(ridden_scores(decoys, classes.averages, settings.offsets), tests.junk_rate)
    tell("agreement")
    found = agreement(population, classes, witnesses)
    margin = margins_to_all(population, classes, earlier, settings.offsets)
    limits = Thresholds(
        junk.value,
        tests.stability.threshold,
        tests.margin,
        tests.agreement,
        tests.rule,
        settings.least,
    )
    reason = reasons(classes.poses.label, score, margin, stability, found, limits)
    spreads = class_spreads(population, classes)
    return Tested(population.indices, classes, score, margin, stability, found, spreads, reason, junk, chosen)


def margins_to_all(
    population: Population, classes: Classes, earlier: np.ndarray, offsets: np.ndarray
) -> np.ndarray:
    """Return how much better each image fits its class than any other that is not alike, earlier ones too.

    What is left of a generation belongs mostly to views that were accepted: without those in the comparison
    it would make classes of the leftovers of several views.
    """
    averages = np.concatenate([classes.averages, earlier])
    path = population.images.publish(
        f"margin_{population.owner}", population.images.model.references(averages, offsets)
    )
    shortlist = score_population(population, classes, path)
    Path(path).unlink(missing_ok=True)
    return margins(shortlist, classes.poses.label, similarities(population, averages, offsets))


def restricted(classes: Classes, rows: np.ndarray) -> Classes:
    """Return the classes of some of the images."""
    return Classes(classes.poses[rows], classes.averages, classes.prices, classes.losses)


def accepted_poses(found: Tested) -> Poses:
    """Return the poses of a tested generation; the class is -1 where an image is not accounted for."""
    poses = found.classes.poses
    return poses.replaced(label=np.where(found.reason == Reason.ACCOUNTED, poses.label, -1).astype(np.int32))
