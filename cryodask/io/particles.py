"""Particle tables in the dialects of the programs that read them next."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from cryodask.errors import InputError
from cryodask.io import dynamo, motive_list, relion
from cryodask.io.files import require_exists, require_new, written_whole
from cryodask.io.particle_table import TableOptions, complete_table
from cryodask.io.star import FLOAT_FORMAT, read_star

PathLike = str | os.PathLike[str]


def write_particles(
    table: pd.DataFrame,
    path: PathLike,
    format: str | None = None,
    *,
    overwrite: bool = False,
    **options: Any,
) -> None:
    """Write a particle table.

    Parameters
    ----------
    table
        One row a particle: x, y, z (0-based voxels), phi, theta, psi (zxz degrees), and of the columns of
        `particle_table.COLUMNS` those that are known.
    path
        The file.
    format
        stopgap, em, relion3.1, relion4, relion5, dynamo or csv; by default from the suffix (.star: stopgap).
    overwrite
        Replace an existing file.
    **options
        Fields of `TableOptions`; the RELION formats need `voxel_size`, relion5 also `tomogram_shape`.

    Raises
    ------
    InputError
        "NAME exists; use --overwrite", an unknown format, a missing option.
    """
    path = Path(path)
    dialect = _known(format) if format else _by_suffix(path)
    require_new(path, overwrite=overwrite)
    with written_whole(path, overwrite=overwrite) as temporary:
        WRITERS[dialect](table, temporary, TableOptions(**options))


def read_particles(path: PathLike, format: str | None = None, **options: Any) -> pd.DataFrame:
    """Read a particle table of any dialect.

    Parameters
    ----------
    path
        The file.
    format
        As in `write_particles`; by default from the suffix and, for STAR, the columns.
    **options
        Fields of `TableOptions`.

    Returns
    -------
    pandas.DataFrame
        The columns of `particle_table.COLUMNS`; what the file does not hold is NaN.

    Raises
    ------
    InputError
        No such file, an unknown format, missing columns, a wrong line, "no rows".
    """
    path = require_exists(path)
    dialect = _known(format) if format else _by_content(path)
    return READERS[dialect](path, TableOptions(**options))


def _write_csv(table: pd.DataFrame, path: Path, options: TableOptions) -> None:
    table.to_csv(path, index=False, float_format=FLOAT_FORMAT)


def _read_csv(path: Path, options: TableOptions) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, dtype={"tomo_name": str})
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise InputError(f"{path.name}: {error}") from error
    missing = [name for name in ("x", "y", "z", "phi", "theta", "psi") if name not in table]
    if missing:
        raise InputError(f"{path.name}: missing column {', '.join(missing)}")
    if "tomo_name" not in table and "tomo_num" not in table:
        table = table.assign(tomo_num=1)
    return complete_table(table, options)


Writer = Callable[[pd.DataFrame, Path, TableOptions], None]
Reader = Callable[[Path, TableOptions], pd.DataFrame]

WRITERS: dict[str, Writer] = {
    "stopgap": motive_list.write_stopgap,
    "em": motive_list.write_em,
    "relion3.1": relion.write_relion31,
    "relion4": relion.write_relion4,
    "relion5": relion.write_relion5,
    "dynamo": dynamo.write_dynamo,
    "csv": _write_csv,
}
READERS: dict[str, Reader] = {
    "stopgap": motive_list.read_stopgap,
    "em": motive_list.read_em,
    **dict.fromkeys(("relion3.1", "relion4", "relion5"), relion.read_relion),
    "dynamo": dynamo.read_dynamo,
    "csv": _read_csv,
}
SUFFIXES = {".star": "stopgap", ".em": "em", ".tbl": "dynamo", ".csv": "csv"}


def _known(name: str) -> str:
    if name not in WRITERS:
        raise InputError(f"format {name}: expected {', '.join(WRITERS)}")
    return name


def _by_suffix(path: Path) -> str:
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path.name}: unknown table suffix, expected {', '.join(SUFFIXES)} (or set format)")
    return SUFFIXES[path.suffix.lower()]


def _by_content(path: Path) -> str:
    dialect = _by_suffix(path)
    if dialect == "stopgap" and not any("motl_idx" in frame for frame in read_star(path).values()):
        return "relion3.1"
    return dialect
