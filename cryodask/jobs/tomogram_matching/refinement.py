"""Orientations of picked particles between those of the rotation list."""

import itertools
import json
import tempfile
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path

import dask
import numpy as np
import pandas as pd
import xarray as xr
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from cryodask.arrays.lengths import fast_even_length
from cryodask.errors import InputError
from cryodask.geometry.euler import euler_from_rotation, rotation_from_euler
from cryodask.jobs.tomogram_matching import constants
from cryodask.jobs.tomogram_matching.area import search_area
from cryodask.jobs.tomogram_matching.inputs import MatchInputs
from cryodask.jobs.tomogram_matching.planning import Resources, make_problem, write_constants
from cryodask.jobs.tomogram_matching.problem import TomogramProblem, corrected
from cryodask.jobs.tomogram_matching.reopening import reopened_inputs
from cryodask.picking.subvoxel import parabola_offset
from cryodask.search.tiles import Batch, Tile

ROUNDS = (1 / 2, 1 / 4, 1 / 8)  # of the angular step
REACH = 2  # voxels that a particle may move in one round, on each axis
SAMPLED_ROWS = 2000
# The rotation as it is comes first, so that equal scores move nothing.
STEPS = np.array(sorted(itertools.product((-1, 0, 1), repeat=3), key=lambda step: step != (0, 0, 0)), float)


@dataclass(frozen=True)
class Pose:
    """Place (z, y, x) in whole voxels, rotation (3, 3) in (x, y, z), offset (z, y, x) and score."""

    place: tuple[int, int, int]
    matrix: np.ndarray
    score: float = -np.inf
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class LocalSearch:
    """Refines one pose against the filtered tomogram; its folder is all that a worker needs.

    Attributes
    ----------
    problem
        The match on the full grid, its constants written.
    step
        Angular step of the rotation list, degrees.
    position
        Find the place between the voxels too.
    """

    problem: TomogramProblem
    step: float
    position: bool

    def __call__(self, start: Pose) -> Pose:
        """Return the pose of the best score after rounds of smaller and smaller turns."""
        pose = replace(start, score=self._best(start, start.matrix[None], 0).score)
        for share in ROUNDS:
            turns = Rotation.from_rotvec(STEPS * self.step * share, degrees=True).as_matrix()
            found = self._best(pose, turns @ pose.matrix, REACH)
            pose = found if found.score > pose.score else pose
        return replace(pose, offset=self._offset(pose)) if self.position else pose

    def _best(self, pose: Pose, matrices: np.ndarray, reach: int) -> Pose:
        """Return the best of some rotations (row, 3, 3) and shifts."""
        tile, state = self._scored(pose, matrices, reach)
        z, y, x = np.unravel_index(int(np.argmax(state["value"])), tile.shape)
        row = int(state["id"][z, y, x])
        if row >= len(matrices):
            return pose
        place = (tile.start[0] + int(z), tile.start[1] + int(y), tile.start[2] + int(x))
        return Pose(place, matrices[row], float(state["value"][z, y, x]))

    def _scored(self, pose: Pose, matrices: np.ndarray, reach: int) -> tuple[Tile, dict[str, np.ndarray]]:
        """Return the positions around a pose, and the best score and its row at each."""
        problem = self.problem
        start = tuple(max(at - reach, 0) for at in pose.place)
        stop = tuple(min(at + reach + 1, size) for at, size in zip(pose.place, problem.shape, strict=True))
        length = fast_even_length(problem.box + 2 * reach)
        tile = Tile(0, start, stop, (length,) * 3)
        tables = constants.read_tables(problem.tables_folder)
        tables = replace(tables, matrices=matrices, directions=np.arange(len(matrices)))
        return tile, problem.fold_tables(tables, tile, Batch(0, len(matrices)))["score"]

    def _offset(self, pose: Pose) -> tuple[float, float, float]:
        """Return where between the voxels the score of the refined rotation is largest, (z, y, x)."""
        tile, state = self._scored(pose, pose.matrix[None], 1)
        scores = np.full((3, 3, 3), -np.inf)
        place = tuple(
            slice(first - at + 1, last - at + 1)
            for first, last, at in zip(tile.start, tile.stop, pose.place, strict=True)
        )
        scores[place] = np.where(state["id"] == 0, state["value"], -np.inf)
        lines = scores[:, 1, 1], scores[1, :, 1], scores[1, 1, :]
        z, y, x = (float(parabola_offset(*line[:, None])[0]) for line in lines)
        return z, y, x


