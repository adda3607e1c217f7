"""The same bytes from any number of worker processes, and whatever was killed or full on the way."""

import errno
import os
import signal

import numpy as np
import pytest

import cryodask as cd
from cryodask.cli.main import run
from cryodask.search import store
from tests.end_to_end.killed import start, wait_for_records, worker_of
from tests.jobs.micrographs import Planted, make_scene


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


def test_a_killed_client_resumes_to_the_same_bytes(tmp_path, capsys):
    config = written(tmp_path, step=20, batch=96, shape=(160, 160))
    whole, part = tmp_path / "whole.zarr", tmp_path / "part.zarr"
    words = ["match-micrograph", str(config), "-o", str(part), "--cluster", "threads", "--workers", "1"]
    process = start(*words)
    wait_for_records(process, part)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL and not part.exists()
    assert run(words) == 2
    assert "part.partial.zarr is unfinished; use --resume or --overwrite" in capsys.readouterr().err
    assert run([*words, "--resume"]) == 0
    assert "resumed: " in capsys.readouterr().err
    assert run(["match-micrograph", str(config), "-o", str(whole), "--cluster", "threads"]) == 0
    same(whole, part)


def test_a_killed_worker_changes_nothing(tmp_path):
    config = written(tmp_path, step=20, batch=96, shape=(160, 160))
    whole, part = tmp_path / "whole.zarr", tmp_path / "part.zarr"
    process = start("match-micrograph", config, "-o", part, "--workers", 2)
    wait_for_records(process, part)
    os.kill(worker_of(process.pid), signal.SIGKILL)
    _, error = process.communicate(timeout=300)
    assert process.returncode == 0, error.decode()
    assert run(["match-micrograph", str(config), "-o", str(whole), "--cluster", "threads"]) == 0
    same(whole, part)


def test_a_full_disk_ends_the_run_which_can_be_resumed(tmp_path, capsys, monkeypatch):
    config = written(tmp_path, batch=8)
    whole, part = tmp_path / "whole.zarr", tmp_path / "part.zarr"
    words = ["match-micrograph", str(config), "--cluster", "threads", "--workers", "1"]
    write, left = store.write_json, [4]

    def full(path, content):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, content)

    with monkeypatch.context() as patched:
        patched.setattr(store, "write_json", full)
        assert run([*words, "-o", str(part)]) == 3
    error = capsys.readouterr().err
    assert "the disk is full; free some space and run again with --resume" in error and not part.exists()
    assert run([*words, "-o", str(part), "--resume"]) == 0
    assert run([*words, "-o", str(whole)]) == 0
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
