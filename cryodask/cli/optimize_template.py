"""`cryodask optimize-template`: the voxel size at which a template fits known particles best."""

import json
import math
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
from cryodask.cli.particle_runs import placed, tell

if TYPE_CHECKING:
    from cryodask.jobs.micrograph_matching.voxel_optimum import Optimum


@click.command("optimize-template")
@click.argument("config", type=click.Path(path_type=Path), metavar="CONFIG.yaml")
@click.option("-o", "--output", "--out", type=click.Path(path_type=Path), required=True, help="CSV to write.")
@click.option("--min-snr", type=float, default=8.0, show_default=True, help="Least z of a particle to count.")
@click.option("--best-n", type=click.IntRange(1), help="Count the best N particles instead.")
@click.option(
    "--consecutive-threshold", type=click.IntRange(1), help="Stop after so many falling scores in a row."
)
@resume_option
@overwrite_option
@dry_run_option
@cluster_options
@json_option
@debug_option
def optimize_template(
    config: Path,
    output: Path,
    min_snr: float,
    best_n: int | None,
    consecutive_threshold: int | None,
    resume: bool,
    overwrite: bool,
    dry_run: bool,
    as_json: bool,
    **where: Any,
) -> None:
    """Score voxel sizes of the template of a Leopard-EM optimize_template YAML by known particles."""
    from cryodask.cluster import open_cluster, parse_device, parse_memory
    from cryodask.io.files import written_whole
    from cryodask.jobs.micrograph_matching.optimize import kept_scores, open_optimization, optimize
    from cryodask.jobs.micrograph_matching.optimize_config import OptimizeConfig
    from cryodask.jobs.micrograph_matching.pose_run import unfinished
    from cryodask.jobs.micrograph_matching.voxel_optimum import Choice

    if resume and output.exists() and not unfinished(output).exists():
        click.echo(f"{output.name} is finished, skipped", err=True)
        return
    parameters = OptimizeConfig.from_yaml(config)
    place = placed(parameters.computational_config, where)
    work = open_optimization(
        parameters,
        device=parse_device(place["device"])[0],
        memory=float(parse_memory(place["memory"])),
        tell=tell,
    )
    if dry_run:
        tried = len(work.coarse) + len(work.fine(0.0))
        click.echo(f"{output.name}: {len(work.start)} particles x {tried} voxel sizes; nothing was started")
        return
    with kept_scores(work, output, resume=resume, overwrite=overwrite) as kept:
        with open_cluster(**place) as client:
            found = optimize(
                kept,
                choice=Choice(min_snr, best_n),
                consecutive_threshold=consecutive_threshold,
                client=client,
                tell=tell,
            )
        with written_whole(output, overwrite=overwrite or resume) as temporary:
            found.table.to_csv(temporary, index=False, float_format="%.9g")
    _show(found, output, as_json)


def _show(found: "Optimum", output: Path, as_json: bool) -> None:
    known = not math.isnan(found.uncertainty)
    if as_json:
        spread = found.uncertainty if known else None
        facts = {"table": str(output), "pixel_size": found.pixel_size, "uncertainty": spread}
        click.echo(json.dumps(facts, indent=1))
        return
    error = f" +- {found.uncertainty:.5f}" if known else " (the end of its range)"
    click.echo(f"best voxel size {found.pixel_size:.5f}{error} angstrom")
    click.echo(str(output))
