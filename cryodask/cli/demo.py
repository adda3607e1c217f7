"""`cryodask demo`: a simulated tomogram from end to end."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cryodask.cli.options import cluster_options, debug_option, json_option, overwrite_option

if TYPE_CHECKING:
    import pandas as pd
    from distributed import Client

    from cryodask.picking.compare import Comparison

RESULTS = "results"
# What matching with the written parameter files makes.
RERUNS = ("rerun_yaml", "rerun_star")


@click.command("demo")
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("cryodask-demo"),
    show_default=True,
    help="Folder of everything that is written.",
)
@click.option("--size", type=click.Choice(["small", "large"]), default="small", show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of places and noise.")
@overwrite_option
@cluster_options
@json_option
@debug_option
def demo(output: Path, size: str, seed: int, overwrite: bool, as_json: bool, **cluster: Any) -> None:
    """Simulate a tomogram, match it, pick, and compare with the truth.

    Writes the inputs, the parameter files that repeat the run, maps, particles and a report, and ends with
    the next commands to try.
    """
    import json

    from cryodask.cluster import open_cluster
    from cryodask.io.files import written_whole

    started = time.perf_counter()
    _make_room(output, overwrite=overwrite)
    options = {("where" if name == "cluster" else name): value for name, value in cluster.items()}
    with open_cluster(**options) as client:
        result, picks, comparison = _search(output, size, seed, client, cluster, overwrite=overwrite)
    found = comparison.summary()
    figures = ("recall", "precision", "median_angular_error_deg", "median_position_error_angstrom")
    summary = {name: found[name] for name in figures}
    summary["seconds"] = round(time.perf_counter() - started, 2)
    _report(output, result, picks, comparison, summary)
    with written_whole(output / "summary.json", overwrite=overwrite) as temporary:
        temporary.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    if as_json:
        click.echo(json.dumps(summary))
    else:
        _print_table(summary, comparison)
        _print_next(output)


def _make_room(output: Path, *, overwrite: bool) -> None:
    """Refuse a folder that holds anything, or clear away what earlier runs on its inputs made."""
    import shutil

    from cryodask.errors import InputError

    if output.is_dir() and any(output.iterdir()) and not overwrite:
        raise InputError(f"{output} exists; use --overwrite")
    for name in (RESULTS, *RERUNS):
        shutil.rmtree(output / name, ignore_errors=True)


def _search(
    output: Path, size: str, seed: int, client: "Client", options: dict[str, Any], *, overwrite: bool
) -> "tuple[Path, pd.DataFrame, Comparison]":
    """Simulate, match, pick and compare; return the result, the picks and how good they are."""
    from cryodask.cli.progress import shown_progress
    from cryodask.cluster import parse_device, task_memory
    from cryodask.io.particles import read_particles, write_particles
    from cryodask.jobs.tomogram_matching.parameters import read_parameters
    from cryodask.jobs.tomogram_matching.planning import Resources
    from cryodask.jobs.tomogram_matching.runs import run
    from cryodask.picking.compare import compare
    from cryodask.picking.pick import pick
    from cryodask.simulate.project import SIZES, write_project

    _say(f"simulating a tomogram into {output}")
    write_project(output, SIZES[size], seed=seed, overwrite=overwrite)
    rows = read_parameters(output / "params.yaml", overrides={"output": RESULTS})
    resources = Resources(
        memory=task_memory(options["memory"], options["threads"]), device=parse_device(options["device"])[0]
    )
    _say(f"matching it with {output / 'ribosome.mrc'}")
    with shown_progress() as listen:
        result = run(rows, client=client, resources=resources, listen=listen)[0]
    _say("picking, and comparing with the truth")
    picks = pick(result)
    write_particles(picks, output / "particles.star", overwrite=overwrite)
    return result, picks, compare(picks, read_particles(output / "truth.csv"))


def _report(
    output: Path,
    result: Path,
    picks: "pd.DataFrame",
    comparison: "Comparison",
    summary: dict[str, Any],
) -> None:
    from cryodask.io.particles import read_particles
    from cryodask.results.match_report import match_report

    match_report(
        output / "report.html",
        result,
        picks,
        tomogram=output / "tomogram.mrc",
        truth=read_particles(output / "truth.csv"),
        comparison=comparison,
        commands=next_commands(output),
        summary=summary,
    )


def next_commands(output: Path) -> list[str]:
    """Return commands that work after the demo, from the folder it was run in."""
    return [
        f"cryodask info {output}/tomogram.mrc {output}/wedge_list.star",
        f"cryodask match-tomogram {output}/params.star --dry-run",
        f"cryodask match-tomogram {output}/params.yaml",
        f"cryodask pick {output}/{RESULTS}/tomogram.zarr -o {output}/picks.csv --compare {output}/truth.csv",
    ]


def _print_table(summary: dict[str, Any], comparison: "Comparison") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Particles found", show_header=False)
    count = comparison.true_positives
    table.add_row("recall", f"{summary['recall']:.3f}", f"{count} of {comparison.n_truth} particles")
    table.add_row("precision", f"{summary['precision']:.3f}", f"{count} of {comparison.n_picks} picks")
    for name, label, unit in (
        ("median_angular_error_deg", "median angular error", "degrees"),
        ("median_position_error_angstrom", "median position error", "angstrom"),
        ("seconds", "time", "seconds"),
    ):
        value = summary[name]
        table.add_row(label, "-" if value is None else f"{value:.1f}", unit)
    Console().print(table)


def _print_next(output: Path) -> None:
    click.echo(f"Pictures: {output}/report.html\nParticles: {output}/particles.star\n\nTry next:")
    for command in next_commands(output):
        click.echo(f"  {command}")


def _say(text: str) -> None:
    click.echo(f"cryodask: {text}", err=True)
