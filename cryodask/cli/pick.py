"""`cryodask pick`: score maps to a particle table, compared with the truth where it is known."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cryodask.cli.options import cluster_options, debug_option, json_option, overwrite_option
from cryodask.cli.pick_micrographs import (
    IMAGE_FORMATS,
    MICROGRAPH_ONLY,
    micrograph_options,
    of_micrographs,
    pick_micrographs,
    refuse_options,
)

if TYPE_CHECKING:
    import pandas as pd

    from cryodask.picking.compare import Comparison

FORMATS = ("stopgap", "em", "relion3.1", "relion4", "relion5", "dynamo", "csv")
WITH_OBJECT = ("stopgap", "em", "dynamo")
WITH_HALVES = ("stopgap", "relion3.1", "relion4", "relion5")
TOP_HAT_BINS = 50
SHOWN_THRESHOLDS = 10
FILE = click.Path(path_type=Path)


def _cluster_size(
    context: click.Context, option: click.Parameter, value: str | None
) -> int | tuple[int, int] | None:
    if value is None:
        return None
    try:
        sizes = [int(word) for word in value.split(",")]
    except ValueError:
        sizes = []
    if len(sizes) not in (1, 2):
        raise click.BadParameter(f"{value}: expected MIN or MIN,MAX")
    return sizes[0] if len(sizes) == 1 else (sizes[0], sizes[1])


def _threshold(
    context: click.Context, option: click.Parameter, value: str | None
) -> float | tuple[float, ...] | None:
    if value is None:
        return None
    try:
        scores = tuple(float(word) for word in value.split(","))
    except ValueError:
        raise click.BadParameter(f"{value}: expected SCORE or SCORE,SCORE,...") from None
    return scores[0] if len(scores) == 1 else scores


@click.command("pick")
@click.argument("results", nargs=-1, required=True, metavar="RESULT.zarr|SCORES.mrc|CONFIG.yaml ...")
@click.option("-o", "--output", "--table", type=FILE, help="Particle table; its suffix sets the format.")
@click.option(
    "--format", "--export", "table_format", type=click.Choice([*FORMATS, *IMAGE_FORMATS]),
    help="By the suffix if unset.",
)  # fmt: skip
@click.option("--angles", multiple=True, type=FILE, help="Angle map of a bare score map; one for each.")
@click.option("--angle-list", type=FILE, help="Rotation list of bare maps.")
@click.option("--order", type=click.Choice(["zxz", "zzx", "relion"]), default="zxz", show_default=True)
@click.option(
    "--angle-base",
    type=click.IntRange(0, 1),
    default=0,
    show_default=True,
    help="First row in the angle map.",
)
@click.option("--voxel-size", type=float, help="Angstrom, for bare maps whose header has none.")
@click.option(
    "--score", "--metric", type=click.Choice(["score", "score_raw", "zscore", "local", "global", "pvalue"]),
    default="score", help="What ranks peaks: score by default, zscore in micrographs.",
)  # fmt: skip
@click.option(
    "--threshold", "--cutoff", metavar="SCORE[,...]", callback=_threshold,
    help="Least score, or one for each template.",
)  # fmt: skip
@click.option("--sigma", type=float, help="Standard deviations above the mean; 6 for bare maps.")
@click.option("--false-positives", type=float, help="Noise peaks to expect; 1 if no rule is given.")
@click.option("--triangle", is_flag=True, help="At the bend of the sorted scores.")
@click.option(
    "--fdr", type=float, help="False discovery rate, by decoys: the mirrored template, else the noise."
)
@click.option(
    "--independent", type=click.Choice(["all", "effective"]), default="all", show_default=True,
    help="Scores that --false-positives counts: effective needs the template.",
)  # fmt: skip
@click.option(
    "--top-hat", type=int, is_flag=False, flag_value=TOP_HAT_BINS, metavar="[BINS]",
    help="Drop blunt peaks: least top-hat from a histogram of BINS (50) bins.",
)  # fmt: skip
@click.option("--particle-diameter", type=float, help="Angstrom; from the result if unset.")
@click.option("--min-distance", type=float, help="Angstrom between particles; the diameter if unset.")
@click.option("--max-particles", type=int, help="In each tomogram.")
@click.option("--cluster-size", metavar="MIN[,MAX]", callback=_cluster_size, help="Voxels above threshold.")
@click.option("--class", "class_id", type=int, help="Keep particles of this class (template, from 1).")
@click.option("--mask", help="Drop peaks where this map is at most 0.5.")
@click.option(
    "--edge", default="valid", show_default=True, metavar="valid|none|A", help="Distance from faces."
)
@click.option(
    "--refine", type=click.Choice(["none", "position", "orientation", "both"]), default="position",
    show_default=True, help="Finer than voxel and rotation list; orientation needs template and tomogram.",
)  # fmt: skip
@click.option("--symmetry", help="Point group; from the result if unset.")
@click.option("--randomize-symmetry", is_flag=True, help="Turn each particle to a random symmetry mate.")
@click.option("--tomo-num", type=int)
@click.option("--tomo-name")
@click.option("--object", "object_number", type=int, help="Object number of motive lists and Dynamo; 1.")
@click.option("--binning", type=float, help="Voxel over unbinned pixel; from the result if unset.")
@click.option("--split-halves", is_flag=True, help="Half sets A and B in turn.")
@click.option("--compare", "truth", type=FILE, metavar="TRUTH", help="Compare with this particle table.")
@micrograph_options
@overwrite_option
@cluster_options
@json_option
@debug_option
def pick(
    results: tuple[str, ...],
    output: Path | None,
    table_format: str | None,
    truth: Path | None,
    object_number: int | None,
    binning: float | None,
    split_halves: bool,
    overwrite: bool,
    cluster: str,
    workers: int | None,
    threads: int | None,
    memory: str,
    device: str,
    as_json: bool,
    **options: Any,
) -> None:
    """Turn score maps into one particle table, and say how good it is where the truth is known.

    Results of match-micrograph, or a match_template YAML whose maps are written, give a table of Leopard-EM.
    """
    context = click.get_current_context()
    if of_micrographs(results):
        pick_micrographs(context)
        return
    refuse_options(context, MICROGRAPH_ONLY, "for micrographs")
    from cryodask.errors import InputError
    from cryodask.io.files import require_exists, require_new
    from cryodask.io.particles import write_particles

    if output is None and truth is None:
        raise InputError("-o OUT is required (or --compare TRUTH)")
    if truth is not None:
        require_exists(truth)
    if output is not None:
        _check_dialect(output, table_format, object_number, split_halves)
    outputs = _outputs(output, truth)
    for path in outputs.values():
        require_new(path, overwrite=overwrite)
    options = {name: value for name, value in options.items() if name not in MICROGRAPH_ONLY}
    options["angles"] = options["angles"] or None
    where = {"where": cluster, "workers": workers, "threads": threads, "memory": memory, "device": device}
    table = _table(list(results), options, where)
    dialect = _dialect(table, binning, object_number, split_halves)
    comparison = None if truth is None else _compare(table, truth, dialect)
    if output is not None:
        write_particles(table, output, table_format, overwrite=overwrite, **dialect)
    if comparison is not None and output is not None:
        _write_comparison(comparison, outputs)
    _show(table, comparison, outputs, as_json)


def _table(results: list[str], options: dict[str, Any], where: dict[str, Any]) -> "pd.DataFrame":
    """Return the table of the results, made here unless several workers or a cluster are asked for."""
    from cryodask.cluster import open_cluster, parse_device, task_memory
    from cryodask.jobs.tomogram_matching.picks import TomogramPicks
    from cryodask.picking.pick import pick as pick_particles

    kind, _ = parse_device(where["device"])
    job = TomogramPicks(kind, task_memory(where["memory"], where["threads"]))
    alone = max(where["workers"] or 1, where["threads"] or 1) == 1
    if where["where"] == "local" and kind == "cpu" and alone:
        return pick_particles(results, job=job, **options)
    with open_cluster(**where) as client, client.get_executor(pure=False) as executor:
        return pick_particles(results, job=job, executor=executor, **options)


def _check_dialect(
    output: Path, table_format: str | None, object_number: int | None, split_halves: bool
) -> None:
    """Refuse options that the format of the table has no place for, and an unknown suffix."""
    from cryodask.errors import InputError
    from cryodask.io.particles import SUFFIXES

    dialect = table_format or SUFFIXES.get(output.suffix.lower())
    if dialect is None:
        raise InputError(f"{output.name}: unknown table suffix, expected {', '.join(SUFFIXES)} (or --format)")
    if object_number is not None and dialect not in WITH_OBJECT:
        raise InputError(f"--object {object_number}: {dialect} has no object, only {', '.join(WITH_OBJECT)}")
    if split_halves and dialect not in WITH_HALVES:
        raise InputError(f"--split-halves: {dialect} has no half sets, only {', '.join(WITH_HALVES)}")


def _outputs(output: Path | None, truth: Path | None) -> dict[str, Path]:
    """Return the files that will be written, by what they hold."""
    if output is None:
        return {}
    beside = {"thresholds": ".thresholds.csv", "roc": ".roc.png"} if truth else {}
    return {"table": output, **{name: output.with_suffix(suffix) for name, suffix in beside.items()}}


def _dialect(
    table: "pd.DataFrame", binning: float | None, object_number: int | None, split_halves: bool
) -> dict[str, Any]:
    """Return what a table's dialect needs beyond the table."""
    factor = binning or table.attrs.get("binning", 1.0)
    shapes = {name: tuple(n * factor for n in shape) for name, shape in table.attrs["shapes"].items()}
    return {
        "voxel_size": table.attrs.get("voxel_size"),
        "binning": factor,
        "tomogram_shape": shapes,
        "object_number": 1 if object_number is None else object_number,
        "split_halves": split_halves,
        **table.attrs.get("optics", {}),
    }


