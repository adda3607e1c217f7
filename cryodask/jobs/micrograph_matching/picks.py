"""Picking from matched micrographs: one table of all, with the value that decided for each."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from cryodask.errors import InputError
from cryodask.io.leopard_em import MATCH_COLUMNS, OWN_COLUMNS, Meaning, ordered_table
from cryodask.io.map_files import map_shape, read_map
from cryodask.jobs.micrograph_matching.match_maps import dataset_maps, map_folder, store_maps
from cryodask.picking.image_picks import MatchMaps, pick_image
from cryodask.picking.image_thresholds import ImageThreshold, Metric

Source = str | Path | xr.Dataset


@dataclass(frozen=True)
class ImagePickOptions:
    """What a user may ask of picking from micrographs.

    Attributes
    ----------
    metric
        ``zscore``, ``local``, ``global`` or ``pvalue``.
    false_positives, cutoff
        At most one: peaks of noise to expect in each micrograph; the value itself.
    mask_radius
        Pixels between particles.
    mask
        Image of the micrograph's shape; particles' centres lie where it is above 0.5.
    variance_is
        What a map of correlation_variance holds.
    """

    metric: Metric = "zscore"
    false_positives: float | None = None
    cutoff: float | None = None
    mask_radius: float = 5.0
    mask: str | None = None
    variance_is: Meaning = "std"


@dataclass(frozen=True, eq=False)
class ImagePicks:
    """The particles of one micrograph and template, with their maps and the value that decided."""

    maps: MatchMaps
    table: pd.DataFrame
    threshold: ImageThreshold


def pick_images(results: Sequence[Source], options: ImagePickOptions) -> list[ImagePicks]:
    """Choose the particles of matched micrographs.

    Parameters
    ----------
    results
        Result stores or datasets, or match_template configurations whose maps are written.
    options
        What counts as a particle.

    Raises
    ------
    InputError
        Options that exclude each other or do not fit the maps; files that are missing or of a wrong shape.
    """
    opened = [maps for result in results for maps in open_maps(result, options.variance_is)]
    found = []
    for maps in opened:
        table, threshold = pick_image(
            maps,
            metric=options.metric,
            false_positives=options.false_positives,
            cutoff=options.cutoff,
            mask_radius=options.mask_radius,
            allowed=_allowed(maps, options.mask),
        )
        found.append(ImagePicks(maps, table, threshold))
    return found


def pick_micrographs(results: Sequence[Source], **options: Any) -> pd.DataFrame:
    """Choose the particles of matched micrographs as one table; options as of `ImagePickOptions`.

    `attrs` hold `metric`, `rule` and one of `thresholds` for each micrograph and template.
    """
    known = [item.name for item in fields(ImagePickOptions)]
    unknown = [name for name in options if name not in known]
    if unknown:
        raise InputError(f"{unknown[0]}: not for micrographs, expected {', '.join(known)}")
    picks = pick_images(results, ImagePickOptions(**options))
    table = joined_table(picks)
    thresholds = [found.threshold for found in picks]
    table.attrs |= {
        "metric": thresholds[0].metric,
        "rule": thresholds[0].rule,
        "thresholds": [threshold.value for threshold in thresholds],
    }
    return table


def is_of_micrographs(result: Source) -> bool:
    """Say whether a result comes from micrographs: a configuration, or a dataset or store with their maps."""
    if isinstance(result, xr.Dataset):
        return "scaled_mip" in result
    path = Path(result)
    if path.suffix.lower() in (".yaml", ".yml", ".json"):
        return True
    return path.is_dir() and next(path.glob("**/scaled_mip/zarr.json"), None) is not None


def open_maps(result: Source, variance_is: Meaning = "std") -> list[MatchMaps]:
    """Open the maps of a configuration or of a result, one for each micrograph and template."""
    if isinstance(result, xr.Dataset):
        return [dataset_maps(result)]
    if not Path(result).exists():
        raise InputError(f"{result}: no such file")
    if Path(result).is_dir():
        return store_maps(str(result))
    return [map_folder(str(result), variance_is=variance_is)]


def joined_table(picks: Sequence[ImagePicks]) -> pd.DataFrame:
    """Return the particles of all micrographs as one table, with all columns even where there is none."""
    filled = [found.table for found in picks if len(found.table)]
    if not filled:
        return pd.DataFrame(columns=[*MATCH_COLUMNS, *OWN_COLUMNS])
    table = pd.concat(filled, ignore_index=True)
    return ordered_table(table.assign(particle_index=np.arange(len(table))))


def _allowed(maps: MatchMaps, mask: str | None) -> np.ndarray | None:
    """Return where a template's first pixel may lie: the mask says where centres may.

    Raises
    ------
    InputError
        A mask of another shape than the micrograph, or that leaves no position.
    """
    if mask is None:
        return None
    height, width = map_shape(mask, "--mask")
    expected = map_shape(maps.facts["micrograph_path"], "micrograph_path")
    if (height, width) != expected:
        wanted = f"{expected[0]} x {expected[1]}, the micrograph's shape"
        raise InputError(f"--mask {mask}: {height} x {width}, expected {wanted}")
    half = maps.edge // 2
    places = np.indices(maps.mip.shape)
    y, x = maps.corners(places.reshape(2, -1).T).T + half
    allowed = (read_map(mask) > 0.5)[y % height, x % width].reshape(maps.mip.shape)
    if not allowed.any():
        raise InputError(f"--mask {mask}: no position is left where it is above 0.5")
    return allowed
