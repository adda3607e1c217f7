"""What `cryodask config` does with configurations of jobs on particles."""

from pathlib import Path
from typing import Any

import click

JOBS = ("refine-particles", "constrained-search", "optimize-template")


def job_of_particles(file: Path) -> str | None:
    """Return the job on particles that a file is a configuration of, if any."""
    from cryodask.jobs.micrograph_matching.particle_configurations import job_of

    return job_of(file)


def check_particles(file: Path, job: str) -> dict[str, Any]:
    """Check a configuration and what it names; return the size of its search."""
    from cryodask.jobs.micrograph_matching.particle_configurations import counts, read_configuration

    return counts(read_configuration(file, job), _note)


def show_particles(file: Path, job: str) -> dict[str, Any]:
    """Return every value after defaults, and the sizes where the files are there."""
    from cryodask.errors import InputError
    from cryodask.jobs.micrograph_matching.particle_configurations import counts, read_configuration

    config = read_configuration(file, job)
    values = config.model_dump(mode="json")
    try:
        values |= counts(config, _note)
    except InputError as error:
        click.echo(f"cryodask: note: no counts: {error}", err=True)
    return values


def write_particles_template(job: str, output: Path, *, no_defaults: bool, overwrite: bool) -> None:
    """Write a configuration to fill in."""
    from cryodask.io.files import written_whole
    from cryodask.jobs.micrograph_matching.particle_configurations import template_text

    if output.suffix.lower() not in (".yaml", ".yml"):
        raise click.UsageError(f"{output.name}: expected a name that ends in .yaml or .yml")
    with written_whole(output, overwrite=overwrite) as temporary:
        temporary.write_text(template_text(job, defaults=not no_defaults), encoding="utf-8")
    click.echo(f"{output}: replace every REQUIRED")


def convert_particles(file: Path, output: Path, dialect: str | None, *, overwrite: bool) -> None:
    """Write a configuration for Leopard-EM or for cryodask."""
    from cryodask.jobs.micrograph_matching.particle_configurations import convert_configuration

    if dialect not in ("leopard-em", "cryodask"):
        raise click.UsageError(f"--to {dialect}: expected leopard-em or cryodask for particles")
    for key in convert_configuration(file, output, to=dialect, overwrite=overwrite):
        click.echo(f"cryodask: note: not in Leopard-EM and left out: {key}", err=True)
    click.echo(str(output))


def _note(notice: str) -> None:
    click.echo(f"cryodask: note: {notice}", err=True)
