"""Templates, masks, filters and inputs of a match on the coarse grid."""

from dataclasses import replace

import numpy as np

from cryodask.geometry.euler import rotation_from_euler
from cryodask.jobs.tomogram_matching.coarse_search import coarse_filters, coarse_mask, coarse_volume
from cryodask.jobs.tomogram_matching.constants import Tables
from cryodask.jobs.tomogram_matching.inputs import MatchInputs, viewing_directions
from cryodask.jobs.tomogram_matching.planning import template_volumes
from cryodask.jobs.tomogram_matching.problem import TomogramProblem
from cryodask.jobs.tomogram_matching.search_grid import SearchGrid
from cryodask.jobs.tomogram_matching.weighting import make_template_filters
from cryodask.kernels.rotation import rotation_coefficients
from cryodask.optics.frequency import half_frequencies
from cryodask.optics.template_filter import RadialWeight


def on_coarse_grid(inputs: MatchInputs, grid: SearchGrid) -> MatchInputs:
    """Return inputs whose voxels, and with them the positions of seeds, are those of the coarse grid."""
    factor = float(grid.factor)
    seeds = inputs.seeds
    if seeds is not None:
        seeds = replace(seeds, positions=seeds.positions * factor)
    others = tuple(on_coarse_grid(other, grid) for other in inputs.others)
    return replace(inputs, voxel_size=inputs.voxel_size / factor, seeds=seeds, others=others)


def make_coarse_tables(
    inputs: MatchInputs, problem: TomogramProblem, grid: SearchGrid, lowpass: RadialWeight | None = None
) -> Tables:
    """Return the tables of one template on the coarse grid.

    Parameters
    ----------
    inputs
        Of the template.
    problem
        Its match on the full grid.
    grid
        The coarse grid.
    lowpass
        Factor on the template beyond its filters, over 1/angstrom.
    """
    volumes = [coarse_volume(volume, grid) for volume in template_volumes(inputs, problem)]
    mask = coarse_mask(inputs.particle.mask, grid)
    filters = make_template_filters(in_padded_box(inputs, grid), problem.cells)
    return Tables(
        matrices=rotation_from_euler(inputs.angles).as_matrix(),
        templates=np.stack([rotation_coefficients(volume, problem.interpolation) for volume in volumes]),
        mask=mask,
        mask_coefficients=rotation_coefficients(mask, "linear"),
        directions=viewing_directions(inputs.angles),
        template_filters=_low_passed(coarse_filters(filters, grid), grid, inputs.voxel_size, lowpass),
        seed_rows=None if inputs.seeds is None else inputs.seed_rows,
    )


def _low_passed(
    filters: np.ndarray | None, grid: SearchGrid, voxel_size: float, lowpass: RadialWeight | None
) -> np.ndarray | None:
    """Return template filters of the coarse box (cell, b, b, b//2 + 1) times a further low-pass."""
    if lowpass is None:
        return filters
    kz, ky, kx = half_frequencies((grid.coarse_box,) * 3, voxel_size / float(grid.factor))
    curve = lowpass(np.sqrt(kz**2 + ky**2 + kx**2)).astype(np.float32)
    return curve[None] if filters is None else filters * curve


def in_padded_box(inputs: MatchInputs, grid: SearchGrid) -> MatchInputs:
    """Return inputs with zeros around the template, the band counted in the Fourier pixels of that box."""
    band, grown = inputs.band, grid.padded_box / grid.box
    band = band if band is None or grown == 1 else band.scaled(grown)
    return replace(inputs, particle=inputs.particle.in_box(grid.padded_box), band=band)
