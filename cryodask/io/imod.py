"""Text files of IMOD: tilt angles, defocus, and the command file of the reconstruction."""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cryodask.errors import InputError
from cryodask.io.ctf_tables import DefocusTable
from cryodask.io.files import require_exists
from cryodask.io.text_numbers import read_number_rows
from cryodask.io.tilt_checks import NANOMETRE, checked_angles, mean_defocus

log = logging.getLogger(__name__)

# start, end, lower and upper tilt angle, defocus
PLAIN_COLUMNS = 5
# the flags of version 3, on its first line
ASTIGMATISM, AXIS_RADIANS, PHASE, PHASE_RADIANS, INVERTED, CUT_ON = 1, 2, 4, 8, 16, 32
FLAGS_LINE = 6
ALL_FLAGS = 63


@dataclass(frozen=True)
class TiltCommands:
    """What ``tilt.com`` says of a reconstruction.

    Parameters
    ----------
    tomogram_shape
        (z, y, x) of the unbinned tomogram, pixels.
    z_shift
        Unbinned pixels.
    tilt_file
        Name of the file with the angles, as written.
    """

    tomogram_shape: tuple[int, int, int]
    z_shift: float
    tilt_file: str | None


def read_tilt_commands(path: Path) -> TiltCommands:
    """Read FULLIMAGE, THICKNESS, SHIFT and TILTFILE of IMOD's command file ``tilt.com``.

    Raises
    ------
    InputError
        No FULLIMAGE or THICKNESS; a value that is not a number.
    """
    entries: dict[str, tuple[int, list[str]]] = {}
    text = require_exists(path).read_text(encoding="utf-8-sig", errors="replace")
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.replace(",", " ").split()
        if words and not words[0].startswith(("$", "#")):
            entries[words[0].upper()] = (number, words[1:])
    x, y = _command_numbers(path, entries, "FULLIMAGE", 2)
    (thickness,) = _command_numbers(path, entries, "THICKNESS", 1)
    shift = (
        _command_numbers(path, entries, "SHIFT", 2)[1] if len(entries.get("SHIFT", (0, []))[1]) > 1 else 0.0
    )
    names = entries.get("TILTFILE", (0, []))[1]
    return TiltCommands((round(thickness), round(y), round(x)), shift, names[0] if names else None)


def read_tilt_angles(path: Path, column: int | None = None) -> np.ndarray:
    """Read the tilt angles (T,) in degrees of a ``.tlt``, ``.rawtlt`` or other text file, one line a tilt.

    Parameters
    ----------
    path
        The file.
    column
        Column, from 1, of the angle where there are several.

    Raises
    ------
    InputError
        Several columns and none chosen; a line without the column; fewer than two tilts.
    """
    rows = read_number_rows(path)
    number, values = max(rows, key=lambda row: len(row[1]))
    if column is None and len(values) > 1:
        raise InputError(f"{path.name} line {number}: {len(values)} numbers, expected 1 (or set tilt_column)")
    short = [line for line, found in rows if len(found) < (column or 1)]
    if short:
        raise InputError(f"{path.name} line {short[0]}: no column {column}")
    return checked_angles(path, np.array([found[(column or 1) - 1] for _, found in rows]))


def read_imod_defocus(path: Path) -> DefocusTable:
    """Read an IMOD ``.defocus`` file of version 2 or 3, one value a view.

    Views between the middles of the ranges of the file get a linear interpolation, those beyond the outer
    ones the nearest value. Cut-on frequencies are ignored with a note.

    Parameters
    ----------
    path
        The file; defocus in nanometres, views counted from 1.

    Returns
    -------
    DefocusTable
        With the tilt angles only where each row is one view and none is missing.

    Raises
    ------
    InputError
        No version, or another one; a row with another number of values than the flags ask for; views that do
        not begin at 1.
    """
    rows = read_number_rows(path)
    flags, rows = _flags(path, rows)
    width = PLAIN_COLUMNS + 2 * bool(flags & ASTIGMATISM) + bool(flags & PHASE) + bool(flags & CUT_ON)
    for line, values in rows:
        if len(values) != width:
            raise InputError(f"{path.name} line {line}: expected {width} numbers, found {len(values)}")
    if flags & CUT_ON:
        log.info("%s: cut-on frequencies are ignored", path.name)
    table = np.array(sorted(values for _, values in rows))
    defocus = NANOMETRE * table[:, 4]
    second = NANOMETRE * table[:, 5] if flags & ASTIGMATISM else defocus
    views = _views(path, table)
    middles = table[:, :2].mean(axis=1)
    return DefocusTable(
        defocus=np.interp(views, middles, mean_defocus(path, defocus, second)),
        phase_shift=_phase_shift(flags, table, views, middles),
        angles=_angles(flags, table, views),
    )


def _flags(path: Path, rows: list[tuple[int, list[float]]]) -> tuple[int, list[tuple[int, list[float]]]]:
    """Return the flags of version 3, 0 for version 2, and the rows of views."""
    (line, first), *others = rows
    if len(first) == FLAGS_LINE and first[-1] == 3 and not any(first[1:-1]):
        flags = int(first[0])
        if flags != first[0] or not 0 <= flags <= ALL_FLAGS:
            raise InputError(f"{path.name} line {line}: flags {first[0]:g}, expected 0 to {ALL_FLAGS}")
        if not others:
            raise InputError(f"{path.name}: no rows")
        return flags, others
    if len(first) == FLAGS_LINE and first[-1] == 2:
        return 0, [(line, first[:-1]), *others]
    found = " ".join(f"{value:g}" for value in first)
    raise InputError(f"{path.name} line {line}: expected version 2 or 3 as the sixth value, found {found}")


def _views(path: Path, table: np.ndarray) -> np.ndarray:
    start, end = table[:, 0], table[:, 1]
    if start.min() != 1:
        raise InputError(f"{path.name}: views {start.min():g} to {end.max():g}, expected to begin at 1")
    single = (start == end).all()
    views = np.arange(1, round(end.max()) + 1)
    if single and len(np.unique(start)) != len(views):
        log.info("%s: %d of %d views are interpolated", path.name, len(views) - len(table), len(views))
    return views


def _phase_shift(flags: int, table: np.ndarray, views: np.ndarray, middles: np.ndarray) -> np.ndarray | None:
    if not flags & PHASE:
        return None
    shift = table[:, PLAIN_COLUMNS + 2 * bool(flags & ASTIGMATISM)]
    return np.interp(views, middles, np.degrees(shift) if flags & PHASE_RADIANS else shift)


def _angles(flags: int, table: np.ndarray, views: np.ndarray) -> np.ndarray | None:
    if not np.array_equal(table[:, 0], views) or not np.array_equal(table[:, 1], views):
        return None
    angles = table[:, 2:4].mean(axis=1)
    return -angles if flags & INVERTED else angles


def _command_numbers(
    path: Path, entries: dict[str, tuple[int, list[str]]], name: str, count: int
) -> list[float]:
    if name not in entries:
        raise InputError(f"{path.name}: no {name}")
    line, words = entries[name]
    try:
        numbers = [float(word) for word in words[:count]]
    except ValueError:
        numbers = []
    if len(numbers) != count:
        found = " ".join(words)
        raise InputError(f"{path.name} line {line}: {name} {found}, expected {count} numbers")
    return numbers
