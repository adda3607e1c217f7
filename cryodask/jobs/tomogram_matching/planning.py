"""From checked inputs to a search problem, its tiles and its constants."""

import math
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import scipy.fft

from cryodask.errors import ResourceError
from cryodask.geometry.euler import rotation_from_euler
from cryodask.jobs.input_files import file_identity
from cryodask.jobs.tomogram_matching import constants
from cryodask.jobs.tomogram_matching.area import SearchArea, Selection, write_selection
from cryodask.jobs.tomogram_matching.constants import Tables
from cryodask.jobs.tomogram_matching.inputs import MatchInputs, viewing_directions
from cryodask.jobs.tomogram_matching.many_templates import ManyTemplates, MatchProblem
from cryodask.jobs.tomogram_matching.mirror import check_handed, mirrored
from cryodask.jobs.tomogram_matching.preparation import TomogramFilter
from cryodask.jobs.tomogram_matching.problem import GROUP, LEAST_FOR_ZSCORE, TomogramProblem
from cryodask.jobs.tomogram_matching.seeding import near_seeds, needed_share, write_seeds
from cryodask.jobs.tomogram_matching.weighting import make_cells, make_template_filters
from cryodask.jobs.tomogram_matching.writing import as_text, flatten
from cryodask.kernels.rotation import rotation_coefficients
from cryodask.kernels.statistics_grid import choose_statistics_grid
from cryodask.kernels.volume_correlation import workspace_bytes
from cryodask.optics.contrast import template_skewness
from cryodask.search.plan import plan_tiles
from cryodask.search.tiles import Tile, TilePlan

# CPU seconds per block voxel and transform
ROUGH_COST = 6e-9
# of one template on one position: its states and maps
BYTES_OF_MAPS = 64.0
# parts of the memory with which tiles are planned too where seeds restrict the orientations
SMALLER_TILES = (4, 16, 64)
SAMPLED_TILES = 24
TRANSFORMS = {"spherical": 1.0, "axial": 1.2, "general": 2.6}


@dataclass(frozen=True)
class Resources:
    """What a run may use, and how it is cut.

    Parameters
    ----------
    memory
        Bytes of one worker.
    ntiles, tile_shape
        The user's tiling, instead of the planner's.
    angle_batch
        Rotations of one task, instead of the planner's.
    device
        `auto`, `cpu` or `cuda`.
    """

    memory: float = 2.0 * 2**30
    ntiles: int | None = None
    tile_shape: tuple[int, int, int] | None = None
    angle_batch: int | None = None
    device: str = "auto"


def make_problem(inputs: MatchInputs, folder: Path, resources: Resources) -> MatchProblem:
    """Return the search problem of a match whose constants lie, or will lie, in a folder."""
    parts = tuple(
        _template_problem(each, number, folder, resources) for number, each in enumerate(inputs.every)
    )
    if len(parts) == 1:
        return parts[0]
    return ManyTemplates(parts, _class_by(inputs, parts))


def _class_by(inputs: MatchInputs, parts: Sequence[TomogramProblem]) -> str:
    """Return the map whose largest value decides the class: raw scores of different masks do not compare."""
    chosen = inputs.parameters.class_by
    if chosen == "zscore" and not all(part.has_zscore for part in parts):
        text = f"needs moments and {LEAST_FOR_ZSCORE} rotations of every template"
        raise inputs.parameters.source.wrong("class_by", "zscore", text)
    # subtract shifts each template's scores by its mean noise, which is known only after the last tile
    if chosen == "score" and parts[0].noise_correction == "subtract":
        raise inputs.parameters.source.wrong("class_by", "score", "does not go with subtract, use zscore")
    if chosen is not None:
        return chosen
    if parts[0].noise_correction == "ratio":
        return "score"
    return "zscore" if all(part.has_zscore for part in parts) else "score_raw"


