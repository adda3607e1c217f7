"""From checked inputs to a search problem, its tiles, its constants and its cost."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cryodask.arrays.lengths import fast_even_length
from cryodask.jobs.input_files import file_identity
from cryodask.jobs.micrograph_matching import constants
from cryodask.jobs.micrograph_matching.binning import crop_volume
from cryodask.jobs.micrograph_matching.inputs import MatchInputs, position_mask
from cryodask.jobs.micrograph_matching.preparation import ImagePreparation, SearchOptics, template_filters
from cryodask.jobs.micrograph_matching.problem import MicrographProblem
from cryodask.kernels.image_correlation import workspace_bytes
from cryodask.kernels.image_projection import BLOCK
from cryodask.kernels.slices import template_spectrum
from cryodask.picking.thresholds import false_positive_threshold
from cryodask.search.plan import plan_tiles
from cryodask.search.tiles import Batch, Tile, TilePlan

# CPU seconds of a correlation by T² log2 T, and of a slice by n²
CORRELATION_COST, SLICE_COST, PROJECTION_COST = 1.6e-10, 1.1e-8, 2.5e-9
POSITION_BYTES = 24.0  # of a partial result: maximum, id and two sums


@dataclass(frozen=True)
class Resources:
    """What a run may use, and how it is cut.

    Parameters
    ----------
    memory
        Bytes of one worker.
    batch
        Orientations of one task, instead of the planner's; rounded up to a multiple of 8.
    device
        ``auto``, ``cpu`` or ``cuda``.
    """

    memory: float = 2.0 * 2**30
    batch: int | None = None
    device: str = "auto"

    @property
    def whole_batch(self) -> int | None:
        """The batch as blocks of 8, which no task splits."""
        return None if self.batch is None else -(-self.batch // BLOCK) * BLOCK


def make_problem(inputs: MatchInputs, folder: Path, resources: Resources) -> MicrographProblem:
    """Return the search problem of a match whose constants lie, or will lie, in a folder."""
    config, binning = inputs.config, inputs.binning
    own, band = config.cryodask, config.preprocessing_filters.band
    optics = SearchOptics(
        ctf=config.optics_group.ctf(zernike_radius=own.zernike_radius, compat=own.compat),
        defoci=tuple(inputs.defoci.tolist()),
        pixel_offsets=tuple(inputs.pixel_offsets.tolist()),
        changes_cs=own.compat is not None,
    )
    return MicrographProblem(
        folder=str(folder),
        shape=inputs.positions_shape,
        box=binning.searched_box,
        orientations=len(inputs.angles),
        defoci=optics.defoci,
        pixel_sizes=tuple((config.optics_group.pixel_size + inputs.pixel_offsets).tolist()),
        scales=tuple(inputs.scales.tolist()),
        wrap=own.crop == "same",
        histogram=own.histogram,
        limit=1.0 if band is None else min(1.0, (band.high + band.falloff) / binning.ratio),
        leopard_size=binning.searched_shape if own.compat else None,
        device=resources.device,
        preparation=ImagePreparation(
            path=str(Path(config.micrograph_path).expanduser().absolute()),
            label=f"{config.source.place}micrograph_path: {Path(config.micrograph_path).name}",
            filters=config.preprocessing_filters,
            optics=optics,
            binning=binning,
            clip_sigma=own.clip_sigma,
            is_one_of_many=inputs.is_one_of_many,
        ),
    )


def count_positions(inputs: MatchInputs) -> int:
    """Return how many positions are searched."""
    mask = position_mask(inputs)
    return math.prod(inputs.positions_shape) if mask is None else int(mask.sum())


def run_threshold(inputs: MatchInputs) -> float:
    """Return the z-score that noise passes once in the whole search."""
    return false_positive_threshold(1.0, float(count_positions(inputs)) * inputs.hypotheses)


def make_plan(inputs: MatchInputs, problem: MicrographProblem, resources: Resources) -> TilePlan:
    """Choose the tiles.

    Raises
    ------
    ResourceError
        Where no tile fits the memory.
    """
    mask = position_mask(inputs)
    edge = inputs.config.cryodask.tile
    halo = (problem.box - 1,) * 2

    def is_wanted(tile: Tile) -> bool:
        return mask is None or bool(mask[tile.slices].any())

    block = None
    if edge is not None:
        block = tuple(_given_length(edge, size, problem) for size in problem.shape)
    return plan_tiles(
        problem.shape,
        halo,
        working_set=lambda block, tile: working_set(inputs, problem, block, tile),
        memory=resources.memory,
        periodic=problem.wrap,
        block=block,
        is_wanted=is_wanted,
    )


def _given_length(edge: int, positions: int, problem: MicrographProblem) -> int:
    """Return the length of an axis for a wanted edge: no longer than the image needs."""
    return min(edge, fast_even_length(positions + problem.box - 1))


def write_constants(inputs: MatchInputs, problem: MicrographProblem) -> None:
    """Write what the tasks read, but for the image and its filters."""
    constants.write_tables(
        Path(problem.folder),
        spectrum=searched_spectrum(inputs),
        angles=inputs.angles,
        mask=position_mask(inputs),
    )


def searched_spectrum(inputs: MatchInputs) -> np.ndarray:
    """Return the spectrum from which templates are cut."""
    own = inputs.config.cryodask
    values = crop_volume(inputs.template, inputs.binning)
    return np.asarray(template_spectrum(values, padding=own.padding, gridding=own.gridding))


def working_set(
    inputs: MatchInputs, problem: MicrographProblem, block: Sequence[int], tile: Sequence[int]
) -> float:
    """Return the bytes of a task: template spectrum, filters, projections, and the kernel's arrays."""
    box, padding = problem.box, inputs.config.cryodask.padding
    spectrum = 4.0 * (padding * box) ** 3
    each = problem.scores_each
    projections = each * box * box * (4.0 + 8.0 + 8.0)
    kernel = workspace_bytes((block[0], block[1]), (tile[0], tile[1]), box)
    maps = 72.0 * tile[0] * tile[1]
    return spectrum + projections + kernel + maps


