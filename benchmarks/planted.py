"""Particles planted in white noise at chosen fine scores: what a coarse-to-fine search must not miss.

`make_planted` puts copies of a template, at random rotations and places between voxels, into noise so strong
that each has a chosen expected score under a band and a filled wedge. Tests and `coarse_to_fine.py` use it.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import scipy.fft
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from cryodask.arrays.lengths import fast_even_length
from cryodask.geometry.neighbours import RowFinder
from cryodask.io.volume import read_volume
from cryodask.jobs.tomogram_matching import constants
from cryodask.jobs.tomogram_matching.particle import in_cube
from cryodask.jobs.tomogram_matching.problem import TomogramProblem
from cryodask.kernels.rotation import rotate, rotation_coefficients
from cryodask.kernels.template import filter_template, normalise
from cryodask.optics.bandpass import BandPass
from cryodask.optics.frequency import half_frequencies
from cryodask.optics.masks import sphere_mask
from cryodask.optics.template_filter import template_filter
from cryodask.optics.tilts import TiltSeries
from cryodask.optics.tomogram_filter import tomogram_filter
from cryodask.search.tiles import Batch, Tile

NEAR, REACH = 11.0, 3  # degrees and voxels from the truth
HALF_RADIUS = 7.5  # voxels: a pick so near is this particle, other rotations score best some voxels beside


@dataclass(frozen=True, eq=False)
class Search:
    """A template with its mask, band and wedge.

    Parameters
    ----------
    template
        (n, n, n).
    voxel_size, lowpass, radius, edge
        Angstrom: the last two of the spherical mask.
    wedge
        Least and greatest tilt, degrees.
    """

    template: np.ndarray
    voxel_size: float
    lowpass: float
    radius: float
    edge: float
    wedge: tuple[float, float] = (-60.0, 60.0)

    @property
    def box(self) -> int:
        return self.template.shape[0]

    @property
    def band(self) -> BandPass:
        return BandPass(lp_rad=self.box * self.voxel_size / self.lowpass)

    @property
    def tilts(self) -> TiltSeries:
        return TiltSeries(angles=np.array(self.wedge), is_range=True)

    @property
    def mask(self) -> np.ndarray:
        return sphere_mask(self.box, self.radius / self.voxel_size, self.edge / self.voxel_size)

    @property
    def template_filter(self) -> np.ndarray:
        return template_filter(self.box, self.voxel_size, self.tilts, self.band)

    def tomogram_filter(self, shape: tuple[int, int, int]) -> np.ndarray:
        frequencies = half_frequencies(shape, self.voxel_size)
        return tomogram_filter(*frequencies, self.box, self.voxel_size, self.tilts, self.band)

    def sigma(self) -> float:
        """Standard deviation of a score of white noise."""
        u, count = normalise(self._filtered(np.eye(3)), self.mask)
        power = np.square(self.tomogram_filter((self.box,) * 3), dtype=np.float64)
        pairs = np.full(self.box // 2 + 1, 2.0)
        pairs[[0, -1]] = 1.0
        weights = np.abs(scipy.fft.rfftn(u / float(count))) ** 2
        return float(np.sqrt((weights * power * pairs).sum() / (power * pairs).sum()))

    def signal(self, matrix: np.ndarray, score: float) -> np.ndarray:
        """A rotated copy that scores so much in filtered noise of unit variance."""
        weights = self.mask / self.mask.sum()
        seen = self._filtered(matrix)
        variance = (weights * seen**2).sum() - (weights * seen).sum() ** 2
        amplitude = score / np.sqrt((1 - score**2) * variance)
        return amplitude * rotate(self._coefficients(), matrix, "cubic")

    def _filtered(self, matrix: np.ndarray) -> np.ndarray:
        return filter_template(rotate(self._coefficients(), matrix, "cubic"), self.template_filter)

    def _coefficients(self) -> np.ndarray:
        return rotation_coefficients(self.template, "cubic")


@dataclass(frozen=True, eq=False)
class Planted:
    """A tomogram and the truth: places (N, 3) in voxels (z, y, x), rotations, and expected scores."""

    tomogram: np.ndarray
    places: np.ndarray
    rotations: Rotation
    scores: np.ndarray


def ribosome(folder: Path, box: int = 40) -> np.ndarray:
    """The ribosome 5mrc at 10 angstrom a voxel, centred, in a box."""
    volume = read_volume(str(folder / "5mrc.mrc")).astype(np.float32)
    weights = volume / volume.sum()
    middle = [float((weights * axis).sum()) for axis in np.indices(volume.shape)]
    volume = np.roll(
        volume, [n // 2 - round(m) for n, m in zip(volume.shape, middle, strict=True)], (0, 1, 2)
    )
    cut = tuple(slice(n // 2 - box // 2, n // 2 - box // 2 + box) for n in volume.shape)
    return np.ascontiguousarray(volume[cut]) if min(volume.shape) >= box else in_cube(volume, box)


def make_planted(
    search: Search, cells: tuple[int, int, int], scores: np.ndarray, *, seed: int = 0
) -> Planted:
    """Plant particles in the first cells, of one box and its half-voxel jitter each, of a grid of cells."""
    box = search.box
    generator = np.random.default_rng(seed)
    nz, ny, nx = (count * box + 10 for count in cells)
    middles = np.stack(np.unravel_index(np.arange(len(scores)), cells), axis=1) * box + box // 2 + 5
    whole = middles + generator.integers(-3, 4, middles.shape)
    beside = generator.uniform(-0.5, 0.5, middles.shape)
    rotations = Rotation.random(len(scores), random_state=int(generator.integers(2**31)))
    tomogram = generator.standard_normal((nz, ny, nx), dtype=np.float32)
    # what is left of unit noise by the filter
    kept = search.tomogram_filter((box,) * 3)
    pairs = np.full(box // 2 + 1, 2.0)
    pairs[[0, -1]] = 1.0
    scale = float(np.sqrt((np.square(kept, dtype=np.float64) * pairs).sum() / box**3))
    frequencies = half_frequencies((box,) * 3, 1.0)
    for place, shift, rotation, score in zip(whole, beside, rotations, scores, strict=True):
        phase = sum(k * d for k, d in zip(frequencies, shift, strict=True))
        spectrum = scipy.fft.rfftn(search.signal(rotation.as_matrix(), score))
        shifted = scipy.fft.irfftn(spectrum * np.exp(-2j * np.pi * phase), (box,) * 3)
        at = tuple(slice(p - box // 2, p - box // 2 + box) for p in place)
        tomogram[at] += scale * shifted.astype(np.float32)
    return Planted(tomogram, whole + beside, rotations, scores)


def write_job(search: Search, planted: Planted, folder: Path, step: float, **settings: object) -> dict:
    """Write tomogram and template, and return the parameters of a native job on them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, volume in (("tomogram", planted.tomogram), ("template", search.template)):
        with mrcfile.new(folder / f"{name}.mrc", overwrite=True) as mrc:
            mrc.set_data(volume)
            mrc.voxel_size = search.voxel_size
    return {
        "tomogram": str(folder / "tomogram.mrc"),
        "template": str(folder / "template.mrc"),
        "mask": {"sphere": search.radius, "edge": search.edge},
        "tilts": list(search.wedge),
        "lowpass": search.lowpass,
        "angles": {"step": step},
        "output": str(folder),
        **settings,
    }


