"""Likelihoods from Python: a lazy dataset, and the stored run."""

import json
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import cryodask
from cryodask.errors import InputError
from cryodask.io.files import require_folder
from cryodask.jobs.disk import check_disk, nearest_folder, scratch_folder
from cryodask.jobs.execution import execute, iso_time
from cryodask.jobs.input_files import describe_files, file_identity
from cryodask.jobs.likelihood.inputs import inputs_of_python, load_inputs
from cryodask.jobs.likelihood.parameters import LikelihoodParameters, Listed
from cryodask.jobs.likelihood.planning import (
    LikelihoodInputs,
    is_cartesian,
    make_plan,
    make_problem,
    padded,
    result_bytes,
    seconds_each,
    views_table,
    working_set,
)
from cryodask.jobs.likelihood.problem import LikelihoodProblem
from cryodask.results.accessor import PLAN
from cryodask.results.cryolike_files import check_cryolike
from cryodask.results.likelihood_files import write_files
from cryodask.results.structure_comparison import posterior_variables
from cryodask.search.driver import Progress
from cryodask.search.lazy import lazy_variables
from cryodask.search.store import RunStore, check_same_run
from cryodask.search.tiles import TilePlan


def likelihood(
    images: Any,
    structures: Mapping[str, Any] | None = None,
    *,
    memory: str | int = "2GiB",
    compat: str | None = None,
    pixel_size: float | None = None,
    optics: Any = None,
    **settings: Any,
) -> xr.Dataset:
    """Compare structures by the likelihood of particle images; nothing is computed until values are asked
    for.

    The likelihood of CryoLike (Evans et al.) and BioEM (Cossio and Hummer 2013), with the effective number of
    samples of the resolution that is used.

    Parameters
    ----------
    images
        A path (RELION STAR, cryoSPARC .cs, MRC, .npy, EMAN HDF, Zarr), an array (particle, y, x), or one
        `LikelihoodParameters`.
    structures
        Name to path (map, PDB, mmCIF), or a list as in the configuration.
    memory
        What one task may use.
    compat
        "cryolike": that program's conventions.
    pixel_size
        Angstrom; required with an array.
    optics
        With an array: columns of `cryodask.io.particle_stack.ParticleStack.table` (DataFrame or mapping),
        or "none".
    **settings
        Keys of the configuration; those of `grid`, `atoms`, `likelihood` and `image_options` may be given
        directly.

    Returns
    -------
    xarray.Dataset
        Over (structure, image), lazy; ``ds.cryo.store(path)`` computes and stores it, resumably.

    Raises
    ------
    InputError
        A wrong value or file, with the text of the command line.
    """
    from cryodask.cluster import parse_memory

    if isinstance(images, LikelihoodParameters):
        inputs = load_inputs(images)
    else:
        inputs = inputs_of_python(
            images, structures, pixel_size=pixel_size, optics=optics, compat=compat, settings=settings
        )
    problem = make_problem(inputs, scratch_folder())
    plan = make_plan(problem, float(parse_memory(memory)))
    problem.preparation.write(inputs.stack)
    arrays = lazy_variables(problem, plan)
    dims = {v.name: (*(name for name, _ in v.leading), "image") for v in problem.variables}
    dataset = xr.Dataset(
        {name: (dims[name], array) for name, array in arrays.items()}, coords=coordinates(inputs, problem)
    )
    for variable in problem.variables:
        dataset[variable.name].attrs = dict(variable.attributes)
    dataset.attrs = attributes(inputs, problem, plan)
    dataset.encoding[PLAN] = LazyLikelihood(inputs, float(parse_memory(memory)))
    return dataset


def coordinates(inputs: LikelihoodInputs, problem: LikelihoodProblem) -> dict[str, Any]:
    """Return the coordinates of a result."""
    table = inputs.stack.table
    views = views_table(problem.views)
    if problem.views[0].psi is not None:
        views["view_psi"] = padded([each.psi for each in problem.views if each.psi is not None], np.nan)
    found: dict[str, Any] = {
        "structure": np.array([each.name for each in inputs.structures], dtype=object),
        "image": np.arange(len(table)),
        "name": ("image", table["name"].to_numpy(object)),
        "optics_group": ("image", table["optics_group"].to_numpy(np.int64)),
        "displacement_grid": (("displacement", "xy"), problem.displacements, {"units": "angstrom"}),
        "displacement_weight": ("displacement", np.exp(problem.log_prior)),
        "rotation": (
            "rotation",
            problem.rotation_angles,
            {"units": "degrees"},
        ),
        "i_template": ("structure", template_numbers(inputs)),
        "prior": ("structure", np.array([each.prior for each in inputs.structures])),
    }
    for key in ("defocus_u", "defocus_v", "defocus_angle"):
        found[key] = ("image", table[key].to_numpy(float))
    for key, values in views.items():
        found[key] = (("structure", "template"), values)
    return found


