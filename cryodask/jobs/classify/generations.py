"""Generation after generation, until nothing reproducible is left; resumed at any pass."""

import math
import time
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cryodask.jobs.classify.acceptance import Reason
from cryodask.jobs.classify.checkpoints import (
    Outcome,
    outcome_of,
    read_outcome,
    read_state,
    with_tests,
    write_state,
)
from cryodask.jobs.classify.evidence import junk_threshold, ridden_scores
from cryodask.jobs.classify.generation import Tests, apply_tests, consolidated, restricted, screen
from cryodask.jobs.classify.model import offset_grid
from cryodask.jobs.classify.parameters import ClassifyParameters
from cryodask.jobs.classify.passes import Classes, Population
from cryodask.jobs.classify.run import Run, RunSettings, RunState
from cryodask.jobs.classify.shards import Images
from cryodask.jobs.classify.stability import StabilitySettings
from cryodask.search.rounds import Rounds, StoppedError
from cryodask.search.store import write_json

Listener = Callable[[dict[str, Any]], None]
OUTCOME = "outcome.npz"


@dataclass(frozen=True)
class Search:
    """What all generations share.

    Parameters
    ----------
    folder : Path
        Of the result; generations have folders in it.
    work : Path
        Where states of unfinished runs lie.
    parameters : ClassifyParameters
    particles, decoys : Images
    centres : (n, 2) float32
        Pre-aligned.
    usable : (n,) bool
    rounds : Rounds
    listen : callable
        Called with a dictionary after every pass and step.
    """

    folder: Path
    work: Path
    parameters: ClassifyParameters
    particles: Images
    decoys: Images
    centres: np.ndarray
    usable: np.ndarray
    rounds: Rounds
    listen: Listener

    @property
    def offsets(self) -> np.ndarray:
        """Offsets searched about a reference, (S, 2)."""
        p = self.parameters
        return offset_grid(0.0 if p.filament_width > 0 else p.xr, p.y_range, p.ts)

    def population(self, rows: np.ndarray, owner: str) -> Population:
        """Return some images as the population of a run."""
        return Population(self.particles, rows, self.centres[rows], owner, self.rounds)

    def noise(self, owner: str) -> Population:
        """Return the decoys as a population."""
        everyone = np.arange(self.decoys.count)
        return Population(self.decoys, everyone, np.zeros((len(everyone), 2), np.float32), owner, self.rounds)


def generation_folder(folder: Path, number: int) -> Path:
    """Return the folder of a generation, numbered from 1."""
    return folder / f"generation_{number:02d}"


def search_generations(search: Search) -> list[Outcome]:
    """Return the outcome of every generation; those that are stored are read."""
    outcomes: list[Outcome] = []
    rows = np.flatnonzero(search.usable)
    size = search.parameters.class_size(search.particles.count)
    limit = search.parameters.generations
    while len(rows) >= 2 * size and (limit == -1 or len(outcomes) < limit):
        number = len(outcomes) + 1
        path = generation_folder(search.folder, number) / OUTCOME
        if not path.exists():
            _run_generation(search, number, rows, size).write(path)
            for left in search.work.glob(f"g{number:02d}_*.npz"):
                left.unlink(missing_ok=True)
        outcome = read_outcome(path)
        outcomes.append(outcome)
        rows = np.intersect1d(outcome.left, rows)
        if not outcome.accounted.any():
            break
    return outcomes


def _run_generation(search: Search, number: int, rows: np.ndarray, size: int) -> Outcome:
    settings = [_settings(search, number, run, len(rows), size) for run in range(search.parameters.runs)]
    runs = _all_runs(search, number, rows, settings)
    chosen = int(np.argmax([r.objective for r in runs]))
    population = search.population(rows, f"g{number}_tests")
    decoys, own = search.noise(f"g{number}"), settings[chosen]
    screened = screen(population, runs[chosen], decoys, own, search.parameters.junk_rate)
    outcome = outcome_of(rows, runs, chosen, screened)
    if not len(screened.kept):
        return outcome
    quiet = search.population(rows[screened.kept], f"g{number}_quiet")
    classes = consolidated(quiet, restricted(runs[chosen], screened.kept), own, len(rows))
    if classes is None:
        return outcome
    witnesses = [restricted(r, screened.kept) for i, r in enumerate(runs) if i != chosen]
    found = apply_tests(
        quiet,
        classes,
        witnesses,
        decoys,
        own,
        _tests(search, number),
        chosen,
        lambda what: search.listen({"event": "test", "generation": number, "test": what}),
    )
    outcome = with_tests(outcome, screened.kept, found)
    search.listen(_stage_event(search, number, outcome))
    return outcome


def _stage_event(search: Search, number: int, outcome: Outcome) -> dict[str, Any]:
    sizes = np.bincount(outcome.label[outcome.accounted], minlength=1)
    return {
        "event": "generation",
        "generation": number,
        "images": len(outcome.population),
        "accounted": int(outcome.accounted.sum()),
        "classes": int((sizes > 0).sum()),
        "agreement": float(np.nanmean(outcome.views)) if np.isfinite(outcome.views).any() else None,
        "junk_threshold": outcome.junk,
        "near_threshold": float((np.abs(outcome.score - outcome.junk) < 1).mean()),
    }


