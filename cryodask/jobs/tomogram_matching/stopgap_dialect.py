"""Parameters as a STOPGAP STAR, translated to the columns of GAPSTOP."""

import logging
from pathlib import Path
from typing import Any

from cryodask.errors import InputError
from cryodask.jobs.tomogram_matching.settings import is_unset

log = logging.getLogger("cryodask")

BLOCK = "stopgap_tm_parameters"
FOLDERS = {"listdir": "lists/", "tmpldir": "templates/", "maskdir": "masks/", "mapdir": "maps/"}
DROPPED = ("tempdir", "commdir", "metadir", "rawdir", "tilesize", "tilelist_name", "tomolist_name")


def is_stopgap(block: str, row: dict[str, Any]) -> bool:
    """Return whether a parameter block is STOPGAP's, by its name or by its template list."""
    return block.removeprefix("data_") == BLOCK or "tlist_name" in row


def to_gapstop(rows: list[dict[str, Any]], path: Path) -> list[dict[str, Any]]:
    """Translate STOPGAP rows to GAPSTOP columns.

    Names are joined to listdir, tmpldir and maskdir; the template list becomes tmpl_name, mask_name, symmetry
    and anglist_name, or the native key `templates` where it has several rows. Columns on tiles and progress
    are dropped with a note.

    Parameters
    ----------
    rows
        Value by column.
    path
        The parameter file, for messages.
    """
    dropped = [name for name in rows[0] if name in DROPPED or name.startswith("completed")]
    if dropped:
        log.info("%s: dropped %s", path.name, ", ".join(dropped))
    return [
        _translate({name: cell for name, cell in row.items() if name not in dropped}, path, number)
        for number, row in enumerate(rows)
    ]


def _translate(row: dict[str, Any], path: Path, number: int) -> dict[str, Any]:
    folders = {name: row.get(name) for name in FOLDERS}
    folder = {name: FOLDERS[name] if is_unset(value) else str(value) for name, value in folders.items()}
    cells = {name: cell for name, cell in row.items() if name not in FOLDERS and name != "tlist_name"}
    for column, place in (("wedgelist_name", "listdir"), ("tomo_mask_name", "maskdir")):
        if not is_unset(cells.get(column)):
            cells[column] = _join(folder[place], cells[column])
    if is_unset(cells.get("outputdir")):
        cells["outputdir"] = folder["mapdir"]
    if is_unset(row.get("tlist_name")):
        raise InputError(f"{path.name} row {number}: tlist_name is required")
    listed = Path(str(row.get("rootdir", ".")), folder["listdir"], str(row["tlist_name"]))
    templates = _read_templates(listed, folder)
    if len(templates) > 1:
        return {**cells, "templates": templates}
    only = templates[0]
    angles = only.pop("angles")
    columns = {"template": "tmpl_name", "mask": "mask_name", "symmetry": "symmetry"}
    named = {columns[key]: value for key, value in only.items() if key in columns}
    return {**cells, **named, "anglist_name": angles["file"], "anglist_order": angles["order"]}


def _read_templates(path: Path, folder: dict[str, str]) -> list[dict[str, Any]]:
    from cryodask.io.star import read_star_text

    if not path.is_file():
        raise InputError(f"tlist_name = {path.name}: no such file (looked in {path.parent})")
    tables = [table for table in read_star_text(path).values() if len(table)]
    if not tables:
        raise InputError(f"{path.name}: no rows")
    missing = [name for name in ("tmpl_name", "mask_name", "anglist_name") if name not in tables[0].columns]
    if missing:
        raise InputError(f"{path.name}: column {missing[0]} is required")
    return [
        {
            "name": Path(str(row["tmpl_name"])).stem,
            "template": _join(folder["tmpldir"], row["tmpl_name"]),
            "mask": _join(folder["maskdir"], row["mask_name"]),
            "symmetry": str(row.get("symmetry", "C1")),
            # STOPGAP lists hold phi, psi, theta
            "angles": {"file": _join(folder["listdir"], row["anglist_name"]), "order": "zzx"},
        }
        for row in tables[0].to_dict("records")
    ]


def _join(folder: str, name: Any) -> str:
    return str(Path(folder, str(name)))