def _template_problem(
    inputs: MatchInputs, number: int, folder: Path, resources: Resources
) -> TomogramProblem:
    parameters, particle = inputs.parameters, inputs.particle
    check_handed(inputs)
    wrap = parameters.boundary == "wrap"
    margin = 0 if wrap else -(-particle.box // 2)
    copies = parameters.noise_copies if parameters.noise_correction != "none" else 0
    grid = choose_statistics_grid(particle.mask, parameters.statistics_grid)
    source = parameters.source
    return TomogramProblem(
        folder=str(folder),
        shape=inputs.shape,
        box=particle.box,
        hypotheses=len(inputs.angles),
        mask_kind=inputs.mask_kind,
        support=particle.support,
        noise_correction=parameters.noise_correction,
        noise_copies=copies,
        moments=parameters.moments,
        normalization=parameters.normalization,
        interpolation=parameters.interpolation,
        statistics_fraction=grid.fraction if inputs.mask_kind == "general" else 1.0,
        wrap=wrap,
        margin=margin,
        device=resources.device,
        cells=make_cells(inputs),
        tomogram_filter=TomogramFilter(
            path=inputs.tomogram,
            level=parameters.level,
            shape=inputs.shape,
            voxel_size=inputs.voxel_size,
            box=particle.box,
            tilts=inputs.tilts,
            band=inputs.band,
            wedge=parameters.wedge,
            laplacian=parameters.laplacian,
            whiten=parameters.whiten,
            margin=margin,
            label=f"{source.place}{source.label('tomogram')} = {parameters.tomogram}",
            memory=resources.memory,
            skewness=template_skewness(particle.template, inputs.band),
            other_contrast="inverted" if parameters.contrast == "same" else "same",
        ),
        number=number,
        near=near_seeds(inputs),
        decoy=parameters.decoy == "mirror",
    )


def make_plan(inputs: MatchInputs, problem: MatchProblem, area: Selection, resources: Resources) -> TilePlan:
    """Choose the tiles.

    Raises
    ------
    ResourceError
        Where no tile fits the memory.
    """
    plan = _plan_tiles(problem, area, resources)
    if inputs.seeds is None or resources.ntiles or resources.tile_shape:
        return plan
    # a smaller tile has fewer seeds and needs fewer rotations: worth its overlap where they point about
    plans = [plan]
    with suppress(ResourceError):
        plans += [
            _plan_tiles(problem, area, replace(resources, memory=resources.memory / part))
            for part in SMALLER_TILES
        ]
    return min(plans, key=lambda plan: _seeded_cost(inputs, problem, plan))


def _plan_tiles(problem: MatchProblem, area: Selection, resources: Resources) -> TilePlan:
    return plan_tiles(
        problem.shape,
        (problem.box - 1,) * 3,
        working_set=lambda block, tile: working_set(problem, block, tile),
        memory=resources.memory,
        periodic=problem.wrap,
        tile_count=resources.ntiles,
        block=resources.tile_shape,
        is_wanted=None if area.is_everything else area.has,
    )


def _seeded_cost(inputs: MatchInputs, problem: MatchProblem, plan: TilePlan) -> float:
    voxels = float(np.prod(plan.block))
    return len(plan.tiles) * voxels * math.log2(voxels) * share_of_rows(inputs, problem, plan)


def share_of_rows(inputs: MatchInputs, problem: MatchProblem, plan: TilePlan) -> float:
    """Return about which share of all rotations the tiles of a plan need: 1 where orientations are free."""
    if inputs.seeds is None or not len(plan.tiles):
        return 1.0
    chosen = np.unique(np.linspace(0, len(plan.tiles) - 1, SAMPLED_TILES).round().astype(int))
    rows = 0.0
    for each, part in zip(inputs.every, problem.parts, strict=True):
        if part.near is not None:
            shares = [needed_share(each, part.near, plan.tiles[int(number)]) for number in chosen]
            rows += part.hypotheses * float(np.mean(shares))
    return rows / problem.hypotheses


def write_constants(inputs: MatchInputs, problem: MatchProblem, area: SearchArea) -> None:
    """Write what the tasks read, but for the filtered tomogram."""
    folder = Path(problem.folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_selection(area, folder)
    if inputs.seeds is not None:
        write_seeds(folder, inputs.seeds)
    for each, part in zip(inputs.every, problem.parts, strict=True):
        Path(part.tables_folder).mkdir(exist_ok=True)
        constants.write_tables(Path(part.tables_folder), make_tables(each, part))


def has_constants(problem: MatchProblem) -> bool:
    """Say whether what `write_constants` writes is there."""
    return all(constants.has_tables(Path(part.tables_folder)) for part in problem.parts)


def make_tables(inputs: MatchInputs, problem: TomogramProblem) -> Tables:
    """Return the tables of a match: rotations, template and those beside it, mask and template filters."""
    particle = inputs.particle
    volumes = template_volumes(inputs, problem)
    return Tables(
        matrices=rotation_from_euler(inputs.angles).as_matrix(),
        templates=np.stack([rotation_coefficients(volume, problem.interpolation) for volume in volumes]),
        mask=particle.mask,
        mask_coefficients=rotation_coefficients(particle.mask, "linear"),
        directions=viewing_directions(inputs.angles),
        template_filters=make_template_filters(inputs, problem.cells),
        seed_rows=None if inputs.seeds is None else inputs.seed_rows,
    )


def template_volumes(inputs: MatchInputs, problem: TomogramProblem) -> list[np.ndarray]:
    """Return the template, its noise templates and, as a decoy, its mirror image, each (z, y, x)."""
    template, seed = inputs.particle.template, inputs.parameters.seed
    copies = range(problem.noise_copies)
    volumes = [template, *(noise_template(template, seed, problem.number, copy) for copy in copies)]
    return [*volumes, mirrored(template)] if problem.decoy else volumes


def noise_template(template: np.ndarray, seed: int, number: int, copy: int) -> np.ndarray:
    """Return the template's amplitudes with random phases (the noise correction of GAPSTOP and STOPGAP).

    Parameters
    ----------
    template
        (z, y, x).
    seed, number, copy
        Seed of the run, number of the template, number of the copy: together they fix the noise.
    """
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, number, copy])))
    white = scipy.fft.rfftn(generator.standard_normal(template.shape))
    length = np.abs(white)
    phases = white / np.where(length > 0, length, 1.0)
    amplitudes = np.abs(scipy.fft.rfftn(template.astype(np.float64)))
    return scipy.fft.irfftn(amplitudes * phases, template.shape, axes=(0, 1, 2)).astype(np.float32)


