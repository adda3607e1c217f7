"""The command `pick`."""

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from click.testing import CliRunner

from cryodask.cli.main import run
from cryodask.cli.pick import FORMATS, pick
from cryodask.io.particles import read_particles
from cryodask.io.volume import write_volume

SHAPE = (20, 24, 28)
PLACES = [(8, 9, 10, 0.9), (14, 18, 21, 0.8), (7, 17, 8, 0.7)]


def invoke(*arguments):
    return CliRunner().invoke(pick, [str(argument) for argument in arguments], catch_exceptions=False)


@pytest.fixture
def result(tmp_path):
    rng = np.random.default_rng(1)
    score = np.clip(rng.normal(0, 0.02, SHAPE), -0.06, 0.06).astype(np.float32)
    for z, y, x, height in PLACES:
        score[z, y, x] = height
    maps = ("template", "z", "y", "x")
    dataset = xr.Dataset(
        {
            "score": (maps, score[None]),
            "score_raw": (maps, score[None]),
            "orientation": (maps, rng.integers(0, 9, (1, *SHAPE)).astype(np.uint32)),
            "valid": (maps[1:], np.ones(SHAPE, np.uint8)),
            "euler": (("template", "row", "angle"), rng.uniform(0, 170, (1, 9, 3))),
            "sigma": (("template",), [0.02]),
            "n_rotations": (("template",), [9]),
            "n_voxels": (("template",), [score.size]),
        },
        attrs={
            "voxel_size": 8.0, "origin": [0.0, 0.0, 0.0], "tomo_name": "TS_017", "tomo_num": 17,
            "template_names": ["ribosome"], "symmetry": "C1", "particle_diameter": 40.0, "binning": 4.0,
        },
    )  # fmt: skip
    dataset.chunk(z=10, y=12, x=14).to_zarr(tmp_path / "TS_017.zarr", zarr_format=3, consolidated=False)
    return tmp_path / "TS_017.zarr"


@pytest.fixture
def truth(tmp_path):
    rows = [(9.0, 8.0, 10.0), (18.0, 14.0, 21.0), (3.0, 3.0, 3.0), (5.0, 15.0, 20.0)]
    table = pd.DataFrame(rows, columns=["y", "z", "x"]).assign(phi=0.0, theta=0.0, psi=0.0, tomo_num=17)
    table.to_csv(tmp_path / "truth.csv", index=False)
    return tmp_path / "truth.csv"


@pytest.mark.parametrize("dialect", FORMATS)
def test_every_format_holds_the_same_particles(result, tmp_path, dialect):
    suffix = {"em": "em", "dynamo": "tbl", "csv": "csv"}.get(dialect, "star")
    out = tmp_path / f"out.{suffix}"
    assert invoke(result, "-o", out, "--format", dialect, "--refine", "none").exit_code == 0
    shape = tuple(4 * n for n in SHAPE)
    table = read_particles(out, dialect, voxel_size=8.0, binning=4.0, tomogram_shape=shape)
    expected = [(x, y, z) for z, y, x, _ in PLACES]
    np.testing.assert_allclose(table[["x", "y", "z"]].to_numpy(float), expected, atol=1e-4)


def test_other_spellings_mean_the_same(result, tmp_path):
    invoke(result, "-o", tmp_path / "a.csv", "--score", "score_raw", "--threshold", 0.75, "--format", "csv")
    invoke(
        result, "--table", tmp_path / "b.csv", "--metric", "score_raw", "--cutoff", 0.75, "--export", "csv"
    )
    first, second = (tmp_path / f"{name}.csv" for name in "ab")
    assert first.read_text() == second.read_text()
    assert len(pd.read_csv(first)) == 2


def test_compare_prints_a_table_and_writes_it_with_the_roc_picture(result, truth, tmp_path):
    shown = invoke(result, "-o", tmp_path / "out.csv", "--compare", truth)
    assert "3 picks, 4 true particles" in shown.stdout
    last = shown.stdout.split()[-8:]
    assert last[1:6] == ["3", "2", "0.500", "0.667", "0.571"]
    assert "3 particles in" in shown.stderr
    table = pd.read_csv(tmp_path / "out.thresholds.csv")
    assert table.found.tolist() == [1, 2, 2]
    assert (tmp_path / "out.roc.png").read_bytes().startswith(b"\x89PNG")


def test_json_for_scripts(result, truth):
    facts = json.loads(invoke(result, "--compare", truth, "--json").stdout)
    assert facts["particles"] == 3
    assert facts["rule"] == "false_positives = 1"
    assert facts["comparison"]["recall"] == 0.5
    assert facts["comparison"]["median_position_error_angstrom"] < 8
    assert [row["picks"] for row in facts["at_thresholds"]] == [1, 2, 3]


@pytest.mark.parametrize("words", [("--workers", "2"), ("--cluster", "threads", "--workers", "2")])
def test_workers_find_the_same_particles(result, tmp_path, words):
    mask = tmp_path / "mask.mrc"
    write_volume(mask, np.ones(SHAPE, np.float32), voxel_size=8.0)
    invoke(result, "-o", tmp_path / "one.csv")
    assert invoke(result, "-o", tmp_path / "two.csv", "--mask", mask, *words).exit_code == 0
    assert (tmp_path / "one.csv").read_text() == (tmp_path / "two.csv").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--threshold", "1", "--sigma", "3"], "choose one of --threshold, --sigma, --false-positives"),
        (["--fdr", "0.05"], "--fdr needs a map of decoys"),
        (["--top-hat", "--threshold", "0.1"], "--top-hat 50: no Gaussian fits the noise"),
        (["--top-hat", "4"], "--top-hat 4: expected 8 bins or more"),
        (["--refine", "both"], "--refine both needs the parameters of the search"),
        (["--independent", "effective"], "--independent effective needs the parameters of the search"),
        (["--cluster-size", "1,2,3"], "1,2,3: expected MIN or MIN,MAX"),
        (["--object", "2"], "--object 2: csv has no object, only stopgap, em, dynamo"),
        (["--split-halves"], "--split-halves: csv has no half sets"),
        (["-o", "out.txt"], "out.txt: unknown table suffix"),
        (["--order", "zzx"], "are for bare score maps"),
        (["--compare", "none.star"], "none.star: no such file"),
    ],
)
def test_wrong_options_leave_status_2_and_no_table(result, tmp_path, capsys, words, message):
    assert run(["pick", str(result), "-o", str(tmp_path / "out.csv"), *words]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.glob("out*")) == []


def test_existing_output_needs_overwrite(result, tmp_path, capsys):
    out = tmp_path / "out.csv"
    out.write_text("mine")
    assert run(["pick", str(result), "-o", str(out)]) == 2
    assert "out.csv exists; use --overwrite" in capsys.readouterr().err
    assert out.read_text() == "mine"
    assert run(["pick", str(result), "-o", str(out), "--overwrite"]) == 0
    assert len(pd.read_csv(out)) == 3


def test_an_output_or_a_truth_is_required(result, capsys):
    assert run(["pick", str(result)]) == 2
    assert "-o OUT is required (or --compare TRUTH)" in capsys.readouterr().err