def rough_seconds(problem: MicrographProblem, block: Sequence[int]) -> float:
    """Return roughly the CPU seconds of one orientation on one tile: to size tasks, not to tell users."""
    size = float(math.prod(block))
    correlation = CORRELATION_COST * size * 0.5 * math.log2(size) * 2.0
    projection = PROJECTION_COST * problem.box**2 * math.log2(problem.box)
    return problem.scores_each * (correlation + projection) + SLICE_COST * problem.box**2


def measured_seconds(inputs: MatchInputs, problem: MicrographProblem, tile: Tile, folder: Path) -> float:
    """Measure the CPU seconds of one orientation on one tile, on a block of noise of its shape."""
    problem = replace(problem, folder=str(folder))
    if not constants.has_tables(folder):
        write_constants(inputs, problem)
        filters = template_filters(problem.preparation, None)
        constants.write_prepared(folder, np.zeros((1, 1), np.float32), filters, {})
    block = np.random.default_rng(0).standard_normal(tile.block, dtype=np.float32)
    few = min(BLOCK, problem.orientations)

    def seconds(count: int) -> float:
        start = time.process_time()
        problem.fold_block(block, constants.module_of(problem.device), tile, Batch(0, count))
        return time.process_time() - start

    seconds(1)  # compiles
    once, all_of_them = seconds(1), seconds(few)
    return max(all_of_them - once, 0.1 * once) / max(few - 1, 1)


def fingerprint(inputs: MatchInputs) -> dict[str, str]:
    """Return what a resumed run must have unchanged: parameters, lists, identity of inputs."""
    left_out = {"match_template_result", "computational_config"}
    found = _flat(inputs.config.model_dump(mode="json", exclude=left_out))
    found |= {"orientations": str(len(inputs.angles)), "orientation_sum": f"{inputs.angles.sum():.9g}"}
    found |= {"defoci": str(inputs.defoci.tolist()), "pixel_sizes": str(inputs.pixel_offsets.tolist())}
    return found | {f"{key} (file)": file_identity(path) for key, path in input_files(inputs).items()}


def input_files(inputs: MatchInputs) -> dict[str, str]:
    """Return the files that a match reads, by key."""
    config = inputs.config
    files = {
        "micrograph_path": config.micrograph_path,
        "template_volume_path": config.template_volume_path,
        "cryodask.mask_path": config.cryodask.mask_path,
    }
    return {key: str(Path(path).expanduser().absolute()) for key, path in files.items() if path is not None}


def _flat(values: dict[str, object], before: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{before}{key}.")
        else:
            found[before + key] = str(value)
    return found
