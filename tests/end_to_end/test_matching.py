"""Tomogram matching as a user does it: planted particles, interruptions, any number of workers."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import pytest
import starfile
import xarray as xr
import zarr
from dask.callbacks import Callback

import cryodask as cd
from cryodask.io.particles import write_particles
from cryodask.io.volume import read_volume

from .conftest import STEP, VOXEL

EXACT = ("score", "score_raw", "noise", "orientation", "valid")


def assert_same_maps(one: xr.Dataset, two: xr.Dataset) -> None:
    for name in EXACT:
        np.testing.assert_array_equal(one[name].values, two[name].values, err_msg=name)
    for name in ("score_mean", "score_std"):
        np.testing.assert_allclose(one[name].values, two[name].values, atol=1e-6, err_msg=name)


def test_every_planted_particle_is_found_at_its_voxel_and_orientation(project, matched):
    table = cd.pick(matched, false_positives=1)
    truth = pd.DataFrame(project.planted, columns=["z", "y", "x", "row"])
    truth[["phi", "theta", "psi"]] = project.angles[truth["row"]]
    from cryodask.picking.compare import compare

    found = compare(table, truth.assign(tomo_name="tomogram", tomo_num=7), voxel_size=VOXEL)
    assert len(table) == len(truth) and found.summary()["recall"] == 1.0
    near = [np.abs(table[list("zyx")].to_numpy() - p[:3]).max(axis=1) for p in project.planted]
    assert max(distance.min() for distance in near) <= 1.0
    assert found.summary()["median_angular_error_deg"] < STEP / 2
    rows = [int(table["angle_row"].iloc[distance.argmin()]) for distance in near]
    assert np.mean([row == p[3] for row, p in zip(rows, project.planted, strict=True)]) >= 0.9


def test_files_are_what_other_programs_read(project, matched):
    result = cd.open_result(matched)
    folder = matched.parent
    with mrcfile.open(folder / "scores_0_7.mrc") as scores:
        np.testing.assert_array_equal(scores.data, result.score[0].values)
        assert scores.voxel_size.x == pytest.approx(VOXEL)
    rows = read_volume(folder / "angles_0_7.em")
    expected = result.orientation[0].values.astype(np.int64)
    np.testing.assert_array_equal(rows, np.where(expected == 0xFFFFFFFF, -1, expected))
    for name in ("raw_scores_0_7.mrc", "noise_0_7.em", "angles_0_7.csv"):
        assert (folder / name).is_file()
    assert len(pd.read_csv(folder / "angles_0_7.csv", header=None)) == result.sizes["row"]
    group = zarr.open_group(matched, mode="r")
    assert group.attrs["ome"]["multiscales"][0]["axes"][-1] == {
        "name": "x",
        "type": "space",
        "unit": "angstrom",
    }
    assert not (matched / "run").exists()
    assert result.z.values[1] == VOXEL and result.attrs["tilt_range"] == [-54.0, 60.0]
    star = folder / "picks.star"
    write_particles(cd.pick(result), star, "relion5", voxel_size=VOXEL, tomogram_shape=(60, 96, 90))
    assert len(starfile.read(star)["particles"]) == 18


@pytest.mark.parametrize(
    "words", [("--workers", 1), ("--cluster", "threads", "--workers", 5, "--angle-batch", 56)]
)
def test_same_maps_for_any_workers_and_batches(project, matched, tmp_path, run_cli, words):
    params = project.yaml(f"{tmp_path.name}.yaml", output=str(tmp_path))
    assert run_cli("match-tomogram", params, *words)[0] == 0
    assert_same_maps(cd.open_result(matched), cd.open_result(tmp_path / "tomogram.zarr"))


@pytest.mark.parametrize("words", [("-n", 2), ("-n", 12), ("--tile-shape", "64,50,54")])
def test_same_scores_for_any_tiling(project, matched, tmp_path, run_cli, words):
    params = project.yaml(f"{tmp_path.name}.yaml", output=str(tmp_path))
    assert run_cli("match-tomogram", params, "--cluster", "threads", *words)[0] == 0
    one, two = cd.open_result(matched).load(), cd.open_result(tmp_path / "tomogram.zarr").load()
    for name in ("score_raw", "noise", "score"):
        np.testing.assert_allclose(one[name], two[name], atol=2e-5, err_msg=name)
    assert float((one.orientation != two.orientation).mean()) < 1e-3


def test_another_seed_changes_the_noise_alone(project, matched, tmp_path, run_cli):
    params = project.yaml(f"{tmp_path.name}.yaml", output=str(tmp_path))
    assert run_cli("match-tomogram", params, "--cluster", "threads", "--seed", 3)[0] == 0
    one, two = cd.open_result(matched), cd.open_result(tmp_path / "tomogram.zarr")
    np.testing.assert_array_equal(one.score_raw.values, two.score_raw.values)
    assert float(abs(one.noise - two.noise).max()) > 0.01


def test_a_lazy_dataset_gives_the_stored_bits_and_only_the_tiles_asked_for(project, tmp_path):
    rows = cd.read_parameters(project.yaml("lazy.yaml"))
    dataset = cd.match_tomogram(rows[0], ntiles=4, device="cpu")
    corner = {"z": 40, "y": slice(0, 10), "x": slice(0, 10)}
    scored: list[object] = []
    with Callback(pretask=lambda key, *_: scored.append(key) if "'tile-" in str(key) else None):
        part = dataset[["score_raw", "orientation"]].isel(corner).compute(scheduler="threads")
    assert dataset.score_raw.data.npartitions == 4 and len(scored) == 1
    whole = tmp_path / "whole.zarr"
    dataset.cryo.store(whole)
    stored = cd.open_result(whole).isel(corner)
    np.testing.assert_array_equal(part.score_raw, stored.score_raw)
    np.testing.assert_array_equal(part.orientation, stored.orientation)


def test_python_arrays_give_what_files_give(project, matched):
    arrays = {name: read_volume(project.folder / f"{name}.mrc") for name in ("tomogram", "template", "mask")}
    dataset = cd.match_tomogram(
        xr.DataArray(arrays["tomogram"]).chunk(),
        arrays["template"],
        mask=arrays["mask"],
        angles=project.angles,
        tilts=[-54.0, 60.0],
        lowpass=25.0,
        voxel_size=VOXEL,
        interpolation="linear",
    )
    computed = dataset[["score_raw", "orientation", "sigma"]].compute(scheduler="threads")
    stored = cd.open_result(matched)
    np.testing.assert_array_equal(computed.score_raw.values, stored.score_raw.values)
    np.testing.assert_array_equal(computed.orientation.values, stored.orientation.values)
    np.testing.assert_allclose(computed.sigma.values, stored.sigma.values, rtol=1e-6)


def test_a_dataset_stores_itself_and_resumes(project, matched, tmp_path):
    rows = cd.read_parameters(project.yaml("store.yaml"))
    dataset = cd.match_tomogram(rows[0], ntiles=6)

    def stop_after_two(progress):
        if progress.tiles_done == 2:
            raise KeyboardInterrupt

    target = tmp_path / "own.zarr"
    with pytest.raises(KeyboardInterrupt):
        dataset.cryo.store(target, listen=stop_after_two)
    assert not target.exists()
    seen = []
    dataset.cryo.store(target, resume=True, listen=lambda p: seen.append((p.tiles_resumed, p.tiles_done)))
    assert seen[-1][0] >= 2 and seen[-1][1] == 6
    whole = tmp_path / "whole.zarr"
    dataset.cryo.store(whole)
    assert_same_maps(cd.open_result(whole), cd.open_result(target))
    with pytest.raises(cd.InputError, match=r"own\.zarr exists; use --overwrite"):
        dataset.cryo.store(target)


@pytest.mark.parametrize(
    ("contrast", "template", "mend"), [("same", -1, "inverted"), ("inverted", 1, "same")]
)
def test_a_template_of_opposite_contrast_is_told_with_what_to_set(
    project, tmp_path, run_cli, contrast, template, mend
):
    from cryodask.io.volume import write_volume

    volume = template * read_volume(project.folder / "template.mrc")
    write_volume(tmp_path / "template.mrc", volume, voxel_size=VOXEL)
    changes = {"template": str(tmp_path / "template.mrc"), "output": str(tmp_path), "lowpass": 40.0}
    changes |= {"angles": {"step": 90}, "noise_correction": "none"}
    for value, expected in ((contrast, True), (mend, False)):
        params = project.yaml(f"{tmp_path.name}.yaml", contrast=value, **changes)
        status, _, told = run_cli("match-tomogram", params, "--cluster", "threads", "--overwrite")
        assert status == 0
        assert ("the template's contrast looks opposite to the tomogram's" in told) is expected
        assert (f"set contrast: {mend}" in told) is expected


def test_a_mask_and_a_region_limit_the_search(project, tmp_path, run_cli):
    from cryodask.io.volume import write_volume

    mask = np.zeros((60, 96, 90), np.float32)
    mask[5:40, 10:60] = 1
    write_volume(tmp_path / "inside.mrc", mask, voxel_size=VOXEL)
    params = project.yaml(
        f"{tmp_path.name}.yaml",
        output=str(tmp_path),
        tomogram_mask=str(tmp_path / "inside.mrc"),
        region={"x": [200.0, 600.0]},
    )
    assert run_cli("match-tomogram", params, "--cluster", "threads", "-n", 8)[0] == 0
    result = cd.open_result(tmp_path / "tomogram.zarr")
    searched = mask.astype(bool)
    searched[:, :, :20] = searched[:, :, 61:] = False
    np.testing.assert_array_equal(result.orientation[0].values != 0xFFFFFFFF, searched)
    assert (result.score_raw[0].values[~searched] == 0).all()
    assert int(result.n_voxels[0]) == searched.sum()


def start_matching(params: Path, *words: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "cryodask", "match-tomogram", str(params), *words]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)


def wait_for_records(store: Path, count: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while len(list((store / "run" / "records").glob("*.json"))) < count:
        assert process.poll() is None and time.monotonic() < deadline, "the run ended before it was stopped"
        os.sched_yield()


def test_a_killed_client_resumes_to_the_same_maps(project, matched, tmp_path, run_cli):
    params = project.yaml(f"{tmp_path.name}.yaml", output=str(tmp_path))
    tiling = ("-n", "6", "--workers", "1")
    process = start_matching(params, *tiling)
    wait_for_records(tmp_path / "tomogram.partial.zarr", 2, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "tomogram.zarr").exists()
    status, _, error = run_cli("match-tomogram", params, *tiling)
    assert status == 2 and "tomogram.partial.zarr is unfinished; use --resume or --overwrite" in error
    status, out, error = run_cli("match-tomogram", params, "--resume", "--json")
    assert status == 0 and json.loads(out)["tiles_resumed"] >= 2
    shutil.move(tmp_path / "tomogram.zarr", tmp_path / "resumed.zarr")
    assert run_cli("match-tomogram", params, *tiling)[0] == 0
    assert_same_maps(cd.open_result(tmp_path / "tomogram.zarr"), cd.open_result(tmp_path / "resumed.zarr"))


def test_a_killed_worker_changes_nothing(project, tmp_path, run_cli):
    params = project.yaml(f"{tmp_path.name}.yaml", output=str(tmp_path))
    tiling = ("-n", "6", "--workers", "2")
    process = start_matching(params, *tiling)
    wait_for_records(tmp_path / "tomogram.partial.zarr", 1, process)
    os.kill(worker_of(process.pid), signal.SIGKILL)
    _, error = process.communicate(timeout=300)
    assert process.returncode == 0, error.decode()
    shutil.move(tmp_path / "tomogram.zarr", tmp_path / "survived.zarr")
    assert run_cli("match-tomogram", params, *tiling)[0] == 0
    assert_same_maps(cd.open_result(tmp_path / "tomogram.zarr"), cd.open_result(tmp_path / "survived.zarr"))


def worker_of(client: int) -> int:
    """Return the process of one Dask worker: a grandchild of the client, below the spawn server or nanny."""
    import psutil

    children = psutil.Process(client).children(recursive=True)
    workers = [child.pid for child in children if "spawn_main" in " ".join(child.cmdline())]
    return workers[0]


def test_two_rows_are_one_queue_and_a_dry_run_writes_nothing(project, tmp_path, run_cli):
    import yaml

    one = yaml.safe_load(project.yaml("one.yaml").read_text()) | {"output": str(tmp_path / "rows")}
    rows = [one | {"tomo_name": "a"}, one | {"tomo_name": "b", "noise_correction": "subtract"}]
    params = project.folder / "rows.yaml"
    params.write_text(yaml.safe_dump(rows))
    status, out, _ = run_cli("match-tomogram", params, "--dry-run", "--json", "--memory", "40MiB")
    plans = json.loads(out)
    assert status == 0 and not (tmp_path / "rows").exists()
    assert [plan["rotations"] for plan in plans] == [len(project.angles)] * 2
    assert all(plan["working_set_bytes"] <= 40 * 2**20 and plan["core_seconds"] > 0 for plan in plans)
    assert run_cli("match-tomogram", params, "--workers", 2)[0] == 0
    ratio, subtract = (cd.open_result(tmp_path / "rows" / f"{name}.zarr") for name in "ab")
    np.testing.assert_array_equal(ratio.score_raw.values, subtract.score_raw.values)
    expected = subtract.score_raw - subtract.noise + float(subtract.noise.mean())
    np.testing.assert_allclose(subtract.score.values, expected.values, atol=1e-6)
    noise, raw = ratio.noise.values, ratio.score_raw.values
    np.testing.assert_allclose(ratio.score.values, np.maximum(0, (raw - noise) / (1 - noise)), atol=1e-6)


def test_few_rotations_leave_out_the_zscore_and_say_so(project, run_cli):
    few = {"step": 45, "method": "rings", "cone": 0.1, "inplane_step": 90}
    params = project.yaml("few.yaml", output="few", angles=few, noise_correction=None)
    status, _, err = run_cli("match-tomogram", params, "--cluster", "threads")
    assert status == 0
    assert "fewer than 50 rotations of a template, no zscore" in err
    assert "zscore" not in cd.open_result(next((project.folder / "few").glob("*.zarr")))
