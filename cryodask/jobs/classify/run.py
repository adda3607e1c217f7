"""One run: stages of passes, with trials that split a mixed class and merge two alike.

A run is a sequence of states, one a pass; each follows from the one before it alone, so that a run continues
from any stored state as if it had never stopped.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from cryodask.jobs.classify.passes import Classes, Population, pass_offsets, run_pass
from cryodask.jobs.classify.poses import first_poses
from cryodask.jobs.classify.randomness import Purpose, lowest_hashes
from cryodask.jobs.classify.recentring import recentred
from cryodask.jobs.classify.reproducibility import matched_labels
from cryodask.jobs.classify.shards import Images
from cryodask.jobs.classify.spread import Spread, class_spreads, similarities
from cryodask.jobs.classify.stability import StabilitySettings
from cryodask.jobs.classify.stable_means import stable_classes

STRICT_BEFORE = 4  # passes of the opening with slack capacity
SETTLING, TRIAL, CLOSING, REOPENING = 2, 4, 4, 4  # passes of each block
LEAST_GAIN = 1e-3  # of the objective, for a trial to be kept
LEAST_RISE = 0.002  # of the objective by the trials of a stage, relative, for another stage
WIDEST, ALIKE = 4, 4  # classes and pairs that trials combine
MOST_REFILLS = 3
AGREED, HARDLY = 0.5, 0.05  # of the images, with the stage before; and a rise that is none


@dataclass(frozen=True)
class RunSettings:
    """What decides a run besides the images.

    Parameters
    ----------
    classes : int
        K.
    images_per_class, least : int
        n_g, and the least class g_min.
    slack : float
        Largest class over the mean, less 1, in the last passes.
    passes, trials, stages : int
    offsets : (S, 2)
    cutoffs : tuple of float
        Low-pass of the references in successive passes, the last one kept; empty for the model's own.
    seed, generation, number : int
    plain : bool
        As ISAC2: stages of `passes` passes, strictly equal classes by falling score, stages until they agree.
    realign : int
        After so many stages references are the means of stable members; 0 never.
    stability : StabilitySettings or None
        Of that test.
    """

    classes: int
    images_per_class: int
    least: int
    slack: float
    passes: int
    trials: int
    stages: int
    offsets: np.ndarray
    cutoffs: tuple[float, ...]
    seed: int
    generation: int
    number: int
    plain: bool = False
    realign: int = 0
    stability: StabilitySettings | None = None


@dataclass(frozen=True)
class RunState:
    """Where a run stands after a pass.

    Parameters
    ----------
    classes : Classes
    kept : Classes or None
        What the trial under way falls back to.
    block : str
        opening, settling, trial, closing or done.
    step : int
        Passes done in the block.
    passes, stage, trials, accepted, refills : int
        Done so far; trials within the stage.
    tried : tuple of (k, a, b)
        Splits of k and merges of a and b without success since the last one with.
    before : float
        Objective before the first trial of the stage.
    moved : float
        Share of images that changed their class in the last pass.
    """

    classes: Classes
    kept: Classes | None = None
    block: str = "opening"
    step: int = 0
    passes: int = 0
    stage: int = 1
    trials: int = 0
    accepted: int = 0
    refills: int = 0
    tried: tuple[tuple[int, int, int], ...] = ()
    before: float = 0.0
    moved: float = 1.0


@dataclass
class Run:
    """A run over a population."""

    population: Population
    settings: RunSettings
    _spreads: tuple[Classes | None, list[Spread], np.ndarray | None] = field(default=(None, [], None))

    def states(self, state: RunState | None = None) -> Iterator[RunState]:
        """Yield the state after every pass, from the beginning or from a stored state."""
        state = state or self.first_state()
        while state.block != "done":
            state = self.advance(state)
            yield state

    def first_state(self) -> RunState:
        """Return the state before the first pass: as many images as classes are the references."""
        own, settings = self.population, self.settings
        key = (settings.seed, Purpose.FIRST_IMAGES, settings.generation, settings.number)
        rows = np.searchsorted(own.indices, lowest_hashes(own.indices, settings.classes, *key))
        averages = first_averages(own.images, own.indices[rows], own.origins[rows])
        return RunState(Classes(first_poses(own.origins), averages, np.zeros(settings.classes)))

    def advance(self, state: RunState) -> RunState:
        """Do one pass and decide what comes after it."""
        length, slack = self._block(state)
        capacity = math.ceil((1 + slack) * len(self.population.indices) / self.settings.classes)
        classes = run_pass(
            self.population,
            state.classes,
            offsets=pass_offsets(self.settings.offsets, state.step, length - 1),
            capacity=capacity,
            number=state.passes,
            cutoff=self._cutoff(state),
            by_rank=self.settings.plain,
        )
        moved = float((classes.poses.label != state.classes.poses.label).mean())
        classes = recentred(self.population, classes)
        state = replace(state, classes=classes, step=state.step + 1, passes=state.passes + 1, moved=moved)
        if state.step < length:
            return self._refilled(state)
        return self._next_block(state)

    def _cutoff(self, state: RunState) -> float | None:
        """Return the low-pass of the next pass, None for the model's own."""
        cutoffs = self.settings.cutoffs
        done = state.step if self.settings.plain else state.passes
        return cutoffs[min(done, len(cutoffs) - 1)] if cutoffs else None

    def _block(self, state: RunState) -> tuple[int, float]:
        """Return the passes of the block and the slack of its next pass."""
        settings = self.settings
        if settings.plain:
            return settings.passes, 0.0
        if state.block == "opening" and state.stage == 1:
            strict = state.step < settings.passes - STRICT_BEFORE
            return settings.passes, 0.0 if strict else settings.slack
        lengths = {"opening": REOPENING, "settling": SETTLING, "trial": TRIAL, "closing": CLOSING}
        return lengths[state.block], settings.slack

    def _next_block(self, state: RunState) -> RunState:
        state = replace(state, step=0)
        if self.settings.plain:
            return self._end_plain_stage(state)
        if state.block == "opening" and state.stage == 1:
            return self._refilled(replace(state, block="settling"))
        if state.block in ("opening", "settling"):
            state = replace(state, before=state.classes.objective)
            return self._begin_trial(self._refilled(state))
        if state.block == "trial":
            return self._begin_trial(self._judged(state))
        return self._end_stage(state)

    def _judged(self, state: RunState) -> RunState:
        """Keep a trial that raised the objective, else what was before it."""
        assert state.kept is not None
        if state.classes.objective > state.kept.objective + LEAST_GAIN:
            return replace(state, kept=None, accepted=state.accepted + 1, tried=())
        return replace(state, classes=state.kept, kept=None)

    def _begin_trial(self, state: RunState) -> RunState:
        if state.trials >= self.settings.trials or self.settings.classes < 3:
            return replace(state, block="closing")
        spreads, alike = self._look(state.classes)
        pick = next_trial([s.ratio for s in spreads], alike, set(state.tried))
        if pick is None:
            return replace(state, block="closing")
        k, _, b = pick
        averages, sizes = state.classes.averages.copy(), state.classes.sizes
        given_up = b if sizes[b] <= sizes[pick[1]] else pick[1]
        averages[k], averages[given_up] = spreads[k].halves  # type: ignore[misc]
        begun = replace(state.classes, averages=averages)
        return replace(
            state,
            classes=begun,
            kept=state.classes,
            block="trial",
            trials=state.trials + 1,
            tried=(*state.tried, pick),
        )

    def _look(self, classes: Classes) -> tuple[list[Spread], np.ndarray]:
        """Return spreads and similarities, kept while trials fall back to the same classes."""
        if self._spreads[0] is not classes or self._spreads[2] is None:
            spreads = class_spreads(self.population, classes)
            alike = similarities(self.population, classes.averages, self.settings.offsets)
            self._spreads = (classes, spreads, alike)
        found = self._spreads[2]
        assert found is not None
        return self._spreads[1], found

    def _refilled(self, state: RunState) -> RunState:
        """Give a class that is nearly empty one half of the class of largest spread."""
        sizes = state.classes.sizes
        small = np.flatnonzero(sizes < self.settings.least / 2)
        if not len(small) or self.settings.classes < 2:
            return state
        ratios = [s.ratio for s in self._look(state.classes)[0]]
        wide = [
            int(k) for k in np.argsort(-np.array(ratios), kind="stable") if ratios[k] > 0 and k not in small
        ]
        averages = state.classes.averages.copy()
        for k, source in zip(small, wide, strict=False):
            averages[source], averages[k] = self._spreads[1][source].halves  # type: ignore[misc]
        return replace(state, classes=replace(state.classes, averages=averages))

    def _end_stage(self, state: RunState) -> RunState:
        refilled = self._refilled(state)
        if refilled is not state and state.refills < MOST_REFILLS:
            return replace(refilled, block="settling", refills=state.refills + 1)
        risen = state.classes.objective - state.before > LEAST_RISE * abs(state.before)
        if state.stage >= self.settings.stages or not risen:
            return replace(state, block="done")
        classes = self._realigned(state)
        return replace(state, classes=classes, block="opening", stage=state.stage + 1, trials=0, tried=())

    def _end_plain_stage(self, state: RunState) -> RunState:
        """Stop where a stage agrees with the one before it and agreement hardly rises."""
        label, agreed = state.classes.poses.label, 0.0
        if state.kept is not None:
            count = state.classes.count
            agreed = float((matched_labels(label, state.kept.poses.label, count, count) == label).mean())
        settled = agreed > AGREED and agreed - state.before < HARDLY
        if state.stage >= self.settings.stages or settled:
            return replace(state, kept=None, block="done")
        own, before = self._realigned(state), state.classes
        return replace(state, classes=own, kept=before, before=agreed, stage=state.stage + 1)

    def _realigned(self, state: RunState) -> Classes:
        """Return the classes with the means of stable members where this stage is one to test."""
        settings = self.settings
        if not settings.realign or state.stage % settings.realign or settings.stability is None:
            return state.classes
        return stable_classes(self.population, state.classes, settings.stability)


def next_trial(
    ratios: list[float], alike: np.ndarray, tried: set[tuple[int, int, int]]
) -> tuple[int, int, int] | None:
    """Return the class to split and the pair to merge: widest classes first, with the most alike pairs."""
    upper = np.triu_indices(len(alike), 1)
    order = np.argsort(-alike[upper], kind="stable")[:ALIKE]
    pairs = [(int(upper[0][i]), int(upper[1][i])) for i in order]
    for k in np.argsort(-np.array(ratios), kind="stable")[:WIDEST]:
        for a, b in pairs:
            pick = (int(k), a, b)
            if ratios[k] > 0 and k not in (a, b) and pick not in tried:
                return pick
    return None


def first_averages(images: Images, indices: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Return the ring coefficients of single images, (n, R, M), in the order given."""
    return images.model.grid.coefficients(images.read(indices), centres)
