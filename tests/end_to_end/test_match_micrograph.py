"""`cryodask match-micrograph` as a user runs it: maps, batches, resume, configurations, refusals."""

import json
import shutil
import warnings
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import pytest
import starfile
import xarray as xr
import yaml

import cryodask as cd
from cryodask.cli.main import run
from cryodask.errors import IncompleteError
from cryodask.io.image import write_image
from cryodask.io.star import write_star
from cryodask.jobs.micrograph_matching.batch import read_configs
from cryodask.jobs.micrograph_matching.planning import Resources
from cryodask.jobs.micrograph_matching.runs import execute, open_runs
from tests.jobs.micrographs import OPTICS, PIXEL, Planted, make_scene

MAPS = ("mip", "scaled_mip", "orientation_psi", "orientation_theta", "orientation_phi", "relative_defocus")
MAPS += ("correlation_average", "correlation_variance")
ANGLES = (288.0, 60.0, 60.0)


@pytest.fixture(scope="module")
def scene():
    return make_scene([Planted(20, 30, ANGLES)], signal=40.0)


@pytest.fixture
def config(scene, tmp_path):
    outputs = {f"{name}_path": str(tmp_path / "maps" / f"{name}.mrc") for name in MAPS}
    return scene.write(tmp_path, match_template_result=outputs)


def changed(config, key, value):
    mapping = yaml.safe_load(config.read_text())
    at = mapping
    *parents, last = key.split(".")
    for parent in parents:
        at = at.setdefault(parent, {})
    at[last] = value
    config.write_text(yaml.safe_dump(mapping))
    return config


def match(*words):
    return run(["match-micrograph", *map(str, words), "--cluster", "threads", "--workers", "1"])


def test_maps_and_result_of_a_configuration(config, tmp_path, capsys):
    assert match(config) == 0
    result = tmp_path / "maps" / "micrograph__template.zarr"
    written = capsys.readouterr().out.split()
    assert written[0] == str(result) and len(written) == 2 + len(MAPS)
    table = pd.read_csv(written[-1])
    assert written[-1] == str(result.with_suffix(".csv"))
    assert (table.pos_y[0], table.pos_x[0], table.phi[0]) == (20, 30, ANGLES[0])
    dataset = cd.open_result(result)
    assert dataset.attrs["total_projections"] == 72 * 3
    best = dataset.scaled_mip.values.argmax()
    assert np.unravel_index(best, dataset.mip.shape) == (20, 30)
    variables = {"correlation_variance": "score_std", "correlation_average": "score_mean"}
    variables |= {"relative_defocus": "defocus", "mip": "mip", "scaled_mip": "scaled_mip"}
    variables |= {f"orientation_{name}": f"best_{name}" for name in ("phi", "theta", "psi")}
    for name, variable in variables.items():
        with mrcfile.open(tmp_path / "maps" / f"{name}.mrc") as file:
            np.testing.assert_array_equal(file.data, dataset[variable].values)
            assert float(file.voxel_size.x) == pytest.approx(PIXEL)
            assert float(file.header.origin.y) == pytest.approx(float(dataset.y[0]))
    with mrcfile.open(tmp_path / "maps" / "correlation_variance.mrc") as file:
        assert any("standard deviation" in label for label in file.get_labels())
    assert not (result / "run").exists()


def test_a_stored_result_is_that_of_python(config, tmp_path):
    changed(config, "match_template_result.allow_file_overwrite", True)
    dataset = cd.match_micrograph(cd.MatchConfig.from_yaml(config), device="cpu")
    stored = cd.open_result(dataset.cryo.store(tmp_path / "stored.zarr"))
    lazy = dataset.compute(scheduler="single-threaded")
    own = cd.open_result(cd.MatchConfig.from_yaml(config).run(tmp_path / "run.zarr"))
    np.testing.assert_array_equal(own.scaled_mip.values, lazy.scaled_mip.values)
    for name in ("mip", "scaled_mip", "hypothesis", "correlation_sum", "best_phi"):
        np.testing.assert_array_equal(stored[name].values, lazy[name].values)
    paths = {"mip_path": tmp_path / "own.mrc"}
    stored.cryo.write_mrc(paths)
    with mrcfile.open(tmp_path / "own.mrc") as file:
        np.testing.assert_array_equal(file.data, lazy.mip.values)


