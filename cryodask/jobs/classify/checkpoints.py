"""What a classification keeps on disk: the state after every pass, and the outcome of every generation."""

import json
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from cryodask.arrays.npy import load_npz
from cryodask.jobs.classify.acceptance import Reason
from cryodask.jobs.classify.evidence import JunkThreshold
from cryodask.jobs.classify.generation import Consolidation, Screened, Tested
from cryodask.jobs.classify.passes import Classes
from cryodask.jobs.classify.poses import Poses
from cryodask.jobs.classify.run import RunState
from cryodask.jobs.classify.stability import Stability
from cryodask.search.store import replacing

KEPT = 2  # states of a run on disk
PLAIN = (
    "block",
    "step",
    "passes",
    "stage",
    "trials",
    "failures",
    "accepted",
    "refills",
    "tried",
    "before",
    "moved",
)


def write_arrays(path: Path, arrays: dict[str, Any]) -> None:
    """Write an npz file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, **arrays)


def write_state(folder: Path, name: str, state: RunState) -> None:
    """Write the state of a run after a pass, and remove older ones."""
    plain = {key: getattr(state, key) for key in PLAIN}
    arrays = {"plain": np.array(json.dumps(plain)), **_flat("classes", state.classes)}
    if state.kept is not None:
        arrays |= _flat("kept", state.kept)
    write_arrays(folder / f"{name}_{state.passes:05d}.npz", arrays)
    for old in sorted(folder.glob(f"{name}_*.npz"))[:-KEPT]:
        old.unlink(missing_ok=True)


def read_state(folder: Path, name: str) -> RunState | None:
    """Return the last stored state of a run, None where there is none."""
    found = sorted(folder.glob(f"{name}_*.npz"))
    if not found:
        return None
    stored = load_npz(found[-1])
    plain = json.loads(str(stored["plain"]))
    plain["tried"] = tuple((k, b) for k, b in plain["tried"])
    kept = _classes("kept", stored) if "kept_averages" in stored else None
    return RunState(_classes("classes", stored), kept, **plain)


def write_consolidation(folder: Path, name: str, state: Consolidation) -> None:
    """Write where a consolidation stands after a pass, and remove what was before."""
    arrays = _flat("classes", state.classes) | {"passes": state.passes, "settled": state.settled}
    write_arrays(folder / f"{name}_{state.passes:05d}.npz", arrays)
    for old in sorted(folder.glob(f"{name}_*.npz"))[:-KEPT]:
        old.unlink(missing_ok=True)


def read_consolidation(folder: Path, name: str) -> Consolidation | None:
    """Return the last stored state of a consolidation, None where there is none."""
    found = sorted(folder.glob(f"{name}_*.npz"))
    if not found:
        return None
    stored = load_npz(found[-1])
    return Consolidation(_classes("classes", stored), int(stored["passes"]), int(stored["settled"]))


def kept_screen(path: Path, make: Callable[[], Screened]) -> Screened:
    """Return the verdict on noise that is stored, or make and store it."""
    if not path.exists():
        made = make()
        values = {"score": made.score, "junk": made.junk.value, "quantiles": made.junk.quantiles}
        write_arrays(path, values)
    stored = load_npz(path)
    return Screened(stored["score"], JunkThreshold(float(stored["junk"]), stored["quantiles"]))


def kept_stability(path: Path, make: Callable[[], Stability]) -> Stability:
    """Return the stability that is stored, or make and store it."""
    if not path.exists():
        made = make()
        write_arrays(path, {each.name: getattr(made, each.name) for each in fields(Stability)})
    return Stability(**load_npz(path))


def _flat(name: str, classes: Classes) -> dict[str, np.ndarray]:
    arrays = {f"{name}_{f.name}": getattr(classes.poses, f.name) for f in fields(Poses)}
    return arrays | {
        f"{name}_averages": classes.averages,
        f"{name}_prices": classes.prices,
        f"{name}_losses": classes.losses,
    }


def _classes(name: str, stored: Any) -> Classes:
    poses = Poses(*(stored[f"{name}_{f.name}"] for f in fields(Poses)))
    return Classes(poses, stored[f"{name}_averages"], stored[f"{name}_prices"], stored[f"{name}_losses"])


@dataclass(frozen=True)
class Outcome:
    """What a generation found; n images, K' classes, all of one length a group.

    Parameters
    ----------
    population : (n,) int
        Rows of the stack.
    run_label : (runs, n) int32
    objective : (runs,) float64
    chosen : int
        Run that was consolidated.
    reason : (n,) uint8
    label, angle, mirror, centre : (n, ..)
        Class (-1 for none) and pose.
    score, margin, error, vote, views : (n,) float32
        NaN where not computed.
    averages : (K', R, M) complex64
    jaccard, mirror_rate, class_error, spread_ratio, price : (K',)
    junk : float
    decoys : (4,)
        Threshold and quantiles of the decoys' scores.
    """

    population: np.ndarray
    run_label: np.ndarray
    objective: np.ndarray
    chosen: int
    reason: np.ndarray
    label: np.ndarray
    angle: np.ndarray
    mirror: np.ndarray
    centre: np.ndarray
    score: np.ndarray
    margin: np.ndarray
    error: np.ndarray
    vote: np.ndarray
    views: np.ndarray
    averages: np.ndarray
    jaccard: np.ndarray
    mirror_rate: np.ndarray
    class_error: np.ndarray
    spread_ratio: np.ndarray
    price: np.ndarray
    junk: float
    decoys: np.ndarray

    @property
    def accounted(self) -> np.ndarray:
        """Rows of the population that are accounted for, bool."""
        return self.reason == Reason.ACCOUNTED

    @property
    def left(self) -> np.ndarray:
        """Rows of the stack that the next generation takes up."""
        return self.population[(self.reason != Reason.ACCOUNTED) & (self.reason != Reason.JUNK)]

    def write(self, path: Path) -> None:
        """Write the outcome whole."""
        write_arrays(path, {each.name: getattr(self, each.name) for each in fields(self)})


def read_outcome(path: Path) -> Outcome:
    """Read what `Outcome.write` wrote."""
    values = load_npz(path)
    return Outcome(**(values | {"chosen": int(values["chosen"]), "junk": float(values["junk"])}))


def outcome_of(population: np.ndarray, runs: list[Classes], chosen: int, screened: Screened) -> Outcome:
    """Return the outcome of a generation without accepted classes: images are noise or in small classes."""
    best, n = runs[chosen], len(population)
    nothing = np.full(n, np.nan, np.float32)
    none = np.zeros(0, np.float32)
    noise = screened.score < screened.junk.value
    poses = best.poses
    return Outcome(
        population=population,
        run_label=np.stack([r.poses.label for r in runs]),
        objective=np.array([r.objective for r in runs]),
        chosen=chosen,
        reason=np.where(noise, Reason.JUNK, Reason.SMALL_CLASS).astype(np.uint8),
        label=np.full(n, -1, np.int32),
        angle=poses.angle,
        mirror=poses.mirror,
        centre=poses.centre,
        score=screened.score,
        margin=nothing,
        error=nothing,
        vote=nothing,
        views=nothing,
        averages=best.averages[:0],
        jaccard=none,
        mirror_rate=none,
        class_error=none,
        spread_ratio=none,
        price=none,
        junk=screened.junk.value,
        decoys=screened.junk.quantiles,
    )


def with_tests(outcome: Outcome, kept: np.ndarray, found: Tested) -> Outcome:
    """Return the outcome with what the tests found of the images in rows `kept`."""
    poses = found.classes.poses
    columns = {
        "reason": found.reason,
        "label": poses.label,
        "angle": poses.angle,
        "mirror": poses.mirror,
        "centre": poses.centre,
        "score": found.score,
        "margin": found.margin,
        "error": found.stability.error,
        "vote": found.agreement.vote,
        "views": found.agreement.views,
    }
    changed = {}
    for name, values in columns.items():
        whole = getattr(outcome, name).copy()
        whole[kept] = values
        changed[name] = whole
    return replace(
        outcome,
        **changed,
        averages=found.classes.averages,
        jaccard=found.agreement.jaccard,
        mirror_rate=found.stability.mirror_rate,
        class_error=found.stability.class_error,
        spread_ratio=np.array([s.ratio for s in found.spreads], np.float32),
        price=found.classes.prices.astype(np.float32),
        junk=found.junk.value,
        decoys=found.junk.quantiles,
    )
