"""`cryodask likelihood` as a user runs it: files in, files out, one line for each wrong input."""

import json
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mrcfile
import numpy as np
import pandas as pd
import pytest
import yaml

import cryodask as cd
from cryodask.cli.main import run
from cryodask.io.star import read_star, write_star

BOX, PIXEL = 32, 4.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two text models, noisy images of the first without orientation search, and a configuration."""
    rng = np.random.default_rng(5)
    points = rng.normal(size=(60, 3)) * 14
    bent = points + np.where(points[:, :1] > 0, [0, 8.0, 0], 0)
    for name, each in (("straight", points), ("bent", bent)):
        rows = np.column_stack([each, np.full(60, 4.0), np.full(60, 10.0)])
        np.savetxt(tmp_path / f"{name}.txt", rows, fmt="%.4f")
    rod = np.outer(np.linspace(-40, 40, 30), [0.7, 0.7, 0])
    np.savetxt(tmp_path / "rod.txt", np.column_stack([rod, np.full(30, 4.0), np.full(30, 10.0)]))
    centred = points - points.mean(axis=0)
    pixels = (np.arange(BOX) - BOX // 2) * PIXEL
    x, y = np.exp(-(((pixels[:, None, None] - centred[None, :, :2]) / 5.6) ** 2)).transpose(2, 0, 1)
    clean = y @ x.T
    noisy = clean + rng.normal(size=(6, BOX, BOX)) * clean.std() / np.sqrt(0.3)
    mrcfile.write(tmp_path / "p.mrcs", noisy.astype(np.float32), voxel_size=PIXEL)
    optics = pd.DataFrame({"rlnOpticsGroup": [1], "rlnImagePixelSize": [PIXEL], "rlnVoltage": [300.0]})
    optics = optics.assign(rlnSphericalAberration=2.7, rlnAmplitudeContrast=0.1)
    particles = pd.DataFrame({"rlnImageName": [f"{i + 1}@p.mrcs" for i in range(6)], "rlnOpticsGroup": 1})
    write_star(tmp_path / "p.star", {"optics": optics, "particles": particles})
    beyond = particles.assign(rlnImageName="31@p.mrcs")
    write_star(tmp_path / "five.star", {"optics": optics, "particles": beyond})
    mrcfile.write(tmp_path / "flat.mrc", np.zeros((8, 8, 8), np.float32))
    write_config(tmp_path)
    return tmp_path


def write_config(folder: Path, **changes: Any) -> Path:
    content: dict[str, Any] = {
        "images": "p.star",
        "image_options": {"optics": "none"},
        "structures": [{"name": "straight", "path": "straight.txt"}, {"name": "bent", "path": "bent.txt"}],
        "atoms": {"model": "atom_gaussian"},
        "grid": {
            "viewing_distance": 0.9,
            "n_inplanes": 32,
            "max_displacement_pixels": 1,
            "n_displacements_x": 3,
            "n_displacements_y": 3,
        },
        "output": "out.zarr",
    }
    for key, value in changes.items():
        block, _, inner = key.partition("__")
        if inner:
            content[block] = dict(content.get(block, {})) | {inner: value}
        else:
            content[block] = value
    path = folder / "c.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_the_right_structure_wins_and_every_file_is_written(folder: Path, capsys: Any) -> None:
    arguments = [
        "likelihood",
        str(folder / "c.yaml"),
        "--files",
        "star,csv,png,matrix",
        "--cluster",
        "threads",
    ]
    assert run([*arguments, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert Path(told["results"][0]["result"]) == folder / "out.zarr"
    ds = cd.open_result(folder / "out.zarr")
    assert list(ds.structure.values) == ["straight", "bent"]
    assert ds.posterior_all.values[0] > 0.99
    difference = ds.log_likelihood.values[0] - ds.log_likelihood.values[1]
    table = pd.read_csv(folder / "out_comparison.csv")
    np.testing.assert_allclose(table["cumulative_difference"], np.cumsum(difference), rtol=1e-5)
    assert (table["posterior_straight"] + table["posterior_bent"]).to_numpy() == pytest.approx(1)
    np.testing.assert_allclose(np.loadtxt(folder / "out_matrix.txt"), ds.log_likelihood.values.T, rtol=1e-8)
    star = read_star(folder / "out_best.star")["particles"]
    assert list(star["rlnImageName"]) == [f"{i + 1}@p.mrcs" for i in range(6)]
    assert set(star["rlnClassNumber"]) <= {1, 2}
    assert (folder / "out_comparison.png").stat().st_size > 5000
    assert not (folder / "out.zarr" / "run").exists()


def test_dry_run_says_what_it_costs_and_writes_nothing(folder: Path, capsys: Any) -> None:
    before = set(folder.iterdir())
    assert run(["likelihood", str(folder / "c.yaml"), "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["images"] == 6
    assert plan["poses_of_an_image"] == sum(plan["templates"]) * 9 * 32
    assert set(folder.iterdir()) == before


def test_existing_result_is_not_replaced_unasked(folder: Path, capsys: Any) -> None:
    config = str(folder / "c.yaml")
    assert run(["likelihood", config, "--cluster", "threads"]) == 0
    assert run(["likelihood", config, "--cluster", "threads"]) == 2
    assert "out.zarr exists; use --overwrite or --resume" in capsys.readouterr().err
    assert "parameters" in cd.open_result(folder / "out.zarr").attrs
    assert run(["likelihood", config, "--cluster", "threads", "--resume"]) == 0
    assert "finished, skipped" in capsys.readouterr().err


BAD = [
    ({"images": "q.star"}, "q.star: no such file"),
    ({"grid__resolution_factor": 1.5}, "expected 0 < resolution_factor <= 1"),
    ({"grid__n_inplanes": 33}, "grid.n_inplanes = 33: expected an even number >= 8"),
    ({"grid__viewing_distance": 0}, "expected 0.02..1"),
    ({"grid__max_displacement_pixels": 40}, "max_displacement_pixels = 40: expected 0 <= x < 16"),
    ({"grid__viewing_dist": 0.2}, "unknown key grid.viewing_dist (did you mean viewing_distance?)"),
    ({"keep": ["poses"]}, "keep = "),
    ({"keep": ["top"], "top": 0}, "expected 1 <= top <= 1000"),
    ({"image_options__optics": "file"}, "rlnDefocusU is missing; give optics, or optics: none"),
    (
        {"image_options__optics": {"defocus_u": 2.1}},
        "rlnDefocusU = 2.1: expected angstrom; looks like micrometres",
    ),
    ({"image_options__select": "0-99"}, "select = 0-99: the stack has 6 images"),
    ({"structures": [{"path": "straight.txt"}, {"path": "straight.txt"}]}, 'name "straight" used twice'),
    ({"structures": [{"path": "straight.txt", "prior": -1}]}, "prior = -1"),
    ({"structures": [{"path": "rod.txt", "symmetry": "D2"}]}, "with its D2 average, limit 0.8"),
    ({"structures": [{"path": "none.pdb"}]}, "none.pdb: no such file"),
    ({"structures": [{"path": "p.mrcs"}]}, "p.mrcs: map 6x32x32: expected a cube"),
    ({"image_options__n_stacks": 9}, "n_stacks = 9: found 1"),
    ({"image_options__select": "rlnClass == 1"}, "condition of STAR columns"),
    ({"image_options__downsample": 3}, "expected 1 or an even factor"),
    ({"image_options__downsample_method": "median"}, "expected crop, mean or max"),
    ({"images": ["p.star", "q.star"]}, "q.star: no such file"),
    ({"images": "five.star"}, "row 1: 31@p.mrcs: image 31, stack has 6 images"),
    ({"structures": [{"path": "straight.txt", "i_template": 0}]}, "straight.txt holds no ready templates"),
    ({"structures": [{"path": "straight.txt", "kind": "templates"}]}, "straight.txt: no templates, expected"),
    ({"structures": [{"path": "flat.mrc"}]}, "flat.mrc: voxel size 0 in the header, set voxel_size"),
    (
        {"image_options__optics": {"defocus_u": 9000.0, "voltage": 300000.0, "cs": 2.7}},
        "expected kV, 60..1000",
    ),
    ({"files": ["cryolike"]}, "need its axes; add --compat cryolike"),
    ({"output": "out"}, "output = out: expected a name that ends in .zarr"),
    ({"likelihood__noise": "measured"}, "likelihood.noise = measured: expected white"),
]


@pytest.mark.parametrize(("changes", "message"), BAD, ids=[message for _, message in BAD])
def test_wrong_input_is_one_line_and_nothing_is_written(
    folder: Path, capsys: Any, changes: dict[str, Any], message: str
) -> None:
    config = write_config(folder, **changes)
    before = set(folder.iterdir())
    assert run(["likelihood", str(config), "--cluster", "threads"]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert error.count("\n") == 0
    assert set(folder.iterdir()) == before


def test_structure_larger_than_the_box(folder: Path, capsys: Any) -> None:
    rows = np.loadtxt(folder / "straight.txt")
    np.savetxt(folder / "straight.txt", rows * [5, 5, 5, 1, 1])
    assert run(["likelihood", str(folder / "c.yaml")]) == 2
    assert "box allows 64; use a box of at least" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.nan, r"3@p.mrcs: 1 non-finite pixels, first at (y,x) = (3,9)"),
        (None, "3@p.mrcs: image 2 is constant"),
    ],
)
def test_bad_pixels_are_named(folder: Path, capsys: Any, value: float | None, message: str) -> None:
    images = mrcfile.read(folder / "p.mrcs").copy()
    if value is None:
        images[2] = 1.0
    else:
        images[2, 3, 9] = value
    with warnings.catch_warnings(action="ignore"):  # mrcfile tells of the pixel too
        mrcfile.write(folder / "p.mrcs", images, voxel_size=PIXEL, overwrite=True)
    assert run(["likelihood", str(folder / "c.yaml"), "--cluster", "threads"]) == 2
    assert message in capsys.readouterr().err
    assert not list(folder.glob("*.zarr"))


def test_a_result_larger_than_the_disk_is_refused(
    folder: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
    assert run(["likelihood", str(folder / "c.yaml"), "--keep", "full", "--cluster", "threads"]) == 3
    assert "the results need" in (error := capsys.readouterr().err)
    assert "GiB are free" in error
    assert not list(folder.glob("*.zarr"))


def test_on_worker_processes(folder: Path) -> None:
    command = [sys.executable, "-m", "cryodask", "likelihood", str(folder / "c.yaml"), "--workers", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(folder / "out.zarr")
    assert cd.open_result(folder / "out.zarr").posterior_all.values[0] > 0.99
