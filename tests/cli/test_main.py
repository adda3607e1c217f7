"""The command itself: lazy, one line an error, one status a kind of error."""

import subprocess
import sys

import click
import pytest

from cryodask import errors
from cryodask.cli import main as entry
from cryodask.cli.main import cryodask, explain, run


@pytest.fixture
def failing(monkeypatch):
    """Make the verb `info` raise an error."""

    def install(error):
        @click.command()
        @entry.debug_option
        def info():
            raise error

        monkeypatch.setattr(entry.LazyGroup, "get_command", lambda self, context, name: info)

    return install


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from cryodask.cli.main import run; run(['--help'])\n"
        "heavy = {'numpy', 'dask', 'pandas', 'pydantic', 'numba', 'zarr', 'xarray', 'scipy', 'rich'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert all(verb in done.stdout for verb in entry.VERBS)


@pytest.mark.parametrize("alias", ["generate_angles", "batch_params", "generate-angles"])
def test_underscored_names_of_gapstop_are_accepted(alias, capsys):
    assert run([alias, "--help"]) == 0
    assert "Usage: cryodask" in capsys.readouterr().out


def test_run_tm_is_match_tomogram():
    context = click.Context(cryodask)
    assert entry.ALIASES["run-tm"] == "match-tomogram"
    assert cryodask.get_command(context, "run_tm") is cryodask.get_command(context, "match-tomogram")


@pytest.mark.parametrize(
    ("error", "text", "status"),
    [
        (errors.InputError("lp_rad = 40:\n wrong"), "lp_rad = 40: wrong", 2),
        (errors.ResourceError("needs 4 GiB"), "needs 4 GiB", 3),
        (errors.ClusterError("no CUDA device found"), "no CUDA device found", 4),
        (errors.IncompleteError("2 tiles failed"), "2 tiles failed", 1),
        (MemoryError(), "out of memory", 3),
        (PermissionError(13, "Permission denied", "/root/x"), "/root/x: Permission denied", 2),
        (KeyError("x"), "KeyError: 'x' (unexpected; --debug shows where)", 1),
    ],
)
def test_an_error_is_one_line_and_its_status(failing, capsys, error, text, status):
    failing(error)
    assert run(["info"]) == status
    assert capsys.readouterr().err == f"cryodask: error: {text}\n"


def test_a_traceback_only_with_debug(failing, capsys):
    failing(errors.InputError("wrong"))
    assert run(["info", "--debug"]) == 2
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert shown.endswith("cryodask: error: wrong\n")
    assert run(["--debug", "info"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_an_interrupted_command_leaves_with_130(failing, capsys):
    failing(KeyboardInterrupt())
    assert run(["info"]) == 130
    assert capsys.readouterr().err.strip() == "cryodask: interrupted"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["no-such-verb"], "No such command 'no-such-verb'."),
        (["generate-angles", "--angle", "3"], "No such option '--angle'."),
        (["batch-params"], "Missing option '-t' / '--template'."),
        (
            ["match-tomogram", "p.star", "--memory", "lots"],
            "memory = lots: expected a size such as 2GiB or 500MB",
        ),
        (["match-tomogram", "p.star", "--device", "tpu"], "device = tpu: expected cpu, cuda or cuda:0,1"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(capsys, words, text):
    assert run(words) == 2
    error = capsys.readouterr().err
    assert text in error
    assert error.startswith("cryodask: error: ")
    assert error.count("\n") == 1


def test_notes_and_warnings_go_to_standard_error(failing, monkeypatch, capsys):
    import logging
    import warnings

    @click.command()
    def info():
        logging.getLogger("cryodask").info("a note")
        logging.getLogger("cryodask").warning("a warning")
        warnings.showwarning("a user's warning", UserWarning, "x.py", 1)
        warnings.showwarning("a programmer's warning", DeprecationWarning, "x.py", 1)

    monkeypatch.setattr(entry.LazyGroup, "get_command", lambda self, context, name: info)
    shown = warnings.showwarning
    assert run(["info"]) == 0
    assert capsys.readouterr() == (
        "",
        "cryodask: note: a note\ncryodask: warning: a warning\ncryodask: warning: a user's warning\n",
    )
    assert warnings.showwarning is shown


def test_memory_of_our_own_errors_is_not_mistaken_for_the_machines():
    assert explain(errors.ResourceError("smallest tile needs 1.2 GiB, a worker has 0.5 GiB"))[1] == 3


@pytest.mark.parametrize(
    ("words", "device"),
    [([], "cpu"), (["--cluster", "cuda"], "cuda"), (["--device", "cuda:1"], "cuda:1")],
)
def test_a_cuda_cluster_computes_on_cuda(words, device):
    from cryodask.cli.options import cluster_options

    seen = {}
    command = click.command()(cluster_options(lambda **given: seen.update(given)))
    command.main(args=words, standalone_mode=False)
    assert seen == {
        "cluster": seen["cluster"],
        "workers": None,
        "threads": None,
        "memory": "2GiB",
        "device": device,
    }
