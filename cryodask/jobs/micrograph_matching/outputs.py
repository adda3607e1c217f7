"""Checks of where results go, before anything is written."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import zarr

from cryodask.errors import InputError
from cryodask.jobs.disk import nearest_folder
from cryodask.jobs.micrograph_matching.config import MatchConfig
from cryodask.jobs.micrograph_matching.inputs import MatchInputs
from cryodask.jobs.micrograph_matching.planning import fingerprint
from cryodask.search.store import RunStore, check_same_run


def default_result(config: MatchConfig) -> Path:
    """Return where a result goes if nothing is said: beside the maps, named by micrograph and template."""
    folder = Path()
    if config.match_template_result is not None:
        folder = Path(config.match_template_result.mip_path).expanduser().parent
    return folder / f"{config.micrograph_name}__{config.template_name}.zarr"


def may_replace(config: MatchConfig) -> bool:
    """Say whether the configuration itself allows that finished results of its names are replaced."""
    result = config.match_template_result
    return result is not None and result.allow_file_overwrite


def store_path(final: Path) -> Path:
    """Return the folder of an unfinished result."""
    return final.with_name(f"{final.name.removesuffix('.zarr')}.partial.zarr")


def check_writable(path: Path, label: str) -> None:
    """Refuse a result whose folder cannot be made or written."""
    folder = nearest_folder(path.absolute().parent)
    if not folder.is_dir():
        raise InputError(f"{label} = {path}: {folder} is no directory")
    if not os.access(folder, os.W_OK):
        raise InputError(f"{label} = {path}: {folder} is not writable")


def check_existing(
    inputs: MatchInputs,
    final: Path,
    store: RunStore,
    files: Mapping[str, str],
    *,
    resume: bool,
    overwrite: bool,
) -> None:
    """Refuse folders that cannot be written, and results that are there already."""
    check_writable(final, "--output")
    place = inputs.config.source.place
    for key, path in files.items():
        check_writable(Path(path), f"{place}match_template_result.{key}")
    if resume or overwrite:
        return
    # hours of an unfinished search are no file that a configuration may replace
    if Path(store.path).exists():
        raise InputError(f"{Path(store.path).name} is unfinished; use --resume or --overwrite")
    if may_replace(inputs.config):
        return
    if final.exists():
        raise InputError(
            f"{final.name} exists; use --overwrite, or set match_template_result.allow_file_overwrite: true"
        )
    for key, path in files.items():
        if Path(path).exists():
            raise InputError(
                f"{place}match_template_result.{key} = {path}: exists; set allow_file_overwrite: true, "
                "or use --overwrite"
            )


def check_finished(final: Path, inputs: MatchInputs) -> None:
    """Refuse to take a finished result for that of other parameters or inputs."""
    marks = dict(zarr.open_group(final, mode="r").attrs).get("fingerprint")
    if isinstance(marks, str):
        check_same_run(json.loads(marks), fingerprint(inputs), f"the finished {final.name}")


def check_distinct(configs: Sequence[MatchConfig], finals: Sequence[Path]) -> None:
    """Refuse two runs with one result."""
    seen: dict[Path, MatchConfig] = {}
    for config, final in zip(configs, finals, strict=True):
        if final in seen:
            raise InputError(
                f"{config.micrograph_name} with {config.template_name}: given twice; give the micrographs or "
                "templates different names"
            )
        seen[final] = config
