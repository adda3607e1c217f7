"""Levels of aggregation finer than a template: rotations, displacements, every pose, and the best
orientations."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import logsumexp

from cryodask.search.problem import Variable

if TYPE_CHECKING:
    from cryodask.jobs.likelihood.problem import LikelihoodProblem

FINE = ("rotation", "displacement", "full", "top")
NATS, PIXELS = "nats, without weights", "angstrom, template frame"
TABLES = {
    "rotation": {
        "log_likelihood_rotation": NATS,
        "cross_correlation_rotation": "",
        "displacement_x_rotation": PIXELS,
        "displacement_y_rotation": PIXELS,
    },
    "displacement": {
        "log_likelihood_displacement": NATS,
        "cross_correlation_displacement": "",
        "inplane_rotation_displacement": "degrees",
    },
    "full": {"log_likelihood_full": NATS, "cross_correlation_full": ""},
}
TOP = {"top_log_posterior": "f8", "top_template": "i4", "top_rotation": "i4", "top_displacement": "i4"}


def fine_variables(
    structures: int, templates: int, displacements: int, rotations: int, keep: tuple[str, ...], top: int
) -> tuple[Variable, ...]:
    """Return the arrays of the finer levels among `keep`."""
    axes = {
        "rotation": (("rotation", rotations),),
        "displacement": (("displacement", displacements),),
        "full": (("displacement", displacements), ("rotation", rotations)),
    }
    lead = (("structure", structures), ("template", templates))
    found = [
        Variable(
            name,
            "f4",
            np.nan,
            (*lead, *axes[level]),
            (("units", unit),) if unit else (),
            (1, 1, *(length for _, length in axes[level])),
        )
        for level, table in TABLES.items()
        if level in keep
        for name, unit in table.items()
    ]
    if "top" in keep:
        ranks = (("structure", structures), ("rank", top))
        found += [Variable(name, kind, -1 if kind == "i4" else np.nan, ranks) for name, kind in TOP.items()]
    return tuple(found)


def fine_bytes(keep: tuple[str, ...], displacements: int, rotations: int) -> float:
    """Return the bytes that the finer levels need for each image and template."""
    lengths = {"rotation": 3 * rotations, "displacement": 3 * displacements, "top": 30}
    lengths["full"] = 2 * displacements * rotations
    return sum(4.0 * lengths[level] for level in FINE if level in keep)


def fine_rows(
    keep: tuple[str, ...], correlation: np.ndarray, score: np.ndarray, log_prior: np.ndarray, top: int
) -> dict[str, np.ndarray]:
    """Return what each finer level keeps of one template's poses (m, D, W), images first."""
    counted = np.isfinite(log_prior)
    found = {}
    if "rotation" in keep:
        best = correlation.argmax(axis=1)
        parts = (logsumexp(score[:, counted], axis=1), correlation.max(axis=1), best)
        found["rotation"] = np.stack(parts, axis=-1).astype(np.float32)
    if "displacement" in keep:
        parts = (logsumexp(score, axis=2), correlation.max(axis=2), correlation.argmax(axis=2))
        found["displacement"] = np.stack(parts, axis=-1).astype(np.float32)
    if "full" in keep:
        found["full"] = np.stack([score, correlation], axis=-1).astype(np.float32)
    if "top" in keep:
        weighted = score + log_prior[:, None]
        value = logsumexp(weighted, axis=1)
        order = np.argsort(-value, axis=1, kind="stable")[:, :top]
        best = np.take_along_axis(weighted.argmax(axis=1), order, axis=1)
        found["top"] = np.stack([np.take_along_axis(value, order, axis=1), order, best], axis=-1)
    return found


def finish_fine(
    problem: "LikelihoodProblem", structure: int, rows: Mapping[str, np.ndarray], total: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the finer variables of a structure on a tile's images, from rows (S, m, ...) of its
    templates."""
    found: dict[str, np.ndarray] = {}
    moved, angles = problem.displacements, problem.rotation_angles
    if "rotation" in rows:
        score, correlation, d = _last_first(rows["rotation"])
        at = moved[d.astype(np.int64)]
        values = (score, correlation, at[..., 0], at[..., 1])
        found |= dict(zip(TABLES["rotation"], values, strict=True))
    if "displacement" in rows:
        score, correlation, w = _last_first(rows["displacement"])
        found |= dict(
            zip(TABLES["displacement"], (score, correlation, angles[w.astype(np.int64)]), strict=True)
        )
    if "full" in rows:
        found |= dict(zip(TABLES["full"], _last_first(rows["full"]), strict=True))
    if "top" in rows:
        found |= _top(problem, structure, rows["top"], total)
    return found


def _last_first(rows: np.ndarray) -> np.ndarray:
    """Return (column, S, ..., m) of rows (S, m, ..., column)."""
    return np.moveaxis(np.moveaxis(rows, 1, -1), -2, 0)


def _top(
    problem: "LikelihoodProblem", structure: int, rows: np.ndarray, total: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the best orientations of all templates, summed over displacements: (rank, m)."""
    log_views = np.log(problem.views[structure].weight) + problem.log_share
    value = rows[..., 0] + log_views[:, None, None] - total[:, None]
    images, kept = value.shape[1:]
    flat = value.transpose(1, 0, 2).reshape(images, -1)
    order = np.argsort(-flat, axis=1, kind="stable")[:, : problem.top]
    w, d = (rows[..., k].transpose(1, 0, 2).reshape(images, -1) for k in (1, 2))
    chosen = (
        np.take_along_axis(flat, order, 1),
        order // kept,
        np.take_along_axis(w, order, 1),
        np.take_along_axis(d, order, 1),
    )
    return {name: values.T for name, values in zip(TOP, chosen, strict=True)}
