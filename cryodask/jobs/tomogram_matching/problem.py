"""The search problem that tomogram matching hands to the engine."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cryodask.arrays.module import array_module, cuda_is_available, to_numpy
from cryodask.jobs.tomogram_matching import constants
from cryodask.jobs.tomogram_matching.constants import Tables
from cryodask.jobs.tomogram_matching.noise_spectrum import read_whitening
from cryodask.jobs.tomogram_matching.pieces import cut_tile, join_pieces
from cryodask.jobs.tomogram_matching.preparation import TomogramFilter, prepare_tomogram
from cryodask.jobs.tomogram_matching.rotated import RotatedTemplates
from cryodask.jobs.tomogram_matching.seeding import NearSeeds, TileSeeds, tile_seeds
from cryodask.kernels import volume_correlation as kernel
from cryodask.kernels.rotation import Interpolation
from cryodask.kernels.template import Normalization
from cryodask.optics.defocus_gradient import DefocusCells
from cryodask.optics.frequency import half_frequencies
from cryodask.optics.whitening import Whitening
from cryodask.search.aggregates import NO_ID, Aggregate, Maximum, Moments, States, empty_states
from cryodask.search.problem import Summary, Variable
from cryodask.search.tiles import Batch, Tile

GROUP = 8  # rotations that share one pass over the running state
LEAST_FOR_ZSCORE = 50


@dataclass(frozen=True)
class TomogramProblem:
    """Template matching of one tomogram (specified for STOPGAP- and GAPSTOP-like local correlation).

    Parameters
    ----------
    folder
        The run's constants.
    shape
        (z, y, x) voxels of the tomogram.
    box
        Edge of the template box, voxels.
    hypotheses
        Rows of the rotation list.
    mask_kind
        What the mask saves: nothing, the statistics of a direction, or all statistics.
    noise_copies
        Noise templates, 0 for none.
    decoy
        Whether the mirrored template is searched too.
    cells
        Where the defocus, and so the template filter, is one.
    number
        Number of the template.
    near
        How near to its seed a voxel is searched; none for every rotation everywhere.
    """

    folder: str
    shape: tuple[int, int, int]
    box: int
    hypotheses: int
    mask_kind: Literal["spherical", "axial", "general"]
    support: float
    noise_correction: Literal["none", "ratio", "subtract"]
    noise_copies: int
    moments: bool
    normalization: Normalization
    interpolation: Interpolation
    statistics_fraction: float
    wrap: bool
    margin: int
    device: str
    cells: DefocusCells
    tomogram_filter: TomogramFilter = field(compare=False)
    number: int = 0
    near: NearSeeds | None = None
    decoy: bool = False

    @property
    def beside(self) -> int:
        """How many templates are scored beside the target: noise templates, then its mirror image."""
        return len(self.names_beside)

    @property
    def names_beside(self) -> list[str]:
        """The names of their states, in order."""
        names = [f"noise_{copy}" for copy in range(self.noise_copies)]
        return [*names, "decoy"] if self.decoy else names

    @property
    def decoy_beside(self) -> int | None:
        """Number of the mirror image among these, None where there is none."""
        return self.beside - 1 if self.decoy else None

    @property
    def parts(self) -> tuple["TomogramProblem", ...]:
        """The problem of each template: this one."""
        return (self,)

    @property
    def tables_folder(self) -> str:
        """Where the template's own constants lie."""
        return str(Path(self.folder) / f"template_{self.number}")

    @property
    def aggregates(self) -> Mapping[str, Aggregate]:
        """Maximum of the template and of each noise template, moments of the template's scores."""
        found: dict[str, Aggregate] = {"score": Maximum()}
        if self.moments:
            found["moments"] = Moments()
        found |= {"decoy": Maximum()} if self.decoy else {}
        return found | {f"noise_{copy}": Maximum() for copy in range(self.noise_copies)}

    @property
    def variables(self) -> tuple[Variable, ...]:
        """The maps of section 5.2 of the result that this search makes."""
        names = ["score", "score_raw"]
        names += ["noise"] if self.noise_copies else []
        names += ["decoy"] if self.decoy else []
        names += ["score_mean", "score_std"] if self.moments else []
        names += ["zscore"] if self.has_zscore else []
        template = (("template", 1),)
        said = {"decoy": (("long_name", "largest raw score of the mirrored template"),)}
        maps = [
            Variable(name, "float32", 0.0, template, (("units", "1"), *said.get(name, ()))) for name in names
        ]
        rows = (("long_name", "row of the rotation list"), ("not_searched", str(int(NO_ID))))
        inside = (("long_name", "mask support inside the tomogram"),)
        return (
            *maps,
            Variable("orientation", "uint32", int(NO_ID), template, rows),
            Variable("valid", "uint8", 0, (), inside),
        )

    @property
    def has_zscore(self) -> bool:
        """Too few rotations make no standard deviation worth dividing by."""
        rows = self.hypotheses if self.near is None else self.near.least_rows
        return self.moments and rows >= LEAST_FOR_ZSCORE

    def prepare(self) -> None:
        """Filter the tomogram into the run's constants."""
        prepare_tomogram(Path(self.folder), self.tomogram_filter)

    def fold(self, tile: Tile, batch: Batch) -> States:
        """Score a batch of rotations on a tile."""
        return self.fold_tables(constants.read_tables(self.tables_folder), tile, batch)

    def fold_tables(self, tables: Tables, tile: Tile, batch: Batch) -> States:
        """Score a batch of the rotations of given tables on a tile, cell by cell."""
        whitening = read_whitening(self.folder)
        pieces = cut_tile(tile, self.cells, self.box - 1)
        found = []
        for cell, piece in pieces:
            rows, seeds = self._wanted(tables, piece, batch)
            if not len(rows):
                found.append(empty_states(self.aggregates, piece.shape))
                continue
            block = constants.read_block(
                Path(self.folder),
                piece,
                before=self.box // 2,
                halo=self.box - 1,
                margin=self.margin,
                wrap=self.wrap,
            )
            weights = self.template_filter(tables, cell, whitening)
            filtered = replace(tables, template_filters=weights)
            found.append(self.fold_block(block, filtered, piece, rows, seeds))
        return join_pieces(tile, [piece for _, piece in pieces], found)

    def _wanted(self, tables: Tables, piece: Tile, batch: Batch) -> tuple[np.ndarray, TileSeeds | None]:
        """Return the rows of a batch that some voxel of a piece is scored with, and the piece's seeds."""
        rows = np.arange(batch.start, batch.stop)
        if self.near is None:
            return rows, None
        seeds = tile_seeds(self.folder, piece)
        return rows[self.near.needed(tables.matrices[batch.start : batch.stop], seeds.matrices)], seeds

    def template_filter(self, tables: Tables, cell: int, whitening: Whitening | None) -> np.ndarray | None:
        """Return the template filter of one cell, as a table of that cell alone."""
        if tables.template_filters is None:
            return None
        weights = tables.template_filters[cell : cell + 1]
        if whitening is None:
            return weights
        kz, ky, kx = half_frequencies((self.box,) * 3, self.tomogram_filter.voxel_size)
        factor = whitening(np.sqrt(kz**2 + ky**2 + kx**2))
        return (weights * factor).astype(np.float32)

    def fold_block(
        self,
        block: np.ndarray,
        tables: Tables,
        tile: Tile,
        rows: np.ndarray,
        seeds: TileSeeds | None = None,
    ) -> States:
        """Score some rows on a block of filtered tomogram, with the first of the filters."""
        device_block = self._on_device(block)
        z, y, x = tile.shape
        spectra = kernel.tile_spectra(device_block, box=self.box, valid=(z, y, x), squares=True)
        xp = array_module(device_block)
        states = [
            kernel.empty_state((z, y, x), moments=self.moments and copy == 0, xp=xp)
            for copy in range(1 + self.beside)
        ]
        fold = {"spherical": self._fold_spherical, "axial": self._fold_axial, "general": self._fold_general}
        fold[self.mask_kind](spectra, self.rotated(tables, xp, seeds), rows, states)
        return self._as_states(states, len(rows))

    def rotated(self, tables: Tables, xp: Any = np, seeds: TileSeeds | None = None) -> RotatedTemplates:
        """Return what rotates templates and masks of given tables, with the first of their filters."""
        return RotatedTemplates(tables, self.interpolation, self.normalization, xp, self.near, seeds)

    def _fold_spherical(
        self,
        spectra: kernel.TileSpectra,
        rotated: RotatedTemplates,
        rows: np.ndarray,
        states: list[kernel.State],
    ) -> None:
        mask = rotated.fixed_mask()
        norm = kernel.local_statistics(spectra, mask, float(mask.sum(dtype=np.float64)))
        spectra.drop_squares()
        for some in _groups(rows):
            for copy, state in enumerate(states):
                templates, _ = rotated.templates(copy, some, [mask] * len(some))
                kernel.correlate_spherical(spectra, templates, some, state, rotated.restriction(some))
        for state in states:
            kernel.finish_spherical(state, norm)

    def _fold_axial(
        self,
        spectra: kernel.TileSpectra,
        rotated: RotatedTemplates,
        rows: np.ndarray,
        states: list[kernel.State],
    ) -> None:
        directions = rotated.tables.directions[rows]
        for direction in np.unique(directions):
            alike = rows[directions == direction]
            mask = rotated.direction_mask(int(alike[0]))
            norm = kernel.local_statistics(spectra, mask, float(mask.sum(dtype=np.float64)))
            for some in _groups(alike):
                for copy, state in enumerate(states):
                    templates, _ = rotated.templates(copy, some, [mask] * len(some))
                    restriction = rotated.restriction(some)
                    kernel.correlate_with_norm(spectra, templates, some, norm, state, restriction)

    def _fold_general(
        self,
        spectra: kernel.TileSpectra,
        rotated: RotatedTemplates,
        rows: np.ndarray,
        states: list[kernel.State],
    ) -> None:
        for some in _groups(rows):
            for copy, state in enumerate(states):
                is_mirrored = self.decoy and copy == self.beside
                if copy == 0 or is_mirrored:
                    masks = [rotated.mask(row, mirrored=is_mirrored) for row in some]
                templates, counts = rotated.templates(copy, some, masks)
                kernel.correlate_general(
                    spectra,
                    templates,
                    rotated.xp.stack(masks),
                    counts,
                    some,
                    state,
                    statistics_grid=self.statistics_fraction,
                    restriction=rotated.restriction(some),
                )

    def _on_device(self, block: np.ndarray) -> Any:
        if self.device == "cpu" or (self.device == "auto" and not cuda_is_available()):
            return block
        import cupy

        return cupy.asarray(block)

    def _as_states(self, states: list[Any], count: int) -> States:
        host = [{key: to_numpy(value) for key, value in state.items()} for state in states]
        for state in host:
            # a voxel without a row in this batch may have one in another
            state["value"][state["id"] == NO_ID] = -np.inf
        found: States = {"score": {key: host[0][key] for key in ("value", "id")}}
        if self.moments:
            sums = {key: host[0][key] for key in ("sum", "square_sum")}
            found["moments"] = sums | {"count": np.asarray(count, np.int64)}
        if self.decoy:
            found["decoy"] = {key: host[-1][key] for key in ("value", "id")}
        for copy, state in enumerate(host[1 : 1 + self.noise_copies]):
            found[f"noise_{copy}"] = {key: state[key] for key in ("value", "id")}
        return found

    def finish(self, tile: Tile, states: States) -> tuple[dict[str, np.ndarray], Summary]:
        """Turn the states of all rotations into maps; where nothing is searched they hold the fill values."""
        searched = states["score"]["id"] != NO_ID
        selected = constants.read_search_mask(Path(self.folder), tile)
        if selected is not None:
            searched &= selected
        raw = np.where(searched, states["score"]["value"], np.float32(0))
        maps = {"score_raw": raw, "score": raw}
        maps["orientation"] = np.where(searched, states["score"]["id"], NO_ID)
        voxels = np.prod(tile.shape) if selected is None else np.count_nonzero(selected)
        summary = {"voxels": float(voxels)}
        if self.near is not None:
            counts = self.count_rows(tile)
            summary["scores"] = float(counts.sum())
            if self.moments:
                states = states | {"moments": states["moments"] | {"count": counts}}
        if self.noise_copies:
            maps["noise"] = self._noise(states, searched)
            maps["score"] = corrected(raw, maps["noise"], self.noise_correction) * searched
            summary["noise_sum"] = float(maps["noise"].sum(dtype=np.float64))
        if self.decoy:
            maps["decoy"] = np.where(searched, states["decoy"]["value"], np.float32(0))
        if self.moments:
            summary["square_sum"] = float(states["moments"]["square_sum"][searched].sum())
            maps |= self._moment_maps(states, searched, raw)
        found = {name: np.asarray(values)[None] for name, values in maps.items()}
        return found | {"valid": self._valid(tile)}, summary

    def count_rows(self, tile: Tile) -> np.ndarray:
        """Return how many rotations each voxel of a tile is scored with."""
        rows = constants.read_tables(self.tables_folder).seed_rows
        counts = np.zeros(tile.shape, np.int64)
        for _, piece in cut_tile(tile, self.cells, self.box - 1):
            place = tuple(
                slice(a - first, b - first)
                for a, b, first in zip(piece.start, piece.stop, tile.start, strict=True)
            )
            counts[place] = tile_seeds(self.folder, piece).count_rows(np.asarray(rows))
        return counts

    def _noise(self, states: States, searched: np.ndarray) -> np.ndarray:
        copies = [states[f"noise_{copy}"]["value"] for copy in range(self.noise_copies)]
        total = np.zeros(searched.shape, np.float64)
        for values in copies:
            total += np.where(searched, values, 0)
        return (total / self.noise_copies).astype(np.float32)

    def _moment_maps(self, states: States, searched: np.ndarray, raw: np.ndarray) -> dict[str, np.ndarray]:
        moments = Moments().finalize(states["moments"])
        mean, std = np.where(searched, moments["mean"], 0), np.where(searched, moments["std"], 0)
        maps = {"score_mean": mean.astype(np.float32), "score_std": std.astype(np.float32)}
        if self.has_zscore:
            safe = np.where(std >= 1e-6, std, 1.0)
            maps["zscore"] = np.where(std >= 1e-6, (raw - mean) / safe, 0).astype(np.float32)
        return maps

    def _valid(self, tile: Tile) -> np.ndarray:
        """Mark positions from which no rotation carries the mask's support out of the tomogram."""
        inside = np.ones(tile.shape, bool)
        if not self.wrap:
            for axis, (start, stop, size) in enumerate(zip(tile.start, tile.stop, self.shape, strict=True)):
                at = np.arange(start, stop)
                fits = (at >= self.support) & (at <= size - 1 - self.support)
                inside &= fits.reshape([-1 if a == axis else 1 for a in range(3)])
        return inside.astype(np.uint8)


def corrected(raw: np.ndarray, noise: np.ndarray, correction: str) -> np.ndarray:
    """Return the noise-corrected score; `subtract` leaves out the mean noise, known only at the end."""
    if correction == "ratio":
        room = np.maximum(1 - noise, np.float32(1e-6))
        return np.maximum((raw - noise) / room, np.float32(0))
    return raw - noise


def _groups(rows: np.ndarray) -> Iterator[np.ndarray]:
    for first in range(0, len(rows), GROUP):
        yield rows[first : first + GROUP].astype(np.uint32)
