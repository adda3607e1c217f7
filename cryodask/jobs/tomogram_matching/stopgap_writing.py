"""Parameters to a STOPGAP STAR and its template list."""

import os
from collections.abc import Sequence
from pathlib import Path

from cryodask.errors import InputError
from cryodask.jobs.tomogram_matching.parameters import MatchParameters
from cryodask.jobs.tomogram_matching.stopgap_dialect import BLOCK
from cryodask.jobs.tomogram_matching.writing import star_cells

LIST_BLOCK = "stopgap_template_list"
LIST_COLUMNS = ("tmpl_name", "mask_name", "symmetry", "anglist_name")
# STOPGAP joins names to these folders; all names here are already relative to rootdir
HERE = {"listdir": "./", "tmpldir": "./", "maskdir": "./"}
COLUMNS = (
    *("rootdir", *HERE, "mapdir", "tomo_name", "tomo_num", "tomo_mask_name", "wedgelist_name", "tlist_name"),
    *(
        "smap_name",
        "omap_name",
        "tmap_name",
        "vol_ext",
        "lp_rad",
        "lp_sigma",
        "hp_rad",
        "hp_sigma",
        "binning",
    ),
    *("calc_exp", "calc_ctf", "apply_laplacian", "noise_corr", "fourier_crop", "scoring_fcn"),
)
NEEDED = ("tomo_num", "wedgelist_name", "mask_name", "lp_rad", "hp_rad")


def write_stopgap(rows: Sequence[MatchParameters], path: Path, *, overwrite: bool = False) -> list[str]:
    """Write a STOPGAP parameter STAR and, beside it, its template lists.

    Parameters
    ----------
    rows
        One a tomogram.
    path
        The parameter file; template lists are `<stem>_templates_<k>.star`.
    overwrite
        Replace existing files.

    Returns
    -------
    list of str
        Names of the set parameters that STOPGAP has no column for.

    Raises
    ------
    InputError
        If a row has no rotation list in STOPGAP's order, or lacks what STOPGAP requires.
    """
    import pandas as pd

    from cryodask.io.star import write_star

    listed: dict[tuple[str, ...], Path] = {}
    table, lost = [], []
    for parameters in rows:
        cells = star_cells(parameters)
        _check(parameters, cells)
        entry = tuple(cells[column] for column in LIST_COLUMNS)
        template_list = listed.setdefault(entry, path.with_name(f"{path.stem}_templates_{len(listed)}.star"))
        cells["tlist_name"] = os.path.relpath(template_list.resolve(), Path(str(cells["rootdir"])).resolve())
        cells["mapdir"] = cells["outputdir"]
        if cells.get("noise_corr") in ("True", "False"):
            cells["noise_corr"] = str(int(cells["noise_corr"] == "True"))
        expressed = {*COLUMNS, *LIST_COLUMNS, "anglist_order", "outputdir", "write_raw", "angles.method"}
        lost += [column for column in cells if column not in expressed]
        table.append({column: {**HERE, **cells}.get(column, "none") for column in COLUMNS})
    for entry, template_list in listed.items():
        blocks = {LIST_BLOCK: pd.DataFrame([dict(zip(LIST_COLUMNS, entry, strict=True))])}
        write_star(template_list, blocks, column_numbers="", overwrite=overwrite)
    write_star(path, {BLOCK: pd.DataFrame(table)}, column_numbers="", overwrite=overwrite)
    return list(dict.fromkeys(lost))


def _check(parameters: MatchParameters, cells: dict[str, str]) -> None:
    source = parameters.source
    missing = [column for column in NEEDED if cells.get(column, "none") == "none"]
    if missing:
        raise source.error(f"{missing[0]} is required by STOPGAP")
    if parameters.templates:
        raise source.error("templates: expected one template a row for STOPGAP")
    if "anglist_name" not in cells or cells["anglist_order"] != "zzx":
        label = source.label("angles.file")
        raise InputError(f"{source.place}{label}: STOPGAP needs a list of phi,psi,theta (order zzx)")
