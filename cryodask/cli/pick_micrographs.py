"""`cryodask pick` for micrographs: tables of Leopard-EM, RELION and cisTEM, boxes, and a picture."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

if TYPE_CHECKING:
    import pandas as pd

    from cryodask.jobs.micrograph_matching.picks import ImagePicks

F = TypeVar("F", bound=Callable[..., Any])
IMAGE_FORMATS = ("leopard-em", "relion", "relion30", "cistem")
SUFFIXES = {".csv": "leopard-em", ".star": "relion", ".txt": "cistem"}
MICROGRAPH_ONLY = ("mask_radius", "stack", "box", "montage", "correlation_variance_is")
# Options of picking that micrographs share with tomograms.
SHARED = ("results", "output", "table_format", "score", "threshold", "false_positives", "mask")
ALWAYS = ("overwrite", "as_json", "debug", "cluster", "workers", "threads", "memory", "device")
METRICS = ("zscore", "local", "global", "pvalue")
FILE = click.Path(path_type=Path)


def micrograph_options(command: F) -> F:
    """Add the options of picking that only micrographs have."""
    for option in reversed(
        (
            click.option("--mask-radius", type=float, default=5.0, help="Pixels between particles; 5."),
            click.option("--stack", type=FILE, metavar="FILE.mrcs", help="Cut boxes into this stack."),
            click.option("--box", type=click.IntRange(2), help="Edge of the boxes of --stack, pixels."),
            click.option("--montage", type=FILE, metavar="PNG", help="Draw peaks, maps and z-scores."),
            click.option(
                "--correlation-variance-is",
                type=click.Choice(["std", "variance"]),
                default="std",
                help="What a map of correlation_variance holds; std.",
            ),
        )
    ):
        command = option(command)
    return command


def of_micrographs(results: Sequence[str]) -> bool:
    """Say whether results come from micrographs: a configuration, or a store with their maps."""
    from cryodask.jobs.micrograph_matching.picks import is_of_micrographs

    return any(is_of_micrographs(result) for result in results)


def refuse_options(context: click.Context, names: Sequence[str], why: str) -> None:
    """Refuse options that were given but do not apply."""
    given = [name for name in names if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    if given:
        option = next(p.opts[0] for p in context.command.params if p.name == given[0])
        raise click.UsageError(f"{option}: {why} only")


def pick_micrographs(context: click.Context) -> None:
    """Pick from matched micrographs with the options of `cryodask pick`."""
    from cryodask.io.files import require_new
    from cryodask.jobs.micrograph_matching.picks import ImagePickOptions, joined_table, pick_images

    values = context.params
    if isinstance(values["threshold"], tuple):
        raise click.BadParameter("--threshold: expected one score for micrographs")
    foreign = [name for name in values if name not in (*SHARED, *ALWAYS, *MICROGRAPH_ONLY)]
    refuse_options(context, foreign, "for tomograms")
    table_format, outputs = _outputs(values)
    for path in outputs.values():
        require_new(path, overwrite=values["overwrite"])
    options = ImagePickOptions(
        metric=_metric(context, table_format),
        false_positives=values["false_positives"],
        cutoff=values["threshold"],
        mask_radius=values["mask_radius"],
        mask=values["mask"],
        variance_is=values["correlation_variance_is"],
    )
    picks = pick_images(list(values["results"]), options)
    table = joined_table(picks)
    _write(table, table_format, outputs, values)
    if "montage" in outputs:
        _draw(picks, outputs["montage"])
    _show(picks, outputs, as_json=values["as_json"])


def _metric(context: click.Context, table_format: str) -> Any:
    if context.get_parameter_source("score") is not ParameterSource.COMMANDLINE:
        return "zscore"
    metric = context.params["score"]
    if metric not in METRICS:
        raise click.UsageError(f"--metric {metric}: for tomograms only, expected {', '.join(METRICS)}")
    return metric


def _outputs(values: dict[str, Any]) -> tuple[str, dict[str, Path]]:
    """Return the format of the table and the files to write."""
    output, stack, box = values["output"], values["stack"], values["box"]
    if output is None:
        raise click.UsageError("-o OUT is required")
    table_format = values["table_format"] or SUFFIXES.get(output.suffix.lower(), "")
    if table_format == "csv":
        table_format = "leopard-em"
    if table_format not in IMAGE_FORMATS:
        expected = f"expected {', '.join(SUFFIXES)}, or --export {', '.join(IMAGE_FORMATS)}"
        raise click.UsageError(
            f"{values['table_format'] or output.name}: no table of micrographs, {expected}"
        )
    if (stack is None) != (box is None):
        raise click.UsageError("--stack FILE.mrcs and --box EDGE go together")
    outputs = {"table": output}
    if stack is not None:
        outputs["stack"] = stack
        if table_format == "cistem":
            outputs["stack_star"] = stack.with_suffix(".star")
    if values["montage"] is not None:
        outputs["montage"] = values["montage"]
    return table_format, outputs


def _write(
    table: "pd.DataFrame", table_format: str, outputs: dict[str, Path], values: dict[str, Any]
) -> None:
    """Write the table, and the stack of boxes."""
    from cryodask.io import micrograph_particles as exports
    from cryodask.io.leopard_em import write_leopard_em

    writers: dict[str, Callable[..., None]] = {
        "leopard-em": write_leopard_em,
        "relion": exports.write_relion,
        "relion30": exports.write_relion30,
        "cistem": exports.write_cistem_coordinates,
    }
    overwrite = values["overwrite"]
    writers[table_format](outputs["table"], table, overwrite=overwrite)
    if "stack" in outputs and len(table):
        _write_stack(table, outputs, values["box"], overwrite=overwrite)


def _write_stack(table: "pd.DataFrame", outputs: dict[str, Path], box: int, *, overwrite: bool) -> None:
    from cryodask.io.micrograph_particles import write_cistem_star
    from cryodask.io.particle_boxes import write_particle_stack

    beyond = write_particle_stack(
        outputs["stack"],
        table["micrograph_path"].tolist(),
        table[["pos_y_img", "pos_x_img"]].to_numpy(int),
        box,
        pixel_size=float(table["pixel_size"].iloc[0]),
        overwrite=overwrite,
    )
    if beyond:
        click.echo(f"cryodask: note: {beyond} boxes reach beyond the micrograph, edges repeated", err=True)
    if "stack_star" in outputs:
        write_cistem_star(outputs["stack_star"], table, outputs["stack"], overwrite=overwrite)


def _draw(picks: "list[ImagePicks]", path: Path) -> None:
    """Draw the montage; of several micrographs each has its name in the file's."""
    from cryodask.io.files import written_whole
    from cryodask.io.map_files import read_map
    from cryodask.results.micrograph_montage import montage_figure
    from cryodask.results.pictures import figure_png

    for found in picks:
        facts = found.maps.facts
        name = facts["micrograph_name"]
        several = len(picks) > 1
        target = path.with_name(f"{path.stem}_{name}_{facts['template_name']}.png") if several else path
        value = f"{found.threshold.metric} above {found.threshold.value:.4g} ({found.threshold.rule})"
        title = f"{name}, {facts['template_name']}: {value}"
        image = read_map(facts["micrograph_path"])
        figure = montage_figure(image, found.maps, found.table, found.threshold, title)
        with written_whole(target, overwrite=True) as temporary:
            temporary.write_bytes(figure_png(figure))


def _show(picks: "list[ImagePicks]", outputs: dict[str, Path], *, as_json: bool) -> None:
    """Print what was found in each micrograph."""
    rows = [
        {
            "micrograph": found.maps.facts["micrograph_name"],
            "template": found.maps.facts["template_name"],
            "particles": len(found.table),
            "metric": found.threshold.metric,
            "threshold": found.threshold.value,
            "rule": found.threshold.rule,
        }
        for found in picks
    ]
    if as_json:
        files = {name: str(path) for name, path in outputs.items()}
        click.echo(json.dumps({**files, "micrographs": rows}, indent=1))
        return
    for row in rows:
        noun = "particle" if row["particles"] == 1 else "particles"
        what = f"{row['micrograph']}, {row['template']}: {row['particles']} {noun}"
        click.echo(f"{what} ({row['metric']} > {row['threshold']:.4g}, {row['rule']})", err=True)
    if not any(row["particles"] for row in rows):
        click.echo("cryodask: note: no particle; the table has its columns and no row", err=True)
    for path in outputs.values():
        click.echo(str(path))
