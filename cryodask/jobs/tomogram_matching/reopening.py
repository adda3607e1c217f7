"""The inputs of a finished match, read again from what its result says."""

import hashlib
import json
from pathlib import Path
from typing import Any

import xarray as xr
from pydantic import ValidationError

from cryodask.errors import InputError
from cryodask.jobs.tomogram_matching.inputs import MatchInputs, load_inputs
from cryodask.jobs.tomogram_matching.parameters import MatchParameters
from cryodask.jobs.tomogram_matching.row_source import RowSource
from cryodask.jobs.tomogram_matching.settings import TemplateSettings
from cryodask.picking.thresholds import source_name

# The template alone on the full grid, as the refinement of one particle needs it.
EXACT = {
    "noise_correction": "none",
    "decoy": "none",
    "moments": False,
    "class_by": None,
    "statistics_grid": "exact",
    "search_grid": "full",
    "strategy": "exhaustive",
}


def reopened_inputs(dataset: xr.Dataset, purpose: str) -> MatchInputs:
    """Load the inputs of the match that made a result, without its noise correction and moments.

    Parameters
    ----------
    dataset
        Result with the attributes `parameters` and `inputs`.
    purpose
        What they are wanted for, for messages: "--refine both".

    Raises
    ------
    InputError
        A result of another program or version, a missing file, or a template or mask that has changed.
    """
    label = f"{source_name(dataset)}: {purpose}"
    if "parameters" not in dataset.attrs:
        raise InputError(f"{label} needs the parameters of the search, which this result does not hold")
    try:
        parameters = MatchParameters.model_validate_json(dataset.attrs["parameters"])
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise InputError(f"{label}: the parameters in the result cannot be read ({reason})") from None
    parameters._source = RowSource(dialect="star" if dataset.attrs.get("dialect") == "star" else "native")
    identities = json.loads(dataset.attrs.get("inputs", "{}"))
    for key, entry in identities.items():
        if key.rpartition(".")[2] in ("template", "mask"):
            _check_unchanged(key, entry, label)
    try:
        return load_inputs(_located(parameters, identities).model_copy(update=EXACT))
    except InputError as error:
        raise InputError(f"{label} needs the inputs of the search: {error}") from None


def _located(parameters: MatchParameters, identities: dict[str, Any]) -> MatchParameters:
    """Return the parameters with absolute paths: names are relative to where the search was started."""
    paths = {key: entry["path"] for key, entry in identities.items()}
    changes: dict[str, Any] = {key: path for key, path in paths.items() if "." not in key}
    if "angles.file" in paths:
        changes["angles"] = parameters.angles.model_copy(update={"file": paths["angles.file"]})
    if parameters.orientations is not None:
        near = {"near": paths["orientations.near"]}
        changes["orientations"] = parameters.orientations.model_copy(update=near)
    names = [entry.name or Path(entry.template).name.split(".")[0] for entry in parameters.templates]
    changes["templates"] = tuple(
        _located_template(entry, paths, "" if number == 0 else f"{name}.")
        for number, (entry, name) in enumerate(zip(parameters.templates, names, strict=True))
    )
    return parameters.model_copy(update=changes)


def _located_template(entry: TemplateSettings, paths: dict[str, str], prefix: str) -> TemplateSettings:
    """Return one of several templates with absolute paths; its keys begin with a prefix."""
    changes: dict[str, Any] = {
        key: paths[prefix + key] for key in ("template", "mask") if prefix + key in paths
    }
    file = f"{prefix}angles.file"
    if entry.angles is not None and file in paths:
        changes["angles"] = entry.angles.model_copy(update={"file": paths[file]})
    return entry.model_copy(update=changes)


def _check_unchanged(key: str, entry: dict[str, Any], label: str) -> None:
    """Refuse a file whose content is not that of the search."""
    if "sha256" not in entry or not Path(entry["path"]).is_file():
        return
    if hashlib.sha256(Path(entry["path"]).read_bytes()).hexdigest() != entry["sha256"]:
        raise InputError(f"{label}: {key} = {entry['path']}: changed since the search")
