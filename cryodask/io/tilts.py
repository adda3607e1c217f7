"""Tilt series from the metadata of any program, with defocus and dose joined from other files."""

import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from cryodask.errors import InputError
from cryodask.io.ctf_tables import DefocusTable, read_defocus_text, read_gctf
from cryodask.io.dose_tables import read_dose
from cryodask.io.files import require_exists
from cryodask.io.imod import read_imod_defocus, read_tilt_angles, read_tilt_commands
from cryodask.io.mdoc import read_mdoc
from cryodask.io.relion_tomograms import TILT_COLUMNS, read_relion_series, read_relion_tilts
from cryodask.io.star import read_star_text
from cryodask.io.warp import read_warp
from cryodask.io.wedge_list import read_em_wedge_list, read_wedge_list
from cryodask.optics.tilts import TiltSeries

log = logging.getLogger(__name__)

PathLike = str | os.PathLike[str]

ANGLE_SUFFIXES = (".tlt", ".rawtlt", ".txt")
EXPECTED = ".star, .em, .tlt, .rawtlt, .txt, .com, .defocus, .mdoc or .xml"
# degrees between the angles of two files of one series
ANGLE_DOUBT = 2.0


def read_tilts(
    path: PathLike,
    tomo_num: int | None = None,
    *,
    tomo_name: str | None = None,
    tilt_column: int | None = None,
    defocus: PathLike | None = None,
    dose: PathLike | None = None,
    tilt_com: PathLike | None = None,
) -> TiltSeries:
    """Read what a file, and others named with it, say of one tilt series.

    Parameters
    ----------
    path
        STOPGAP wedge list ``.star`` or ``.em`` (tomo_num, least, greatest angle); IMOD ``.tlt``, ``.rawtlt``
        or ``.txt``, one angle a line; IMOD ``tilt.com``, which names one of these; IMOD ``.defocus`` with a
        row a tilt; SerialEM ``.mdoc`` (sorted by tilt); Warp ``.xml``; RELION 5 ``tomograms.star``
        or one of the tilt-series files that it names.
    tomo_num
        Selects the rows of a wedge list; may be None where the list holds one tomogram. In a
        ``tomograms.star``, without `tomo_name`: the row whose name ends in this number.
    tomo_name
        Selects the row of a ``tomograms.star``; may be None where there is one.
    tilt_column
        Column (from 1) of the angle in a text file of several columns.
    defocus
        Table in the order of the tilts: IMOD ``.defocus``, Gctf ``.star``, CTFFIND text, or text of one
        defocus in nanometres a line. It wins over `path`, with the optics that it states.
    dose
        Text of one accumulated dose a line, in the order of the tilts, or an ``.mdoc``, whose tilts are
        paired with those of `path` by rising angle. It wins over `path`.
    tilt_com
        IMOD ``tilt.com`` with the size of the tomogram and its shift. It wins over `path`.

    Returns
    -------
    TiltSeries
        Angles in degrees in file order, defocus in angstrom (mean of the two where there are two).

    Raises
    ------
    InputError
        "no rows for tomo_num 9 (has 17, 18)"; fewer than two tilts; a missing column; more than one column of
        text without `tilt_column`; "41 defocus values for 60 tilts".
    """
    path = require_exists(path)
    tilts = _read_series(path, tomo_num, tomo_name, tilt_column)
    if tilt_com is not None:
        tilts = _with_commands(tilts, require_exists(tilt_com))
    if defocus is not None:
        tilts = _with_defocus(tilts, path, require_exists(defocus))
    if dose is not None:
        tilts = _with_dose(tilts, path, require_exists(dose))
    return tilts


def _read_series(
    path: Path, tomo_num: int | None, tomo_name: str | None, tilt_column: int | None
) -> TiltSeries:
    suffix = path.suffix.lower()
    if suffix == ".xf":
        raise InputError(
            f"{path.name}: alignment transforms hold no tilt angles, give the .tlt file beside it"
        )
    if suffix in ANGLE_SUFFIXES:
        return TiltSeries(angles=read_tilt_angles(path, tilt_column))
    if suffix == ".com":
        return _commanded_series(path, tilt_column)
    readers: dict[str, Callable[[], TiltSeries]] = {
        ".star": lambda: _read_star(path, tomo_num, tomo_name),
        ".em": lambda: read_em_wedge_list(path, tomo_num),
        ".defocus": lambda: _defocus_series(path),
        ".mdoc": lambda: read_mdoc(path),
        ".xml": lambda: read_warp(path),
    }
    if suffix not in readers:
        raise InputError(f"{path.name}: unknown tilt file, expected {EXPECTED}")
    return readers[suffix]()