def test_existing_results_are_kept_and_finished_ones_skipped(config, tmp_path, capsys):
    assert match(config) == 0
    assert match(config) == 2
    assert "micrograph__template.zarr exists; use --overwrite" in capsys.readouterr().err
    assert match(config, "--resume") == 0
    assert "is finished, skipped" in capsys.readouterr().err
    other = tmp_path / "other.zarr"
    assert match(config, "-o", other) == 2
    assert "mip.mrc: exists; set allow_file_overwrite: true" in capsys.readouterr().err
    assert match(config, "--overwrite") == 0
    changed(config, "optics_group.voltage", 200.0)
    assert match(config, "--resume") == 2
    assert "optics_group.voltage 300.0 -> 200.0" in capsys.readouterr().err


def test_the_overwrite_of_a_configuration_is_for_all_results_but_unfinished_ones(config, tmp_path, capsys):
    changed(config, "match_template_result.allow_file_overwrite", True)
    result = tmp_path / "maps" / "micrograph__template.zarr"
    assert match(config) == 0
    changed(config, "optics_group.voltage", 200.0)
    assert match(config) == 0
    assert '"voltage":200.0' in cd.open_result(result).attrs["optics"].replace(" ", "")
    shutil.copytree(result, result.with_name("micrograph__template.partial.zarr"))
    assert match(config) == 2
    assert "micrograph__template.partial.zarr is unfinished; use --resume" in capsys.readouterr().err


class FailingAfter:
    """Tasks fail from a number on, as a killed worker's would."""

    def __init__(self, problem, number):
        self.left, self.fold = number, problem.fold

    def __call__(self, tile, batch):
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("worker killed")
        return self.fold(tile, batch)


@pytest.mark.parametrize("number", [1, 3, 6])
def test_an_interrupted_run_resumes_to_the_same_bytes(scene, tmp_path, number, monkeypatch):
    from cryodask.jobs.micrograph_matching.problem import MicrographProblem

    config = cd.MatchConfig.from_yaml(scene.write(tmp_path, cryodask__tile=64))
    resources = Resources(batch=24, device="cpu")
    whole = open_runs([config], resources, output=tmp_path / "whole.zarr")
    execute(whole, resources=resources)
    runs = open_runs([config], resources, output=tmp_path / "part.zarr")
    calls = FailingAfter(runs[0].problem, number)
    with monkeypatch.context() as patched:
        patched.setattr(MicrographProblem, "fold", lambda self, tile, batch: calls(tile, batch))
        with pytest.raises(IncompleteError, match="run again with --resume"):
            execute(runs, resources=resources)
    assert not (tmp_path / "part.zarr").exists()
    again = open_runs([config], resources, output=tmp_path / "part.zarr", resume=True)
    execute(again, resources=resources)
    first, second = (cd.open_result(tmp_path / f"{name}.zarr") for name in ("whole", "part"))
    for name in first.data_vars:
        np.testing.assert_array_equal(first[name].values, second[name].values)


def star_of(folder, names, **columns):
    optics = pd.DataFrame(
        [
            {
                "rlnOpticsGroup": 1,
                "rlnOpticsGroupName": "one",
                "rlnMicrographPixelSize": PIXEL,
                "rlnVoltage": 300.0,
                "rlnSphericalAberration": 2.7,
                "rlnAmplitudeContrast": 0.07,
            }
        ]
    )
    table = pd.DataFrame({"rlnMicrographName": names, "rlnOpticsGroup": 1})
    for column, value in {
        "rlnDefocusU": OPTICS["defocus_u"],
        "rlnDefocusV": OPTICS["defocus_v"],
        "rlnDefocusAngle": 30.0,
        **columns,
    }.items():
        table[column] = value
    path = folder / "micrographs_ctf.star"
    write_star(path, {"optics": optics, "micrographs": table}, overwrite=True)
    return path


def test_a_batch_is_one_store_with_a_group_for_each_pair(scene, config, tmp_path, capsys):
    for number in (1, 2):
        write_image(tmp_path / f"m{number}.mrc", np.roll(scene.image, number, 0), pixel_size=PIXEL)
    star = star_of(tmp_path, ["m1.mrc", "m2.mrc"])
    changed(config, "optics_group", {"ctf_B_factor": 20.0})
    template = tmp_path / "template.mrc"
    words = [config, "--micrographs", star, "--template", f"a={template}", "--template", f"b={template}"]
    assert match(*words) == 2
    assert "4 pairs of micrograph and template: -o RESULT.zarr is required" in capsys.readouterr().err
    result = tmp_path / "all.zarr"
    assert match(*words, "-o", result) == 0
    assert "match_template_result: no map files of several pairs" in capsys.readouterr().err
    for number in (1, 2):
        for name in ("a", "b"):
            dataset = cd.open_result(result / f"m{number}" / name)
            best = np.unravel_index(dataset.scaled_mip.values.argmax(), dataset.mip.shape)
            assert best == (20 + number, 30)
            assert dataset.attrs["template_name"] == name
    table = pd.read_csv(tmp_path / "all.csv")
    assert set(table.template_name) == {"a", "b"} and set(table.micrograph_name) == {"m1", "m2"}
    tree = xr.open_datatree(result, engine="zarr", consolidated=False)
    assert set(tree.children) == {"m1", "m2"} and set(tree["m1"].children) == {"a", "b"}


