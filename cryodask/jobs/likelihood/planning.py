"""From a configuration to a problem and its tiles: grid, views, memory."""

import math
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cryodask.errors import InputError, ResourceError
from cryodask.geometry.polar import PolarGrid, displacement_grid
from cryodask.geometry.views import Views, turned_views
from cryodask.io.particle_stack import ParticleStack
from cryodask.jobs.likelihood.cartesian import CartesianImages, CartesianProblem
from cryodask.jobs.likelihood.contrast_points import contrast_points, voltage_of
from cryodask.jobs.likelihood.images import ImagePreparation
from cryodask.jobs.likelihood.levels import FINE, fine_bytes
from cryodask.jobs.likelihood.parameters import BioemEuler, Gaussian, LikelihoodParameters, Listed
from cryodask.jobs.likelihood.problem import LikelihoodProblem
from cryodask.jobs.likelihood.projections import ProjectionMaker
from cryodask.jobs.likelihood.ready_templates import ReadyTemplates
from cryodask.jobs.likelihood.structures import Structure
from cryodask.jobs.likelihood.templates import TemplateMaker, structure_views
from cryodask.kernels.cartesian_likelihood import rows_of
from cryodask.kernels.likelihood_form import NOISE_PRIORS, LikelihoodForm
from cryodask.kernels.polar_likelihood import BLOCK
from cryodask.optics.ctf_image import ImageCtf
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
    if parameters.image_options.box not in (None, inputs.stack.box):
        raise parameters.source.wrong(
            "image_options.box", parameters.image_options.box, f"the images have {inputs.stack.box} pixels"
        )
    dtype = "complex64" if parameters.grid.precision == "single" else "complex128"
    maker = TemplateMaker(grid, box_length, parameters.atoms, options.axes, dtype)
    views = []
    for structure in inputs.structures:
        if is_cartesian(parameters) and isinstance(structure.model, ReadyTemplates):
            raise parameters.source.error(
                f"{structure.name}: ready templates do not go with rotations_from_file or ctf_integration; "
                "give the structure they were made of"
            )
        with parameters.source.placed("grid"):
            has_prior = options.orientation_prior == "file"
            views.append(structure_views(maker, structure, parameters.grid, pixel_size, has_prior=has_prior))
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
        is_transposed=options.axes != "relion",
        is_centred=options.displacement_centre == "star",
        has_ctf=parameters.image_options.optics != "none",
        is_absolute=options.astigmatism == "absolute",
        has_envelope=options.ctf_bfactor == "applied",
        form=form,
        dtype=dtype,
    )
    kind: dict[str, Any] = {}
    if is_cartesian(parameters):
        check_cartesian(parameters)
        kind = _cartesian(parameters, preparation, maker)
        if not parameters.grid.rotations_from_file:
            views = [turned_views(each, grid.rotations) for each in views]
    elif parameters.atoms.projection == "pixels":
        raise parameters.source.wrong(
            "atoms.projection", "pixels", "expected slices, or grid.rotations_from_file: true"
        )
    keys = tuple(maker.key(s, v) for s, v in zip(inputs.structures, views, strict=True))
    problem = CartesianProblem if kind else LikelihoodProblem
    return problem(
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
        token=uuid.uuid4().hex,
        **kind,
    )


def is_cartesian(parameters: LikelihoodParameters) -> bool:
    """Say whether orientations are scored one by one: those of a list, or all where CTFs are integrated
    over."""
    return parameters.grid.rotations_from_file or parameters.ctf_integration is not None


def check_cartesian(parameters: LikelihoodParameters) -> None:
    """Refuse what does not go with listed orientations.

    Raises
    ------
    InputError
        Naming the key.
    """
    grid, options, source = parameters.grid, parameters.likelihood, parameters.source
    if grid.rotations_from_file and not isinstance(grid.viewing_distance, Listed | BioemEuler):
        raise source.error(
            "grid.rotations_from_file: true needs a list; give grid.viewing_distance: {file: PATH} "
            "or --orientations PATH"
        )
    if options.effective_samples == "pixels" and (grid.resolution_factor or grid.resolution):
        key = "resolution_factor" if grid.resolution_factor else "resolution"
        raise source.error(
            f"grid.{key}: effective_samples: pixels takes every coefficient of listed orientations; "
            "use effective_samples: disc, or leave it out"
        )
    settings = parameters.ctf_integration
    if settings is None:
        return
    has_none = parameters.image_options.optics == "none"
    if has_none and (settings.defocus is None or settings.defocus[3] == "star"):
        raise source.error("ctf_integration.defocus: with optics: none give absolute defoci in angstrom")
    if settings.wavelength is not None and not has_none:
        raise source.wrong(
            "ctf_integration.wavelength", settings.wavelength, "expected only with optics: none"
        )
    if options.astigmatism == "absolute":
        raise source.wrong("likelihood.astigmatism", "absolute", "expected signed with ctf_integration")


def _cartesian(
    parameters: LikelihoodParameters, preparation: ImagePreparation, maker: TemplateMaker
) -> dict[str, Any]:
    """Return what a Cartesian problem has besides the polar one."""
    grid, settings = maker.grid, parameters.ctf_integration
    is_square = parameters.likelihood.effective_samples == "pixels"
    edge = (grid.box // 2 if is_square else math.floor(grid.resolution_factor * grid.box / 2)) + 1
    ky, kx = rows_of(edge, grid.box)[:, None], np.arange(edge)
    limit = grid.resolution_factor * grid.box / 2
    inside = np.full((len(ky), edge), True) if is_square else np.hypot(ky, kx) <= limit
    base = None
    if settings is not None and parameters.image_options.optics == "none":
        kilovolts = voltage_of(settings.wavelength) if settings.wavelength else 300.0
        base = ImageCtf(
            preparation.pixel_size, 0.0, 0.0, voltage=kilovolts, spherical_aberration=0.0,
            amplitude_contrast=0.1,
        )  # fmt: skip
    points = contrast_points(settings)
    return {
        "pictures": CartesianImages(preparation, points, base, edge, inside),
        "projections": ProjectionMaker(maker, preparation.pixel_size, edge, inside),
    }


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
    if not has_zero and options.zero_weight != "never":
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
    if isinstance(problem, CartesianProblem):
        assert problem.pictures is not None
        spectra = problem.pictures.points.planes * problem.pictures.inside.size * size
    each = (5 * problem.needs_sums + 2 * ("template" in problem.keep)) * 8
    fine = fine_bytes(problem.keep, len(problem.displacements), len(problem.rotation_angles))
    rows = (each + fine) * problem.hypotheses
    return 3.6 * spectra + 2.0 * rows + 16.0 * problem.maker.grid.box**2


def template_bytes(problem: LikelihoodProblem) -> float:
    """Return the bytes that a task needs besides images: displacement phases, and one template's spectra."""
    shells, rotations = problem.maker.grid.shape
    size = np.dtype(problem.maker.dtype).itemsize
    if isinstance(problem, CartesianProblem):
        scores = len(problem.displacements) * problem.rotations * BLOCK * 8
        has_scores = bool({"summary", *FINE} & set(problem.keep))
        points = (6.0 if has_scores else 0.0) * scores
        return 40.0 * problem.maker.grid.box**2 * size + points
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
    if isinstance(problem, CartesianProblem):
        pairs = problem.rotations * plan.core[0]
        return (2.5e-8 * poses + 1e-9 * pairs * problem.maker.grid.box**2) + 0.005
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