def template_numbers(inputs: LikelihoodInputs) -> np.ndarray:
    """Return the place of each structure in CryoLike's template list, else among the structures."""
    models = [each.model for each in inputs.structures]
    return np.array([getattr(model, "place", i) for i, model in enumerate(models)])


def attributes(inputs: LikelihoodInputs, problem: LikelihoodProblem, plan: TilePlan) -> dict[str, Any]:
    """Return the attributes of a result: where it comes from and what a reader needs."""
    grid, form = problem.maker.grid, problem.preparation.form
    return {
        "cryodask_version": cryodask.__version__,
        "job": "likelihood",
        "parameters": inputs.parameters.model_dump_json(),
        "inputs": json.dumps(describe_files(input_files(inputs))),
        "box": grid.box,
        "pixel_size": problem.preparation.pixel_size,
        "resolution_factor": grid.resolution_factor,
        "largest_frequency": grid.radius,
        "effective_samples": form.samples,
        "exponent": form.exponent,
        "plan": json.dumps({"images": list(plan.core), "tasks": len(plan.tiles)}),
        "notices": list(inputs.notices),
    }


def input_files(inputs: LikelihoodInputs) -> dict[str, str]:
    """Return the files that decide the result."""
    found = {} if inputs.stack.source == "array" else {Path(p).name: p for p in inputs.parameters.image_paths}
    if inputs.stack.places is not None:
        found |= {Path(name).name: name for name in inputs.stack.places.files}
    listed = inputs.parameters.grid.viewing_distance
    if isinstance(listed, Listed):
        found["orientations"] = listed.file
    return found | {each.name: each.path for each in inputs.structures}


def fingerprint(inputs: LikelihoodInputs) -> dict[str, str]:
    """Return what a resumed run must have unchanged: parameters, identity of inputs."""
    values = inputs.parameters.model_dump(mode="json", exclude={"output", "files", "images", "structures"})
    found: dict[str, str] = {}
    for key, value in values.items():
        nested = value if isinstance(value, dict) else {key: value}
        found |= {name: json.dumps(entry) for name, entry in nested.items()}
    found["structures"] = ", ".join(f"{each.name} {each.symmetry}" for each in inputs.structures)
    for name, path in input_files(inputs).items():
        found[f"{name} (file)"] = file_identity(path)
    return found


@dataclass(frozen=True)
class LazyLikelihood:
    """What a lazy dataset carries, so that it can be stored by driving its plan instead of its graph."""

    inputs: LikelihoodInputs
    memory: float

    def store(
        self,
        dataset: xr.Dataset,
        path: str | Path,
        *,
        resume: bool = False,
        overwrite: bool = False,
        **options: Any,
    ) -> Path:
        """Compute the dataset into a Zarr store, resumably and in bounded memory; see `ds.cryo.store`."""
        require_folder(path)
        target = Path(path).expanduser().absolute()
        if target.suffix != ".zarr":
            raise InputError(f"{path}: expected a name that ends in .zarr")
        if dataset.sizes.get("image") != len(self.inputs.stack):
            raise InputError("the dataset was cut after likelihood; use to_zarr for a part")
        run = open_run(self.inputs, self.memory, target, resume=resume, overwrite=overwrite)
        return execute([run], **options)[0]


