"""`cryodask likelihood`: compare structures by the likelihood of particle images."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cryodask.cli.options import (
    cluster_options,
    debug_option,
    dry_run_option,
    json_option,
    overwrite_option,
    resume_option,
)
from cryodask.cli.running import compute_runs, duration, print_results

if TYPE_CHECKING:
    from cryodask.jobs.likelihood.job import LikelihoodRun


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(), help="The result, ending in .zarr.")
@click.option("--images", type=click.Path(), help="Particle stack, instead of that of CONFIG.")
@click.option(
    "--structure", "structures", multiple=True, metavar="NAME=FILE", help="One structure to compare."
)
@click.option("--orientations", type=click.Path(), help="List of orientations to score one by one.")
@click.option(
    "--keep",
    metavar="LEVEL,...",
    help="best, likelihood, summary, template, rotation, displacement, full, top.",
)
@click.option(
    "--files", metavar="KIND,...", help="Beside the Zarr result: star, csv, png, matrix, cryolike, bioem."
)
@click.option("--compat", type=click.Choice(["cryolike", "bioem"]), help="Conventions of another program.")
@click.option(
    "--ignore-aberrations", is_flag=True, help="Go on without beam tilt, Zernike and magnification."
)
@click.option("--batch", type=click.IntRange(1), help="Templates of a task.")
@click.option("--cleanup/--no-cleanup", default=True, help="Remove plan, records and templates at the end.")
@resume_option
@overwrite_option
@dry_run_option
@cluster_options
@json_option
@debug_option
def likelihood(
    config: Path,
    output: str | None,
    images: str | None,
    structures: Sequence[str],
    orientations: str | None,
    keep: str | None,
    files: str | None,
    compat: str | None,
    ignore_aberrations: bool,
    batch: int | None,
    cleanup: bool,
    resume: bool,
    overwrite: bool,
    dry_run: bool,
    cluster: str,
    workers: int | None,
    threads: int | None,
    memory: str,
    device: str,
    as_json: bool,
) -> None:
    """Compare structures by the likelihood of particle images, as CONFIG (YAML) says.

    An interrupted run continues with --resume.
    """
    from cryodask.cluster import parse_device, parse_memory
    from cryodask.errors import InputError
    from cryodask.jobs.likelihood.job import load_inputs, open_run
    from cryodask.jobs.likelihood.parameters import read_likelihood

    if parse_device(device)[0] == "cuda":
        raise InputError("device = cuda: likelihoods run on CPUs in this release; use --device cpu")
    overrides = _overrides(output, images, structures, keep, files)
    if orientations is not None:
        listed = {"file": str(Path(orientations).absolute())}
        overrides["grid"] = {"viewing_distance": listed, "rotations_from_file": True}
    if ignore_aberrations:
        overrides["ignore_aberrations"] = True
    parameters = read_likelihood(config, overrides=overrides, compat=compat)
    if parameters.output is None:
        raise click.UsageError("output is required: in the configuration or as -o")
    if not parameters.output.endswith(".zarr"):
        name = Path(parameters.output).name
        raise parameters.source.wrong("output", name, "expected a name that ends in .zarr")
    run = open_run(
        load_inputs(parameters),
        float(parse_memory(memory)),
        Path(parameters.output),
        resume=resume,
        overwrite=overwrite,
    )
    if dry_run:
        _print_plan(run, as_json)
        return
    where = {"where": cluster, "workers": workers, "threads": threads, "memory": memory, "device": device}
    paths, progress = compute_runs([run], where, _describe, batch=batch, cleanup=cleanup)
    row: dict[str, Any] = {"result": str(paths[0])}
    if run.files:
        row["files"] = [str(path) for path in run.files.values()]
    print_results([row], progress, as_json)


def _overrides(
    output: str | None, images: str | None, structures: Sequence[str], keep: str | None, files: str | None
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if output is not None:
        found["output"] = str(Path(output).absolute())
    if images is not None:
        found["images"] = str(Path(images).absolute())
    if structures:
        found["structures"] = []
    for text in structures:
        name, equals, path = text.partition("=")
        if not equals or not name or not path:
            raise click.UsageError(f"--structure {text}: expected NAME=FILE")
        found["structures"].append({"name": name, "path": str(Path(path).absolute())})
    if keep is not None:
        found["keep"] = [word.strip() for word in keep.split(",")]
    if files is not None:
        found["files"] = [word.strip() for word in files.split(",")]
    return found


def _plan(run: "LikelihoodRun") -> dict[str, Any]:
    problem = run.problem
    poses = problem.hypotheses * len(problem.displacements) * problem.rotations
    return {
        "result": str(run.final),
        "images": problem.images,
        "structures": [each.name for each in problem.structures],
        "templates": [len(views) for views in problem.views],
        "displacements": len(problem.displacements),
        "rotations": problem.rotations,
        "poses_of_an_image": poses,
        "images_of_a_task": run.plan.core[0],
        "tiles": len(run.plan.tiles),
        "working_set_bytes": run.working_set,
        "memory_per_worker": run.memory,
        "core_seconds": run.seconds_each * problem.hypotheses * len(run.plan.tiles),
        "resolution": problem.preparation.pixel_size * 2 / problem.maker.grid.resolution_factor,
        "effective_samples": problem.preparation.form.samples,
    }


def _print_plan(run: "LikelihoodRun", as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(_plan(run), indent=1))
        return
    click.echo(_describe(run))
    for notice in run.inputs.notices:
        click.echo(f"note: {notice}")
    click.echo("nothing was started")


def _describe(run: "LikelihoodRun") -> str:
    plan = _plan(run)
    counts = ", ".join(f"{name} {n}" for name, n in zip(plan["structures"], plan["templates"], strict=True))
    return (
        f"{run.name}: {plan['images']} images x {sum(plan['templates'])} templates ({counts}) x "
        f"{plan['displacements']} displacements x {plan['rotations']} rotations to {plan['resolution']:.3g} "
        f"A, {plan['tiles']} tiles of {plan['images_of_a_task']} images, "
        f"{plan['working_set_bytes'] / 2**20:.0f} MiB of {plan['memory_per_worker'] / 2**20:.0f} MiB a "
        "worker, "
        f"roughly {duration(plan['core_seconds'])} of one core"
    )
