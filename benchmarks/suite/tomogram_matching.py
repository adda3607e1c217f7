"""Our own history of tomogram matching, for asv: `asv run --config benchmarks/asv.conf.json`."""

import numpy as np
from scipy.spatial.transform import Rotation

from cryodask.kernels.rotation import rotate_mask, rotation_coefficients
from cryodask.kernels.template import prepare_rotation
from cryodask.kernels.volume_correlation import (
    correlate_general,
    correlate_spherical,
    empty_state,
    tile_spectra,
)
from cryodask.search.plan import plan_tiles

BLOCK, BOX, ROTATIONS = (128, 256, 256), 40, 8


class Correlation:
    """CPU time of eight rotations on the block of workload W, after compilation."""

    params = ("spherical", "general")
    param_names = ("mask",)
    number, repeat, warmup_time = 1, 5, 0

    def setup(self, mask_kind: str) -> None:
        rng = np.random.default_rng(0)
        offsets = np.indices((BOX,) * 3) - BOX // 2
        radius = np.sqrt((offsets**2).sum(axis=0))
        mask = np.clip(17 - radius, 0, 1).astype(np.float32)
        self.mask = rotation_coefficients(mask, "linear")
        self.template = rotation_coefficients(rng.standard_normal((BOX,) * 3).astype(np.float32), "linear")
        self.matrices = Rotation.random(ROTATIONS, random_state=1).as_matrix()
        block = rng.standard_normal(BLOCK, dtype=np.float32)
        self.spectra = tile_spectra(block, box=BOX, valid=BLOCK, squares=True)
        self.state = empty_state(BLOCK, moments=True)
        self.time_rotations(mask_kind)

    def time_rotations(self, mask_kind: str) -> None:
        masks = [rotate_mask(self.mask, matrix) for matrix in self.matrices]
        made = [
            prepare_rotation(self.template, mask, matrix, interpolation="linear")
            for mask, matrix in zip(masks, self.matrices, strict=True)
        ]
        templates, ids = np.stack([u for u, _ in made]), np.arange(ROTATIONS, dtype=np.uint32)
        if mask_kind == "spherical":
            correlate_spherical(self.spectra, templates, ids, self.state)
        else:
            counts = np.array([float(count) for _, count in made])
            correlate_general(self.spectra, templates, np.stack(masks), counts, ids, self.state)


class Planner:
    """Time to plan the tiles of a large tomogram."""

    def time_plan(self) -> None:
        plan_tiles(
            (500, 1000, 1000),
            (63, 63, 63),
            working_set=lambda block, tile: 40.0 * np.prod(block),
            memory=2 * 2**30,
        )