def _settings(search: Search, generation: int, run: int, images: int, size: int) -> RunSettings:
    p = search.parameters
    return RunSettings(
        classes=max(2, images // size),
        images_per_class=size,
        least=p.least_size(size),
        slack=p.capacity_slack,
        passes=p.passes,
        trials=p.splits,
        stages=p.init_iter,
        offsets=search.offsets,
        cutoffs=_cutoffs(p),
        seed=p.seed,
        generation=generation,
        number=run,
        plain=p.compat is not None,
        realign=p.iter_reali,
        stability=_stability(search, generation),
    )


def _cutoffs(p: ClassifyParameters) -> tuple[float, ...]:
    """Return the low-pass of successive passes: rising from FL to FH with the tangent filter, else none."""
    if p.filter == "wiener":
        return ()
    steps = max(0, math.ceil((p.FH - p.FL) / 0.05 - 1e-9))
    return tuple(min(p.FL + 0.05 * i, p.FH) for i in range(steps + 1))


def _tests(search: Search, generation: int) -> Tests:
    p = search.parameters
    stability = _stability(search, generation)
    return Tests(p.junk_rate, p.least_margin, p.agreement, p.validate_by, stability)


def _stability(search: Search, generation: int) -> StabilitySettings:
    p = search.parameters
    return StabilitySettings(
        p.stab_ali, p.maxit, p.thld_err, search.offsets, p.dst, p.seed * 1000 + generation
    )


def _all_runs(
    search: Search, generation: int, rows: np.ndarray, settings: list[RunSettings]
) -> list[Classes]:
    """Do all runs side by side, each in a thread that waits for its tasks."""
    with ThreadPoolExecutor(len(settings)) as pool:
        futures = [pool.submit(_one_run, search, generation, rows, own) for own in settings]
        try:
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
        except BaseException as error:
            search.rounds.stop.set()
            wait(futures)
            raise _cause(futures, error) from None
    return [future.result() for future in futures]


def _cause(futures: list[Any], error: BaseException) -> BaseException:
    """Return the error that stopped the others, not that they were stopped."""
    found = [f.exception() for f in futures if f.done() and f.exception() is not None]
    causes = [each for each in found if not isinstance(each, StoppedError)]
    return causes[0] if isinstance(error, StoppedError) and causes else error


def _one_run(search: Search, generation: int, rows: np.ndarray, settings: RunSettings) -> Classes:
    name = f"g{generation:02d}_r{settings.number + 1:02d}"
    run = Run(search.population(rows, name), settings)
    state = read_state(search.work, name)
    begun, stage = time.monotonic(), 1 if state is None else state.stage
    for after in run.states(state):
        write_state(search.work, name, after)
        event = _pass_event(search, generation, settings, after, time.monotonic() - begun)
        folder = generation_folder(search.folder, generation) / f"run_{settings.number + 1:02d}"
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / f"pass_{after.passes:03d}.json", event)
        search.listen(event)
        if after.stage > stage or after.block == "done":
            _write_stage(search, generation, settings, after, stage)
        begun, state, stage = time.monotonic(), after, after.stage
    assert state is not None
    return state.classes


def _pass_event(
    search: Search, generation: int, settings: RunSettings, state: RunState, seconds: float
) -> dict[str, Any]:
    sizes, prices = state.classes.sizes, state.classes.prices
    return {
        "event": "pass",
        "generation": generation,
        "run": settings.number + 1,
        "runs": search.parameters.runs,
        "pass": state.passes,
        "stage": state.stage,
        "block": state.block,
        "trials": state.trials,
        "accepted": state.accepted,
        "classes": settings.classes,
        "score": round(state.classes.objective, 4),
        "moved": round(state.moved, 4),
        "sizes": [int(sizes.min()), int(sizes.max())],
        "prices": [round(float(prices.min()), 3), round(float(prices.max()), 3)],
        "seconds": round(seconds, 3),
    }


def _write_stage(search: Search, generation: int, settings: RunSettings, state: RunState, stage: int) -> None:
    """Draw the classes at the end of a stage."""
    from cryodask.results.montage import write_montage

    model = search.particles.model
    folder = generation_folder(search.folder, generation) / f"run_{settings.number + 1:02d}"
    order = np.argsort(-state.classes.sizes, kind="stable")
    pictures = model.pictures(state.classes.averages[order])
    labels = [f"{size}" for size in state.classes.sizes[order]]
    path = folder / f"stage_{stage:02d}.png"
    write_montage(path, pictures, labels)
    search.listen(
        {"event": "stage", "generation": generation, "run": settings.number + 1, "montage": str(path)}
    )


def late_junk(search: Search, outcomes: list[Outcome]) -> np.ndarray:
    """Return rows of images in no class that no accepted reference explains better than noise."""
    averages = [o.averages[np.unique(o.label[o.accounted])] for o in outcomes]
    if not averages or not sum(map(len, averages)):
        return np.zeros(0, np.int64)
    last = {int(row): Reason.LEFTOVER for row in np.flatnonzero(search.usable)}
    for outcome in outcomes:
        last |= dict(zip(outcome.population.tolist(), outcome.reason.tolist(), strict=True))
    rows = np.array([row for row, reason in last.items() if reason not in (0, Reason.JUNK)], np.int64)
    if not len(rows):
        return rows
    rows = np.sort(rows)
    accepted = np.concatenate(averages)
    limit = junk_threshold(
        ridden_scores(search.noise("last"), accepted, search.offsets), search.parameters.junk_rate
    )
    scores = ridden_scores(search.population(rows, "last"), accepted, search.offsets)
    return rows[scores < limit.value]
