"""The false discovery rate that `pick --fdr` promises, on the benchmark workload at a tenth of its signal."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

import cryodask as cd
from benchmarks.workload import Workload, make_workload
from cryodask.geometry.euler import euler_from_rotation

VOXEL = 10.0
RATE = 0.05
NEAR = 3.0  # voxels


def shares(workload: Workload, seed: int) -> tuple[float, float]:
    """Return the share of picks that are no particle, and of particles that are picked."""
    dataset = cd.match_tomogram(
        workload.tomogram,
        workload.template,
        mask=workload.sphere,
        angles=euler_from_rotation(workload.rotations, "zxz"),
        voxel_size=VOXEL,
        boundary="wrap",
        interpolation="linear",
        noise_correction="ratio",
        moments=False,
        seed=seed,
        memory="4GiB",
        device="cpu",
    )
    picks = cd.pick(dataset, fdr=RATE, min_distance=20 * VOXEL, edge="none")
    places = workload.planted[["z", "y", "x"]].to_numpy()
    near, which = cKDTree(places).query(picks[["z", "y", "x"]].to_numpy().reshape(-1, 3))
    assert (picks.qvalue <= RATE).all()
    return float(np.mean(near > NEAR)) if len(picks) else 0.0, len(set(which[near <= NEAR])) / len(places)


def test_false_picks_are_rare_and_most_particles_found() -> None:
    workload = make_workload((96, 192, 192), n_rotations=24, n_planted=26, snr=0.01, seed=0)
    false, recall = shares(workload, seed=0)
    assert false <= 0.1 and recall >= 0.5


@pytest.mark.acceptance
def test_over_20_seeds_the_rate_holds() -> None:
    found = [shares(make_workload(snr=0.01, seed=seed), seed) for seed in range(20)]
    false, recall = np.mean(found, axis=0)
    assert false <= 0.1 and recall >= 0.5
