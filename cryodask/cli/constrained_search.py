"""`cryodask constrained-search`: a second particle where the first one says that it must be."""

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


@click.command("constrained-search")
@click.argument("config", type=click.Path(path_type=Path), metavar="CONFIG.yaml")
@click.option("-o", "--output", "--out", type=click.Path(path_type=Path), required=True, help="CSV to write.")
@click.option(
    "--false-positives", type=float, default=0.005, show_default=True, help="Expected for each particle."
)
@compat_option
@resume_option
@overwrite_option
@dry_run_option
@cluster_options
@json_option
@debug_option
def constrained_search(
    config: Path,
    output: Path,
    false_positives: float,
    compat: str | None,
    resume: bool,
    overwrite: bool,
    dry_run: bool,
    as_json: bool,
    **where: Any,
) -> None:
    """Search for a second particle (B) beside each known one (A) of a Leopard-EM constrained_search YAML.

    Writes all rows, and beside them those above the threshold and the parameters.
    """
    from cryodask.jobs.micrograph_matching.constrained import open_constrained
    from cryodask.jobs.micrograph_matching.constrained_config import ConstrainedConfig

    parameters = ConstrainedConfig.from_yaml(config).with_own(compat=compat)

    def open_runs(device: str, memory: float) -> Any:
        return open_constrained(
            parameters,
            output,
            false_positives=false_positives,
            device=device,
            memory=memory,
            resume=resume,
            overwrite=overwrite,
            tell=tell,
        )

    run_particles(parameters, open_runs, where, dry_run=dry_run, as_json=as_json)
