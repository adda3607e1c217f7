"""What verbs that compute share: run what is planned, show progress, say what was resumed."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from cryodask.jobs.execution import JobRun
    from cryodask.jobs.micrograph_matching.computing_block import ComputationalConfig
    from cryodask.search.driver import Progress


def compute_runs(
    runs: "Sequence[JobRun]",
    where: dict[str, Any],
    describe: "Callable[[Any], str]",
    *,
    batch: int | None = None,
    cleanup: bool = True,
) -> "tuple[list[Path], Progress]":
    """Compute planned runs on a cluster, with progress on standard error.

    Parameters
    ----------
    runs
        From the job's `open_runs`.
    where
        Keywords of `cryodask.cluster.open_cluster`.
    describe
        Gives the line that is shown of a run before it starts.
    batch, cleanup
        As in `cryodask.jobs.execution.execute`.
    """
    from cryodask.cli.progress import shown_progress
    from cryodask.cluster import open_cluster
    from cryodask.jobs.execution import execute
    from cryodask.search.driver import Progress

    for run in runs:
        click.echo(f"{run.name} is finished, skipped" if run.is_finished else describe(run), err=True)
    if all(run.is_finished for run in runs):
        return [run.final for run in runs], Progress()
    last = Progress()

    def tell(notice: str) -> None:
        click.echo(f"cryodask: warning: {notice}", err=True)

    with open_cluster(**where) as client, shown_progress() as show:

        def listen(progress: "Progress") -> None:
            nonlocal last
            last = progress
            show(progress)

        try:
            paths = execute(runs, client=client, batch=batch, cleanup=cleanup, listen=listen, tell=tell)
        except KeyboardInterrupt:
            click.echo("cryodask: what is finished is kept; continue with --resume", err=True)
            raise
    if last.tiles_resumed or last.hypotheses_resumed:
        share = 100 * last.hypotheses_resumed / max(last.hypotheses_total, 1)
        tiles = f"{last.tiles_resumed} of {last.tiles_total} tiles"
        click.echo(f"resumed: {share:.0f} % of the search was there already, {tiles} whole", err=True)
    return paths, last


def devices_of(
    block: "ComputationalConfig", device: str, threads: int | None, notices: list[str]
) -> tuple[str, int | None]:
    """Return device and threads after a configuration's own block; options of the line win.

    Parameters
    ----------
    block
        computational_config.
    device, threads
        Of the command line.
    notices
        What a user should know is added.

    Raises
    ------
    ClusterError
        CUDA devices are there, but not one that the block names.
    """
    from cryodask.arrays.module import count_cuda_devices

    context = click.get_current_context()
    source = click.core.ParameterSource.COMMANDLINE
    if block.backend != "streamed":
        notices.append(f"computational_config.backend = {block.backend}: no effect")
    if any(context.get_parameter_source(name) == source for name in ("cluster", "device")):
        if block.gpu_ids is not None:
            notices.append("computational_config is overridden by --cluster or --device")
        return device, threads
    option, notice = block.device_option(count_cuda_devices())
    if notice:
        notices.append(f"computational_config.{notice}")
    on_gpu = option.startswith("cuda")
    return option, block.num_cpus if on_gpu and threads is None else threads


def print_results(rows: list[dict[str, Any]], progress: "Progress", as_json: bool, **others: str) -> None:
    """Print what was written: a path a line, or all of it as JSON with the cost.

    `others` are files of all results together, by name.
    """
    if not as_json:
        for row in rows:
            for value in row.values():
                for path in value if isinstance(value, list) else [value]:
                    click.echo(path)
        for path in others.values():
            click.echo(path)
        return
    summary = {
        "tiles": progress.tiles_total,
        "tiles_resumed": progress.tiles_resumed,
        "tasks": progress.tasks,
        "core_seconds": progress.cpu_seconds,
    }
    click.echo(json.dumps({"results": rows, **others, **summary}, indent=1))


def duration(seconds: float) -> str:
    """Return a span of time in words."""
    if seconds < 120:
        return f"about {seconds:.0f} s"
    if seconds < 7200:
        return f"about {seconds / 60:.0f} min"
    return f"about {seconds / 3600:.1f} h"
