"""What a file holds: a volume's header and statistics, or the blocks of a STAR file."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryodask.io.convert import reading_blocks
from cryodask.io.files import require_exists
from cryodask.io.statistics import RunningStatistics
from cryodask.io.volume import PathLike, read_header, read_stored


def file_info(path: PathLike, *, level: int = 0, quick: bool = False) -> dict[str, Any]:
    """Describe a file.

    Parameters
    ----------
    path
        A volume of any format, or a STAR file.
    level
        Resolution level of an OME-Zarr volume.
    quick
        Read the header alone.

    Returns
    -------
    dict
        For a volume ``format, shape, dtype, voxel_size, spacing, origin`` (z, y, x; angstrom) and, unless
        quick, ``min, max, mean, std, nan_count`` (NaN or infinite voxels) and ``first_nan``; for a STAR
        file ``blocks``: name to rows and columns.

    Raises
    ------
    InputError
        As `read_header` and `read_star`.
    """
    if Path(os.fspath(path)).suffix.lower() == ".star":
        return {"file": os.fspath(path), "format": "star", "blocks": dict(_star_blocks(path))}
    header = read_header(path, level)
    facts: dict[str, Any] = {
        "file": os.fspath(path),
        "format": header.format,
        "shape": list(header.shape),
        "dtype": str(header.dtype),
        "voxel_size": header.voxel_size,
        "spacing": list(header.spacing) if header.spacing else None,
        "origin": list(header.origin),
    }
    if not quick:
        facts |= _summary(volume_statistics(path, level))
    return facts


def volume_statistics(path: PathLike, level: int = 0) -> RunningStatistics:
    """Walk once through a volume: its statistics, the count and the first place of non-finite voxels."""
    statistics = RunningStatistics()
    for slices in reading_blocks(read_header(path, level)):
        statistics.update(read_stored(path, slices, level), slices)
    return statistics


def _summary(statistics: RunningStatistics) -> Mapping[str, Any]:
    seen = statistics.count > 0
    return {
        "min": statistics.minimum if seen else None,
        "max": statistics.maximum if seen else None,
        "mean": statistics.mean if seen else None,
        "std": statistics.std if seen else None,
        "nan_count": statistics.non_finite,
        "first_nan": statistics.first_non_finite,
    }


def _star_blocks(path: PathLike) -> list[tuple[str, dict[str, Any]]]:
    from cryodask.io.star import read_star_text

    blocks = read_star_text(require_exists(path))
    return [(name, {"rows": len(frame), "columns": list(frame.columns)}) for name, frame in blocks.items()]