def test_a_micrograph_that_cannot_be_used_fails_alone(scene, config, tmp_path, capsys):
    broken = scene.image.copy()
    broken[5, 6] = np.inf
    with pytest.warns(RuntimeWarning):
        write_image(tmp_path / "bad.mrc", broken, pixel_size=PIXEL)
    write_image(tmp_path / "good.mrc", scene.image, pixel_size=PIXEL)
    star = star_of(tmp_path, ["bad.mrc", "good.mrc"])
    result = tmp_path / "all.zarr"
    assert match(config, "--micrographs", star, "-o", result) == 1
    err = capsys.readouterr().err
    assert "bad.mrc: 1 pixels are not finite, the first at (y, x) = (5, 6)" in err
    assert set(pd.read_csv(tmp_path / "all.csv").micrograph_name) == {"good"}
    assert (result / "good" / "template").is_dir() and not (result / "bad" / "template").exists()
    write_image(tmp_path / "bad.mrc", scene.image, pixel_size=PIXEL, overwrite=True)
    assert match(config, "--micrographs", star, "-o", result, "--resume") == 0
    assert (result / "bad" / "template").is_dir()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"rlnBeamTiltX": 0.3}, "rlnBeamTiltX = 0.3: not supported; --ignore-aberrations"),
        ({"rlnMagMat01": 0.1}, "rlnMagMat01 is not 0: not supported; --ignore-aberrations"),
        ({"rlnOpticsGroup": 2}, "optics group 2 has no row in data_optics"),
        ({"rlnDefocusU": "x"}, "rlnDefocusU = x, expected a number"),
        ({"rlnMicrographPixelSize": 1.0}, "pixel size 1, but m1.mrc says 2 angstrom"),
        ({"rlnMicrographName": "none.mrc"}, "rlnMicrographName = none.mrc: no such file"),
    ],
)
def test_a_star_file_that_does_not_fit_is_refused(scene, config, tmp_path, capsys, columns, message):
    write_image(tmp_path / "m1.mrc", scene.image, pixel_size=PIXEL)
    star = star_of(tmp_path, ["m1.mrc"], **columns)
    assert match(config, "--micrographs", star, "-o", tmp_path / "r.zarr") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "r.zarr").exists()


def test_aberrations_can_be_ignored(scene, config, tmp_path):
    write_image(tmp_path / "m1.mrc", scene.image, pixel_size=PIXEL)
    star = star_of(tmp_path, ["m1.mrc"], rlnBeamTiltX=0.3, rlnPhaseShift=90.0)
    configs, _ = read_configs(config, micrographs=star, ignore_aberrations=True)
    assert configs[0].optics_group.phase_shift == 90.0


