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
from cryodask.picking.thresholds import source_name

# The template alone on the full grid, as the refinement of one particle needs it.
EXACT = {
    "noise_correction": "none",
    "decoy": "none",
    "moments": False,
    "statistics_grid": "exact",
    "search_grid": "full",
    "strategy": "exhaustive",
}


def reopened_inputs(dataset: xr.Dataset, purpose: str, template: int = 0) -> MatchInputs:
    """Load the inputs of the match that made a result, without its noise correction and moments.

    Parameters
    ----------
    dataset
        Result with the attributes `parameters` and `inputs`.
    purpose
        What they are wanted for, for messages: "--refine both".
    template
        Index on the template axis.

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
    if dataset.sizes["template"] > 1 or template > 0:
        raise InputError(f"{label}: works for results of one template, this one has several")
    parameters._source = RowSource(dialect="star" if dataset.attrs.get("dialect") == "star" else "native")
    identities = json.loads(dataset.attrs.get("inputs", "{}"))
    for key in ("template", "mask"):
        _check_unchanged(key, identities.get(key), label)
    try:
        return load_inputs(_located(parameters, identities).model_copy(update=EXACT))
    except InputError as error:
        raise InputError(f"{label} needs the inputs of the search: {error}") from None


def _located(parameters: MatchParameters, identities: dict[str, Any]) -> MatchParameters:
    """Return the parameters with absolute paths: names are relative to where the search was started."""
    paths = {key: entry["path"] for key, entry in identities.items()}
    file = paths.pop("angles.file", None)
    if file is not None:
        paths["angles"] = parameters.angles.model_copy(update={"file": file})
    return parameters.model_copy(update=paths)


def _check_unchanged(key: str, entry: dict[str, Any] | None, label: str) -> None:
    """Refuse a file whose content is not that of the search."""
    if entry is None or "sha256" not in entry or not Path(entry["path"]).is_file():
        return
    if hashlib.sha256(Path(entry["path"]).read_bytes()).hexdigest() != entry["sha256"]:
        raise InputError(f"{label}: {key} = {entry['path']}: changed since the search")
