"""The same bytes from any number of worker processes, and from a client that was killed and resumed."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

import cryodask as cd
from cryodask.cli.main import run
from tests.jobs.micrographs import Planted, make_scene

COMMAND = [sys.executable, "-m", "cryodask", "match-micrograph"]


def same(first, second):
    a, b = cd.open_result(first), cd.open_result(second)
    assert set(a.data_vars) == set(b.data_vars)
    for name in a.data_vars:
        np.testing.assert_array_equal(a[name].values, b[name].values, err_msg=name)


def written(tmp_path, *, step=60, batch=8, shape=(96, 112)):
    scene = make_scene([Planted(20, 30, (288.0, 60.0, 60.0))], signal=40.0, shape=shape)
    search = {"psi_step": step, "theta_step": step}
    own = {"orientation_batch_size": batch}
    return scene.write(tmp_path, orientation_search_config=search, cryodask=own)


@pytest.mark.acceptance
def test_same_bytes_for_one_and_two_worker_processes(tmp_path):
    config = written(tmp_path, step=20, batch=96)
    for cluster, count in (("threads", "1"), ("local", "1"), ("local", "2")):
        words = ["-o", str(tmp_path / f"{cluster}{count}.zarr"), "--cluster", cluster, "--workers", count]
        assert run(["match-micrograph", str(config), *words]) == 0
    same(tmp_path / "threads1.zarr", tmp_path / "local1.zarr")
    same(tmp_path / "threads1.zarr", tmp_path / "local2.zarr")


@pytest.mark.acceptance
def test_a_killed_client_resumes_to_the_same_bytes(tmp_path):
    config = written(tmp_path, step=10, batch=256, shape=(160, 160))
    whole, part = tmp_path / "whole.zarr", tmp_path / "part.zarr"
    assert run(["match-micrograph", str(config), "-o", str(whole), "--cluster", "threads"]) == 0
    words = [*COMMAND, str(config), "-o", str(part), "--cluster", "threads", "--workers", "1"]
    client = subprocess.Popen(words, env=os.environ | {"PYTHONPATH": str(Path(cd.__file__).parents[1])})
    records = tmp_path / "part.partial.zarr" / "run" / "records"
    while not list(records.glob("part-*.json")):
        with suppress(subprocess.TimeoutExpired):
            client.wait(timeout=0.05)
            break
    client.send_signal(signal.SIGKILL)
    assert client.wait() == -signal.SIGKILL, "the run ended before it could be killed"
    assert not part.exists()
    assert run(["match-micrograph", str(config), "-o", str(part), "--cluster", "threads", "--resume"]) == 0
    same(whole, part)


@pytest.mark.acceptance
def test_noise_alone_gives_no_more_peaks_than_expected():
    angles = cd.OrientationGrid(30, 30).angles()[::2]
    scene = make_scene([])
    above = {"scaled_mip": 0, "scaled_mip_local": 0}
    for seed in range(24):
        image = np.random.default_rng(seed).standard_normal((160, 160)).astype(np.float32)
        found = cd.match_micrograph(
            image,
            scene.template,
            optics={
                "pixel_size": 2.0,
                "voltage": 300,
                "defocus_u": 8000,
                "defocus_v": 8000,
                "astigmatism_angle": 0,
            },
            orientations=angles,
            defocus=[-400.0, 0.0, 400.0],
            statistics="local",
        ).compute(scheduler="single-threaded")
        for name in above:
            above[name] += int((found[name].values > found.attrs["threshold"]).sum())
    assert above["scaled_mip"] <= 24 and above["scaled_mip_local"] <= 24
