"""Weights of structures that explain a set of images best, from the log-likelihood matrix."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from cryodask.errors import IncompleteError, InputError
from cryodask.io.files import require_exists
from cryodask.results.accessor import open_result

MOST_STEPS = 100_000
BURN_IN = 100


@dataclass(frozen=True)
class Weighted:
    """Weights (S,), the gradient g (S,) there, how far from the best at most, and the mean log-likelihood."""

    weights: np.ndarray
    gradient: np.ndarray
    gap: float
    mean_log_likelihood: float
    steps: int


def best_weights(
    log_likelihood: np.ndarray,
    *,
    tol: float = 1e-3,
    alpha: np.ndarray | None = None,
    start: np.ndarray | None = None,
) -> Weighted:
    """Maximise the mean of ln sum_s w_s exp(L_ms) over weights on the simplex, by the monotone step w <- w g.

    Tang, Silva-Sanchez, Giraldo-Barreto, Cossio et al. (2023), "Ensemble reweighting using cryo-EM particle
    images". The function is concave, and max g - 1 bounds what is missing to its maximum.

    Parameters
    ----------
    log_likelihood : (M, S) float64
        Images by structures, nats.
    tol
        Bound at which to stop.
    alpha : (S,) >= 1, optional
        Dirichlet prior.
    start : (S,), optional
        Weights to start from; even by default.

    Raises
    ------
    IncompleteError
        After 100,000 steps without it.
    """
    count, structures = log_likelihood.shape
    top = log_likelihood.max(axis=1)
    likelihoods = np.exp(log_likelihood - top[:, None])
    extra = np.zeros(structures) if alpha is None else alpha - 1
    weights = np.full(structures, 1 / structures) if start is None else start / start.sum()
    for step in range(1, MOST_STEPS + 1):
        mixed = likelihoods @ weights
        gradient = (likelihoods / mixed[:, None]).mean(axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            pull = np.where(extra > 0, extra / (count * weights), 0.0)
        gap = float((gradient + pull).max() - 1 - extra.sum() / count)
        if gap < tol:
            return Weighted(weights, gradient, gap, float((np.log(mixed) + top).mean()), step)
        weights = (count * weights * gradient + extra) / (count + extra.sum())
    raise IncompleteError(f"no convergence in {MOST_STEPS} steps: gap {gap:.3g}, expected below {tol:g}")


def sample_weights(
    log_likelihood: np.ndarray, count: int, *, alpha: np.ndarray, start: np.ndarray, seed: int = 0
) -> np.ndarray:
    """Draw weights (count, S) by Gibbs sampling: the structure of each image given weights, weights given
    counts."""
    rng = np.random.default_rng(seed)
    likelihoods = np.exp(log_likelihood - log_likelihood.max(axis=1, keepdims=True))
    weights, drawn = start, []
    for _ in range(count + BURN_IN):
        heaped = np.cumsum(likelihoods * weights, axis=1)
        chosen = (heaped < rng.random((len(heaped), 1)) * heaped[:, -1:]).sum(axis=1)
        weights = rng.dirichlet(alpha + np.bincount(chosen, minlength=len(alpha)))
        drawn.append(weights)
    return np.array(drawn[BURN_IN:])


def reweight(
    source: Any,
    *,
    tol: float = 1e-3,
    dirichlet: float | None = None,
    sizes: Any = None,
    samples: int = 0,
    negative: bool = False,
) -> pd.DataFrame:
    """Weigh structures so that together they explain a set of images best.

    Parameters
    ----------
    source
        A result of `likelihood` (dataset or path), a text matrix (rows images, columns structures), or an
        array.
    tol
        Bound on what is missing to the largest mean log-likelihood, nats an image.
    dirichlet
        C >= 0: a Dirichlet prior of 1 + C, or with `sizes` in proportion to them.
    sizes
        Sizes of the clusters that the structures stand for: an array, or a text file; also where the search
        starts.
    samples
        Draws from the posterior of the weights, for their mean and standard deviation.
    negative
        The matrix holds negative log-likelihoods.

    Returns
    -------
    pandas.DataFrame
        structure, weight, gradient, and with samples mean and std. attrs: gap, mean_log_likelihood,
        iterations.

    Raises
    ------
    InputError
        A wrong matrix, with line and expectation; fewer than 2 structures.
    IncompleteError
        No convergence.
    """
    names, matrix = _matrix(source)
    matrix = -matrix if negative else matrix
    structures = matrix.shape[1]
    if structures < 2:
        raise InputError("reweight needs at least 2 structures")
    if not tol > 0:
        raise InputError(f"tol = {tol:g}: expected more than 0")
    start = None if sizes is None else _sizes(sizes, structures)
    alpha = _prior(dirichlet, start, structures)
    found = best_weights(matrix, tol=tol, alpha=alpha, start=start)
    table = pd.DataFrame({"structure": names, "weight": found.weights, "gradient": found.gradient})
    if samples:
        flat = np.ones(structures) if alpha is None else alpha
        drawn = sample_weights(matrix, samples, alpha=flat, start=found.weights)
        table["mean"], table["std"] = drawn.mean(axis=0), drawn.std(axis=0)
    table.attrs = {
        "gap": found.gap,
        "mean_log_likelihood": found.mean_log_likelihood,
        "iterations": found.steps,
    }
    return table


def _prior(dirichlet: float | None, sizes: np.ndarray | None, structures: int) -> np.ndarray | None:
    if dirichlet is None:
        return None
    if dirichlet < 0:
        raise InputError(f"dirichlet = {dirichlet:g}: expected at least 0")
    share = np.full(structures, 1 / structures) if sizes is None else sizes / sizes.sum()
    return 1 + dirichlet * structures * share


def _matrix(source: Any) -> tuple[list[str], np.ndarray]:
    if isinstance(source, str | Path):
        path = require_exists(source)
        if not path.is_dir():
            matrix = _read_matrix(path)
            return [str(i) for i in range(matrix.shape[1])], matrix
        source = open_result(path)
    if isinstance(source, xr.Dataset):
        if "log_likelihood" not in source:
            raise InputError("this result has no log_likelihood; run it with keep: likelihood")
        scores = source.log_likelihood.transpose("image", "structure")
        return [str(name) for name in source.structure.values], np.asarray(scores.values, float)
    matrix = np.asarray(source, float)
    if matrix.ndim != 2 or not np.isfinite(matrix).all():
        raise InputError(f"matrix of shape {matrix.shape}: expected finite (images, structures)")
    return [str(i) for i in range(matrix.shape[1])], matrix


def _read_matrix(path: Path) -> np.ndarray:
    rows: list[list[float]] = []
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1):
        words = line.replace(",", " ").split()
        if not words or words[0].startswith("#"):
            continue
        try:
            values = [float(word) for word in words]
        except ValueError:
            raise InputError(
                f"{path.name} line {number}: expected numbers, found {line.strip()[:40]!r}"
            ) from None
        if rows and len(values) != len(rows[0]):
            raise InputError(f"{path.name} line {number}: {len(values)} values, expected {len(rows[0])}")
        if not np.isfinite(values).all():
            raise InputError(f"{path.name} line {number}: expected finite numbers")
        rows.append(values)
    if not rows:
        raise InputError(f"{path.name}: no rows")
    return np.array(rows)


def _sizes(sizes: Any, structures: int) -> np.ndarray:
    values = (
        _read_matrix(require_exists(sizes)).ravel()
        if isinstance(sizes, str | Path)
        else np.asarray(sizes, float)
    )
    if len(values) != structures or not (values > 0).all():
        raise InputError(f"sizes: expected {structures} numbers above 0, found {len(values)}")
    return values
