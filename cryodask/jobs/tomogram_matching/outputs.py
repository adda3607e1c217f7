"""Checks of where results go, before anything is written."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import zarr

from cryodask.errors import InputError
from cryodask.jobs.disk import nearest_folder
from cryodask.jobs.tomogram_matching.inputs import MatchInputs
from cryodask.jobs.tomogram_matching.planning import fingerprint
from cryodask.jobs.tomogram_matching.result import MapKey
from cryodask.search.store import RunStore, check_same_run


def check_existing(
    final: Path, store: RunStore, files: Mapping[MapKey, Path], *, resume: bool, overwrite: bool
) -> None:
    """Refuse a folder that cannot be written, and results that are there already."""
    folder = nearest_folder(final.parent)
    if not folder.is_dir():
        raise InputError(f"outputdir = {final.parent}: {folder} is no directory")
    if not os.access(folder, os.W_OK):
        raise InputError(f"outputdir = {final.parent}: {folder} is not writable")
    if resume or overwrite:
        return
    for path in (final, *files.values()):
        if path.exists():
            raise InputError(f"{path.name} exists; use --overwrite")
    if Path(store.path).exists():
        raise InputError(f"{Path(store.path).name} is unfinished; use --resume or --overwrite")


def check_finished(final: Path, inputs: MatchInputs) -> None:
    """Refuse to take a finished result for that of other parameters or inputs."""
    marks = dict(zarr.open_group(final, mode="r").attrs).get("fingerprint")
    if isinstance(marks, str):
        check_same_run(json.loads(marks), fingerprint(inputs), f"the finished {final.name}")
