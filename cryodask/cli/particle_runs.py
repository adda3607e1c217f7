"""What the verbs on particles share: plan, say what it will cost, run."""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from cryodask.jobs.micrograph_matching.computing_block import ComputationalConfig
    from cryodask.jobs.micrograph_matching.pose_run import PoseRun
    from cryodask.jobs.micrograph_matching.refine_config import ParticleConfig

F = TypeVar("F", bound=Callable[..., Any])


def compat_option(command: F) -> F:
    """Add --compat leopard-em-1.2."""
    return click.option(
        "--compat", type=click.Choice(["leopard-em-1.2"]), help="The arithmetic of another program."
    )(command)


def tell(notice: str) -> None:
    """Show a notice on standard error."""
    click.echo(f"cryodask: note: {notice}", err=True)


def placed(block: "ComputationalConfig", where: dict[str, Any]) -> dict[str, Any]:
    """Return the keywords of `open_cluster`: options of the line, else what a configuration's block says."""
    from cryodask.cli.running import devices_of

    notices: list[str] = []
    device, threads = devices_of(block, where["device"], where["threads"], notices)
    for notice in notices:
        tell(notice)
    given = {name: where[name] for name in ("workers", "memory")}
    return {"where": where["cluster"], "device": device, "threads": threads, **given}


def run_particles(
    config: "ParticleConfig",
    open_runs: "Callable[[str, float], list[PoseRun]]",
    where: dict[str, Any],
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Plan runs over particles, and compute them unless it is a dry run.

    Parameters
    ----------
    config
        Its computational block decides where options do not.
    open_runs
        Given device and memory.
    where
        Options of `cluster_options`.
    dry_run, as_json
        Print the plan alone; print JSON.
    """
    from cryodask.cli.running import compute_runs, print_results
    from cryodask.cluster import parse_device, parse_memory

    place = placed(config.computational_config, where)
    runs = open_runs(parse_device(place["device"])[0], float(parse_memory(place["memory"])))
    if dry_run:
        plans = [_plan(run) for run in runs]
        lines = json.dumps(plans, indent=1) if as_json else "\n".join(map(describe, runs))
        click.echo(lines if as_json else f"{lines}\nnothing was started")
        return
    paths, progress = compute_runs(runs, place, describe, batch=runs[0].batch)
    print_results([{"table": str(path)} for path in paths if path.exists()], progress, as_json)


def describe(run: "PoseRun") -> str:
    """Return a line on the size and cost of a run."""
    from cryodask.cli.running import duration

    plan = _plan(run)
    hypotheses = f"{plan['rotations']} rotations x {plan['defoci']} defoci"
    return (
        f"{run.name}: {plan['particles']} particles x {hypotheses} x {plan['shifts']} shifts, "
        f"{plan['chunks']} chunks, {plan['working_set_bytes'] / 2**20:.0f} MiB a worker, "
        f"{duration(plan['core_seconds'])} of one core"
    )


def _plan(run: "PoseRun") -> dict[str, Any]:
    settings = run.problem.settings
    return {
        "result": str(run.final),
        "particles": run.plan.shape[0],
        "rotations": run.problem.hypotheses,
        "defoci": len(settings.defocus),
        "pixel_sizes": len(settings.pixel_sizes),
        "shifts": (2 * settings.reach + 1) ** 2,
        "chunks": run.plan.grid_size,
        "working_set_bytes": run.working_set,
        "core_seconds": run.core_seconds,
    }