def working_set(problem: MatchProblem, block: Sequence[int], tile: Sequence[int]) -> float:
    """Return the bytes of a task: the search of one template, and the maps of all where there are several."""
    maps = BYTES_OF_MAPS * float(np.prod(tile)) * len(problem.parts) if len(problem.parts) > 1 else 0.0
    return maps + max(_template_working_set(part, block, tile) for part in problem.parts)


def _template_working_set(problem: TomogramProblem, block: Sequence[int], tile: Sequence[int]) -> float:
    """Return the bytes of searching one template: tables, a group of rotated ones, the kernel's arrays."""
    (pz, py, px), (tz, ty, tx) = block, tile
    filters = 2.0 * problem.box**3 * len(problem.cells)
    tables = 4.0 * problem.box**3 * (3 * GROUP + 4) + filters + 80.0 * problem.hypotheses
    return tables + workspace_bytes(
        (pz, py, px),
        (tz, ty, tx),
        box=problem.box,
        mask_kind=problem.mask_kind,
        moments=problem.moments,
        noise_copies=problem.beside,
    )


def rough_seconds(problem: MatchProblem, block: tuple[int, ...]) -> float:
    """Return roughly the CPU seconds of one rotation on one tile: to size tasks, not to tell users."""
    transforms = max(TRANSFORMS[part.mask_kind] for part in problem.parts) + problem.beside
    return ROUGH_COST * float(np.prod(block)) * transforms


def calibrate(problem: TomogramProblem, tables: Tables, tile: Tile) -> float:
    """Measure CPU seconds of one rotation of one template on one tile, on a block of noise of its shape."""
    block = np.random.default_rng(0).standard_normal(tile.block, dtype=np.float32)
    few, many = min(GROUP, problem.hypotheses), min(6 * GROUP, problem.hypotheses)

    def seconds(rotations: int) -> float:
        start = time.process_time()
        problem.fold_block(block, tables, tile, np.arange(rotations))
        return time.process_time() - start

    seconds(1)  # compiles
    # the first touch of memory costs time too, and so do neighbours on the machine
    setup_and_few = min(seconds(few) for _ in range(2))
    if many == few:
        return setup_and_few / few
    all_of_them = min(seconds(many) for _ in range(2))
    return max(all_of_them - setup_and_few, 0.1 * setup_and_few) / (many - few)


def fingerprint(inputs: MatchInputs) -> dict[str, str]:
    """Return what a resumed run must have unchanged, in the user's words: parameters, identity of inputs."""
    source = inputs.parameters.source
    values = flatten(inputs.parameters.model_dump(mode="json", exclude={"root", "output", "formats"}))
    found = {source.label(key): as_text(value) for key, value in values.items()}
    for key, path in input_files(inputs).items():
        found[f"{source.label(key)} (file)"] = file_identity(path)
    return found


def input_files(inputs: MatchInputs) -> dict[str, str]:
    """Return the files that a match reads, by native key."""
    parameters = inputs.parameters
    named = {
        "tomogram": parameters.tomogram,
        "template": parameters.template,
        "mask": parameters.mask,
        "tomogram_mask": parameters.tomogram_mask,
        "tilts": parameters.tilts,
        "defocus_file": parameters.defocus_file,
        "dose_file": parameters.dose_file,
        "tilt_com": parameters.tilt_com,
        "angles.file": parameters.angles.file,
    }
    if parameters.orientations is not None:
        named["orientations.near"] = parameters.orientations.near
    for other in inputs.others:
        own = other.parameters
        named |= {f"{other.name}.template": own.template, f"{other.name}.mask": own.mask}
        named[f"{other.name}.angles.file"] = own.angles.file
    return {key: parameters.locate(name) for key, name in named.items() if isinstance(name, str)}