def _read_star(path: Path, tomo_num: int | None, tomo_name: str | None) -> TiltSeries:
    """Read a STAR file as what its columns say it is; one of no known kind as a wedge list."""
    columns = {column for table in read_star_text(path).values() for column in table.columns}
    if "rlnTomoName" in columns:
        return read_relion_tilts(path, tomo_name, tomo_num)
    if columns & set(TILT_COLUMNS):
        return read_relion_series(path)
    if "tilt_angle" not in columns and "rlnDefocusU" in columns:
        raise InputError(
            f"{path.name}: defocus without tilt angles, give a tilt file and this as its defocus"
        )
    return read_wedge_list(path, tomo_num)


def _commanded_series(path: Path, tilt_column: int | None) -> TiltSeries:
    """Read the angles that ``tilt.com`` names, beside it, and its geometry."""
    commands = read_tilt_commands(path)
    if commands.tilt_file is None:
        raise InputError(f"{path.name}: no TILTFILE")
    angles = read_tilt_angles(require_exists(path.parent / commands.tilt_file), tilt_column)
    return _with_commands(TiltSeries(angles=angles), path)


def _defocus_series(path: Path) -> TiltSeries:
    table = read_imod_defocus(path)
    if table.angles is None:
        raise InputError(f"{path.name}: ranges of views, expected a row for every tilt (or give a .tlt file)")
    return TiltSeries(angles=table.angles, defocus=table.defocus, phase_shift=table.phase_shift)


def _with_commands(tilts: TiltSeries, path: Path) -> TiltSeries:
    commands = read_tilt_commands(path)
    return replace(tilts, tomogram_shape=commands.tomogram_shape, z_shift=commands.z_shift)


def _with_defocus(tilts: TiltSeries, path: Path, source: Path) -> TiltSeries:
    table = _read_defocus(source)
    _same_length(table.defocus, "defocus", source, tilts, path)
    if table.angles is not None:
        _doubt(float(np.abs(table.angles - tilts.angles).max()), source, path)
    stated = table.optics or {}
    return replace(
        tilts,
        defocus=table.defocus,
        phase_shift=tilts.phase_shift if table.phase_shift is None else table.phase_shift,
        voltage=stated.get("voltage", tilts.voltage),
        cs=stated.get("cs", tilts.cs),
        amplitude_contrast=stated.get("amplitude_contrast", tilts.amplitude_contrast),
    )


def _read_defocus(path: Path) -> DefocusTable:
    suffix = path.suffix.lower()
    if suffix == ".defocus":
        return read_imod_defocus(path)
    return read_gctf(path) if suffix == ".star" else read_defocus_text(path)


def _with_dose(tilts: TiltSeries, path: Path, source: Path) -> TiltSeries:
    dose = _mdoc_dose(tilts, path, source) if source.suffix.lower() == ".mdoc" else read_dose(source)
    _same_length(dose, "dose", source, tilts, path)
    return replace(tilts, exposure=dose)


def _mdoc_dose(tilts: TiltSeries, path: Path, source: Path) -> np.ndarray:
    recorded = read_mdoc(source)
    if recorded.exposure is None:
        raise InputError(f"{source.name}: no dose (ExposureDose)")
    _same_length(recorded.exposure, "dose", source, tilts, path)
    order = np.argsort(tilts.angles, kind="stable")
    apart = recorded.angles - tilts.angles[order]
    # the sample may lie tilted on the stage, so a common offset is no doubt
    _doubt(float(np.abs(apart - np.median(apart)).max()), source, path)
    dose = np.empty_like(recorded.exposure)
    dose[order] = recorded.exposure
    return dose


def _doubt(apart: float, source: Path, path: Path) -> None:
    if apart > ANGLE_DOUBT:
        text = "%s: tilt angles differ by up to %.1f degrees from those of %s; one series, in the same order?"
        log.warning(text, source.name, apart, path.name)


def _same_length(values: np.ndarray, label: str, source: Path, tilts: TiltSeries, path: Path) -> None:
    if tilts.is_range:
        raise InputError(f"{source.name}: {label} values need every tilt angle, {path.name} holds a range")
    if len(values) != len(tilts.angles):
        raise InputError(
            f"{source.name}: {len(values)} {label} values for {len(tilts.angles)} tilts ({path.name})"
        )
