"""Particles of chosen classes, for the next program."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from cryodask.errors import InputError
from cryodask.io.star import read_star, write_star

ACCOUNTED, UNACCOUNTED = "particles_accounted.star", "particles_unaccounted.star"
FORMATS = ("relion31", "relion30", "csv", "cs-passthrough")
CLASS = "rlnClassNumber"
NAME = "rlnImageName"
PLACE = ("rlnCoordinateX", "rlnCoordinateY")


@dataclass(frozen=True)
class Selection:
    """What is selected; conditions are joined by "and".

    Parameters
    ----------
    classes, exclude : str
        Such as ``1,3-7``; empty for no condition.
    min_resolution : angstrom or None
        A class's resolution must be this or better.
    min_agreement, min_size, max_pixel_error : float or None
    recentre : bool
        Move whole pixels of the origins into the coordinates.
    split_mirrors : bool
        Number mirrored members of class k as K + k.
    duplicates : angstrom or None
        Of particles of one micrograph that are closer, the one of the better score stays.
    unaccounted : bool
        Select the particles of no class instead.
    """

    classes: str = ""
    exclude: str = ""
    min_resolution: float | None = None
    min_agreement: float | None = None
    min_size: int | None = None
    max_pixel_error: float | None = None
    recentre: bool = True
    split_mirrors: bool = False
    duplicates: float | None = None
    unaccounted: bool = False

    @classmethod
    def from_conditions(cls, conditions: dict[str, Any]) -> "Selection":
        """Return a selection by the names of its fields; classes may be numbers.

        Raises
        ------
        InputError
            A name that is none of them.
        """
        known = [each.name for each in fields(cls)]
        for name in conditions:
            if name not in known:
                raise InputError(f"select: unknown condition {name}, expected one of {', '.join(known)}")
        texts = {
            name: ",".join(map(str, value))
            for name, value in conditions.items()
            if name in ("classes", "exclude") and not isinstance(value, str)
        }
        return cls(**(conditions | texts))


@dataclass(frozen=True)
class ClassTables:
    """The tables of a finished classification.

    Parameters
    ----------
    accounted, unaccounted : dict of str to DataFrame, or None
        Blocks of the STAR files; None where there is none.
    block : str
        Which block holds the particles.
    classes : DataFrame
        The class table.
    pixel_size : angstrom
        Of the images.
    source : str
        The file that was classified.
    """

    accounted: dict[str, pd.DataFrame] | None
    unaccounted: dict[str, pd.DataFrame] | None
    block: str
    classes: pd.DataFrame
    pixel_size: float
    source: str

    @property
    def blocks(self) -> dict[str, pd.DataFrame]:
        """The blocks of either file."""
        found = self.unaccounted if self.accounted is None else self.accounted
        assert found is not None
        return found

    def particles(self, which: str) -> pd.DataFrame | None:
        """Return the particles of `accounted` or `unaccounted`, None where there is none."""
        blocks = getattr(self, which)
        return None if blocks is None else blocks[self.block]


@dataclass(frozen=True)
class Selected:
    """Selected particles and the rest, as blocks of STAR files; their rows add up to those of the input."""

    chosen: dict[str, pd.DataFrame]
    rest: dict[str, pd.DataFrame]
    block: str
    pixel_size: float = 1.0
    source: str = ""

    @property
    def table(self) -> pd.DataFrame:
        """The selected particles."""
        return self.chosen[self.block]


def read_class_tables(folder: str | Path) -> ClassTables:
    """Read the tables of OUTPUT of `cryodask classify`.

    Raises
    ------
    InputError
        No finished classification there.
    """
    import json

    folder = Path(folder)
    if not (folder / "run.json").is_file():
        raise InputError(f"{folder}: no finished classification there")
    parts = [_read(folder / name) if (folder / name).is_file() else None for name in (ACCOUNTED, UNACCOUNTED)]
    block = next(part[0] for part in parts if part is not None)
    attributes = json.loads((folder / "result.zarr" / "zarr.json").read_text())["attributes"]
    accounted, unaccounted = (None if part is None else part[1] for part in parts)
    return ClassTables(
        accounted,
        unaccounted,
        block,
        pd.read_csv(folder / "classes.csv"),
        float(attributes["pixel_size"]),
        str(attributes.get("source", "")),
    )


def select_particles(result: str | Path | ClassTables, selection: Selection) -> Selected:
    """Select particles of a classification.

    Parameters
    ----------
    result
        OUTPUT of `cryodask classify`, or its tables.
    selection : Selection

    Raises
    ------
    InputError
        No classification there; a class that does not exist; nothing left.
    """
    tables = result if isinstance(result, ClassTables) else read_class_tables(result)
    block, blocks, classes = tables.block, tables.blocks, tables.classes
    accounted, unaccounted = tables.particles("accounted"), tables.particles("unaccounted")
    if selection.unaccounted:
        chosen, rest = unaccounted, [accounted]
        if chosen is None:
            raise InputError("nothing is left: every particle is in a class")
    else:
        if accounted is None:
            raise InputError("nothing is left: no class was accepted")
        keep = accounted[CLASS].isin(_chosen_classes(classes, selection)).to_numpy(copy=True)
        if selection.duplicates is not None:
            size = _pixel_size(blocks)
            closest = selection.duplicates if "optics" in blocks else selection.duplicates / tables.pixel_size
            keep &= _without_duplicates(accounted, keep, size, closest)
        chosen, rest = accounted[keep], [accounted[~keep], unaccounted]
        if selection.split_mirrors:
            mirrored = chosen["cryodaskMirror"].to_numpy() == 1
            chosen = chosen.assign(**{CLASS: chosen[CLASS] + mirrored * len(classes)})
    if selection.recentre and set(PLACE) <= set(chosen.columns):
        chosen = _recentred(chosen, _pixel_size(blocks))
    left = [table for table in rest if table is not None and len(table)]
    remainder = _joined(left) if left else chosen.iloc[:0]
    found = blocks | {block: chosen}, blocks | {block: remainder}, block
    return Selected(*found, tables.pixel_size, tables.source)


def _joined(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """Return accounted and unaccounted particles in one table that RELION reads: poses that are not known are
    0."""
    joined = pd.concat(tables, ignore_index=True)
    if "cryodaskReason" in joined:
        joined["cryodaskReason"] = joined["cryodaskReason"].fillna("accounted")
    poses = [
        name
        for name in map(str, joined)
        if name.startswith("rln") and pd.api.types.is_numeric_dtype(joined[name])
    ]
    return joined.fillna(dict.fromkeys(poses, 0))


def write_selection(
    path: str | Path, found: Selected, *, form: str | None = None, overwrite: bool = False
) -> tuple[Path, Path]:
    """Write OUT and OUT_rest, and return their paths.

    Parameters
    ----------
    path
        Its suffix decides where `form` does not: STAR in the dialect of the input, or CSV.
    found : Selected
    form : str or None
        One of `FORMATS`. cs-passthrough copies the records of the particles from the cryoSPARC file that was
        classified; cryoSPARC joins them by their uid.
    overwrite
        Replace existing files.

    Raises
    ------
    InputError
        A name that does not fit the format; cs-passthrough of another source; a file that exists.
    """
    path = Path(path)
    suffix = {"csv": ".csv", "cs-passthrough": ".cs"}.get(
        form or "", path.suffix if form is None else ".star"
    )
    if path.suffix.lower() != suffix.lower() or suffix.lower() not in (".star", ".csv", ".cs"):
        raise InputError(f"{path.name}: expected a name that ends in {suffix if form else '.star or .csv'}")
    if suffix == ".cs" and form is None:
        raise InputError(f"{path.name}: give --format cs-passthrough to copy records of a cryoSPARC file")
    rest = path.with_name(f"{path.stem}_rest{path.suffix}")
    from cryodask.io.files import require_new

    for each in (path, rest):
        require_new(each, overwrite=overwrite)
    for each, blocks in ((path, found.chosen), (rest, found.rest)):
        _write_form(each, blocks, found, form)
    return path, rest


def write_class_star(
    path: str | Path, tables: ClassTables, which: str, form: str = "", *, overwrite: bool = False
) -> Path:
    """Write the accounted or unaccounted particles; see `CryoAccessor.write_star`."""
    from cryodask.io.files import require_new

    if which not in ("accounted", "unaccounted"):
        raise InputError(f"which = {which}: expected accounted or unaccounted")
    if form not in ("", "relion31", "relion30"):
        raise InputError(f"form = {form}: expected relion31 or relion30")
    blocks = getattr(tables, which)
    if blocks is None:
        raise InputError(f"no particle is {which}")
    require_new(path, overwrite=overwrite)
    found = Selected(blocks, blocks, tables.block, tables.pixel_size, tables.source)
    _write_form(Path(path), blocks, found, form or None)
    return Path(path)


def _write_form(path: Path, blocks: dict[str, pd.DataFrame], found: Selected, form: str | None) -> None:
    from cryodask.io.cryosparc import copy_records
    from cryodask.io.relion_dialects import as_relion30, as_relion31

    if path.suffix.lower() == ".csv":
        blocks[found.block].to_csv(path, index=False, float_format="%.9g")
    elif form == "cs-passthrough":
        if not found.source.lower().endswith(".cs"):
            raise InputError(
                f"cs-passthrough: {Path(found.source).name} was classified, expected a cryoSPARC .cs file; "
                "use --format relion31"
            )
        copy_records(found.source, path, blocks[found.block][NAME].tolist())
    else:
        convert = {"relion31": as_relion31, "relion30": as_relion30}.get(form or "")
        dialect = convert(blocks, found.block, found.pixel_size) if convert else blocks
        write_star(path, dialect, overwrite=True)


def _read(path: Path) -> tuple[str, dict[str, pd.DataFrame]]:
    blocks = read_star(path)
    return next(name for name, table in blocks.items() if "rlnImageName" in table), blocks


def _chosen_classes(classes: pd.DataFrame, selection: Selection) -> np.ndarray:
    """Return the numbers of the classes that meet every condition."""
    count = len(classes)
    numbers = classes["class"].to_numpy(np.int64)
    tests: list[tuple[str, Any, Callable[[Any], np.ndarray]]] = [
        ("classes", selection.classes or None, lambda t: np.isin(numbers, parse_classes(t, count))),
        (
            "exclude",
            selection.exclude or None,
            lambda t: ~np.isin(numbers, parse_classes(t, count, "exclude")),
        ),
        ("min-resolution", selection.min_resolution, lambda v: (classes["resolution"] <= v).to_numpy()),
        ("min-agreement", selection.min_agreement, lambda v: (classes["agreement"] >= v).to_numpy()),
        ("min-size", selection.min_size, lambda v: (classes["size"] >= v).to_numpy()),
        ("max-pixel-error", selection.max_pixel_error, lambda v: (classes["pixel_error"] <= v).to_numpy()),
    ]
    passed = {name: test(value) for name, value, test in tests if value is not None}
    keep = np.logical_and.reduce([np.ones(count, bool), *passed.values()])
    if not keep.any():
        worst = min(passed, key=lambda name: passed[name].sum())
        raise InputError(
            f"nothing is left: {worst} removed most, {count - int(passed[worst].sum())} of {count} classes"
        )
    return numbers[keep]


def parse_classes(text: str, count: int, name: str = "classes") -> list[int]:
    """Return the class numbers of a text such as ``1,3-7``.

    Raises
    ------
    InputError
        Not such a text, or numbers beyond 1..count.
    """
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise InputError(f"{name} = {text}: expected numbers such as 1,3-7")
        found.extend(range(int(first), int(last or first) + 1))
    if any(not 1 <= k <= count for k in found):
        raise InputError(f"{name} = {text}: {name}: expected 1..{count}")
    return found


def _pixel_size(blocks: dict[str, pd.DataFrame]) -> float:
    """Return angstrom of the pixels in which coordinates are given."""
    optics = blocks.get("optics")
    for name in ("rlnMicrographOriginalPixelSize", "rlnImagePixelSize"):
        if optics is not None and name in optics:
            return float(optics[name].iloc[0])
    return 1.0  # origins of RELION 3.0 are pixels already


def _origins(table: pd.DataFrame) -> tuple[str, str]:
    angstrom = "rlnOriginXAngst" in table
    return ("rlnOriginXAngst", "rlnOriginYAngst") if angstrom else ("rlnOriginX", "rlnOriginY")


def _recentred(table: pd.DataFrame, pixel_size: float) -> pd.DataFrame:
    """Move whole pixels of the origins into the coordinates: the particle lies at coordinate - origin."""
    table = table.copy()
    for place, origin in zip(PLACE, _origins(table), strict=True):
        whole = np.rint(table[origin] / pixel_size)
        table[place] = table[place] - whole
        table[origin] = table[origin] - whole * pixel_size
    return table


def _without_duplicates(
    table: pd.DataFrame, keep: np.ndarray, pixel_size: float, closest: float
) -> np.ndarray:
    """Return which rows have no better-scored kept neighbour in their micrograph."""
    if not {*PLACE, "rlnMicrographName"} <= set(table.columns):
        raise InputError("remove-duplicates needs rlnCoordinateX, rlnCoordinateY and rlnMicrographName")
    origins = table[list(_origins(table))].to_numpy() / pixel_size
    places = (table[list(PLACE)].to_numpy() - origins) * pixel_size
    score, single = table["cryodaskScore"].to_numpy(), np.ones(len(table), bool)
    for rows in table.reset_index(drop=True).groupby("rlnMicrographName").groups.values():
        own = np.array(rows)[keep[rows]]
        if not len(own):
            continue
        own = own[np.argsort(-score[own], kind="stable")]
        tree = cKDTree(places[own])
        for i, near in enumerate(tree.query_ball_point(places[own], closest)):
            if single[own[i]]:
                single[own[[j for j in near if j > i]]] = False
    return single