@dataclass
class LikelihoodRun:
    """A checked and planned job; `replaces` an unfinished run of that name."""

    inputs: LikelihoodInputs
    problem: LikelihoodProblem
    plan: TilePlan
    store: RunStore
    final: Path
    memory: float
    is_finished: bool = False
    replaces: bool = False
    started: float = field(default_factory=time.time)
    files: dict[str, Path] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The result's name, for messages."""
        return self.final.name

    @property
    def seconds_each(self) -> float:
        """CPU seconds of one template on one tile, roughly."""
        return seconds_each(self.problem, self.plan)

    @property
    def working_set(self) -> float:
        """Bytes of a task."""
        return working_set(self.problem, self.plan.core[0])

    def begin(self) -> None:
        """Create the store, unless it is resumed."""
        if not self.store.exists():
            shutil.rmtree(self.store.path, ignore_errors=True)
            self.store.create(self.plan, self.problem.variables, ("image",), fingerprint(self.inputs))
        self.problem.preparation.write(self.inputs.stack)

    def forget(self) -> None:
        """Remove what was begun and has nothing to resume."""
        if self.store.exists() and not self.store.progress():
            shutil.rmtree(self.store.path, ignore_errors=True)
            with suppress(OSError):
                self.final.parent.rmdir()

    def complete(self, progress: Progress, *, keep_run: bool) -> list[str]:
        """Finish the result, write the files asked for and give them their names."""
        finished = time.time()
        dataset = xr.Dataset(coords=coordinates(self.inputs, self.problem))
        dataset.attrs = attributes(self.inputs, self.problem, self.plan) | {
            "started": iso_time(self.started),
            "finished": iso_time(finished),
            "cost": json.dumps(
                {"wall_seconds": finished - self.started, "core_seconds": progress.cpu_seconds}
            ),
            "fingerprint": json.dumps(fingerprint(self.inputs)),
        }
        scores = xr.open_zarr(self.store.path, consolidated=False)
        if "log_likelihood" in scores:
            compared = posterior_variables(scores.log_likelihood.load(), dataset["prior"])
            dataset = dataset.assign(compared.drop_vars("structure"))
        dataset.to_zarr(self.store.path, mode="a", zarr_format=3, consolidated=False)
        stored = xr.open_zarr(self.store.path, consolidated=False)
        write_files(stored, self.inputs.stack, self.files)
        notices = [f"{self.name}: {notice}" for notice in self.inputs.notices]
        inverted = sum(tile.summary.get("inverted", 0.0) for tile in self.store.progress().values())
        if inverted > 0.5 * len(self.inputs.structures) * self.problem.images:
            notices.append(f"{self.name}: contrast looks inverted; set image_options.contrast: dark")
        self.store.publish(str(self.final), keep_run=keep_run)
        return notices


def open_run(
    inputs: LikelihoodInputs, memory: float, final: Path, *, resume: bool = False, overwrite: bool = False
) -> LikelihoodRun:
    """Check and plan a run; nothing is written.

    Raises
    ------
    InputError
        An existing result, a changed run.
    ResourceError
        What does not fit memory or disk.
    """
    store = RunStore(str(final.with_name(f"{final.name.removesuffix('.zarr')}.partial.zarr")))
    names = {
        "star": "best.star",
        "csv": "comparison.csv",
        "png": "comparison.png",
        "matrix": "matrix.txt",
        "cryolike": "cryolike",
    }
    files: dict[str, Path] = {
        kind: final.with_name(f"{final.name.removesuffix('.zarr')}_{name}")
        for kind, name in names.items()
        if kind in inputs.parameters.files
    }
    if "cryolike" in files:
        check_cryolike(inputs.parameters.likelihood.axes)
    if "bioem" in inputs.parameters.files:
        files |= _bioem_paths(inputs, final)
    if not (resume or overwrite):
        for path in (final, *files.values()):
            if path.exists():
                raise InputError(f"{path.name} exists; use --overwrite or --resume")
        if Path(store.path).exists():
            raise InputError(f"{Path(store.path).name} is unfinished; use --resume or --overwrite")
    problem = make_problem(inputs, store.constants)
    plan = make_plan(problem, memory)
    is_finished = resume and final.exists() and not store.exists()
    if resume and store.exists():
        plan, before = store.read_plan()
        check_same_run(before, fingerprint(inputs))
    if is_finished:
        marks = xr.open_zarr(final, consolidated=False).attrs.get("fingerprint", "{}")
        check_same_run(json.loads(marks), fingerprint(inputs), f"the finished {final.name}")
    check_disk(nearest_folder(final.parent), result_bytes(problem))
    return LikelihoodRun(
        inputs, problem, plan, store, final, memory, is_finished, overwrite and not resume, files=files
    )


def _bioem_paths(inputs: LikelihoodInputs, final: Path) -> dict[str, Path]:
    """Return the files that are written for `bioem`, by the names that the writer gives them."""
    parameters = inputs.parameters
    if not is_cartesian(parameters) or not {"best", "likelihood"} <= set(parameters.keep):
        raise parameters.source.error("files: bioem needs listed orientations and keep: best, likelihood")
    kinds = ["Output_Probabilities", *(["ANG_PROB"] if "top" in parameters.keep else [])]
    names = [f"{each.name}_{kind}" for each in inputs.structures for kind in kinds]
    stem = final.name.removesuffix(".zarr")
    return {f"bioem {name}": final.with_name(f"{stem}_{name}") for name in names}
