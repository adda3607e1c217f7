"""Options that several verbs share: one spelling and one meaning each."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def cluster_options(command: F) -> F:
    """Add --cluster, --workers, --threads, --memory and --device, passed on under these names."""
    for option in reversed(
        (
            click.option(
                "--cluster",
                default="local",
                show_default=True,
                metavar="local|threads|cuda|ADDRESS|FILE",
                help="Where the work runs: processes here, GPUs here, a scheduler's address or its file.",
            ),
            click.option(
                "--workers", type=click.IntRange(1), help="Worker processes; one a core by default."
            ),
            click.option("--threads", type=click.IntRange(1), help="Threads a worker; 1 by default."),
            click.option(
                "--memory",
                default="2GiB",
                show_default=True,
                metavar="SIZE",
                callback=_memory,
                help="Memory a worker, shared by its threads; decides the size of tiles. Its process may "
                "take half as much again, and 0.5 GiB for Python.",
            ),
            click.option(
                "--device",
                metavar="cpu|cuda|cuda:0,1",
                callback=_device,
                help="What computes; cuda with --cluster cuda, else cpu, if unset.",
            ),
        )
    ):
        command = option(command)
    return command


def debug_option(command: F) -> F:
    """Add --debug, which lets errors show their traceback."""
    return click.option(
        "--debug",
        is_flag=True,
        expose_value=False,
        callback=_note_debug,
        help="Show tracebacks.",
    )(command)


def json_option(command: F) -> F:
    """Add --json, passed on as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")(command)


def overwrite_option(command: F) -> F:
    """Add --overwrite."""
    return click.option("--overwrite", is_flag=True, help="Replace results of the same name.")(command)


def dry_run_option(command: F) -> F:
    """Add --dry-run, passed on as `dry_run`."""
    return click.option("--dry-run", is_flag=True, help="Check everything, print the plan and stop.")(command)


def resume_option(command: F) -> F:
    """Add --resume and its older name --restart, passed on as `resume`."""
    return click.option("--resume", "--restart", "resume", is_flag=True, help="Continue an unfinished run.")(
        command
    )


def _note_debug(context: click.Context, option: click.Parameter, value: bool) -> None:
    if value:
        context.find_root().ensure_object(dict)["debug"] = True


def _memory(context: click.Context, option: click.Parameter, value: str) -> str:
    from cryodask.cluster import parse_memory

    parse_memory(value)
    return value


def _device(context: click.Context, option: click.Parameter, value: str | None) -> str:
    from cryodask.cluster import parse_device

    if value is None:
        # options that were given are read before those that were not
        return "cuda" if context.params.get("cluster") == "cuda" else "cpu"
    parse_device(value)
    return value
