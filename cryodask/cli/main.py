"""The command `cryodask`: imports a verb when it is used, and turns errors into one line and a status."""

import importlib
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

import click

from cryodask import __version__
from cryodask.cli.options import debug_option
from cryodask.errors import CryodaskError, ResourceError

# Verb and one line of help; the verb's module and command have its name, with underscores.
VERBS = {
    "demo": "Simulate a tomogram, match it, pick, and compare with the truth.",
    "match-tomogram": "Search tomograms for a template.",
    "match-micrograph": "Search micrographs for a template.",
    "refine-particles": "Refine poses, defocus and positions of particles in micrographs.",
    "constrained-search": "Search for a particle at a known place beside another.",
    "optimize-template": "Find the voxel size of a template by known particles.",
    "likelihood": "Compare structures by the likelihood of particle images.",
    "make-templates": "Make the templates of structures, once for reuse.",
    "convert-particles": "Turn particle stacks into one Zarr store, or into CryoLike's folders.",
    "reweight": "Weigh structures so that they explain a set of images.",
    "pick": "Turn score maps into a particle table.",
    "classify": "Sort a stack of particles into validated classes.",
    "select": "Write the particles of chosen classes.",
    "config": "Write, check, show and convert parameter files.",
    "batch-params": "Repeat a parameter row for many tomograms.",
    "generate-angles": "Write a list of rotations.",
    "convert": "Convert volumes between MRC, EM, HDF5 and OME-Zarr.",
    "info": "Say what a file holds.",
}
ALIASES = {"run-tm": "match-tomogram"}

INTERRUPTED = 130


class LazyGroup(click.Group):
    """A group whose commands are imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs, in the order of a newcomer's need."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of a verb or of an alias, underscores read as hyphens."""
        verb = cmd_name.replace("_", "-")
        verb = ALIASES.get(verb, verb)
        if verb not in VERBS:
            return None
        name = verb.replace("-", "_")
        command = getattr(importlib.import_module(f"cryodask.cli.{name}"), name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the verbs with their line of help, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


@click.group(
    cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(__version__, prog_name="cryodask")
@debug_option
def cryodask() -> None:
    """Search cryo-EM data on Dask, from a laptop to a GPU cluster."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command line and leave with its exit status.

    Parameters
    ----------
    arguments
        Words after the program's name; those of the process by default.
    """
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit status; errors become one line on standard error."""
    state: dict[str, Any] = {"debug": False}
    with _talk_on_stderr():
        return _run(arguments, state)


def _run(arguments: Sequence[str] | None, state: dict[str, Any]) -> int:
    try:
        outcome = cryodask.main(
            args=None if arguments is None else list(arguments),
            prog_name="cryodask",
            obj=state,
            standalone_mode=False,
        )
        return outcome if isinstance(outcome, int) else 0
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return 2
    except (KeyboardInterrupt, click.Abort):
        click.echo("cryodask: interrupted", err=True)
        return INTERRUPTED
    except BrokenPipeError:
        return _after_broken_pipe()
    except Exception as error:
        if state["debug"]:
            traceback.print_exc()
        text, status = explain(error)
        click.echo(f"cryodask: error: {text}", err=True)
        return status


def explain(error: Exception) -> tuple[str, int]:
    """Return the one line and the exit status of an error."""
    if isinstance(error, click.ClickException):
        return _one_line(error.format_message()), 2
    if isinstance(error, CryodaskError):
        return _one_line(error), error.exit_status
    if isinstance(error, MemoryError):
        return _one_line(error) or "out of memory", ResourceError.exit_status
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}", 2
    return f"{type(error).__name__}: {_one_line(error)} (unexpected; --debug shows where)", 1


def _one_line(error: object) -> str:
    return " ".join(str(error).split())


def _after_broken_pipe() -> int:
    """Send what is left to nowhere, so that Python does not complain when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


@contextmanager
def _talk_on_stderr() -> Iterator[None]:
    """Send notes and warnings to standard error, one line each."""
    logger, talk = logging.getLogger("cryodask"), _Talk()
    level, show = logger.level, warnings.showwarning
    logger.setLevel(logging.INFO)
    logger.addHandler(talk)
    warnings.showwarning = _show_warning
    try:
        yield
    finally:
        logger.removeHandler(talk)
        logger.setLevel(level)
        warnings.showwarning = show


class _Talk(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        kind = "note" if record.levelno < logging.WARNING else "warning"
        click.echo(f"cryodask: {kind}: {_one_line(record.getMessage())}", err=True)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    # warnings meant for programmers are no use to the person at the terminal
    if issubclass(category, UserWarning):
        click.echo(f"cryodask: warning: {_one_line(message)}", err=True)
