"""Parameters back to files: GAPSTOP STAR and native YAML."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cryodask.jobs.tomogram_matching.parameters import MatchParameters
from cryodask.jobs.tomogram_matching.settings import AngleSettings
from cryodask.jobs.tomogram_matching.star_columns import PLAIN_COLUMNS, REQUIRED_COLUMNS, STAND_INS
from cryodask.jobs.tomogram_matching.star_dialect import STAR_DEFAULTS, SWITCHES
from cryodask.jobs.tomogram_matching.templates import STAR_BLOCK, STAR_FIELDS

Flat = dict[str, Any]


def native_mapping(parameters: MatchParameters, folder: Path | None = None) -> dict[str, Any]:
    """Return the native keys whose values differ from the defaults of a native file.

    Parameters
    ----------
    parameters
        Of one row.
    folder
        Where the file will lie; `root` is left out when it is that.
    """
    values = _differing(_dump(parameters), _native_defaults())
    if folder is not None and Path(parameters.root).absolute() == folder.absolute():
        values.pop("root", None)
    return values


def write_native(rows: Sequence[MatchParameters], path: Path, *, overwrite: bool = False) -> None:
    """Write native YAML: a mapping for one row, else a list of mappings."""
    import yaml

    from cryodask.io.files import written_whole

    mappings = [native_mapping(parameters, path.parent) for parameters in rows]
    content: Any = mappings[0] if len(mappings) == 1 else mappings
    text = yaml.safe_dump(content, sort_keys=False, default_flow_style=None, allow_unicode=True)
    with written_whole(path, overwrite=overwrite) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_gapstop(rows: Sequence[MatchParameters], path: Path, *, overwrite: bool = False) -> list[str]:
    """Write a GAPSTOP parameter STAR; return the columns in it that only cryodask knows."""
    import pandas as pd

    from cryodask.io.star import write_star

    cells = [star_cells(parameters) for parameters in rows]
    found = list(dict.fromkeys(column for row in cells for column in row))
    columns = [column for column in STAR_FIELDS if column in found]
    own = [column for column in found if column not in STAR_FIELDS]
    flat = [flatten(_dump(parameters)) for parameters in rows]
    table = pd.DataFrame(
        [
            {column: row.get(column) or as_text(values.get(column)) for column in (*columns, *own)}
            for row, values in zip(cells, flat, strict=True)
        ]
    )
    write_star(path, {STAR_BLOCK: table}, overwrite=overwrite)
    return own


def star_cells(parameters: MatchParameters) -> dict[str, str]:
    """Return the texts of a STAR row: GAPSTOP's columns, and native keys for what it has no column for."""
    values = flatten(_dump(parameters))
    defaults = {**flatten(_native_defaults()), **flatten(STAR_DEFAULTS), "formats": ["zarr", "em"]}
    # the native name of a tomogram has no column: tomo_name is its file there
    del values["tomo_name"]
    iterations = _iterations(values)
    cells = {
        column: as_text(values.pop(key))
        for column, key in PLAIN_COLUMNS.items()
        if key in values and not isinstance(values[key], dict | list)
    }
    cells["rootdir"] = str(Path(parameters.root).absolute())
    for column, key, on, off in SWITCHES:
        if values[key] in (on, off):
            cells[column] = str(values.pop(key) == on)
    cells |= _noise(values) | _extension(values) | iterations
    rest = {key: value for key, value in values.items() if value != defaults.get(key)}
    cells |= {key: as_text(value) for key, value in rest.items()}
    return _without_empty(cells, rest)


def _without_empty(cells: dict[str, str], rest: Flat) -> dict[str, str]:
    """Leave out a required column that a native key stands in for, and columns of the unused angle form."""
    kept = {column: text for column, text in cells.items() if text != "none" or column in rest}
    for column in REQUIRED_COLUMNS:
        if column not in kept:
            key = STAND_INS[column][0] if column in STAND_INS else column
            kept.setdefault(key, as_text(rest.get(key)))
    return kept


def _noise(values: Flat) -> dict[str, str]:
    kind, copies = values["noise_correction"], values["noise_copies"]
    if kind == "subtract" or (kind == "none" and copies > 1):
        return {}
    del values["noise_correction"], values["noise_copies"]
    if kind == "none":
        return {"noise_corr": "False"}
    return {"noise_corr": "True" if copies == 1 else str(copies)}


def _extension(values: Flat) -> dict[str, str]:
    formats = values["formats"]
    if len(formats) != 2 or formats[0] != "zarr":
        return {}
    del values["formats"]
    return {"vol_ext": f".{formats[1]}"}


def _iterations(values: Flat) -> dict[str, str]:
    """Return angiter and phi_angiter where the cone and the range are whole numbers of increments."""
    cells = {}
    inplane = values.get("angles.inplane_step") or values.get("angles.step")
    for column, key, step in (
        ("angiter", "angles.cone", values.get("angles.step")),
        ("phi_angiter", "angles.inplane_range", inplane),
    ):
        extent = values.get(key)
        if extent and step and abs(extent / step - round(extent / step)) < 1e-9:
            cells[column] = str(round(extent / step))
            del values[key]
    return cells


def _native_defaults() -> dict[str, Any]:
    bare = MatchParameters(tomogram="-", template="-", mask="-", angles=AngleSettings())
    values = bare.model_dump(mode="json")
    for key in ("tomogram", "template", "mask"):
        del values[key]
    return values


def _dump(parameters: MatchParameters) -> dict[str, Any]:
    """Return all values as JSON would hold them; of several templates only the list."""
    values = parameters.model_dump(mode="json")
    if values["templates"]:
        del values["template"]
    return values


def _differing(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    kept = {}
    for key, value in values.items():
        default = defaults.get(key)
        if isinstance(value, Mapping) and isinstance(default, Mapping):
            value = _differing(value, default)
            default = {}
        if value != default:
            kept[key] = _without_none(value)
    return kept


def _without_none(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return [_without_none(item) for item in value] if isinstance(value, list) else value


def flatten(values: Mapping[str, Any]) -> Flat:
    """Return rotations and map names under dotted keys; other values as they are."""
    flat: Flat = {}
    for key, value in values.items():
        if key in ("angles", "names") and isinstance(value, Mapping):
            flat |= {f"{key}.{inner}": item for inner, item in value.items()}
        else:
            flat[key] = value
    return flat


def as_text(value: Any) -> str:
    """Return a value as a STAR file has it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, float):
        return f"{value:.12g}"
    return value if isinstance(value, str) else json.dumps(_without_none(value), separators=(",", ":"))
