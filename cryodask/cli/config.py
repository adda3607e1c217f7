"""`cryodask config`: write a parameter file to fill in; check, show and convert parameter files."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from cryodask.cli import config_likelihood as likelihoods
from cryodask.cli import config_particles as particles
from cryodask.cli.config_micrograph import (
    check_micrograph,
    convert_micrograph,
    count_line,
    init_micrograph,
    is_micrograph_config,
    show_micrograph,
)
from cryodask.cli.options import debug_option, json_option, overwrite_option
from cryodask.cli.wedge_list import wedge_list

if TYPE_CHECKING:
    from cryodask.jobs.tomogram_matching.parameters import MatchParameters

JOBS = ("match-tomogram", "match-micrograph", *particles.JOBS, "likelihood")
YAML = (".yaml", ".yml")

OUTPUT = click.Path(path_type=Path)
no_defaults_option = click.option("-n", "--no-defaults", is_flag=True, help="Only fields without a default.")
angles_option = click.option(
    "--angles",
    type=click.Choice(["list", "increments"]),
    default="list",
    show_default=True,
    help="How rotations are given.",
)


@click.group(invoke_without_command=True)
@click.option("-o", "--output", type=OUTPUT, help="STAR or YAML to write.")
@no_defaults_option
@angles_option
@overwrite_option
@debug_option
@click.pass_context
def config(
    context: click.Context,
    output: Path | None,
    no_defaults: bool,
    angles: Literal["list", "increments"],
    overwrite: bool,
) -> None:
    """Write, check, show and convert parameter files.

    With -o alone: the same as `config init match-tomogram -o`.
    """
    if context.invoked_subcommand is not None:
        return
    if output is None:
        raise click.UsageError("-o, or one of init, check, show, convert and wedge-list, is required")
    _write_template(output, no_defaults, angles, overwrite)


config.add_command(wedge_list)


@config.command()
@click.argument("job", type=click.Choice(JOBS))
@click.option("-o", "--output", type=OUTPUT, required=True, help="STAR or YAML to write.")
@no_defaults_option
@angles_option
@overwrite_option
@debug_option
def init(
    job: str, output: Path, no_defaults: bool, angles: Literal["list", "increments"], overwrite: bool
) -> None:
    """Write a parameter file for a JOB, to fill in; the format follows the suffix."""
    if job == "match-micrograph":
        init_micrograph(output, overwrite=overwrite)
        return
    if job == "likelihood":
        likelihoods.write_likelihood_template(output, no_defaults=no_defaults, overwrite=overwrite)
        return
    if job in particles.JOBS:
        particles.write_particles_template(job, output, no_defaults=no_defaults, overwrite=overwrite)
        return
    _write_template(output, no_defaults, angles, overwrite)


@config.command()
@click.argument("file", type=OUTPUT)
@json_option
@debug_option
def check(file: Path, as_json: bool) -> None:
    """Check a parameter FILE and the files that it names."""
    if likelihoods.is_likelihood(file):
        size = likelihoods.check_likelihood(file)
        counted = ", ".join(f"{key} {value}" for key, value in size.items())
        _echo_json([size]) if as_json else click.echo(f"{file.name}: likelihood: {counted}")
        return
    if (job := particles.job_of_particles(file)) is not None:
        size = particles.check_particles(file, job)
        counted = ", ".join(f"{key} {value}" for key, value in size.items())
        _echo_json([size]) if as_json else click.echo(f"{file.name}: {job}: {counted}")
        return
    if is_micrograph_config(file):
        pairs = check_micrograph(file)
        if as_json:
            _echo_json(pairs)
        else:
            for pair in pairs:
                click.echo(f"{file.name}: {count_line(pair)}")
        return
    from cryodask.jobs.tomogram_matching.checks import check_supported
    from cryodask.jobs.tomogram_matching.inputs import load_inputs
    from cryodask.jobs.tomogram_matching.parameters import read_parameters
    from cryodask.jobs.tomogram_matching.search_size import search_size

    rows = read_parameters(file)
    check_supported(rows)
    counts = [search_size(load_inputs(parameters)) for parameters in rows]
    if as_json:
        _echo_json([{"row": parameters.source.row, **n} for parameters, n in zip(rows, counts, strict=True)])
        return
    for parameters, count in zip(rows, counts, strict=True):
        click.echo(
            f"{file.name} row {parameters.source.row}: {parameters.display_name}: {_count_line(count)}"
        )


@config.command()
@click.argument("file", type=OUTPUT)
@json_option
@debug_option
def show(file: Path, as_json: bool) -> None:
    """Print every value of a parameter FILE after defaults, and what follows from them.

    Counts of rotations and voxels and the threshold need the files that it names; without them the values
    alone are printed.
    """
    if likelihoods.is_likelihood(file):
        shown = [likelihoods.show_likelihood(file)]
    elif (job := particles.job_of_particles(file)) is not None:
        shown = [particles.show_particles(file, job)]
    else:
        shown = show_micrograph(file) if is_micrograph_config(file) else _show_tomograms(file)
    if as_json:
        _echo_json(shown)
        return
    for values in shown:
        for key, value in values.items():
            click.echo(f"{key:<24} {_plain(value)}")
        click.echo()


def _show_tomograms(file: Path) -> list[dict[str, Any]]:
    from cryodask.errors import InputError
    from cryodask.jobs.tomogram_matching.inputs import load_inputs
    from cryodask.jobs.tomogram_matching.parameters import read_parameters
    from cryodask.jobs.tomogram_matching.search_size import search_size

    shown = []
    for parameters in read_parameters(file):
        values: dict[str, Any] = {"row": parameters.source.row, **parameters.model_dump(mode="json")}
        try:
            values |= search_size(load_inputs(parameters))
        except InputError as error:
            click.echo(f"cryodask: note: no counts: {error}", err=True)
        shown.append(values)
    return shown


@config.command()
@click.argument("file", type=OUTPUT)
@click.option("-o", "--output", type=OUTPUT, required=True, help="STAR or YAML to write.")
@click.option(
    "--to",
    "dialect",
    type=click.Choice(["gapstop", "stopgap", "native", "leopard-em", "cryodask"]),
    help="By the suffix if unset: STAR is GAPSTOP's, YAML native.",
)
@overwrite_option
@debug_option
def convert(file: Path, output: Path, dialect: str | None, overwrite: bool) -> None:
    """Turn a GAPSTOP, STOPGAP, native or Leopard-EM parameter FILE into another dialect of its job."""
    if is_micrograph_config(file):
        convert_micrograph(file, output, dialect, overwrite=overwrite)
        return
    if likelihoods.is_likelihood(file):
        raise click.UsageError(f"{file.name}: a likelihood has no other dialect to convert to")
    if particles.job_of_particles(file) is not None:
        particles.convert_particles(file, output, dialect, overwrite=overwrite)
        return
    from cryodask.jobs.tomogram_matching.parameters import read_parameters

    if dialect in ("leopard-em", "cryodask"):
        raise click.UsageError(f"--to {dialect}: expected gapstop, stopgap or native for a tomogram")
    _check_suffix(output)
    dialect = dialect or ("native" if output.suffix.lower() in YAML else "gapstop")
    if (dialect == "native") != (output.suffix.lower() in YAML):
        raise click.UsageError(f"--to {dialect} and {output.name} do not fit, expected .star or .yaml")
    rows = read_parameters(file)
    for note in _write_rows(rows, output, dialect, overwrite):
        click.echo(f"cryodask: note: {note}", err=True)
    click.echo(f"{output}: {len(rows)} rows")


def _write_rows(rows: "list[MatchParameters]", output: Path, dialect: str, overwrite: bool) -> list[str]:
    """Write the rows in a dialect and return what its program cannot read of them."""
    from cryodask.jobs.tomogram_matching.stopgap_writing import write_stopgap
    from cryodask.jobs.tomogram_matching.writing import write_gapstop, write_native

    if dialect == "native":
        write_native(rows, output, overwrite=overwrite)
        return []
    if dialect == "gapstop":
        own = write_gapstop(rows, output, overwrite=overwrite)
        return [f"columns that GAPSTOP does not know: {', '.join(own)}"] if own else []
    lost = write_stopgap(rows, output, overwrite=overwrite)
    return [f"not in STOPGAP and left out: {', '.join(lost)}"] if lost else []


def _write_template(
    output: Path, no_defaults: bool, angles: Literal["list", "increments"], overwrite: bool
) -> None:
    _check_suffix(output)
    from cryodask.jobs.tomogram_matching import templates

    if output.suffix.lower() in YAML:
        from cryodask.io.files import written_whole

        text = templates.native_text(angles, defaults=not no_defaults)
        with written_whole(output, overwrite=overwrite) as temporary:
            temporary.write_text(text, encoding="utf-8")
    else:
        import pandas as pd

        from cryodask.io.star import write_star

        table = pd.DataFrame([templates.star_fields(angles, defaults=not no_defaults)])
        write_star(output, {templates.STAR_BLOCK: table}, overwrite=overwrite)
    click.echo(f"{output}: replace every REQUIRED")


def _check_suffix(output: Path) -> None:
    if output.suffix.lower() not in (".star", *YAML):
        raise click.UsageError(f"{output.name}: expected a name that ends in .star, .yaml or .yml")


def _count_line(counts: dict[str, Any]) -> str:
    voxels = f"{counts['n_voxels']} voxels of {counts['voxel_size']:.4g} angstrom"
    size = f"{counts['n_rotations']} rotations x {voxels}"
    seeds = (
        f" near {counts['n_seeds']} seeds, about {counts['n_scores']} scores" if "n_seeds" in counts else ""
    )
    return f"{size}{seeds}, template box {counts['box']}, threshold {counts['threshold_sigma']:.2f} sigma"


def _plain(value: Any) -> str:
    import json

    if value is None:
        return "none"
    return json.dumps(value) if isinstance(value, dict | list | bool) else str(value)


def _echo_json(value: Any) -> None:
    import json

    click.echo(json.dumps(value, indent=2))
