"""Local maxima of a score map above a threshold, found region by region."""

import functools
import math
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import xarray as xr
from scipy.ndimage import maximum_filter
from scipy.spatial import cKDTree

from cryodask.errors import InputError
from cryodask.picking.regions import NOT_SEARCHED, Block, Region, grow, read_here, shape_of
from cryodask.picking.sharpness import HALO, top_hat
from cryodask.picking.subvoxel import parabola_offset
from cryodask.picking.thresholds import Threshold, raw_name, source_name

VALUE_MAPS = ("score", "score_raw", "zscore", "noise", "decoy", "margin")
OFFSETS = ("dz", "dy", "dx")


@dataclass(frozen=True)
class Selection:
    """What a peak must satisfy besides its score.

    Attributes
    ----------
    mask
        Map (z, y, x); peaks where it is at most 0.5 are dropped.
    edge
        "valid": the mask support lies inside the tomogram; "none"; or the least distance in voxels
        from every face.
    cluster_size
        Least and largest number of voxels above the threshold within `cluster_radius`.
    cluster_radius
        In voxels.
    sharpness
        For each template the value that the top-hat of the raw score must pass.
    """

    mask: xr.DataArray | None = None
    edge: str | float = "valid"
    cluster_size: tuple[float, float] | None = None
    cluster_radius: float = 0.0
    sharpness: tuple[float, ...] | None = None

    @property
    def halo(self) -> int:
        """Voxels around a region that its peaks depend on."""
        cluster = math.ceil(self.cluster_radius) if self.cluster_size else 1
        return max(1, cluster, HALO if self.sharpness else 1)


@dataclass(frozen=True)
class PeakSearch:
    """The peaks of one template of a result.

    Attributes
    ----------
    dataset
        Result with maps (template, z, y, x).
    template
        Index of the template whose maps are searched.
    threshold
        From `choose_threshold`.
    score
        Map whose maxima are peaks.
    selection
        Further conditions.
    """

    dataset: xr.Dataset
    template: int
    threshold: Threshold
    score: str = "score"
    selection: Selection = field(default_factory=Selection)

    def in_region(self, region: Region) -> pd.DataFrame:
        """Find the voxels that reach the threshold and are the maximum of their 3x3x3 neighbourhood.

        Parameters
        ----------
        region
            (z, y, x) slices; its halo is read for its border.

        Returns
        -------
        pandas.DataFrame
            template, z, y, x (voxel indices), dz, dy, dx (sub-voxel offsets on the raw score), angle_row
            and the value of every score map there.

        Raises
        ------
        InputError
            An orientation beyond the rotation list.
        """
        outer, inner = grow(region, self.selection.halo, shape_of(self.dataset))
        block = Block(self.dataset, self.template, outer)
        self._check_rows(block["orientation"])
        above = self._above(block)
        ranked = block.scores(self.score)
        peaks = above & (ranked == maximum_filter(ranked, size=3, mode="constant", cval=-np.inf))
        peaks &= self._allowed(block, outer)
        places = np.argwhere(peaks[inner]) + [s.start for s in inner]
        places = places[self._cluster_fits(places, above)]
        columns = {name: block[name][tuple(places.T)].astype(np.float64) for name in self._value_names()}
        columns |= _offsets(block.scores(raw_name(self.dataset, "score")), places)
        columns["angle_row"] = block["orientation"][tuple(places.T)].astype(np.int64)
        frame = pd.DataFrame(places + [s.start for s in outer], columns=["z", "y", "x"])
        return frame.assign(template=self.template, **columns)

    def _check_rows(self, rows: np.ndarray) -> None:
        """Refuse an angle map that was made with a longer rotation list."""
        list_length = int(np.isfinite(self._euler).all(axis=-1).sum())
        largest = int(rows.max(initial=0, where=rows != NOT_SEARCHED))
        if largest >= list_length:
            base = int(self.dataset.attrs.get("angle_base", 0))
            raise InputError(
                f"{source_name(self.dataset)}: angle map has row {largest + base}, "
                f"list has {list_length} rows"
            )

    @functools.cached_property
    def _euler(self) -> np.ndarray:
        """The rotation list (row, 3), NaN-padded."""
        return read_here(self.dataset["euler"].isel(template=self.template))

    def _above(self, block: Block) -> np.ndarray:
        """Return where the threshold is reached and, with noise correction, the corrected score positive."""
        # The maps are float32 and the threshold float64: compare in float64.
        gate = block.scores(self.threshold.name).astype(np.float64)
        above = (gate >= self.threshold.values[self.template]) & np.isfinite(block.scores(self.score))
        return above & (block.scores("score") > 0) if "noise" in self.dataset else above

    def _allowed(self, block: Block, outer: Region) -> np.ndarray:
        """Return where in a block a peak may lie."""
        edge, mask = self.selection.edge, self.selection.mask
        allowed = np.ones([s.stop - s.start for s in outer], bool)
        if edge == "valid":
            allowed &= block["valid"] != 0 if "valid" in self.dataset else True
        elif edge != "none":
            for axis, (part, size) in enumerate(zip(outer, shape_of(self.dataset), strict=True)):
                index = np.arange(part.start, part.stop)
                inside = np.minimum(index, size - 1 - index) >= float(edge)
                allowed &= inside.reshape([-1 if a == axis else 1 for a in range(3)])
        if mask is not None:
            allowed &= read_here(mask.isel(dict(zip("zyx", outer, strict=True)))) > 0.5
        if "coarse_to_fine" in self.dataset.attrs:
            # elsewhere no fine row was scored
            allowed &= block["rescored"] != 0
        if "class_id" in self.dataset and self.dataset.sizes["template"] > 1:
            allowed &= block["class_id"] == self.template
        if self.selection.sharpness is not None:
            raw = raw_name(self.dataset, self.score)
            allowed &= top_hat(block, raw) > self.selection.sharpness[self.template]
        return allowed

    def _cluster_fits(self, places: np.ndarray, above: np.ndarray) -> np.ndarray:
        """Return which places have as many voxels above the threshold around them as asked for."""
        if self.selection.cluster_size is None or len(places) == 0:
            return np.ones(len(places), bool)
        tree = cKDTree(np.argwhere(above))
        counts = tree.query_ball_point(places, self.selection.cluster_radius, return_length=True)
        low, high = self.selection.cluster_size
        return (counts >= low) & (counts <= high)

    def _value_names(self) -> list[str]:
        """Return the maps whose value a peak carries."""
        return [name for name in VALUE_MAPS if name in self.dataset]


def _offsets(scores: np.ndarray, places: np.ndarray) -> dict[str, np.ndarray]:
    """Return the sub-voxel offsets dz, dy, dx of places inside a (z, y, x) block."""
    padded = np.pad(scores, 1, constant_values=-np.inf)
    centre = places + 1
    return {
        name: parabola_offset(*(padded[tuple((centre + shift * step).T)] for shift in (-1, 0, 1)))
        for name, step in zip(OFFSETS, np.eye(3, dtype=int), strict=True)
    }