def refine(
    dataset: xr.Dataset,
    peaks: pd.DataFrame,
    *,
    position: bool,
    device: str = "cpu",
    memory: float = 2.0 * 2**30,
    executor: Executor | None = None,
) -> pd.DataFrame:
    """Refine the orientations of peaks to an eighth of the search step; see `SearchJob.refine`.

    The tomogram is filtered once more into a temporary folder (Dask's `temporary-directory`). Rounds of step
    Δ/2, Δ/4, Δ/8 try the 26 rotation vectors {-1, 0, 1}³ times the step, left-multiplied, at the shifts of up
    to two voxels; a pose moves where the score rises, so it never falls below that of the search.

    Parameters
    ----------
    dataset, peaks, position, executor
        As in `SearchJob.refine`.
    device
        ``cpu`` or ``cuda``.
    memory
        Bytes that the filtering may use.

    Raises
    ------
    InputError
        Where an input of the search cannot be read as it was.
    """
    inputs = reopened_inputs(dataset, f"--refine {'both' if position else 'orientation'}")
    starts = _starts(dataset, peaks)
    scratch = dask.config.get("temporary-directory", None)
    with tempfile.TemporaryDirectory(prefix="cryodask-", dir=scratch) as name:
        problem = make_problem(inputs, Path(name), Resources(memory=memory, device=device))
        if starts:
            write_constants(inputs, problem, search_area(inputs))
            problem.prepare()
        searches = [
            LocalSearch(replace(part, near=None), angular_step(each), position)
            for each, part in zip(inputs.every, problem.parts, strict=True)
        ]
        chosen = [searches[template] for template in peaks["template"]]
        found = map(_poses, chosen, starts) if executor is None else executor.map(_poses, chosen, starts)
        poses = list(found)
    return _refined(peaks, poses, json.loads(dataset.attrs["parameters"])["noise_correction"])


def _poses(search: LocalSearch, start: Pose) -> Pose:
    return search(start)


def angular_step(inputs: MatchInputs) -> float:
    """Return the step of a rotation list in degrees: as given, else the median angle between neighbours.

    Raises
    ------
    InputError
        A list of one rotation, which has no step.
    """
    if inputs.parameters.angles.step is not None:
        return float(inputs.parameters.angles.step)
    if len(inputs.angles) < 2:
        raise InputError("--refine: a list of one rotation has no step to refine")
    quaternions = rotation_from_euler(inputs.angles).as_quat()
    chosen = np.unique(np.linspace(0, len(quaternions) - 1, SAMPLED_ROWS).round().astype(int))
    # A rotation is both of two opposite quaternions; its nearest row is itself.
    found = cKDTree(np.concatenate([quaternions, -quaternions])).query(quaternions[chosen], k=2)
    return float(np.degrees(4 * np.arcsin(np.median(np.asarray(found[0])[:, 1]) / 2)))


def _starts(dataset: xr.Dataset, peaks: pd.DataFrame) -> list[Pose]:
    """Return the poses of the search."""
    if len(peaks) == 0:
        return []
    euler = dataset["euler"].values[peaks["template"].to_numpy(int), peaks["angle_row"].to_numpy(int)]
    places = peaks[["z", "y", "x"]].to_numpy(int).tolist()
    matrices = rotation_from_euler(euler).as_matrix()
    return [Pose((z, y, x), matrix) for (z, y, x), matrix in zip(places, matrices, strict=True)]


def _refined(peaks: pd.DataFrame, poses: list[Pose], correction: str) -> pd.DataFrame:
    """Return the peaks with their new poses and scores, the noise taken to be that of the peak."""
    grid = peaks["score_raw"].to_numpy(float)
    raw = np.maximum([pose.score for pose in poses], grid) if poses else grid
    score = peaks["score"].to_numpy(float) + raw - grid
    if correction == "ratio":
        score = corrected(raw, peaks["noise"].to_numpy(float), correction)
    places = np.array([pose.place for pose in poses], int).reshape(-1, 3)
    offsets = np.array([pose.offset for pose in poses], float).reshape(-1, 3)
    matrices = np.array([pose.matrix for pose in poses], float).reshape(-1, 3, 3)
    euler = euler_from_rotation(Rotation.from_matrix(matrices)) if poses else np.empty((0, 3))
    columns = {
        **dict(zip(("z", "y", "x"), places.T, strict=True)),
        **dict(zip(("dz", "dy", "dx"), offsets.T, strict=True)),
        **dict(zip(("phi", "theta", "psi"), euler.T, strict=True)),
    }
    return peaks.assign(**columns, score=score, score_raw=raw, score_grid=grid)