@pytest.mark.parametrize(
    ("key", "value", "message", "status"),
    [
        ("micrograph_path", "none.mrc", "micrograph_path: none.mrc: no such file", 2),
        ("template_volume_path", "none.mrc", "template_volume_path: none.mrc: no such file", 2),
        ("micrograph_path", "stack.mrc", "stack.mrc: 3 sections of 40 x 40, expected 2-D", 2),
        ("micrograph_path", "small.mrc", "image of 20 x 24 is smaller than the template of 32", 2),
        ("micrograph_path", "even.mrc", "micrograph_path: even.mrc: image has no variance", 2),
        ("micrograph_path", "hole.mrc", "2 pixels are not finite, the first at (y, x) = (3, 7)", 2),
        ("template_volume_path", "stack.mrc", "template of 3 x 40 x 40, expected a cube", 2),
        ("template_volume_path", "odd.mrc", "template of edge 5, expected an even edge", 2),
        ("template_volume_path", "flat.mrc", "flat.mrc: template has no variance", 2),
        ("optics_group.pixel_size", 1.0, "has voxels of 2 angstrom, the image pixels of 1; set", 2),
        ("optics_group.defocus_u", 1.2, "", 0),
        ("optics_group", {**OPTICS, "defocus_u": 0.8, "defocus_v": 0.7}, "looks like micrometres", 2),
        ("optics_group.voltage", 300000, "voltage = 300000: expected 60 to 1000 kV", 2),
        ("optics_group.beam_tilt_x", 0.3, "beam_tilt_x = 0.3: not supported, use odd_zernikes", 2),
        ("optics_group.mtf_values", [1.0, 0.5], "mtf_values = [1.0, 0.5]: not supported", 2),
        ("movie_config", {"enabled": True}, "movie_config = {'enabled': True}: not supported, align", 2),
        ("defocus_search_config.defocus_stp", 1, "(did you mean defocus_step?)", 2),
        ("defocus_search_config.defocus_step", -5, "defocus_step = -5: expected more than 0", 2),
        ("orientation_search_config.theta_step", 0, "theta_step = 0: expected more than 0 degrees", 2),
        ("orientation_search_config.symmetry", "X3", "symmetry = X3: expected C<n>, D<n>, T, O or I", 2),
        (
            "orientation_search_config",
            {"symmetry": "C4", "phi_max": 90, "psi_step": 60, "theta_step": 60},
            "symmetry = C4: given beside phi_max = 90; give one, set the other to null",
            2,
        ),
        (
            "orientation_search_config.symmetry",
            "D2",
            "symmetry = D2: the template turned by 180 degrees about z correlates with itself by",
            2,
        ),
        (
            "cryodask.pixel_size_search_config",
            {"enabled": True, "pixel_size_min": 0.0, "pixel_size_max": 1.0, "pixel_size_step": 0.5},
            "is scaled by 0.667, expected 0.8 to 1.25",
            2,
        ),
        ("cryodask.mask_path", "stack.mrc", "cryodask.mask_path: stack.mrc: 3 sections", 2),
        ("cryodask.mask_path", "small.mrc", "small.mrc: mask of 20 x 24, expected 96 x 112", 2),
        ("cryodask.mask_path", "none_left.mrc", "none_left.mrc leaves no position", 2),
    ],
)
def test_bad_inputs_are_one_line(config, tmp_path, capsys, key, value, message, status, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hole = np.random.default_rng(0).standard_normal((40, 40)).astype(np.float32)
    hole[3, 7] = hole[5, 1] = np.nan
    for name, values in (
        ("stack", np.zeros((3, 40, 40), np.float32)),
        ("odd", np.zeros((5, 5, 5), np.float32)),
        ("flat", np.zeros((8, 8, 8), np.float32)),
        ("small", hole[20:, 16:]),
        ("even", np.ones((96, 112), np.float32)),
        ("none_left", np.zeros((96, 112), np.float32)),
        ("hole", hole),
    ):
        with warnings.catch_warnings():  # mrcfile warns of the hole
            warnings.simplefilter("ignore")
            mrcfile.write(f"{name}.mrc", values)
    changed(config, key, value)
    assert match(config, "--dry-run") == status
    captured = capsys.readouterr()
    assert message in captured.err
    if status:
        assert captured.err.count("\n") == 1 and not captured.out
        assert not (tmp_path / "maps").exists()


def test_what_the_machine_lacks_is_told_before_any_work(config, tmp_path, capsys, monkeypatch):
    assert match(config, "--device", "cuda") == 4
    assert "no CUDA device found, expected a GPU and CuPy" in capsys.readouterr().err
    changed(config, "computational_config", {"gpu_ids": 3})
    with monkeypatch.context() as patched:
        patched.setattr("cryodask.arrays.module.count_cuda_devices", lambda: 1)
        assert run(["match-micrograph", str(config)]) == 4
    assert "gpu_ids = 3: 1 CUDA device(s) found; use gpu_ids: cpu or --cluster" in capsys.readouterr().err
    usage = shutil.disk_usage(tmp_path)._replace(free=10_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert match(config) == 3
    assert "GiB are free" in capsys.readouterr().err
    assert not (tmp_path / "maps").exists()


def test_dry_run_counts_and_starts_nothing(config, tmp_path, capsys):
    assert match(config, "--dry-run", "--json") == 0
    plan = json.loads(capsys.readouterr().out)[0]
    assert plan["hypotheses"] == 216 and plan["tiles"] == 1 and plan["core_seconds"] > 0
    assert not (tmp_path / "maps").exists()
    assert match(config, "--memory", "200kB") == 3
    assert "smallest tile needs" in capsys.readouterr().err


def test_config_checks_shows_writes_and_converts(config, tmp_path, capsys):
    assert run(["config", "check", str(config)]) == 0
    assert "72 orientations x 3 defoci x 1 pixel sizes = 216 hypotheses" in capsys.readouterr().out
    assert run(["config", "show", str(config), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)[0]
    assert shown["n_hypotheses"] == 216 and shown["preprocessing_filters"]["whitening_filter"]["enabled"]
    changed(config, "cryodask.bin_to", 5.0)
    leopard, native = tmp_path / "leopard.yaml", tmp_path / "native.yaml"
    assert run(["config", "convert", str(config), "--to", "leopard-em", "-o", str(leopard)]) == 0
    assert "not in Leopard-EM and left out: cryodask.bin_to" in capsys.readouterr().err
    assert "cryodask" not in yaml.safe_load(leopard.read_text())
    assert run(["config", "convert", str(config), "--to", "cryodask", "-o", str(native)]) == 0
    assert cd.MatchConfig.from_yaml(native).cryodask.bin_to == 5.0
    assert cd.MatchConfig.from_yaml(leopard).optics_group == cd.MatchConfig.from_yaml(config).optics_group
    empty = tmp_path / "empty.yaml"
    assert run(["config", "init", "match-micrograph", "-o", str(empty)]) == 0
    assert run(["config", "check", str(empty)]) == 2
    assert "REQUIRED" in capsys.readouterr().err


def test_a_histogram_counts_every_score(config, tmp_path):
    changed(config, "cryodask", {"histogram": True, "statistics": "local"})
    assert match(config, "-o", tmp_path / "h.zarr") == 0
    dataset = cd.open_result(tmp_path / "h.zarr")
    scores = dataset.attrs["positions"] * dataset.attrs["total_projections"]
    assert int(dataset.histogram.sum()) == scores == int(dataset.survival[0])
    assert dataset.scaled_mip_local.shape == dataset.mip.shape
    assert float(dataset.survival_expected[0]) == pytest.approx(scores, rel=1e-6)


def test_a_folder_that_cannot_be_made_is_refused(config, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert match(config, "-o", Path(tmp_path) / "file" / "r.zarr") == 2
    assert "is no directory" in capsys.readouterr().err


def test_a_binned_result_is_picked_exported_and_refined_at_full_size(config, tmp_path):
    changed(config, "cryodask.bin_to", 6.0)
    changed(config, "match_template_result", None)
    result, table = tmp_path / "r.zarr", tmp_path / "picked.csv"
    assert match(config, "-o", result, "--table", table) == 0
    first = pd.read_csv(table).iloc[0]
    assert abs(first.pos_y - 20) <= 2 and abs(first.pos_x - 30) <= 2
    assert (first.pos_x_img, first.pos_x_img_angstrom) == (first.pos_x + 16, (first.pos_x + 16) * PIXEL)
    stack = ["--stack", str(tmp_path / "s.mrcs"), "--box", "32"]
    for name, words in (("a.star", []), ("b.star", ["--export", "relion30"]), ("c.txt", stack)):
        assert run(["pick", str(result), "-o", str(tmp_path / name), *words]) == 0
    particles = starfile.read(tmp_path / "a.star")["particles"]
    assert particles.rlnCoordinateX.iloc[0] == first.pos_x + 16
    old = starfile.read(tmp_path / "b.star", always_dict=True).popitem()[1]
    assert old.rlnCoordinateY.iloc[0] == first.pos_y + 16 and old.rlnDetectorPixelSize.iloc[0] == PIXEL
    cistem = starfile.read(tmp_path / "s.star", always_dict=True).popitem()[1]
    assert (cistem.cisTEMAnglePhi.iloc[0], cistem.cisTEMXShift.iloc[0]) == (first.phi, 0)
    refine = {
        "template_volume_path": str(tmp_path / "template.mrc"),
        "particle_stack": {
            "df_path": str(table),
            "extracted_box_size": [40, 40],
            "original_template_size": [32, 32],
        },
        "defocus_refinement_config": {"enabled": False},
        "orientation_refinement_config": {"theta_step_coarse": 2.0, "theta_step_fine": 2.0},
    }
    path = tmp_path / "refine.yaml"
    path.write_text(yaml.safe_dump(refine))
    words = ["refine-particles", str(path), "-o", str(tmp_path / "refined.csv")]
    assert run([*words, "--cluster", "threads", "--workers", "1"]) == 0
    refined = pd.read_csv(tmp_path / "refined.csv").iloc[0]
    assert (refined.refined_pos_y, refined.refined_pos_x) == (20, 30)
    assert refined.refined_scaled_mip > 0.8 * first.scaled_mip
