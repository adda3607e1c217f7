"""Parameters as YAML: one mapping of native keys, or a list of mappings."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from cryodask.errors import InputError
from cryodask.jobs.tomogram_matching.project_rows import rows_of_project
from cryodask.jobs.tomogram_matching.row_source import RowSource
from cryodask.jobs.yaml_file import read_yaml

Row = tuple[dict[str, Any], dict[str, Any], RowSource]
REQUIRED = "REQUIRED"

# What an override makes void: other spellings of the same setting.
REPLACED: dict[str, tuple[str, ...]] = {
    "lowpass": ("lp_rad",),
    "lp_rad": ("lowpass",),
    "lowpass_sigma": ("lp_sigma",),
    "lp_sigma": ("lowpass_sigma",),
    "highpass": ("hp_rad",),
    "hp_rad": ("highpass",),
    "highpass_sigma": ("hp_sigma",),
    "hp_sigma": ("highpass_sigma",),
    "angles.step": ("angles.file", "angles.diameter"),
    "angles.diameter": ("angles.file", "angles.step"),
}


def read_rows(path: Path, overrides: Mapping[str, Any]) -> list[Callable[[], Row]]:
    """Return a reader for every row of a YAML file: its native mapping, defaults and source.

    A mapping whose tilts list a project stands for a row of each tomogram; see `rows_of_project`.

    Raises
    ------
    InputError
        If the file is no YAML, has no rows, or a row is no mapping.
    """
    rows = [
        row
        for number, mapping in enumerate(load(path))
        for row in _project(path, number, _overridden(mapping, overrides))
    ]
    return [partial(_read_row, path, number, native) for number, native in enumerate(rows)]


def _project(path: Path, number: int, native: dict[str, Any]) -> list[dict[str, Any]]:
    folder = path.parent.absolute()
    if isinstance(native.get("root"), str):
        folder = folder / native["root"]
    return rows_of_project(native, folder, RowSource(file=path.name, row=number, dialect="native"))


def load(path: Path) -> list[dict[str, Any]]:
    """Return the mappings of a YAML file."""
    content = read_yaml(path)
    rows = content if isinstance(content, list) else [content]
    if content is None or not rows:
        raise InputError(f"{path.name}: no rows")
    for row, mapping in enumerate(rows):
        if not isinstance(mapping, dict):
            raise InputError(f"{path.name} row {row}: expected a mapping of parameters, found {mapping!r}")
    return rows


def _overridden(mapping: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    native = dict(mapping)
    for key, value in overrides.items():
        for other in REPLACED.get(key, ()):
            set_key(native, other, None)
        set_key(native, key, parse_value(value))
    return native


def _read_row(path: Path, row: int, native: dict[str, Any]) -> Row:
    source = RowSource(file=path.name, row=row, dialect="native")
    refuse_unfilled(native, source)
    folder = path.parent.absolute()
    if isinstance(native.get("root"), str):
        native["root"] = str(folder / native["root"])
    return native, {"root": str(folder)}, source


def parse_value(value: Any) -> Any:
    """Return what a text means as YAML; other values as they are."""
    if not isinstance(value, str):
        return value
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError:
        return value


def set_key(mapping: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key of nested mappings, without changing the nested mappings that were there."""
    first, _, rest = key.partition(".")
    if not rest:
        mapping[first] = value
        return
    nested = mapping.get(first)
    inner = dict(nested) if isinstance(nested, Mapping) else {}
    set_key(inner, rest, value)
    mapping[first] = inner


def refuse_unfilled(mapping: Mapping[str, Any], source: RowSource, parents: tuple[str, ...] = ()) -> None:
    """Raise InputError where a template file's `REQUIRED` was left in."""
    for key, value in mapping.items():
        if isinstance(value, Mapping):
            refuse_unfilled(value, source, (*parents, key))
        elif value == REQUIRED:
            raise source.error(f"{source.label('.'.join((*parents, key)))} is still REQUIRED")
