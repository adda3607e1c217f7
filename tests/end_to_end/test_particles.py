"""Picking and refinement of particles in micrographs as a user runs them."""

import errno
import json
import os
import shutil
import signal

import mrcfile
import numpy as np
import pandas as pd
import pytest
import starfile
import yaml

from cryodask.cli.main import run
from cryodask.io.image import write_image
from cryodask.io.leopard_em import read_leopard_em
from cryodask.search import store
from tests.end_to_end.killed import start, wait_for_records, worker_of
from tests.jobs.planted import NO_WHITENING, OPTICS, plant, three_particles

HERE = ["--cluster", "threads", "--workers", "1"]
MAPS = {
    "mip_path": "mip",
    "scaled_mip_path": "scaled_mip",
    "orientation_psi_path": "psi",
    "orientation_theta_path": "theta",
    "orientation_phi_path": "phi",
    "relative_defocus_path": "defocus",
    "correlation_average_path": "mean",
    "correlation_variance_path": "std",
}


@pytest.fixture
def planted(tmp_path):
    return plant(tmp_path, three_particles(), noise=0.05)


@pytest.fixture
def folder_of_maps(planted, tmp_path):
    """Write maps as Leopard-EM does, and the match_template configuration that names them."""
    maps = {name: np.zeros((65, 81)) for name in MAPS.values()}
    maps["scaled_mip"] += np.random.default_rng(0).normal(3.0, 0.5, (65, 81))
    maps["std"] += 1.0
    for row in planted.truth.itertuples():
        maps["scaled_mip"][row.y, row.x] = maps["mip"][row.y, row.x] = 20.0 - row.Index
        for name in ("phi", "theta", "psi", "defocus"):
            maps[name][row.y, row.x] = getattr(row, name)
    for name, values in maps.items():
        write_image(tmp_path / f"{name}.mrc", values, pixel_size=1.5, overwrite=True)
    config = {
        "template_volume_path": str(tmp_path / "template.mrc"),
        "micrograph_path": str(tmp_path / "micrograph.mrc"),
        "match_template_result": {key: str(tmp_path / f"{name}.mrc") for key, name in MAPS.items()},
        "optics_group": {"label": "a", **OPTICS},
        "defocus_search_config": {"defocus_min": -80, "defocus_max": 60, "defocus_step": 20},
        "orientation_search_config": {"psi_step": 30, "theta_step": 30},
    }
    path = tmp_path / "match.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.fixture
def config(planted, tmp_path):
    stack = {
        "df_path": planted.write(),
        "extracted_box_size": [38, 38],
        "original_template_size": [32, 32],
    }
    content = {
        "template_volume_path": str(tmp_path / "template.mrc"),
        "particle_stack": stack,
        "defocus_refinement_config": {"enabled": False},
        "orientation_refinement_config": {"theta_step_coarse": 0.5, "psi_step_coarse": 0.3},
        "preprocessing_filters": NO_WHITENING,
        "computational_config": {"gpu_ids": [0], "num_cpus": 2},
    }

    def write(**changes):
        path = tmp_path / "refine.yaml"
        path.write_text(yaml.safe_dump(content | changes))
        return str(path)

    return write


def test_a_folder_of_maps_gives_tables_of_every_program(folder_of_maps, planted, tmp_path, capsys):
    words = ["pick", str(folder_of_maps), "-o"]
    assert run([*words, str(tmp_path / "p.csv"), "--montage", str(tmp_path / "m.png")]) == 0
    assert "3 particles (zscore > " in capsys.readouterr().err
    table = read_leopard_em(tmp_path / "p.csv")
    assert table[["pos_y", "pos_x"]].to_numpy().tolist() == planted.truth[["y", "x"]].to_numpy().tolist()
    assert table["total_correlations"].iloc[0] == 552 * 8
    np.testing.assert_allclose(table[["phi", "theta", "psi"]], planted.truth[["phi", "theta", "psi"]])
    assert (tmp_path / "m.png").read_bytes().startswith(b"\x89PNG")
    assert run([*words, str(tmp_path / "p.star"), "--max-particles", "1"]) == 2
    assert "--max-particles: for tomograms only" in capsys.readouterr().err
    assert run([*words, str(tmp_path / "p.star")]) == 0
    assert starfile.read(tmp_path / "p.star")["particles"]["rlnCoordinateX"].tolist() == [24, 46, 86]
    stack = [str(tmp_path / "c.txt"), "--stack", str(tmp_path / "s.mrcs"), "--box", "24", "--json"]
    capsys.readouterr()
    assert run([*words, *stack]) == 0
    written = json.loads(capsys.readouterr().out)
    assert written["micrographs"][0]["particles"] == 3 and written["stack_star"].endswith("s.star")
    assert np.loadtxt(tmp_path / "c.txt").shape == (3, 8)
    with mrcfile.open(tmp_path / "s.mrcs") as file:
        assert file.data.shape == (3, 24, 24)


