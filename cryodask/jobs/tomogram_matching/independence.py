"""As how many independent scores a search counts."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import scipy.fft
import xarray as xr

from cryodask.errors import InputError
from cryodask.jobs.tomogram_matching.constants import Tables
from cryodask.jobs.tomogram_matching.noise_spectrum import whitening_from
from cryodask.jobs.tomogram_matching.planning import Resources, make_problem, make_tables
from cryodask.jobs.tomogram_matching.problem import TomogramProblem
from cryodask.jobs.tomogram_matching.reopening import reopened_inputs
from cryodask.kernels.rotation import rotate_mask
from cryodask.kernels.template import normalization_mask, prepare_rotation

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
    problem = make_problem(inputs, Path(), Resources(device="cpu")).parts[0]
    tables = make_tables(inputs, problem)
    whitening = whitening_from(json.loads(dataset.attrs["whitening"])) if inputs.parameters.whiten else None
    middle = problem.template_filter(tables, len(problem.cells) // 2, whitening)
    tables = replace(tables, template_filters=middle)
    count = len(tables.matrices)
    voxels = float(dataset["n_voxels"].values[0]) / squared_autocorrelation(weights(problem, tables, 0))
    if count == 1:
        return np.array([voxels])
    sequence = np.random.SeedSequence([inputs.parameters.seed, PAIR_STREAM])
    generator = np.random.Generator(np.random.Philox(sequence))
    pairs = [generator.choice(count, 2, replace=False) for _ in range(PAIRS)]
    squared = [_correlation(*(weights(problem, tables, row) for row in pair)) ** 2 for pair in pairs]
    return np.array([voxels * count / (1 + (count - 1) * float(np.mean(squared)))])


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
