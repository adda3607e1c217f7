"""Parameters as a GAPSTOP STAR: one row a tomogram, translated to native keys."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from cryodask.errors import InputError
from cryodask.jobs.messages import did_you_mean
from cryodask.jobs.tomogram_matching.native_dialect import REPLACED, REQUIRED, Row, parse_value, set_key
from cryodask.jobs.tomogram_matching.row_source import RowSource
from cryodask.jobs.tomogram_matching.settings import is_unset
from cryodask.jobs.tomogram_matching.star_columns import (
    IGNORED_COLUMNS,
    PLAIN_COLUMNS,
    REQUIRED_COLUMNS,
    STAND_INS,
    TRANSLATED_COLUMNS,
)

log = logging.getLogger("cryodask")
T = TypeVar("T")
Cells = dict[str, Any]

# What GAPSTOP does where a column is unset, in native keys.
STAR_DEFAULTS: dict[str, Any] = {
    "output": "outputs/",
    "noise_correction": "ratio",
    "interpolation": "linear",
    "statistics_grid": "exact",
    "search_grid": "auto",
    "angles": {"method": "golden"},
    "formats": ("zarr", "em"),
}

# A boolean column, its native key, and what true and false mean there.
SWITCHES = (
    ("calc_exp", "dose", "grant", "none"),
    ("calc_ctf", "ctf", "amplitude", "none"),
    ("fourier_crop", "search_grid", "auto", "full"),
)


def read_rows(path: Path, overrides: Mapping[str, Any]) -> list[Callable[[], Row]]:
    """Return a reader for every row of a parameter STAR: its native mapping, defaults and source.

    Raises
    ------
    InputError
        If the file is no STAR, has no rows, or has a column of unknown name.
    """
    from cryodask.jobs.tomogram_matching import stopgap_dialect

    block, rows, lines = load(path)
    stopgap = stopgap_dialect.is_stopgap(block, rows[0])
    translate = stopgap_dialect.to_gapstop(rows, path) if stopgap else rows
    if not stopgap:
        _note_tiling(translate)
    sources = [
        RowSource(file=path.name, row=row, line=line, dialect="star") for row, line in enumerate(lines)
    ]
    return [
        partial(_read_row, _overridden(cells, overrides), source)
        for cells, source in zip(translate, sources, strict=True)
    ]


def load(path: Path) -> tuple[str, list[Cells], list[int]]:
    """Return the name of the parameter block, its rows as texts by column, and the line of each row."""
    from cryodask.io.star import read_star_text

    blocks = read_star_text(path)
    named = [(name, table) for name, table in blocks.items() if len(table)]
    if not named:
        raise InputError(f"{path.name}: no rows")
    known = ("tomo_name", "tomogram")
    name, table = next(((n, t) for n, t in named if any(word in t.columns for word in known)), named[0])
    rows = [{str(column): cell for column, cell in row.items()} for row in table.to_dict("records")]
    return name, rows, [int(line) for line in table.index]


def _overridden(cells: Cells, overrides: Mapping[str, Any]) -> Cells:
    """Put overrides in the place of every column that sets the same."""
    keys = {**PLAIN_COLUMNS, **TRANSLATED_COLUMNS}
    replaced = {keys.get(name, name) for name in overrides}
    replaced |= {other for key in replaced for other in REPLACED.get(key, ())}
    kept = {column: value for column, value in cells.items() if keys.get(column, column) not in replaced}
    return {**kept, **overrides}


def _note_tiling(rows: list[Cells]) -> None:
    ignored = [name for name in IGNORED_COLUMNS if any(not is_unset(row.get(name)) for row in rows)]
    for name in ignored:
        log.info("%s is ignored: results do not depend on it", name)


def _read_row(cells: Cells, source: RowSource) -> Row:
    source = replace(source, words=frozenset(cells))
    return to_native(cells, source), STAR_DEFAULTS, source


def to_native(cells: Cells, source: RowSource) -> dict[str, Any]:
    """Translate one row to native keys.

    Parameters
    ----------
    cells
        Value by column: GAPSTOP's columns, or native keys (dotted for nested ones).
    source
        Where the row was written.

    Raises
    ------
    InputError
        For an unknown column, a required one that is unset or still `REQUIRED`, or a value without meaning.
    """
    _check_columns(cells, source)
    given = {column: value for column, value in cells.items() if not _unset_cell(column, value)}
    native: dict[str, Any] = {}
    for key, value in _translated(given, source).items():
        set_key(native, key, value)
    for column, value in given.items():
        if column in PLAIN_COLUMNS:
            set_key(native, PLAIN_COLUMNS[column], value)
        elif column not in TRANSLATED_COLUMNS and column not in IGNORED_COLUMNS:
            set_key(native, column, parse_value(value))
    return native


def _unset_cell(column: str, value: Any) -> bool:
    from cryodask.jobs.tomogram_matching.parameters import MatchParameters

    return is_unset(value) and not MatchParameters.chooses_none(column, value)


def _check_columns(cells: Cells, source: RowSource) -> None:
    from cryodask.jobs.tomogram_matching.parameters import MatchParameters

    columns = [*PLAIN_COLUMNS, *TRANSLATED_COLUMNS, *IGNORED_COLUMNS]
    native = list(MatchParameters.model_fields)
    for column, value in cells.items():
        if column not in columns and column.split(".")[0] not in native:
            near = did_you_mean(column, [*columns, *native])
            raise source.error(f"unknown column {column}{near}")
        if value == REQUIRED:
            raise source.error(f"{column} is still REQUIRED")
    for column in REQUIRED_COLUMNS:
        names = (column, *STAND_INS.get(column, ()))
        if not any(name in cells and not (is_unset(cells[name]) and name == column) for name in names):
            raise source.error(f"{column} is required")


def _translated(given: Cells, source: RowSource) -> dict[str, Any]:
    """Return the dotted native keys of the columns whose values GAPSTOP writes in another way."""
    native: dict[str, Any] = {}
    if given.get("anglist_order", "zxz") not in ("zxz", "zzx"):
        raise source.error(f"anglist_order = {given['anglist_order']}: expected zxz or zzx")
    if given.get("tiling", "new") not in ("legacy", "legacy_fix", "new"):
        raise source.error(f"tiling = {given['tiling']}: expected legacy, legacy_fix or new")
    if "vol_ext" in given:
        native["formats"] = ("zarr", _map_format(given["vol_ext"], source))
    for column, key, on, off in SWITCHES:
        if column in given:
            native[key] = on if _read(bool, given, column, "true or false", source) else off
    return {**native, **_noise(given, source), **_cones(given, source)}


def _map_format(extension: str, source: RowSource) -> str:
    suffix = str(extension).lower().lstrip(".")
    if suffix == "rec":
        log.warning("%svol_ext = %s: writing .mrc", source.place, extension)
        return "mrc"
    if suffix not in ("em", "mrc"):
        raise source.error(f"vol_ext = {extension}: expected .em or .mrc")
    return suffix


def _noise(given: Cells, source: RowSource) -> dict[str, Any]:
    """Return noise_correction and noise_copies of `noise_corr`: a boolean, or STOPGAP's number of copies."""
    if "noise_corr" not in given:
        return {}
    text = str(given["noise_corr"])
    copies = int(text) if text.isdigit() else None
    if copies is not None and copies > 1:
        if copies > 16:
            raise source.error(f"noise_corr = {text}: expected true, false or 1 to 16 copies")
        return {"noise_correction": "ratio", "noise_copies": copies}
    wanted = _read(bool, given, "noise_corr", "true, false or 1 to 16 copies", source)
    return {"noise_correction": "ratio" if wanted else "none"}


