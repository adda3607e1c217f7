"""The whole match of workload W, from arrays to stored maps, as `tomogram.py --grids` times it."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

import cryodask
from cryodask.geometry.euler import euler_from_rotation

VOXEL_SIZE = 10.0


class Job:
    """The whole match of the low-passed workload, from files to maps; the variant is its search grid."""

    def __init__(self, work: Any, variant: str, lowpass: float) -> None:
        self.work, self.lowpass, self.grid = work, lowpass, variant if variant == "full" else float(variant)
        self.folder = Path(tempfile.mkdtemp(prefix="cryodask-benchmark-"))
        self.result: Path | None = None

    def run(self, rows: range) -> None:
        work = self.work
        # beyond the 200 of the workload, rotations drawn at random
        more = Rotation.random(max(rows.stop - len(work.rotations), 0), rng=1).as_matrix()[:, ::-1, ::-1]
        matrices = np.concatenate([work.rotations, more])[rows.start : rows.stop, ::-1, ::-1]
        dataset = cryodask.match_tomogram(
            work.tomogram,
            work.template,
            mask=work.mask,
            angles=euler_from_rotation(Rotation.from_matrix(matrices), "zxz"),
            voxel_size=VOXEL_SIZE,
            lowpass=self.lowpass,
            search_grid=self.grid,
            boundary="wrap",
            interpolation="linear",
            statistics_grid="exact",
            moments=False,
            memory="2GiB",
            device="cpu",
        )
        self.result = dataset.cryo.store(self.folder / "result.zarr", overwrite=True)

    def maps(self) -> tuple[np.ndarray, np.ndarray]:
        self.run(range(len(self.work.rotations)))
        assert self.result is not None
        found = cryodask.open_result(self.result)
        return found.score_raw[0].values, found.orientation[0].values
