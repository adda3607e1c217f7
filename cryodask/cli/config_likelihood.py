"""What `cryodask config` does with configurations of likelihoods."""

from pathlib import Path
from typing import Any

import click


def is_likelihood(file: Path) -> bool:
    """Say whether a file is a configuration of a likelihood."""
    from cryodask.jobs.likelihood.starting_file import is_likelihood_file

    return is_likelihood_file(file)


def check_likelihood(file: Path) -> dict[str, Any]:
    """Check a configuration and what it names; return the size of its search."""
    from cryodask.jobs.likelihood.parameters import read_likelihood
    from cryodask.jobs.likelihood.starting_file import count_likelihood

    return count_likelihood(read_likelihood(file))


def show_likelihood(file: Path) -> dict[str, Any]:
    """Return every value after defaults, and the sizes where the files are there."""
    from cryodask.errors import InputError
    from cryodask.jobs.likelihood.parameters import read_likelihood
    from cryodask.jobs.likelihood.starting_file import count_likelihood

    parameters = read_likelihood(file)
    values = parameters.model_dump(mode="json")
    try:
        values |= count_likelihood(parameters)
    except InputError as error:
        click.echo(f"cryodask: note: no counts: {error}", err=True)
    return values


def write_likelihood_template(output: Path, *, no_defaults: bool, overwrite: bool) -> None:
    """Write a configuration to fill in."""
    from cryodask.io.files import written_whole
    from cryodask.jobs.likelihood.starting_file import starting_text

    if output.suffix.lower() not in (".yaml", ".yml"):
        raise click.UsageError(f"{output.name}: expected a name that ends in .yaml or .yml")
    with written_whole(output, overwrite=overwrite) as temporary:
        temporary.write_text(starting_text(defaults=not no_defaults), encoding="utf-8")
    click.echo(f"{output}: replace every REQUIRED")