def test_no_particle_is_a_table_with_its_columns(folder_of_maps, tmp_path, capsys):
    assert run(["pick", str(folder_of_maps), "-o", str(tmp_path / "p.csv"), "--cutoff", "90"]) == 0
    assert "no particle" in capsys.readouterr().err
    table = pd.read_csv(tmp_path / "p.csv")
    assert table.empty and "refined_pixel_size" in table and "score_name" in table


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--metric", "local"], "--metric local needs a match with statistics: local"),
        (["--metric", "score_raw"], "--metric score_raw: for tomograms only"),
        (["--false-positives", "0"], "--false-positives 0: expected a number above 0"),
        (["--cutoff", "5", "--false-positives", "1"], "choose one of --cutoff and --false-positives"),
        (["--stack", "s.mrcs"], "--stack FILE.mrcs and --box EDGE go together"),
        (["--export", "dynamo"], "dynamo: no table of micrographs"),
        (["--mask", "std.mrc"], "--mask std.mrc: 65 x 81, expected 96 x 112"),
        (["--mask-radius", "-1"], "--mask-radius -1: expected at least 0 pixels"),
    ],
)
def test_wrong_options_of_pick_are_refused(folder_of_maps, tmp_path, words, text, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(["pick", "match.yaml", "-o", "p.csv", *words]) == 2
    assert text in capsys.readouterr().err
    assert not (tmp_path / "p.csv").exists()


def test_a_mask_says_where_centres_may_lie(folder_of_maps, planted, tmp_path):
    mask = np.zeros((96, 112))
    mask[planted.truth["y"][1] + 16, planted.truth["x"][1] + 16] = 1
    write_image(tmp_path / "mask.mrc", mask, pixel_size=1.5)
    words = ["--mask", str(tmp_path / "mask.mrc"), "--cutoff", "10"]
    assert run(["pick", str(folder_of_maps), "-o", str(tmp_path / "p.csv"), *words]) == 0
    assert read_leopard_em(tmp_path / "p.csv")["pos_x"].tolist() == [30]


def test_maps_of_the_wrong_shape_and_missing_maps_are_named(folder_of_maps, tmp_path, capsys):
    write_image(tmp_path / "mip.mrc", np.zeros((64, 81)), pixel_size=1.5, overwrite=True)
    assert run(["pick", str(folder_of_maps), "-o", str(tmp_path / "p.csv")]) == 2
    assert "mip.mrc: 64 x 81, expected 65 x 81" in capsys.readouterr().err
    (tmp_path / "mip.mrc").unlink()
    assert run(["pick", str(folder_of_maps), "-o", str(tmp_path / "p.csv")]) == 2
    assert "match_template_result.mip_path = " in capsys.readouterr().err


def test_a_table_is_refined_and_refined_again(config, planted, tmp_path, capsys):
    first, second = tmp_path / "r1.csv", tmp_path / "r2.csv"
    assert run(["refine-particles", config(), "-o", str(first), *HERE]) == 0
    assert capsys.readouterr().out.strip() == str(first)
    stack = {"df_path": str(first), "extracted_box_size": [38, 38], "original_template_size": [32, 32]}
    again = config(particle_stack=stack)
    assert run(["refine-particles", again, "-o", str(second), *HERE]) == 0
    tables = [read_leopard_em(path) for path in (first, second)]
    assert (tables[1]["refined_scaled_mip"] >= tables[0]["refined_scaled_mip"] - 1e-4).all()
    assert tables[0]["refined_pos_x"].tolist() == planted.truth["x"].tolist()
    assert run(["refine-particles", again, "-o", str(second), *HERE]) == 2
    assert "r2.csv exists; use --overwrite" in capsys.readouterr().err


def test_a_dry_run_says_the_cost_and_starts_nothing(config, tmp_path, capsys):
    before = sorted(tmp_path.iterdir())
    path = config()
    assert run(["refine-particles", path, "-o", str(tmp_path / "r.csv"), "--dry-run"]) == 0
    assert "3 particles x 91 rotations x 1 defoci x 49 shifts" in capsys.readouterr().out
    assert run(["config", "check", path]) == 0
    assert "refine-particles: particles 3, n_o 91" in capsys.readouterr().out
    assert {p.name for p in tmp_path.iterdir()} - {p.name for p in before} <= {"refine.yaml"}


def test_an_unknown_key_is_named_with_the_file(config, tmp_path, capsys):
    path = config(orientation_refinement_config={"theta_step_fin": 0.5})
    assert run(["refine-particles", path, "-o", str(tmp_path / "r.csv")]) == 2
    error = capsys.readouterr().err
    assert "refine.yaml: unknown key orientation_refinement_config.theta_step_fin" in error
    assert "theta_step_fine" in error


@pytest.mark.parametrize("job", ["refine-particles", "constrained-search", "optimize-template"])
def test_a_configuration_to_fill_in_is_told_for_its_job(job, tmp_path, capsys):
    path = tmp_path / "c.yaml"
    assert run(["config", "init", job, "-o", str(path)]) == 0
    assert run(["config", "check", str(path)]) == 2
    assert "REQUIRED" in capsys.readouterr().err


@pytest.mark.acceptance
def test_a_killed_run_continues_with_resume(config, tmp_path, capsys):
    path = config(
        orientation_refinement_config={"theta_step_coarse": 2.0, "psi_step_coarse": 1.0},
        defocus_refinement_config={"defocus_min": -200, "defocus_max": 200, "defocus_step": 10},
        particle_stack={
            "df_path": str(tmp_path / "particles.csv"),
            "extracted_box_size": [44, 44],
            "original_template_size": [32, 32],
        },
    )
    words = ["refine-particles", path, "-o", str(tmp_path / "k.csv"), *HERE]
    process = start(*words)
    wait_for_records(process, tmp_path / "k.csv")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "k.csv").exists()
    capsys.readouterr()
    assert run(words) == 2
    assert "k.partial.zarr is unfinished; use --resume or --overwrite" in capsys.readouterr().err
    assert run([*words, "--resume"]) == 0
    assert "resumed: " in capsys.readouterr().err
    assert run(["refine-particles", path, "-o", str(tmp_path / "w.csv"), *HERE]) == 0
    assert (tmp_path / "k.csv").read_bytes() == (tmp_path / "w.csv").read_bytes()


