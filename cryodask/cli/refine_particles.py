"""`cryodask refine-particles`: orientation, defocus, pixel size and position of known particles."""

from pathlib import Path
from typing import Any

import click

from cryodask.cli.options import (
    cluster_options,
    debug_option,
    dry_run_option,
    json_option,
    overwrite_option,
    resume_option,
)
from cryodask.cli.particle_runs import compat_option, run_particles, tell


@click.command("refine-particles")
@click.argument("config", type=click.Path(path_type=Path), metavar="CONFIG.yaml")
@click.option("-o", "--output", "--out", type=click.Path(path_type=Path), required=True, help="CSV to write.")
@click.option(
    "--strategy", type=click.Choice(["exhaustive", "coarse_to_fine"]), default="exhaustive",
    show_default=True, help="Every turn of the grid, or a coarse grid and then about its best.",
)  # fmt: skip
@click.option(
    "--correlation-variance-is", type=click.Choice(["std", "variance"]),
    help="What the table's correlation_variance holds; told from its z-scores if unset.",
)  # fmt: skip
@compat_option
@resume_option
@overwrite_option
@dry_run_option
@cluster_options
@json_option
@debug_option
def refine_particles(
    config: Path,
    output: Path,
    strategy: Any,
    correlation_variance_is: str | None,
    compat: str | None,
    resume: bool,
    overwrite: bool,
    dry_run: bool,
    as_json: bool,
    **where: Any,
) -> None:
    """Refine the particles of a Leopard-EM refine_template YAML or of a table of ours.

    The table keeps its rows and gains refined_ columns; it can be refined again.
    """
    from cryodask.jobs.micrograph_matching.refine import open_refinement
    from cryodask.jobs.micrograph_matching.refine_config import RefineConfig

    options = {"correlation_variance_is": correlation_variance_is, "compat": compat}
    parameters = RefineConfig.from_yaml(config).with_own(**options)

    def open_runs(device: str, memory: float) -> Any:
        run = open_refinement(
            parameters,
            output,
            strategy=strategy,
            device=device,
            memory=memory,
            resume=resume,
            overwrite=overwrite,
            tell=tell,
        )
        return [run]

    run_particles(parameters, open_runs, where, dry_run=dry_run, as_json=as_json)
