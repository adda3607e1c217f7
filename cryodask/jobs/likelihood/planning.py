"""From a configuration to a problem and its tiles: grid, views, memory."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cryodask.errors import InputError, ResourceError
from cryodask.geometry.polar import PolarGrid, displacement_grid
from cryodask.geometry.views import Views
from cryodask.io.particle_stack import ParticleStack
from cryodask.jobs.likelihood.images import ImagePreparation
from cryodask.jobs.likelihood.levels import FINE, fine_bytes
from cryodask.jobs.likelihood.parameters import Gaussian, LikelihoodParameters
from cryodask.jobs.likelihood.problem import LikelihoodProblem
from cryodask.jobs.likelihood.ready_templates import ReadyTemplates
from cryodask.jobs.likelihood.structures import Structure
from cryodask.jobs.likelihood.templates import TemplateMaker, structure_views
from cryodask.kernels.likelihood_form import NOISE_PRIORS, LikelihoodForm
from cryodask.kernels.polar_likelihood import BLOCK
from cryodask.search.tiles import TilePlan

MOST_IMAGES = 512  # of a task
SHARE = 0.5  # of a worker's memory for images and results
SECONDS_EACH_POSE = {"complex64": 1.0e-8, "complex128": 8e-8}


@dataclass(frozen=True)
class LikelihoodInputs:
    """What a configuration stands for: images with settled optics, structures, and what the user should
    know."""

    parameters: LikelihoodParameters
    stack: ParticleStack
    structures: tuple[Structure, ...]
    notices: tuple[str, ...]


def make_problem(inputs: LikelihoodInputs, folder: Path) -> LikelihoodProblem:
    """Return the search of a job whose constants lie, or will lie, in a folder.

    Raises
    ------
    InputError
        Values that do not fit the images or the structures.
    """
    parameters, options = inputs.parameters, inputs.parameters.likelihood
    grid, pixel_size = _polar_grid(inputs)
    box_length = grid.box * pixel_size
    dtype = "complex64" if parameters.grid.precision == "single" else "complex128"
    maker = TemplateMaker(grid, box_length, parameters.atoms, options.axes, dtype)
    views = []
    for structure in inputs.structures:
        views.append(structure_views(maker, structure, parameters.grid, pixel_size))
    displacements, log_prior = _displacements(inputs, grid.box, pixel_size)
    samples = {"disc": grid.disc_samples, "pixels": float(grid.box**2)}.get(
        str(options.effective_samples), options.effective_samples
    )
    form = LikelihoodForm(float(samples), NOISE_PRIORS[options.noise_prior], options.offset, options.scale)
    preparation = ImagePreparation(
        folder=str(folder),
        grid=grid,
        pixel_size=pixel_size,
        downsample=parameters.image_options.downsample,
        method=parameters.image_options.downsample_method,
        sign=-1.0 if parameters.image_options.contrast == "dark" else 1.0,
        is_transposed=options.axes == "cryolike",
        is_centred=options.displacement_centre == "star",
        has_ctf=parameters.image_options.optics != "none",
        is_absolute=options.astigmatism == "absolute",
        has_envelope=options.ctf_bfactor == "applied",
        form=form,
        dtype=dtype,
    )
    keys = tuple(maker.key(s, v) for s, v in zip(inputs.structures, views, strict=True))
    return LikelihoodProblem(
        folder=str(folder),
        images=len(inputs.stack),
        preparation=preparation,
        maker=maker,
        structures=inputs.structures,
        views=tuple(views),
        displacements=displacements,
        log_prior=log_prior,
        keep=parameters.keep,
        by_posterior=options.score == "posterior",
        credible=options.credible,
        is_raw=options.view_weights == "raw",
        template_keys=keys,
        top=parameters.top,
    )


def _polar_grid(inputs: LikelihoodInputs) -> tuple[PolarGrid, float]:
    parameters, stack = inputs.parameters, inputs.stack
    smaller = parameters.image_options.downsample
    assert stack.pixel_size is not None
    box, pixel_size = stack.box // smaller, stack.pixel_size * smaller
    return grid_of(parameters, box, pixel_size, inputs.structures), pixel_size


def grid_of(
    parameters: LikelihoodParameters, box: int, pixel_size: float, structures: Sequence[Structure]
) -> PolarGrid:
    """Return the polar grid of images; what the configuration leaves open is that of ready templates.

    Raises
    ------
    InputError
        A resolution beyond Nyquist.
    """
    chosen = parameters.grid.resolution_factor
    if parameters.grid.resolution is not None:
        chosen = 2 * pixel_size / parameters.grid.resolution
        if chosen > 1:
            raise parameters.source.wrong(
                "grid.resolution",
                parameters.grid.resolution,
                f"expected at least {2 * pixel_size:g} A, two pixels",
            )
    ready = [each.model.grid for each in structures if isinstance(each.model, ReadyTemplates)]
    own = ready[0] if ready else PolarGrid(box, 1.0, 2 * box)
    factor = chosen or own.resolution_factor
    return PolarGrid(box, factor, parameters.grid.n_inplanes or own.rotations)


def _displacements(inputs: LikelihoodInputs, box: int, pixel_size: float) -> tuple[np.ndarray, np.ndarray]:
    """Return displacements (D, 2) in angstrom and their log prior (D,)."""
    parameters = inputs.parameters
    settings, options = parameters.grid, parameters.likelihood
    largest = settings.max_displacement_pixels
    if largest >= box / 2:
        raise parameters.source.wrong(
            "grid.max_displacement_pixels", f"{largest:g}", f"expected 0 <= x < {box // 2}"
        )
    found = displacement_grid(largest * pixel_size, settings.n_displacements_x, settings.n_displacements_y)
    has_zero = bool((np.abs(found).max(axis=1) < 1e-9).any())
    if not has_zero:
        found = np.concatenate([found, np.zeros((1, 2))])
    prior = np.zeros(len(found))
    if isinstance(options.displacement_prior, Gaussian):
        prior = -(found**2).sum(axis=1) / (2 * options.displacement_prior.gaussian**2)
    if not has_zero and options.zero_weight == "zero":
        prior[-1] = -np.inf
    return found, prior - np.log(np.exp(prior).sum())


def image_bytes(problem: LikelihoodProblem) -> float:
    """Return the bytes that a task needs for each image: spectra in two layouts, and the rows of its
    templates."""
    shells, rotations = problem.maker.grid.shape
    size = np.dtype(problem.maker.dtype).itemsize
    spectra = (rotations // 2 + 1) * shells * size
    each = (5 * problem.needs_sums + 2 * ("template" in problem.keep)) * 8
    fine = fine_bytes(problem.keep, len(problem.displacements), problem.rotations)
    rows = (each + fine) * problem.hypotheses
    return 3.6 * spectra + 2.0 * rows + 16.0 * problem.maker.grid.box**2


def template_bytes(problem: LikelihoodProblem) -> float:
    """Return the bytes that a task needs besides images: displacement phases, and one template's spectra."""
    shells, rotations = problem.maker.grid.shape
    size = np.dtype(problem.maker.dtype).itemsize
    spectra = len(problem.displacements) * shells * (rotations // 2 + 1) * size
    block = len(problem.displacements) * rotations * BLOCK * 8
    return 8.0 * spectra + (10.0 if set(FINE) & set(problem.keep) else 4.0) * block


def working_set(problem: LikelihoodProblem, images: int) -> float:
    """Return the bytes of a task."""
    return template_bytes(problem) + images * image_bytes(problem)


def make_plan(problem: LikelihoodProblem, memory: float) -> TilePlan:
    """Choose how many images a task takes: a multiple of 32, at most 512, within half of a worker's memory.

    Raises
    ------
    ResourceError
        Where 32 images do not fit.
    """
    room = SHARE * memory - template_bytes(problem)
    count = min(int(room / image_bytes(problem)) // BLOCK * BLOCK, MOST_IMAGES)
    count = min(count, math.ceil(problem.images / BLOCK) * BLOCK)
    if "full" in problem.keep and count < BLOCK:
        count = int(room / image_bytes(problem))
    if count < (1 if "full" in problem.keep else BLOCK):
        need = working_set(problem, BLOCK) / SHARE
        raise ResourceError(
            f"{BLOCK} images against a template: needs {need / 2**30:.2g} GiB, "
            f"a worker has {memory / 2**30:.2g} GiB; raise --memory, or lower n_inplanes or the displacements"
        )
    tiles = math.ceil(problem.images / count)
    return TilePlan((problem.images,), (count,), (count,), (count,), (tiles,), range(tiles))


def seconds_each(problem: LikelihoodProblem, plan: TilePlan) -> float:
    """Return roughly the CPU seconds of one template on one tile: to size tasks, not to tell users."""
    poses = len(problem.displacements) * problem.rotations * plan.core[0]
    scale = max(1.0, problem.maker.grid.shape[0] / 65)
    return SECONDS_EACH_POSE[problem.maker.dtype] * poses * scale + 0.01


def result_bytes(problem: LikelihoodProblem) -> float:
    """Return the bytes of the result, uncompressed."""
    return float(
        sum(
            np.dtype(v.dtype).itemsize * problem.images * math.prod(length for _, length in v.leading)
            for v in problem.variables
        )
    )


def padded(values: Sequence[np.ndarray], fill: float) -> np.ndarray:
    """Return one row of each array, filled up to the longest."""
    longest = max(map(len, values))
    rows = [np.pad(v.astype(float), (0, longest - len(v)), constant_values=fill) for v in values]
    return np.stack(rows)


def views_table(views: Sequence[Views]) -> dict[str, np.ndarray]:
    """Return azimuth, polar (degrees) and weight of the views of every structure (structure, template)."""
    return {
        name: padded([getattr(v, name) for v in views], np.nan) for name in ("azimuth", "polar", "weight")
    }


def check_images(inputs: LikelihoodInputs) -> None:
    """Refuse a box that is too small for the kernel."""
    box = inputs.stack.box // inputs.parameters.image_options.downsample
    if box < 8:
        raise InputError(f"box {box}: expected at least 8 pixels")
