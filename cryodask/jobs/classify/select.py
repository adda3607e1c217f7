"""Particles of chosen classes, for the next program."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from cryodask.errors import InputError
from cryodask.io.star import read_star, write_star
from cryodask.jobs.classify.outputs import ACCOUNTED, UNACCOUNTED

CLASS = "rlnClassNumber"
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


@dataclass(frozen=True)
class Selected:
    """Selected particles and the rest, as blocks of STAR files; their rows add up to those of the input."""

    chosen: dict[str, pd.DataFrame]
    rest: dict[str, pd.DataFrame]
    block: str

    @property
    def table(self) -> pd.DataFrame:
        """The selected particles."""
        return self.chosen[self.block]


def select_particles(folder: str | Path, selection: Selection) -> Selected:
    """Select particles of a classification.

    Parameters
    ----------
    folder
        OUTPUT of `cryodask classify`.
    selection : Selection

    Raises
    ------
    InputError
        No classification there; a class that does not exist; nothing left.
    """
    folder = Path(folder)
    if not (folder / "run.json").is_file():
        raise InputError(f"{folder}: no finished classification there")
    parts = {name: _read(folder / name) for name in (ACCOUNTED, UNACCOUNTED) if (folder / name).is_file()}
    block, blocks = next((block, blocks) for block, blocks in parts.values())
    accounted = parts[ACCOUNTED][1][block] if ACCOUNTED in parts else None
    unaccounted = parts[UNACCOUNTED][1][block] if UNACCOUNTED in parts else None
    if selection.unaccounted:
        chosen, rest = unaccounted, [accounted]
        if chosen is None:
            raise InputError("nothing is left: every particle is in a class")
    else:
        classes = pd.read_csv(folder / "classes.csv")
        if accounted is None:
            raise InputError("nothing is left: no class was accepted")
        keep = accounted[CLASS].isin(_chosen_classes(classes, selection)).to_numpy(copy=True)
        if selection.duplicates is not None:
            keep &= _without_duplicates(accounted, keep, _pixel_size(blocks), selection.duplicates)
        chosen, rest = accounted[keep], [accounted[~keep], unaccounted]
        if selection.split_mirrors:
            mirrored = chosen["cryodaskMirror"].to_numpy() == 1
            chosen = chosen.assign(**{CLASS: chosen[CLASS] + mirrored * len(classes)})
    if selection.recentre and set(PLACE) <= set(chosen.columns):
        chosen = _recentred(chosen, _pixel_size(blocks))
    left = [table for table in rest if table is not None and len(table)]
    remainder = pd.concat(left, ignore_index=True) if left else chosen.iloc[:0]
    return Selected(blocks | {block: chosen}, blocks | {block: remainder}, block)


def write_selection(path: str | Path, found: Selected, *, overwrite: bool = False) -> tuple[Path, Path]:
    """Write OUT and OUT_rest, STAR or CSV by the name, and return their paths."""
    path = Path(path)
    rest = path.with_name(f"{path.stem}_rest{path.suffix}")
    if path.suffix.lower() not in (".star", ".csv"):
        raise InputError(f"{path.name}: expected a name that ends in .star or .csv")
    from cryodask.io.files import require_new

    for each in (path, rest):
        require_new(each, overwrite=overwrite)
    for each, blocks in ((path, found.chosen), (rest, found.rest)):
        if path.suffix.lower() == ".csv":
            blocks[found.block].to_csv(each, index=False, float_format="%.9g")
        else:
            write_star(each, blocks, overwrite=True)
    return path, rest


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
