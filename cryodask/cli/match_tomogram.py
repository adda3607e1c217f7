"""`cryodask match-tomogram`: search the tomograms of a parameter file."""

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
from cryodask.cli.running import duration

if TYPE_CHECKING:
    from cryodask.jobs.tomogram_matching.match_run import MatchRun
    from cryodask.jobs.tomogram_matching.parameters import MatchParameters
    from cryodask.jobs.tomogram_matching.planning import Resources


@click.command("match-tomogram")
@click.argument("params", type=click.Path(path_type=Path))
@click.option("-n", "--ntiles", type=click.IntRange(1), help="Exactly so many tiles.")
@click.option("--tile-shape", metavar="Z,Y,X", help="Lengths of a tile's Fourier transforms.")
@click.option("--angle-batch", type=click.IntRange(1), help="Rotations in one task.")
@click.option("--random-seed", "--seed", "seed", type=click.IntRange(0), help="Seed of the noise templates.")
@click.option("--cleanup/--no-cleanup", default=True, help="Remove plan, records and spectra at the end.")
@click.option("--rows", metavar="0,2-4", help="Run only these 0-based rows.")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Override a parameter in every row."
)
@click.option("-o", "--output", type=click.Path(), help="Folder of the results.")
@click.option("--formats", metavar="zarr,mrc,em", help="Formats of the maps.")
@click.option("--compat", type=click.Choice(["stopgap", "cryocat"]), help="Conventions of another program.")
@resume_option
@overwrite_option
@dry_run_option
@cluster_options
@json_option
@debug_option
def match_tomogram(
    params: Path,
    ntiles: int | None,
    tile_shape: str | None,
    angle_batch: int | None,
    seed: int | None,
    cleanup: bool,
    rows: str | None,
    settings: Sequence[str],
    output: str | None,
    formats: str | None,
    compat: str | None,
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
    """Search the tomograms of PARAMS (a GAPSTOP or STOPGAP STAR file, or YAML) for their templates.

    All rows are one queue of tasks. An interrupted run continues with --resume.
    """
    from cryodask.cluster import parse_device, task_memory
    from cryodask.jobs.tomogram_matching.planning import Resources
    from cryodask.jobs.tomogram_matching.runs import open_runs

    overrides = _overrides(settings, seed=seed, output=output, formats=formats)
    parameters = _read(params, rows, overrides, compat)
    resources = Resources(
        task_memory(memory, threads), ntiles, _lengths(tile_shape), angle_batch, parse_device(device)[0]
    )
    runs = open_runs(parameters, resources, resume=resume, overwrite=overwrite)
    if dry_run:
        _print_plan(runs, resources, as_json)
        return
    where = {"where": cluster, "workers": workers, "threads": threads, "memory": memory, "device": device}
    _compute(runs, resources, where, cleanup, as_json)


def _overrides(settings: Sequence[str], **options: Any) -> dict[str, Any]:
    from cryodask.io.files import is_url

    found: dict[str, Any] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key:
            raise click.UsageError(f"--set {setting}: expected KEY=VALUE")
        found[key.strip()] = value.strip()
    if options["seed"] is not None:
        found["seed"] = options["seed"]
    if options["output"] is not None:
        output = options["output"]
        found["output"] = output if is_url(output) else str(Path(output).absolute())
    if options["formats"] is not None:
        found["formats"] = options["formats"]
    return found


def _read(
    params: Path, rows: str | None, overrides: dict[str, Any], compat: str | None
) -> "list[MatchParameters]":
    from cryodask.jobs.tomogram_matching.parameters import read_parameters

    return read_parameters(params, rows=_row_numbers(rows), overrides=overrides, compat=compat)


def _row_numbers(rows: str | None) -> list[int] | None:
    if rows is None:
        return None
    found: list[int] = []
    for part in rows.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise click.UsageError(f"--rows {rows}: expected 0-based rows such as 0,2-4")
        found.extend(range(int(first), int(last or first) + 1))
    return found


def _lengths(text: str | None) -> tuple[int, int, int] | None:
    if text is None:
        return None
    parts = text.split(",")
    if len(parts) != 3 or not all(part.strip().isdigit() for part in parts):
        raise click.UsageError(f"--tile-shape {text}: expected three lengths Z,Y,X")
    z, y, x = (int(part) for part in parts)
    return z, y, x


def _plan(run: "MatchRun", resources: "Resources", seconds: float) -> dict[str, Any]:
    return {
        "result": str(run.final),
        "tiles": len(run.search_plan.tiles),
        "tile_shape": list(run.search_plan.core),
        "transform_shape": list(run.search_plan.block),
        "rotations": run.search.hypotheses,
        "search_factor": 1.0 if run.first is None else float(run.first.problem.grid.factor),
        "search_shape": list(run.search.shape),
        "search_box": run.search.box,
        "templates": [each.name for each in run.inputs.every],
        "mask": ", ".join(sorted({part.mask_kind for part in run.problem.parts})),
        "memory_per_worker": resources.memory,
        "working_set_bytes": run.working_set,
        "result_bytes": run.stored_bytes,
        "scratch_bytes": run.scratch_bytes,
        "core_seconds": seconds,
    }


def _print_plan(runs: "list[MatchRun]", resources: "Resources", as_json: bool) -> None:
    plans = [_plan(run, resources, run.measured_seconds()) for run in runs]
    if as_json:
        click.echo(json.dumps(plans, indent=1))
        return
    for run, plan in zip(runs, plans, strict=True):
        click.echo(_describe(run, plan))
    total = sum(plan["core_seconds"] for plan in plans)
    click.echo(f"all: {duration(total)} of one core, measured by a short calibration; nothing was started")


def _describe(run: "MatchRun", plan: dict[str, Any]) -> str:
    tile = " x ".join(map(str, plan["transform_shape"]))
    return (
        f"{run.name}: {_templates(plan)}{plan['rotations']} rotations x {plan['tiles']} tiles "
        f"(transforms {tile}), {_grid(run, plan)}"
        f"{plan['mask']} mask, {plan['working_set_bytes'] / 2**20:.0f} MiB of "
        f"{plan['memory_per_worker'] / 2**20:.0f} MiB a worker, "
        f"{plan['result_bytes'] / 2**20:.0f} MiB of results, {duration(plan['core_seconds'])} of one core"
    )


def _grid(run: "MatchRun", plan: dict[str, Any]) -> str:
    if run.first is None:
        return ""
    shape = " x ".join(map(str, plan["search_shape"]))
    chosen = "" if run.first.chosen is None else f"{run.first.chosen.text}, "
    return f"{chosen}search grid {run.first.problem.grid.factor} ({shape} voxels, box {plan['search_box']}), "


def _templates(plan: dict[str, Any]) -> str:
    count = len(plan["templates"])
    return f"{count} templates, " if count > 1 else ""


def _compute(
    runs: "list[MatchRun]", resources: "Resources", where: dict[str, Any], cleanup: bool, as_json: bool
) -> None:
    from cryodask.cli.running import compute_runs, print_results

    def describe(run: "MatchRun") -> str:
        return _describe(run, _plan(run, resources, run.rough_seconds()))

    paths, progress = compute_runs(runs, where, describe, batch=resources.angle_batch, cleanup=cleanup)
    rows = [
        {"result": str(path), "maps": [str(file) for file in run.files.values()]}
        for run, path in zip(runs, paths, strict=True)
    ]
    print_results(rows, progress, as_json)
