"""One mapping of parameters for a whole project: a row for every tomogram that its tilts list."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryodask.io.relion_tomograms import NAME, list_tomograms, number_names
from cryodask.io.star import read_star
from cryodask.jobs.tomogram_matching.row_source import RowSource

TOKEN = re.compile(r"\$tomo_name|\$[xX]+")
TOKEN_KEYS = ("tomogram", "tomogram_mask", "defocus_file", "dose_file", "tilt_com", "output", "orientations")
WILDCARDS = frozenset("*?[")


@dataclass(frozen=True)
class Listed:
    """A tomogram of a project: its name, the tilts to read it with, its reconstruction where it is known."""

    name: str
    tilts: str
    tomogram: str | None = None


def rows_of_project(mapping: Mapping[str, Any], folder: Path, source: RowSource) -> list[dict[str, Any]]:
    """Return a mapping for every tomogram that `tilts` lists; the mapping itself where it lists none.

    `tilts` is a RELION 5 ``tomograms.star``, whose rows name their tomograms, or a pattern such as
    ``warp/*.xml``, where `tomogram` needs a token. In `tomogram`, `tomogram_mask`, files beside the tilts,
    `output` and `orientations` the token ``$tomo_name`` is the tomogram's name, and ``$x``, ``$xx``, .. its
    number, padded with zeros.

    Parameters
    ----------
    mapping
        Native keys.
    folder
        That of names that are relative.
    source
        Where it was written.

    Raises
    ------
    InputError
        A pattern that fits no file; a tomogram that the list does not name; a number longer than its token.
    """
    tilts, tomogram = mapping.get("tilts"), mapping.get("tomogram")
    if not isinstance(tilts, str) or "://" in tilts:
        return [dict(mapping)]
    if tomogram is not None and not (isinstance(tomogram, str) and TOKEN.search(tomogram)):
        return [dict(mapping)]
    listed = _listed(tilts, folder, source)
    if listed is None:
        return [dict(mapping)]
    numbers = number_names([each.name for each in listed])
    return [_row(mapping, each, number, source) for each, number in zip(listed, numbers, strict=True)]


def _listed(tilts: str, folder: Path, source: RowSource) -> list[Listed] | None:
    """Return the tomograms of a project's star or of a pattern; none where it is a file of another kind."""
    if WILDCARDS & set(tilts):
        pattern = Path(tilts)
        start = Path(pattern.anchor) if pattern.is_absolute() else folder
        found = sorted(start.glob(str(pattern.relative_to(start) if pattern.is_absolute() else pattern)))
        if not found:
            raise source.wrong("tilts", tilts, f"no such files (looked in {folder})")
        return [Listed(path.name.split(".")[0], str(path)) for path in found]
    path = folder / tilts
    if path.suffix.lower() != ".star" or not path.is_file():
        return None
    with source.placed("tilts"):
        if not any(NAME in table for table in read_star(path).values()):
            return None
        return [Listed(entry.name, tilts, entry.tomogram) for entry in list_tomograms(path)]


def _row(mapping: Mapping[str, Any], listed: Listed, number: int, source: RowSource) -> dict[str, Any]:
    row = {key: _filled(value, listed.name, number, source) if key in TOKEN_KEYS else value
           for key, value in mapping.items()}  # fmt: skip
    if row.get("tomogram") is None:
        if listed.tomogram is None:
            text = f"tomogram is required: {Path(listed.tilts).name} names none for {listed.name}"
            raise source.error(f"{text} (a name with $tomo_name or $xxx serves all)")
        row["tomogram"] = listed.tomogram
    return {**row, "tilts": listed.tilts, "tomo_name": listed.name, "tomo_num": number}


def _filled(value: Any, name: str, number: int, source: RowSource) -> Any:
    """Return a value with its tokens replaced, also inside a nested mapping."""
    if isinstance(value, Mapping):
        return {key: _filled(inner, name, number, source) for key, inner in value.items()}
    if not isinstance(value, str):
        return value

    def replacement(token: re.Match[str]) -> str:
        word = token.group()
        if word == "$tomo_name":
            return name
        if len(str(number)) > len(word) - 1:
            digits = f"number {number} of {name} needs {len(str(number))} digits"
            raise source.error(f"{value}: {digits}, token {word} has {len(word) - 1}")
        return str(number).zfill(len(word) - 1)

    return TOKEN.sub(replacement, value)
