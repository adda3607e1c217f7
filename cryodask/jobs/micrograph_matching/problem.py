"""The search problem that micrograph matching hands to the engine: tiles of an image x orientations."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cryodask.arrays.module import to_numpy
from cryodask.geometry.zyz import zyz_matrices
from cryodask.jobs.micrograph_matching import constants
from cryodask.jobs.micrograph_matching.preparation import ImagePreparation, prepare_image
from cryodask.kernels.image_correlation import (
    HISTOGRAM_BINS,
    HISTOGRAM_HIGH,
    HISTOGRAM_LOW,
    image_search,
)
from cryodask.kernels.image_projection import Projector, fold_orientations
from cryodask.kernels.slices import slice_axes
from cryodask.search.aggregates import NO_ID, Aggregate, ExactMoments, Histogram, Maximum, States
from cryodask.search.problem import Summary, Variable
from cryodask.search.tiles import Batch, Tile


@dataclass(frozen=True)
class MicrographProblem:
    """Template matching of one micrograph (2DTM: Rickgauer, Grigorieff and Denk 2017; Lucas et al. 2021).

    The engine's hypotheses are orientations; each stands for all defoci and pixel sizes.

    Parameters
    ----------
    folder
        The run's constants.
    shape
        (y, x) positions.
    box
        Edge of the searched template, pixels.
    orientations
        Rows of the angle list.
    defoci, pixel_sizes
        Searched, angstrom: defocus relative, pixel size as searched.
    scales
        Voxel size of the template over each pixel size.
    wrap
        The image is periodic: every pixel is a position.
    histogram
        Count all scores.
    limit
        Longest frequency that the filters leave, cycles per searched pixel.
    leopard_size
        (H, W) to scale projections as Leopard-EM 1.2 does.
    device
        ``auto``, ``cpu`` or ``cuda``.
    preparation
        How the image is made.
    """

    folder: str
    shape: tuple[int, int]
    box: int
    orientations: int
    defoci: tuple[float, ...]
    pixel_sizes: tuple[float, ...]
    scales: tuple[float, ...]
    wrap: bool
    histogram: bool
    limit: float
    leopard_size: tuple[int, int] | None
    device: str
    preparation: ImagePreparation = field(compare=False)

    @property
    def aggregates(self) -> Mapping[str, Aggregate]:
        """Maximum, exact sums, and the histogram where it is kept."""
        found: dict[str, Aggregate] = {"score": Maximum(), "moments": ExactMoments()}
        if self.histogram:
            found["histogram"] = Histogram(HISTOGRAM_LOW, HISTOGRAM_HIGH, HISTOGRAM_BINS)
        return found

    @property
    def hypotheses(self) -> int:
        """Orientations; the engine divides these."""
        return self.orientations

    @property
    def scores_each(self) -> int:
        """Correlations of one orientation."""
        return len(self.defoci) * len(self.pixel_sizes)

    @property
    def variables(self) -> tuple[Variable, ...]:
        """The maps over all positions."""

        def floats(name: str, text: str, units: str = "1", dtype: str = "float32") -> Variable:
            return Variable(name, dtype, 0.0, (), (("long_name", text), ("units", units)))

        def ids(name: str, text: str) -> Variable:
            return Variable(
                name, "uint32", int(NO_ID), (), (("long_name", text), ("not_searched", str(int(NO_ID))))
            )

        return (
            floats("mip", "largest cross-correlation"),
            floats("scaled_mip", "z-score, (mip - mean)/std"),
            floats("score_mean", "mean of all correlations"),
            floats("score_std", "standard deviation of all correlations"),
            ids("orientation", "row of the angle list"),
            floats("defocus", "relative to the mean of u and v", "angstrom"),
            floats("pixel_size", "of the best hypothesis", "angstrom"),
            ids("hypothesis", "(pixel size · n_d + defocus) · n_o + orientation"),
            floats("correlation_sum", "sum of all correlations", dtype="float64"),
            floats("correlation_squared_sum", "sum of their squares", dtype="float64"),
        )

    def prepare(self) -> None:
        """Make the searched image and the filters."""
        prepare_image(Path(self.folder), self.preparation)

    def fold(self, tile: Tile, batch: Batch) -> States:
        """Score orientations on a tile."""
        block = constants.read_block(self.folder, tile, wrap=self.wrap)
        return self.fold_block(block, constants.module_of(self.device), tile, batch)

    def fold_block(self, block: np.ndarray, xp: Any, tile: Tile, batch: Batch) -> States:
        """Score orientations on a block of the searched image."""
        tables = constants.read_tables(self.folder, xp)
        angles = np.asarray(constants.read_angles(self.folder)[batch.start : batch.stop])
        matrices = zyz_matrices(angles)
        magnification = self.preparation.optics.ctf.magnification
        axes = [slice_axes(matrices, scale=scale, magnification=magnification) for scale in self.scales]
        projector = Projector(
            tables.spectrum,
            np.stack(axes),
            tables.filters,
            limit=self.limit,
            image_size=self.leopard_size,
            first=batch.start,
            total=self.orientations,
        )
        height, width = tile.shape
        search = image_search(
            xp.asarray(block), box=self.box, valid=(height, width), histogram=self.histogram
        )
        fold_orientations(search, projector, batch.start, batch.stop)
        state = {name: to_numpy(value) for name, value in search.result().items()}
        count = np.asarray(len(batch) * self.scores_each, np.int64)
        found: States = {
            "score": {"value": state["value"], "id": state["id"]},
            "moments": {"sum": state["sum"], "square_sum": state["square_sum"], "count": count},
        }
        if self.histogram:
            found["histogram"] = {"counts": state["counts"]}
        return found

    def finish(self, tile: Tile, states: States) -> tuple[dict[str, np.ndarray], Summary]:
        """Turn the states of all orientations into maps; fill values where nothing is searched."""
        allowed = constants.read_mask(self.folder, tile)
        searched = np.ones(tile.shape, bool) if allowed is None else allowed
        moments = ExactMoments().finalize(states["moments"])
        mip, ids = states["score"]["value"], states["score"]["id"]
        mean, std = moments["mean"], moments["std"]
        flat = std <= 0
        z = np.where(flat, 0.0, (mip - mean) / np.where(flat, 1.0, std))
        rows, defocus, pixel = self.split_ids(ids)
        maps = {
            "mip": (mip, np.float32),
            "scaled_mip": (z, np.float32),
            "score_mean": (mean, np.float32),
            "score_std": (std, np.float32),
            "defocus": (defocus, np.float32),
            "pixel_size": (pixel, np.float32),
            "correlation_sum": (moments["sum"], np.float64),
            "correlation_squared_sum": (moments["square_sum"], np.float64),
        }
        found = {name: np.where(searched, values, 0).astype(dtype) for name, (values, dtype) in maps.items()}
        found["orientation"] = np.where(searched, rows, NO_ID).astype(np.uint32)
        found["hypothesis"] = np.where(searched, ids, NO_ID).astype(np.uint32)
        summary = {
            "positions": float(searched.sum()),
            "flat": float((flat & searched).sum()),
            "sum": float(found["correlation_sum"].sum()),
            "square_sum": float(found["correlation_squared_sum"].sum()),
        }
        if self.histogram:
            counts = states["histogram"]["counts"]
            summary |= {f"count_{place}": float(n) for place, n in enumerate(counts) if n}
        return found, summary

    def split_ids(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return orientation, defocus and pixel size of hypotheses."""
        rows, rest = ids % self.orientations, ids // self.orientations
        defocus = np.asarray(self.defoci)[rest % len(self.defoci)]
        pixel = np.asarray(self.pixel_sizes)[rest // len(self.defoci) % len(self.pixel_sizes)]
        return rows, defocus, pixel