def _compare(table: "pd.DataFrame", truth: Path, dialect: dict[str, Any]) -> "Comparison":
    from cryodask.io.particles import read_particles
    from cryodask.picking.compare import compare

    return compare(table, read_particles(truth, **dialect), score=table.attrs.get("ranked_by", "score"))


def _write_comparison(comparison: "Comparison", outputs: dict[str, Path]) -> None:
    """Write the figures at every threshold and the ROC picture beside the table."""
    from cryodask.results.charts import roc_figure
    from cryodask.results.pictures import figure_png

    comparison.table.to_csv(outputs["thresholds"], index=False, float_format="%.9g")
    outputs["roc"].write_bytes(figure_png(roc_figure(comparison)))


def _show(
    table: "pd.DataFrame", comparison: "Comparison | None", outputs: dict[str, Path], as_json: bool
) -> None:
    """Print what was found: the comparison on standard output, the rest on standard error."""
    import json

    if as_json:
        facts: dict[str, Any] = {
            "particles": len(table),
            **{name: str(path) for name, path in outputs.items()},
            **{k: table.attrs[k] for k in ("rule", "threshold_map", "thresholds") if k in table.attrs},
        }
        if comparison is not None:
            rows = json.loads(comparison.table.to_json(orient="records", double_precision=9))
            facts |= {"comparison": comparison.summary(), "at_thresholds": rows}
        click.echo(json.dumps(facts, indent=2))
        return
    rule = f" ({table.attrs['rule'].replace('_', ' ')})" if "rule" in table.attrs else ""
    where = f" in {outputs['table']}" if outputs else ""
    click.echo(f"{len(table)} particles{where}{rule}", err=True)
    if comparison is not None:
        _print_comparison(comparison)


def _print_comparison(comparison: "Comparison") -> None:
    """Print the comparison as a table, all picks last."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    shown = Table(
        box=box.SIMPLE_HEAD, title=f"{comparison.n_picks} picks, {comparison.n_truth} true particles"
    )
    for heading in ("threshold", "picks", "found", "recall", "precision", "F1", "shift Å", "angle °"):
        shown.add_column(heading, justify="right")
    every = max(1, -(-len(comparison.table) // SHOWN_THRESHOLDS))
    for row in comparison.table.iloc[::-1].iloc[::every].iloc[::-1].to_dict("records"):
        shares = (f"{row[name]:.3f}" for name in ("recall", "precision", "f1"))
        errors = (_or_dash(row[name]) for name in ("position_error", "angular_error"))
        shown.add_row(f"{row['threshold']:.4f}", str(row["picks"]), str(row["found"]), *shares, *errors)
    Console().print(shown)


def _or_dash(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.1f}"
