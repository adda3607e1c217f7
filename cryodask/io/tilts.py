"""Tilt series from the metadata of any program."""

import os

from cryodask.errors import InputError
from cryodask.io.files import require_exists
from cryodask.io.imod import read_tilt_angles
from cryodask.io.wedge_list import read_em_wedge_list, read_wedge_list
from cryodask.optics.tilts import TiltSeries


def read_tilts(
    path: str | os.PathLike[str], tomo_num: int | None = None, *, tilt_column: int | None = None
) -> TiltSeries:
    """Read what a file says of one tilt series.

    Parameters
    ----------
    path
        STOPGAP wedge list ``.star`` or ``.em`` (tomo_num, least, greatest angle), or IMOD ``.tlt``,
        ``.rawtlt`` or ``.txt``, one angle a line.
    tomo_num
        Selects the rows of a wedge list; may be None where the list holds one tomogram.
    tilt_column
        Column (from 1) of the angle in a text file of several columns.

    Returns
    -------
    TiltSeries
        Angles in degrees in file order, defocus in angstrom (mean of the two where there are two).

    Raises
    ------
    InputError
        "no rows for tomo_num 9 (has 17, 18)"; fewer than two tilts; a missing column; more than one column of
        text without `tilt_column`.
    """
    path = require_exists(path)
    suffix = path.suffix.lower()
    if suffix == ".star":
        return read_wedge_list(path, tomo_num)
    if suffix == ".em":
        return read_em_wedge_list(path, tomo_num)
    if suffix in (".tlt", ".rawtlt", ".txt"):
        return TiltSeries(angles=read_tilt_angles(path, tilt_column))
    raise InputError(f"{path.name}: unknown tilt file, expected .star, .em, .tlt, .rawtlt or .txt")
