"""Commands in processes of their own, to be killed once something of their work is stored."""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil

import cryodask


def start(*words: object) -> "subprocess.Popen[bytes]":
    """Start a command of cryodask, its own process group."""
    command = [sys.executable, "-m", "cryodask", *map(str, words)]
    environment = os.environ | {"PYTHONPATH": str(Path(cryodask.__file__).parents[1])}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env=environment, start_new_session=True, **streams)


def wait_for_records(process: "subprocess.Popen[bytes]", result: Path, count: int = 1) -> None:
    """Wait until an unfinished result holds records of finished tasks; the process must still run."""
    records = result.with_name(f"{result.stem}.partial.zarr") / "run" / "records"
    while len(list(records.glob("*.json"))) < count:
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.05)
            raise AssertionError(f"the run ended before it could be killed: {process.communicate()[1]!r}")


def worker_of(client: int) -> int:
    """Return the process of one Dask worker: a grandchild of the client, below the spawn server or nanny."""
    children = psutil.Process(client).children(recursive=True)
    return next(child.pid for child in children if "spawn_main" in " ".join(child.cmdline()))