def _cones(given: Cells, source: RowSource) -> dict[str, Any]:
    """Return the half cone and the in-plane range: increments times iterations; a full circle stays unset."""
    native: dict[str, Any] = {}
    if "angiter" in given:
        count = _iterations(given, "angiter", source)
        step = _increment(given, "angincr", "angiter", source)
        native["angles.cone"] = min(180.0, step * count)
    if "phi_angiter" in given:
        count = _iterations(given, "phi_angiter", source)
        column = "phi_angincr" if "phi_angincr" in given else "angincr"
        step = _increment(given, column, "phi_angiter", source)
        if step * count < 180:
            native["angles.inplane_range"] = step * count
    return native


def _iterations(given: Cells, column: str, source: RowSource) -> int:
    count = _read(int, given, column, "an integer >= 1", source)
    if count < 1:
        raise source.error(f"{column} = {given[column]}: expected an integer >= 1")
    return count


def _increment(given: Cells, column: str, needed_by: str, source: RowSource) -> float:
    if column not in given:
        if "anglist_name" in given:
            return 180.0
        raise source.error(f"{needed_by} = {given[needed_by]} needs {column}")
    step = _read(float, given, column, "a number", source)
    limit = 180 if column == "angincr" else 360
    if not 0 < step <= limit:
        raise source.error(f"{column} = {given[column]}: expected 0 < {column} <= {limit}")
    return step


def _read(kind: type[T], given: Cells, column: str, expected: str, source: RowSource) -> T:
    try:
        return TypeAdapter(kind).validate_python(given[column])
    except ValidationError:
        raise source.error(f"{column} = {given[column]}: expected {expected}") from None