@pytest.mark.acceptance
def test_a_killed_worker_and_the_number_of_workers_change_nothing(config, tmp_path):
    path = config(
        orientation_refinement_config={"theta_step_coarse": 2.0, "psi_step_coarse": 1.0},
        defocus_refinement_config={"defocus_min": -100, "defocus_max": 100, "defocus_step": 10},
    )
    process = start("refine-particles", path, "-o", tmp_path / "k.csv", "--workers", 2)
    wait_for_records(process, tmp_path / "k.csv")
    os.kill(worker_of(process.pid), signal.SIGKILL)
    _, error = process.communicate(timeout=300)
    assert process.returncode == 0, error.decode()
    assert run(["refine-particles", path, "-o", str(tmp_path / "w.csv"), *HERE]) == 0
    assert (tmp_path / "k.csv").read_bytes() == (tmp_path / "w.csv").read_bytes()


def test_a_disk_that_is_full_before_or_during_a_run(config, tmp_path, capsys, monkeypatch):
    path = config()
    words = ["refine-particles", path, "-o", str(tmp_path / "r.csv"), *HERE]
    with monkeypatch.context() as patched:
        usage = shutil.disk_usage(tmp_path)._replace(free=10_000)
        patched.setattr(shutil, "disk_usage", lambda folder: usage)
        assert run(words) == 3
    assert "GiB are free" in capsys.readouterr().err and not list(tmp_path.glob("r.*"))
    write = store.write_json
    with monkeypatch.context() as patched:
        left = [1]

        def full(file, content):
            left[0] -= 1
            if left[0] < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            write(file, content)

        patched.setattr(store, "write_json", full)
        assert run(words) == 3
    assert "the disk is full" in capsys.readouterr().err and not (tmp_path / "r.csv").exists()
    assert run([*words, "--resume"]) == 0
    assert len(read_leopard_em(tmp_path / "r.csv")) == 3


def test_a_folder_that_cannot_be_made_is_refused(config, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert run(["refine-particles", config(), "-o", str(tmp_path / "file" / "r.csv"), *HERE]) == 2
    assert "is no directory" in capsys.readouterr().err