def best_near(problem: TomogramProblem, planted: Planted) -> np.ndarray:
    """Return (z, y, x, row, score) of the best row near the truth: an exhaustive search finds no less."""
    tables = constants.read_tables(problem.tables_folder)
    near = RowFinder(Rotation.from_matrix(tables.matrices)).within(planted.rotations, NEAR)
    found = []
    for number, place in enumerate(np.round(planted.places).astype(int)):
        start, rows = place - REACH, near[number]
        tile = Tile(
            0, tuple(start), tuple(place + REACH + 1), (fast_even_length(problem.box + 2 * REACH),) * 3
        )
        few = replace(tables, matrices=tables.matrices[rows], directions=np.arange(len(rows)))
        state = problem.fold_tables(few, tile, Batch(0, len(rows)))["score"]
        best = np.unravel_index(int(np.argmax(state["value"])), tile.shape)
        found.append([*(best + start), rows[state["id"][best]], state["value"][best]])
    return np.array(found)


def found_picks(
    picks: pd.DataFrame, exact: np.ndarray, distance: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (found, score, row) a particle: of the best pick so near, in voxels, to where `best_near` is."""
    places, scores = picks[["z", "y", "x"]].to_numpy(float), picks["score_raw"].to_numpy(float)
    rows = picks["angle_row"].to_numpy()
    near = cKDTree(places).query_ball_point(exact[:, :3], distance)
    best = [max(some, key=lambda i: scores[i], default=-1) for some in near]
    return np.array([i >= 0 for i in best]), scores[best], rows[best]
