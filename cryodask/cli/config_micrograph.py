"""What `cryodask config` does with configurations of micrograph matching."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from cryodask.jobs.micrograph_matching.inputs import MatchInputs

JOB = "match-micrograph"
_KEYS = {"micrograph_path", "micrographs", "match_template_result"}


def is_micrograph_config(file: Path) -> bool:
    """Say whether a file is a configuration of this job: YAML or JSON, by its keys."""
    from cryodask.errors import InputError
    from cryodask.jobs.yaml_file import read_mapping

    if file.suffix.lower() not in (".yaml", ".yml", ".json"):
        return False
    try:
        mapping = read_mapping(file)
    except InputError:
        return False
    return bool(_KEYS & set(mapping)) and "tomogram" not in mapping


def init_micrograph(output: Path, *, overwrite: bool) -> None:
    """Write a configuration to fill in."""
    from cryodask.jobs.micrograph_matching.writing import write_template

    if output.suffix.lower() not in (".yaml", ".yml"):
        raise click.UsageError(f"{output.name}: expected a name that ends in .yaml or .yml")
    write_template(output, overwrite=overwrite)
    click.echo(f"{output}: replace every REQUIRED")


def check_micrograph(file: Path) -> list[dict[str, Any]]:
    """Check every pair of a configuration and the files that it names; return the size of each search."""
    from cryodask.jobs.micrograph_matching.batch import read_configs
    from cryodask.jobs.micrograph_matching.inputs import TemplateCache, load_inputs

    configs, notices = read_configs(file)
    templates = TemplateCache()
    every = [load_inputs(config, is_one_of_many=len(configs) > 1, templates=templates) for config in configs]
    for notice in dict.fromkeys([*notices, *(text for inputs in every for text in inputs.notices)]):
        click.echo(f"cryodask: note: {notice}", err=True)
    return [_counts(inputs) for inputs in every]


def count_line(counts: dict[str, Any]) -> str:
    """Return the size of a search in words."""
    height, width = counts["positions"]
    return (
        f"{counts['pair']}: {counts['n_orientations']} orientations x {counts['n_defoci']} defoci x "
        f"{counts['n_pixel_sizes']} pixel sizes = {counts['n_hypotheses']} hypotheses at {height} x {width} "
        f"positions, template {counts['box']}, threshold z = {counts['threshold']:.4f}"
    )


def show_micrograph(file: Path) -> list[dict[str, Any]]:
    """Return every value after defaults, and what follows from them where the files are there."""
    from cryodask.errors import InputError
    from cryodask.jobs.micrograph_matching.batch import read_configs
    from cryodask.jobs.micrograph_matching.inputs import load_inputs

    shown = []
    for config in read_configs(file)[0]:
        values = config.model_dump(mode="json")
        try:
            values |= _counts(load_inputs(config))
        except InputError as error:
            click.echo(f"cryodask: note: no threshold: {error}", err=True)
            values |= {"n_orientations": len(config.orientation_search_config.angles())}
            values |= {"n_defoci": len(config.defocus_search_config.values(config.cryodask.compat))}
        shown.append(values)
    return shown


def convert_micrograph(file: Path, output: Path, dialect: str | None, *, overwrite: bool) -> None:
    """Write a configuration for Leopard-EM, or with every value of cryodask's own."""
    from cryodask.jobs.micrograph_matching.config import MatchConfig
    from cryodask.jobs.micrograph_matching.writing import write_leopard_em, write_native

    config = MatchConfig.from_yaml(file)
    if dialect == "leopard-em":
        for name in write_leopard_em(config, output, overwrite=overwrite):
            click.echo(f"cryodask: note: not in Leopard-EM and left out: {name}", err=True)
    elif dialect in ("cryodask", None):
        write_native(config, output, overwrite=overwrite)
    else:
        raise click.UsageError(f"--to {dialect}: expected leopard-em or cryodask for a micrograph")
    click.echo(str(output))


def _counts(inputs: "MatchInputs") -> dict[str, Any]:
    from cryodask.jobs.micrograph_matching.planning import count_positions, run_threshold

    return {
        "pair": f"{inputs.config.micrograph_name} with {inputs.config.template_name}",
        "box": inputs.box,
        "positions": list(inputs.positions_shape),
        "n_positions": count_positions(inputs),
        "n_orientations": len(inputs.angles),
        "n_defoci": len(inputs.defoci),
        "n_pixel_sizes": len(inputs.pixel_offsets),
        "n_hypotheses": inputs.hypotheses,
        "threshold": round(run_threshold(inputs), 5),
    }
