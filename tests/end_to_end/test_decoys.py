"""Decoys from a parameter file to a table with q-values."""

import numpy as np
import pytest

import cryodask as cd

from .conftest import STEP


@pytest.fixture(scope="module")
def decoyed(project):
    from cryodask.cli.main import run

    params = project.yaml("decoy.yaml", decoy="mirror", noise_correction="none", output="decoy")
    assert run(["match-tomogram", str(params), "--cluster", "threads", "--angle-batch", "64"]) == 0
    return project.folder / "decoy" / "tomogram.zarr"


def is_particle(table, planted):
    apart = table[["z", "y", "x"]].to_numpy()[:, None] - np.array([at[:3] for at in planted])
    return np.abs(apart).max(axis=2).min(axis=1) <= 1.5


def test_particles_are_kept_at_a_false_discovery_rate_of_the_mirrored_template(project, decoyed, run_cli):
    table_path = project.folder / "decoy.csv"
    status, _, error = run_cli("pick", decoyed, "-o", table_path, "--fdr", "0.1", "--min-distance", "100")
    assert status == 0
    assert "fdr = 0.1" in error
    from cryodask.io.particles import read_particles

    table = read_particles(table_path)
    true = is_particle(table, project.planted)
    assert true.sum() >= 16
    assert (~true).sum() <= 3
    assert table["qvalue"].between(0, 0.1).all()
    assert table["score_raw"].is_monotonic_decreasing


def test_a_result_names_and_describes_its_decoys(decoyed):
    result = cd.open_result(decoyed)
    assert result.decoy.dims == ("template", "z", "y", "x")
    assert "mirror" in result.decoy.attrs["long_name"]
    assert result.attrs["ome"]["multiscales"][0]["name"] == "score"
    assert '"decoy":"mirror"' in result.attrs["parameters"]


def test_without_decoys_the_message_names_both_ways_to_get_them(project, run_cli):
    params = project.yaml("bare.yaml", noise_correction=None, angles={"step": 3 * STEP}, output="bare")
    assert run_cli("match-tomogram", params, "--cluster", "threads")[0] == 0
    status, _, error = run_cli(
        "pick", project.folder / "bare" / "tomogram.zarr", "-o", project.folder / "no.csv", "--fdr", "0.05"
    )
    assert status == 2
    assert "--fdr needs a map of decoys; match with decoy: mirror" in error
