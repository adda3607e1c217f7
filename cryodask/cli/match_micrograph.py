"""`cryodask match-micrograph`: search the micrographs of a configuration."""

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
from cryodask.cli.running import devices_of, duration

if TYPE_CHECKING:
    from cryodask.jobs.micrograph_matching.planning import Resources
    from cryodask.jobs.micrograph_matching.runs import MatchRun


@click.command("match-micrograph")
@click.argument("config", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", "--out", "output", type=click.Path(path_type=Path), help="Result, ending in .zarr."
)
@click.option(
    "--table", type=click.Path(path_type=Path), help="Particle table (CSV); beside the result if unset."
)
@click.option("--micrographs", type=click.Path(), metavar="STAR", help="RELION's micrographs_ctf.star.")
@click.option("--template", "templates", multiple=True, metavar="NAME=FILE", help="May be repeated.")
@click.option("--compat", type=click.Choice(["leopard-em-1.2"]), help="Conventions of another program.")
@click.option("--ignore-aberrations", is_flag=True, help="Take STAR files with aberrations, without these.")
@click.option("--allow-small-defocus", is_flag=True, help="Take defoci below 10 angstrom as angstrom.")
@click.option("--cleanup/--no-cleanup", default=True, help="Remove plan, records and spectra at the end.")
@resume_option
@overwrite_option
@dry_run_option
@cluster_options
@json_option
@debug_option
def match_micrograph(
    config: Path,
    output: Path | None,
    table: Path | None,
    micrographs: str | None,
    templates: Sequence[str],
    compat: str | None,
    ignore_aberrations: bool,
    allow_small_defocus: bool,
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
    """Search the micrographs of CONFIG (a Leopard-EM match_template YAML or JSON) for their templates.

    All pairs of micrograph and template are one queue of tasks. An interrupted run continues with --resume.
    """
    from cryodask.cluster import parse_device, task_memory
    from cryodask.io.files import require_new
    from cryodask.jobs.micrograph_matching.batch import read_configs
    from cryodask.jobs.micrograph_matching.outputs import may_replace
    from cryodask.jobs.micrograph_matching.planning import Resources
    from cryodask.jobs.micrograph_matching.runs import mark_groups, open_runs

    configs, notices = read_configs(
        config,
        micrographs=micrographs,
        templates=templates,
        compat=compat,
        ignore_aberrations=ignore_aberrations,
        allow_small_defocus=allow_small_defocus,
    )
    _check_output(output, len(configs))
    device, threads = devices_of(configs[0].computational_config, device, threads, notices)
    where = {"where": cluster, "workers": workers, "threads": threads, "memory": memory, "device": device}
    resources = Resources(
        task_memory(memory, threads),
        batch=configs[0].cryodask.orientation_batch_size,
        device=parse_device(device)[0],
    )
    runs = open_runs(configs, resources, output=output, resume=resume, overwrite=overwrite)
    notices += [text for run in runs for text in run.inputs.notices]
    notices += [run.first.chosen.text for run in runs if run.first is not None]
    for notice in dict.fromkeys(notices):
        click.echo(f"cryodask: note: {notice}", err=True)
    if dry_run:
        _print_plan(runs, resources, as_json)
        return
    table = table or (output or runs[0].final).with_suffix(".csv")
    require_new(table, overwrite=overwrite or resume or may_replace(configs[0]))
    mark_groups(runs)
    _compute(runs, resources, where, cleanup, table, as_json)


def _check_output(output: Path | None, pairs: int) -> None:
    if output is not None and output.suffix != ".zarr":
        raise click.UsageError(f"-o {output}: expected a name that ends in .zarr")
    if output is None and pairs > 1:
        raise click.UsageError(f"{pairs} pairs of micrograph and template: -o RESULT.zarr is required")


def _plan(run: "MatchRun", resources: "Resources", seconds: float) -> dict[str, Any]:
    inputs = run.inputs
    return {
        "result": str(run.final),
        "pair": run.name,
        "positions": list(run.problem.shape),
        "orientations": len(inputs.angles),
        "defoci": len(inputs.defoci),
        "pixel_sizes": len(inputs.pixel_offsets),
        "hypotheses": inputs.hypotheses,
        "tiles": len(run.search_plan.tiles),
        "transform_shape": list(run.search_plan.block),
        "coarse_to_fine": None if run.first is None else run.first.chosen.text,
        "binned_share": inputs.share,
        "memory_per_worker": resources.memory,
        "working_set_bytes": run.working_set,
        "result_bytes": run.stored_bytes,
        "scratch_bytes": run.scratch_bytes,
        "core_seconds": seconds,
    }


def _describe(plan: dict[str, Any]) -> str:
    tile = " x ".join(map(str, plan["transform_shape"]))
    sizes = f" x {plan['pixel_sizes']} pixel sizes" if plan["pixel_sizes"] > 1 else ""
    kept = plan["binned_share"]
    first = " of the first stage" if plan["coarse_to_fine"] else ""
    binned = f", binned: z keeps {kept**0.5:.3f} of its value" if kept < 1 else ""
    return (
        f"{plan['pair']}: {plan['orientations']} orientations x {plan['defoci']} defoci{sizes} = "
        f"{plan['hypotheses']} hypotheses x {plan['tiles']} tiles (transforms {tile}){binned}, "
        f"{plan['working_set_bytes'] / 2**20:.0f} MiB of {plan['memory_per_worker'] / 2**20:.0f} MiB a "
        "worker, "
        f"{plan['result_bytes'] / 2**20:.0f} MiB of results, "
        f"{duration(plan['core_seconds'])} of one core{first}"
    )


def _print_plan(runs: "list[MatchRun]", resources: "Resources", as_json: bool) -> None:
    measured: dict[Any, float] = {}
    plans = []
    for run in runs:
        tiles, search = len(run.search_plan.tiles), run.search
        alike = (search.box, run.search_plan.block, search.scores_each, search.hypotheses)
        if alike not in measured:
            measured[alike] = run.measured_seconds() / tiles
        plans.append(_plan(run, resources, measured[alike] * tiles))
    if as_json:
        click.echo(json.dumps(plans, indent=1))
        return
    for plan in plans:
        click.echo(_describe(plan))
    total = sum(plan["core_seconds"] for plan in plans)
    click.echo(f"all: {duration(total)} of one core, measured by a short calibration; nothing was started")


def _compute(
    runs: "list[MatchRun]",
    resources: "Resources",
    where: dict[str, Any],
    cleanup: bool,
    table: Path,
    as_json: bool,
) -> None:
    from cryodask.cli.running import compute_runs, print_results
    from cryodask.errors import IncompleteError

    def describe(run: "MatchRun") -> str:
        return _describe(_plan(run, resources, run.rough_seconds()))

    try:
        paths, progress = compute_runs(runs, where, describe, batch=resources.whole_batch, cleanup=cleanup)
    except IncompleteError:
        _write_table(runs, table)
        raise
    _write_table(runs, table)
    rows = [
        {"result": str(path), "maps": list(run.files.values())} for run, path in zip(runs, paths, strict=True)
    ]
    print_results(rows, progress, as_json, table=str(table))


def _write_table(runs: "list[MatchRun]", table: Path) -> None:
    """Pick the particles of every finished pair by its z-scores, one false positive expected in each."""
    from cryodask.io.leopard_em import write_leopard_em
    from cryodask.jobs.micrograph_matching.picks import ImagePickOptions, joined_table, pick_images

    finished = [str(run.final) for run in runs if run.final.exists()]
    if not finished:
        return
    picks = pick_images(finished, ImagePickOptions())
    write_leopard_em(table, joined_table(picks), overwrite=True)
    found = sum(len(pick.table) for pick in picks)
    if len(picks) == 1:
        where = f"z above {picks[0].threshold.value:.2f}"
    else:
        where = f"{len(picks)} pairs of micrograph and template, z above the threshold of each"
    click.echo(f"{found} particle{'' if found == 1 else 's'}, {where}", err=True)
