"""`cryodask config` for the jobs on micrographs and their particles."""

from pathlib import Path
from typing import Any

import click

JOBS = ("match-micrograph", "refine-particles", "constrained-search", "optimize-template")


def check_micrograph(file: Path, job: str) -> list[dict[str, Any]]:
    """Check a configuration and what it names; return the size of each search."""
    from cryodask.jobs.micrograph_matching.configurations import counts, read_configurations

    return [counts(config, _note) for config in read_configurations(file, job)]


def show_micrograph(file: Path, job: str) -> list[dict[str, Any]]:
    """Return every value after defaults, and the sizes where the files are there."""
    from cryodask.errors import InputError
    from cryodask.jobs.micrograph_matching.configurations import counts, flat_values, read_configurations

    shown = []
    for config in read_configurations(file, job):
        values = flat_values(config)
        try:
            values |= counts(config, _note)
        except InputError as error:
            click.echo(f"cryodask: note: no counts: {error}", err=True)
        shown.append(values)
    return shown


def write_micrograph_template(job: str, output: Path, *, no_defaults: bool, overwrite: bool) -> None:
    """Write a configuration to fill in."""
    from cryodask.io.files import written_whole
    from cryodask.jobs.micrograph_matching.configurations import template_text

    if output.suffix.lower() not in (".yaml", ".yml"):
        raise click.UsageError(f"{output.name}: expected a name that ends in .yaml or .yml")
    with written_whole(output, overwrite=overwrite) as temporary:
        temporary.write_text(template_text(job, defaults=not no_defaults), encoding="utf-8")
    click.echo(f"{output}: replace every REQUIRED")


def convert_micrograph(file: Path, output: Path, dialect: str | None, *, overwrite: bool) -> None:
    """Write a configuration for Leopard-EM or for cryodask."""
    from cryodask.jobs.micrograph_matching.configurations import convert_configuration

    if dialect not in ("leopard-em", "cryodask"):
        raise click.UsageError(f"--to {dialect}: expected leopard-em or cryodask for micrographs")
    for key in convert_configuration(file, output, to=dialect, overwrite=overwrite):
        click.echo(f"cryodask: note: not in Leopard-EM and left out: {key}", err=True)
    click.echo(str(output))


def _note(notice: str) -> None:
    click.echo(f"cryodask: note: {notice}", err=True)
