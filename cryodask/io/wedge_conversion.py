"""The metadata of a project, of any program, as one wedge list of STOPGAP and GAPSTOP."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cryodask.errors import InputError
from cryodask.io.relion_tomograms import NAME, list_tomograms, number_names
from cryodask.io.star import read_star
from cryodask.io.tilts import read_tilts
from cryodask.optics.tilts import TiltSeries


def collect_series(
    paths: Sequence[Path],
    *,
    numbers: Sequence[int] | None = None,
    pixel_size: float | None = None,
    tomogram_shape: tuple[int, int, int] | None = None,
    **beside: Any,
) -> dict[int, TiltSeries]:
    """Read the tilt series of a project.

    Parameters
    ----------
    paths
        RELION 5 ``tomograms.star`` with all their rows, and tilt files of `read_tilts` with one series each.
    numbers
        Of the series, in order; None: those that end their names, or 1, 2, .. where these are not all
        different.
    pixel_size
        Unbinned, angstrom, where a file does not give it.
    tomogram_shape
        Unbinned (z, y, x) pixels, where a file does not give it.
    **beside
        `defocus`, `dose`, `tilt_com`, `tilt_column` of `read_tilts`, for a single series.

    Returns
    -------
    dict of int to TiltSeries

    Raises
    ------
    InputError
        A file that cannot be read; files beside several series; numbers that are too few or not different.
    """
    listed = [item for path in paths for item in _names(path)]
    given = {key: value for key, value in beside.items() if value is not None}
    if given and len(listed) > 1:
        raise InputError(f"{next(iter(given))}: belongs to one tilt series, {len(listed)} are given")
    chosen = list(numbers) if numbers else number_names([name for _, name in listed])
    if len(chosen) != len(listed) or len(set(chosen)) != len(chosen):
        raise InputError(f"tomo_num: {len(set(chosen))} different numbers for {len(listed)} tilt series")
    found = {}
    for (path, name), number in zip(listed, chosen, strict=True):
        tilts = read_tilts(path, tomo_name=name, **given)
        found[number] = replace(
            tilts,
            pixel_size=tilts.pixel_size or pixel_size,
            tomogram_shape=tilts.tomogram_shape or tomogram_shape,
        )
    return found


def _names(path: Path) -> list[tuple[Path, str]]:
    """Return the series that a file holds, by name."""
    is_star = path.suffix.lower() == ".star" and path.is_file()
    if is_star and any(NAME in table for table in read_star(path).values()):
        return [(path, entry.name) for entry in list_tomograms(path)]
    return [(path, path.name.split(".")[0])]
