"""`generate-angles`: GAPSTOP's options, CSV on standard output, the summary on standard error."""

import numpy as np
import pytest

from cryodask.cli.main import run
from cryodask.geometry.grids import rotation_grid
from cryodask.io.angles import read_angle_list


def generate(capsys, *words):
    assert run(["generate-angles", *words]) == 0
    output = capsys.readouterr()
    return np.loadtxt(output.out.splitlines(), delimiter=",", ndmin=2), output.err


def test_the_list_is_golden_and_its_summary_counts_it(capsys):
    rows, summary = generate(capsys, "--angincr", "30")
    np.testing.assert_allclose(rows, rotation_grid(30, method="golden"), atol=5.1e-6)
    assert "53 directions x 12 in-plane values = 636 rotations" in summary


def test_cone_and_in_plane_range_are_increments_times_iterations(capsys):
    words = [
        "--angincr",
        "10",
        "--angiter",
        "3",
        "--phi-angincr",
        "5",
        "--phi-angiter",
        "2",
        "--method",
        "rings",
    ]
    rows, _ = generate(capsys, *words)
    assert rows[:, 1].max() == 30
    assert set(np.round((rows[:, 0] + 180) % 360 - 180, 6)) == {-10, -5, 0, 5, 10}


def test_a_diameter_gives_the_step_and_healpix_is_its_method(capsys):
    rows, _ = generate(capsys, "--particle-diameter", "300", "--resolution", "150")
    np.testing.assert_allclose(rows, rotation_grid(np.degrees(0.5), method="healpix"), atol=5.1e-6)


def test_zzx_files_are_read_back_as_the_same_rotations(capsys, tmp_path):
    words = ["--angincr", "40", "--symmetry", "D2", "--centre", "10,20,30"]
    rows, _ = generate(capsys, *words)
    path = tmp_path / "list.csv"
    generate_to_file = run(["generate-angles", *words, "--order", "zzx", "-o", str(path)])
    assert generate_to_file == 0
    np.testing.assert_allclose(read_angle_list(path, order="zzx"), rows, atol=1e-9)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--angincr, or --particle-diameter and --resolution, is required"),
        (["--particle-diameter", "300"], "--angincr, or --particle-diameter and --resolution, is required"),
        (["--angincr", "7", "--resolution", "20"], "choose one of --angincr and --particle-diameter"),
        (["--angincr", "200"], "angular step = 200: expected 0 < step <= 180 degrees"),
        (["--angincr", "10", "--symmetry", "X5"], "expected Cn, Dn, T, T3, O, I, I1, I2"),
        (["--angincr", "10", "--centre", "1,2"], "1,2: expected phi,theta,psi in degrees"),
        (["--angincr", "10", "--angiter", "0"], "0 is not in the range x>=1"),
    ],
)
def test_wrong_options_are_one_line_and_status_2(capsys, words, message):
    assert run(["generate-angles", *words]) == 2
    output = capsys.readouterr()
    assert (output.out, output.err.count("\n")) == ("", 1)
    assert message in output.err
