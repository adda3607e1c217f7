"""The search around known particles: positions are particles, hypotheses rotations x defoci x pixel sizes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cryodask.arrays.module import to_numpy
from cryodask.geometry.local_grid import LocalGrid
from cryodask.geometry.zyz import zyz_angles, zyz_matrices
from cryodask.io.map_files import map_shape
from cryodask.jobs.micrograph_matching import pose_constants as constants
from cryodask.jobs.micrograph_matching.binning import Binning
from cryodask.jobs.micrograph_matching.filter_block import PreprocessingFilters
from cryodask.jobs.micrograph_matching.image_filtering import FilteredImage, filter_image
from cryodask.jobs.micrograph_matching.map_statistics import map_binning, map_region
from cryodask.jobs.micrograph_matching.optics_block import Compat
from cryodask.jobs.micrograph_matching.start_poses import StartPoses
from cryodask.kernels.pose_search import (
    NO_ID,
    BestPose,
    PoseHypotheses,
    Surroundings,
    batch_highest,
    scored_blocks,
    subpixel_peak,
)
from cryodask.kernels.slices import extract_slices, project, slice_axes, unit_energy
from cryodask.kernels.window_correlation import UNIT_ENERGY, Normalization
from cryodask.optics.ctf_image import ctf_image
from cryodask.search.aggregates import Aggregate, CarryingMaximum, States
from cryodask.search.problem import Summary, Variable
from cryodask.search.tiles import Batch, Tile

Side = Literal["image", "body"]
Strategy = Literal["exhaustive", "coarse_to_fine"]
MARGIN = 8  # pixels around a window in which a position between pixels is looked for
DEFAULT_GRID = LocalGrid()
FIELDS = ("z", "cc", "phi", "theta", "psi", "defocus", "pixel_size", "y", "x", "sub_y", "sub_x")


@dataclass(frozen=True)
class PoseSettings:
    """What decides the scores besides the constants.

    Parameters
    ----------
    box, edge
        Of the box around a particle and of the template, pixels.
    defocus, pixel_sizes
        Offsets from the particle's own, angstrom.
    side
        A turn acts in the image (E' = E delta) or in the body (E' = delta E).
    filters, filter_from
        Filters, and what is whitened: the whole ``micrograph`` or the ``box``.
    strategy, grid
        ``coarse_to_fine`` makes its turns of the grid; ``exhaustive`` reads them from the constants.
    compat, batch
        Leopard-EM's arithmetic, for which rotations in one batch share a maximum.
    zernike_radius
        As in `ImageCtf`.
    padding
        Of the template's spectrum.
    device
        ``cpu`` or ``cuda``.
    """

    box: int
    edge: int
    defocus: tuple[float, ...]
    pixel_sizes: tuple[float, ...]
    side: Side
    filters: PreprocessingFilters
    filter_from: Literal["micrograph", "box"] = "micrograph"
    strategy: Strategy = "exhaustive"
    grid: LocalGrid = DEFAULT_GRID
    compat: Compat | None = None
    batch: int = 64
    zernike_radius: Literal["corner", "inverse_angstrom"] = "corner"
    padding: int = 1
    device: str = "cpu"

    @property
    def reach(self) -> int:
        """Largest shift, pixels."""
        return (self.box - self.edge) // 2

    @property
    def normalization(self) -> Normalization:
        """Of the projections."""
        return Normalization.leopard_em(self.edge, self.box) if self.compat else UNIT_ENERGY


@dataclass(frozen=True, eq=False)
class Particle:
    """One particle with the data around it.

    Parameters
    ----------
    row
        Its place in the table.
    matrix
        E of its start, (3, 3).
    around
        The image about it.
    origin
        Position (y, x) in the micrograph of the first pixel of `around.image`.
    filtered, image_origin
        What the image comes from, with the filter of projections, and where its own first pixel lies.
    """

    row: int
    matrix: np.ndarray
    around: Surroundings
    origin: np.ndarray
    filtered: FilteredImage
    image_origin: np.ndarray


@dataclass(frozen=True)
class PoseProblem:
    """The search of a table of particles; its folder holds the constants.

    Parameters
    ----------
    folder
        Of the constants.
    settings
        What decides the scores.
    rotations
        How many turns are tried of each particle.
    """

    folder: str
    settings: PoseSettings
    rotations: int

    @property
    def aggregates(self) -> Mapping[str, Aggregate]:
        """The best pose of each particle."""
        return {"pose": CarryingMaximum(("cc", "shift"))}

    @property
    def hypotheses(self) -> int:
        """Turns; each is tried at all defoci, pixel sizes and shifts."""
        return self.rotations

    @property
    def variables(self) -> tuple[Variable, ...]:
        """What is found of each particle; positions are those of the template's first pixel."""
        found = (Variable(name, "float64", math.nan) for name in FIELDS)
        return (*found, Variable("hypothesis", "uint32", NO_ID))

    def prepare(self) -> None:
        """Nothing: the client writes the constants, and tasks filter their micrographs."""

    def fold(self, tile: Tile, batch: Batch) -> States:
        """Search the particles of a tile over some turns."""
        found = [self._search(self.particle(row), batch) for row in range(tile.start[0], tile.stop[0])]
        values = {
            "value": np.array([best.z for best in found], np.float32),
            "id": np.array([best.pose for best in found], np.uint32),
            "cc": np.array([best.cc for best in found], np.float32),
            "shift": np.array([best.shift for best in found], np.float32),
        }
        return {"pose": values}

    def finish(self, tile: Tile, states: States) -> tuple[dict[str, np.ndarray], Summary]:
        """Turn the best ids into poses, and find the position between pixels."""
        state = states["pose"]
        rows = range(tile.start[0], tile.stop[0])
        found = np.full((len(FIELDS), len(rows)), np.nan)
        for i, row in enumerate(rows):
            best = BestPose(*(state[name][i].item() for name in ("value", "cc", "id", "shift")))
            if best.pose != NO_ID:
                found[:, i] = self._finished(self.particle(row), best)
        arrays = dict(zip(FIELDS, found, strict=True))
        return arrays | {"hypothesis": state["id"].copy()}, {"lost": float(np.isnan(found[0]).sum())}

    def particle(self, row: int) -> Particle:
        """Read what a particle needs."""
        poses, settings = self.poses, self.settings
        number = int(poses.micrograph[row])
        path = poses.micrographs[number]
        position = poses.positions[row]
        corner = position - settings.reach
        if settings.filter_from == "micrograph":
            filtered = constants.filtered_micrograph(self.folder, number, path, settings.filters)
            start, stop = _clipped(corner, settings.box, filtered.image.shape)
            region = np.asarray(filtered.image[start[0] : stop[0], start[1] : stop[1]])
            image_origin = np.zeros(2, int)
        else:
            start, stop = _clipped(corner, settings.box, map_shape(path, "micrograph_path"))
            image = constants.checked_image(path, *map(slice, start.tolist(), stop.tolist()))
            filtered = filter_image(image, settings.filters)
            region, image_origin = filtered.image, start
        if settings.compat:  # Leopard-EM drops the mean of the box, as its transform's first coefficient
            region = region - region.mean(dtype=np.float64).astype(np.float32)
        around = self._surroundings(row, region, start, position)
        matrix = zyz_matrices(poses.angles[row][None])[0]
        return Particle(row, matrix, around, start, filtered, image_origin)

    @property
    def poses(self) -> StartPoses:
        """The start poses."""
        return constants.read_poses(self.folder)

    def _surroundings(
        self, row: int, region: np.ndarray, start: np.ndarray, position: np.ndarray
    ) -> Surroundings:
        """Return the shifts whose template lies inside the image, with the statistics of the search there."""
        poses, settings = self.poses, self.settings
        count = np.array(region.shape) - settings.edge + 1
        if (count < 1).any():
            return Surroundings(region, np.empty((0, 2), int), np.empty(0), np.empty(0))
        rows, columns = (slice(int(a), int(a + c)) for a, c in zip(start, count, strict=True))
        mean, spread = (
            map_region(path, rows, columns, *self._map_grid(row, path))
            for path in (poses.mean_maps[poses.mean_map[row]], poses.std_maps[poses.std_map[row]])
        )
        spread = np.sqrt(spread) if (poses.meaning == "variance") != bool(settings.compat) else spread
        shifts = np.argwhere(np.isfinite(mean) & (spread > 0))
        inside = np.abs(shifts + start - position).max(axis=1, initial=0) <= settings.reach
        shifts = shifts[inside]
        return Surroundings(region, shifts, mean[tuple(shifts.T)], spread[tuple(shifts.T)])

    def _map_grid(self, row: int, path: str) -> tuple[tuple[int, int], Binning | None]:
        """Return the shape of a map of the search, and how its positions lie on the micrograph's pixels."""
        poses = self.poses
        image = map_shape(poses.micrographs[poses.micrograph[row]], "micrograph_path")
        shape, pixel_size = map_shape(path, "map"), poses.optics(row).pixel_size
        return shape, map_binning(path, shape, image, self.settings.edge, pixel_size)

    def _search(self, particle: Particle, batch: Batch) -> BestPose:
        if not len(particle.around.shifts):
            return BestPose()
        if self.settings.strategy == "coarse_to_fine":
            return self._coarse_to_fine(particle)
        turns = constants.read_array(Path(self.folder) / constants.MATRICES)
        return self._best(particle, turns[batch.start : batch.stop], batch.start, len(turns))

    def _coarse_to_fine(self, particle: Particle) -> BestPose:
        """Try the coarse turns, then the fine ones about their best; ids as `_turn` reads them."""
        coarse, fine = self.settings.grid.coarse().matrices(), self.settings.grid.around()
        total = len(coarse) * (1 + len(fine))
        first = self._best(particle, coarse, 0, total)
        chosen = first.pose % total
        second = self._best(particle, coarse[chosen] @ fine, len(coarse) + chosen * len(fine), total)
        return second if second.beats(first) else first

    def _best(self, particle: Particle, turns: np.ndarray, first: int, total: int) -> BestPose:
        """Return the best pose of some turns (N, 3, 3), the first of which has a number among all."""
        settings, row = self.settings, particle.row
        matrices = _turned(particle.matrix, turns, settings.side)
        tried = PoseHypotheses(
            spectrum=self._spectrum(),
            axes=tuple(self._axes(row, matrices, p) for p in range(len(settings.pixel_sizes))),
            filters=np.stack([self._filters(particle, p) for p in range(len(settings.pixel_sizes))]),
            first=first,
            total=total,
        )
        best, highest = BestPose(), np.full(len(turns), -np.inf)
        for found, rotation, scores in scored_blocks(particle.around, tried, settings.normalization):
            best = found if found.beats(best) else best
            at = slice(rotation - first, rotation - first + scores.shape[1])
            highest[at] = np.maximum(highest[at], scores.max(axis=(0, 2)))
        if settings.compat and best.pose != NO_ID:
            best = replace(best, cc=batch_highest(highest, best.pose % total - first, settings.batch))
        return best

    def _spectrum(self) -> Any:
        """Return the template's spectrum on the device."""
        spectrum = constants.read_array(Path(self.folder) / constants.SPECTRUM)
        if self.settings.device == "cpu":
            return spectrum
        import cupy

        return cupy.asarray(spectrum)

    def _pixel_size(self, row: int, p: int) -> float:
        return float(self.poses.pixel_sizes[row]) + self.settings.pixel_sizes[p]

    def _axes(self, row: int, matrices: np.ndarray, p: int) -> np.ndarray:
        """Return the axes of slices at one pixel size; Leopard-EM does not scale its template."""
        poses = self.poses
        scale = 1.0 if self.settings.compat else float(poses.voxel_sizes[row]) / self._pixel_size(row, p)
        return slice_axes(matrices, scale=scale, magnification=poses.optics(row).magnification)

    def _filters(self, particle: Particle, p: int) -> np.ndarray:
        """Return CTF times filters at one pixel size and all defoci, (n_d, n, n//2 + 1)."""
        settings, poses, row = self.settings, self.poses, particle.row
        optics = poses.optics(row, zernike_radius=settings.zernike_radius, compat=settings.compat)
        offset = self._pixel_size(row, p) - optics.pixel_size
        if settings.compat:
            ratio = 1.0 + offset / optics.pixel_size
            optics = replace(optics, spherical_aberration=optics.spherical_aberration / ratio**4)
            offset = 0.0
        shape = settings.edge, settings.edge
        defoci = poses.defocus[row] + np.asarray(settings.defocus)
        ctf = [ctf_image(shape, optics, defocus_offset=float(d), pixel_offset=offset) for d in defoci]
        product = np.stack(ctf) * particle.filtered.template_filter(settings.edge)
        return product.astype(np.complex64 if optics.is_complex else np.float32)

    def _turn(self, number: int) -> np.ndarray:
        """Return the turn of a number, (3, 3)."""
        if self.settings.strategy == "exhaustive":
            turns = constants.read_array(Path(self.folder) / constants.MATRICES)
            return np.asarray(turns[number])
        coarse, fine = self.settings.grid.coarse().matrices(), self.settings.grid.around()
        if number < len(coarse):
            return np.asarray(coarse[number])
        about, step = divmod(number - len(coarse), len(fine))
        return np.asarray(coarse[about] @ fine[step])

    @property
    def _turns(self) -> int:
        """How many turns ids count."""
        if self.settings.strategy == "exhaustive":
            return self.rotations
        grid = self.settings.grid
        return len(grid.coarse().matrices()) * (1 + len(grid.around()))

    def _finished(self, particle: Particle, best: BestPose) -> np.ndarray:
        """Return the values of `FIELDS` for a particle."""
        settings, row = self.settings, particle.row
        rest, turn = divmod(best.pose, self._turns)
        p, d = divmod(rest, len(settings.defocus))
        matrix = _turned(particle.matrix, self._turn(turn)[None], settings.side)
        place = particle.origin + particle.around.shifts[int(best.shift)]
        slices = extract_slices(self._spectrum(), self._axes(row, matrix, p), settings.edge)
        projection = unit_energy(project(to_numpy(slices), self._filters(particle, p)[d]))[0]
        window = _window(particle, place, settings.edge)
        defocus = float(self.poses.defocus[row]) + settings.defocus[d]
        found = [defocus, self._pixel_size(row, p), *place, *subpixel_peak(window, projection)]
        return np.array([best.z, best.cc, *zyz_angles(matrix)[0], *found])


def _turned(matrix: np.ndarray, turns: np.ndarray, side: Side) -> np.ndarray:
    """Return E delta or delta E for every turn."""
    return matrix @ turns if side == "image" else turns @ matrix


def _clipped(corner: np.ndarray, box: int, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return start and stop (y, x) of a box as far as it lies inside an image."""
    limits = np.array(shape)
    return np.clip(corner, 0, limits), np.clip(corner + box, 0, limits)


def _window(particle: Particle, place: np.ndarray, edge: int) -> np.ndarray:
    """Return the filtered image about a position, 0 outside, (n + 2 MARGIN)^2."""
    image = particle.filtered.image
    corner = place - particle.image_origin - MARGIN
    size = edge + 2 * MARGIN
    start, stop = _clipped(corner, size, image.shape)
    window = np.zeros((size, size), np.float32)
    to = start - corner
    inside = image[start[0] : stop[0], start[1] : stop[1]]
    window[to[0] : to[0] + inside.shape[0], to[1] : to[1] + inside.shape[1]] = inside
    return window
