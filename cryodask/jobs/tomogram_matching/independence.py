"""As how many independent scores a search counts."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import scipy.fft
import xarray as xr

from cryodask.errors import InputError
from cryodask.jobs.tomogram_matching.constants import Tables
from cryodask.jobs.tomogram_matching.inputs import MatchInputs
from cryodask.jobs.tomogram_matching.noise_spectrum import whitening_from
from cryodask.jobs.tomogram_matching.planning import Resources, make_problem, make_tables
from cryodask.jobs.tomogram_matching.problem import TomogramProblem
from cryodask.jobs.tomogram_matching.reopening import reopened_inputs
from cryodask.kernels.rotation import rotate_mask
from cryodask.kernels.template import normalization_mask, prepare_rotation
from cryodask.optics.whitening import Whitening
from cryodask.picking.thresholds import scores_made

PAIRS = 256
PAIR_STREAM = 11


def independent_scores(dataset: xr.Dataset) -> np.ndarray:
    """Return for each template the number of independent scores of a search.

    Voxels count as n/Σ_Δ ρ(Δ)², ρ the normalised autocorrelation of the filtered, masked template; rotations
    as R/(1 + (R - 1)·mean ρ_ij²), ρ_ij the correlation without shift of random pairs of rotations: the
    effective numbers of correlated samples.

    Parameters
    ----------
    dataset
        Result with `euler`, `n_voxels`, `n_rotations` and the parameters of the search.

    Raises
    ------
    InputError
        Where template or mask cannot be read as they were.
    """
    inputs = reopened_inputs(dataset, "--independent effective")
    if inputs.parameters.whiten and "whitening" not in dataset.attrs:
        raise InputError("--independent effective: needs the whitening that a stored result holds")
    # No task will run, so no folder is needed.
    problem = make_problem(inputs, Path(), Resources(device="cpu"))
    whitening = whitening_from(json.loads(dataset.attrs["whitening"])) if inputs.parameters.whiten else None
    made, searched = scores_made(dataset), dataset["n_voxels"].values
    return np.array(
        [
            _independent(each, part, whitening, int(voxels), float(scores))
            for each, part, voxels, scores in zip(inputs.every, problem.parts, searched, made, strict=True)
        ]
    )


def _independent(
    inputs: MatchInputs, problem: TomogramProblem, whitening: Whitening | None, voxels: int, made: float
) -> float:
    """Return as how many the scores of one template count."""
    tables = make_tables(inputs, problem)
    middle = problem.template_filter(tables, len(problem.cells) // 2, whitening)
    tables = replace(tables, template_filters=middle)
    independent = voxels / squared_autocorrelation(weights(problem, tables, 0))
    rows = made / max(voxels, 1)
    if rows <= 1:
        return independent
    sequence = np.random.SeedSequence([inputs.parameters.seed, PAIR_STREAM])
    generator = np.random.Generator(np.random.Philox(sequence))
    pairs = [_pair(inputs, problem, tables, generator) for _ in range(PAIRS)]
    squared = [_correlation(*(weights(problem, tables, row) for row in pair)) ** 2 for pair in pairs]
    return independent * rows / (1 + (rows - 1) * float(np.mean(squared)))


def _pair(
    inputs: MatchInputs, problem: TomogramProblem, tables: Tables, generator: np.random.Generator
) -> np.ndarray:
    """Draw two rotations that one voxel is scored with: of the list, or of a seed."""
    rows = np.arange(len(tables.matrices))
    if problem.near is not None and inputs.seeds is not None:
        seed = inputs.seeds.matrices[[int(generator.integers(len(inputs.seeds)))]]
        rows = rows[problem.near.allowed(tables.matrices, seed)[:, 0]]
    return generator.choice(rows, 2, replace=len(rows) < 2)


def weights(problem: TomogramProblem, tables: Tables, row: int) -> np.ndarray:
    """Return the filtered, masked, normalised template (n, n, n) of one rotation."""
    matrix = tables.matrices[row]
    mask = tables.mask if problem.mask_kind == "spherical" else rotate_mask(tables.mask_coefficients, matrix)
    template, _ = prepare_rotation(
        tables.templates[0],
        normalization_mask(mask, problem.normalization),
        matrix,
        interpolation=problem.interpolation,
        filter_half=None if tables.template_filters is None else tables.template_filters[0],
        normalization=problem.normalization,
    )
    return np.asarray(template)


def squared_autocorrelation(template: np.ndarray) -> float:
    """Return Σ_Δ ρ(Δ)² over all shifts Δ: voxels that count as one.

    Parameters
    ----------
    template
        (n, n, n) weights of the correlation.
    """
    shape = tuple(scipy.fft.next_fast_len(2 * n - 1, real=True) for n in template.shape)
    power = np.abs(scipy.fft.rfftn(template.astype(np.float64), shape)) ** 2
    shifted = scipy.fft.irfftn(power, shape)
    return float(np.square(shifted / shifted[0, 0, 0]).sum())


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Return the normalised correlation without shift."""
    a, b = first.astype(np.float64), second.astype(np.float64)
    return float(np.sum(a * b) / np.sqrt(np.sum(a * a) * np.sum(b * b)))
