"""`cryodask demo`: what it writes, what it finds, and that the commands it names work."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cryodask.cli.demo import next_commands
from cryodask.io.particles import read_particles
from cryodask.io.volume import read_volume

KEYS = ["recall", "precision", "median_angular_error_deg", "median_position_error_angstrom", "seconds"]
START = "import sys; from cryodask.cli.main import main; main(sys.argv[1:])"


def cryodask(folder, *words):
    return subprocess.run(
        [sys.executable, "-c", START, *words], cwd=folder, capture_output=True, text=True, timeout=500
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("newcomer")
    done = cryodask(folder, "demo", "--workers", "2")
    assert done.returncode == 0, done.stderr
    return folder, done


def test_summary_has_its_keys_and_the_particles_are_found(finished):
    summary = json.loads((finished[0] / "cryodask-demo" / "summary.json").read_text())
    assert list(summary) == KEYS
    assert summary["recall"] >= 0.95
    assert summary["precision"] >= 0.95
    assert summary["median_angular_error_deg"] < 15
    assert summary["median_position_error_angstrom"] < 15
    assert 0 < summary["seconds"] < 180


def test_everything_promised_is_written(finished):
    demo = finished[0] / "cryodask-demo"
    maps = {"scores_0_1.mrc", "angles_0_1.mrc", "tomogram.zarr"}
    assert maps <= {path.name for path in (demo / "results").iterdir()}
    for name in ("tomogram.mrc", "tomogram.zarr", "params.star", "params.yaml", "report.html"):
        assert (demo / name).exists()
    score = read_volume(demo / "results" / "scores_0_1.mrc")
    assert score.shape == read_volume(demo / "tomogram.mrc").shape
    picks, truth = read_particles(demo / "particles.star"), read_particles(demo / "truth.csv")
    assert len(truth) >= 20
    x, y, z = np.rint(picks[["x", "y", "z"]].to_numpy()).astype(int).T
    np.testing.assert_allclose(score[z, y, x], picks["score"], atol=0.05)


def test_talk_ends_with_commands(finished):
    _, done = finished
    assert "recall" in done.stdout
    last = [line.strip() for line in done.stdout.rstrip().splitlines()[-4:]]
    assert last == next_commands(Path("cryodask-demo"))


@pytest.mark.parametrize("number", [0, 1, 3])
def test_named_command_works(finished, number):
    folder, done = finished
    program, *words = shlex.split(done.stdout.rstrip().splitlines()[-4 + number].strip())
    assert program == "cryodask"
    again = cryodask(folder, *words)
    assert again.returncode == 0, again.stderr


@pytest.mark.acceptance
def test_parameter_files_repeat_the_run(finished):
    folder, _ = finished
    demo = folder / "cryodask-demo"
    for name in ("params.yaml", "params.star"):
        again = cryodask(folder, "match-tomogram", f"cryodask-demo/{name}", "--workers", "2")
        assert again.returncode == 0, again.stderr
    first = read_volume(demo / "results" / "scores_0_1.mrc")
    np.testing.assert_allclose(read_volume(demo / "rerun_yaml" / "scores_0_1.mrc"), first, atol=2e-5)
    np.testing.assert_allclose(read_volume(demo / "rerun_star" / "scores_0_1.mrc"), first, atol=2e-5)


def test_folder_in_use_is_refused(finished):
    refused = cryodask(finished[0], "demo")
    assert refused.returncode == 2
    assert "cryodask-demo exists; use --overwrite" in refused.stderr
    assert refused.stderr.count("\n") == 1


@pytest.mark.acceptance
@pytest.mark.parametrize("seed", ["1", "2", "3"])
def test_any_seed_finds_the_particles(tmp_path, seed):
    done = cryodask(tmp_path, "demo", "--seed", seed, "--workers", "2", "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["recall"] >= 0.95
    assert summary["precision"] >= 0.95
