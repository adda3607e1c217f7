"""`config`: files to fill in, checked, shown and converted."""

import json

import pytest
import yaml

from cryodask.cli.main import run
from cryodask.io.star import read_star_text
from cryodask.jobs.tomogram_matching.parameters import read_parameters


@pytest.fixture
def project(shared_data, tmp_path):
    """Write native parameters of the real ribosome subtomogram."""
    golden = shared_data / "tomogram_matching" / "local_correlation"
    content = {
        "root": str(golden),
        "tomogram": "subtomo_ribosome_mmotl_ribosome_b4_trim_shift_t126_t126_b4_s48.em",
        "tomo_num": 126,
        "template": "bin4_voxel2.176_ribosome.em",
        "mask": "mask48_r22.em",
        "tilts": [-54.5, 58.25],
        "voxel_size": 8.704,
        "angles": {"file": "AGL_anglist_30_deg_c1.csv", "order": "zzx"},
        "lp_rad": 24,
        "hp_rad": 1,
    }

    def write(**changes):
        path = tmp_path / "ribosome.yaml"
        path.write_text(yaml.safe_dump({**content, **changes}))
        return path

    return write


@pytest.mark.parametrize(("angles", "column"), [("list", "anglist_name"), ("increments", "angincr")])
@pytest.mark.parametrize("words", [["config"], ["config", "init", "match-tomogram"]])
def test_a_star_to_fill_in_never_has_both_angle_specifications(tmp_path, angles, column, words, capsys):
    path = tmp_path / "tm.star"
    assert run([*words, "-o", str(path), "--angles", angles]) == 0
    (table,) = read_star_text(path).values()
    assert ("anglist_name" in table.columns) != ("angincr" in table.columns)
    assert table[column].tolist() == ["REQUIRED"]
    assert table["tomo_mask_name"].tolist() == ["none"]
    assert run(["config", "check", str(path)]) == 2
    assert "rootdir is still REQUIRED" in capsys.readouterr().err


def test_without_defaults_only_required_fields_are_written(tmp_path):
    star, native = tmp_path / "tm.star", tmp_path / "tm.yaml"
    assert run(["config", "-n", "-o", str(star)]) == 0
    (table,) = read_star_text(star).values()
    assert set(table.iloc[0]) == {"REQUIRED"}
    assert run(["config", "-n", "-o", str(native), "--angles", "increments"]) == 0
    assert yaml.safe_load(native.read_text()) == {
        "tomogram": "REQUIRED",
        "template": "REQUIRED",
        "mask": "REQUIRED",
        "angles": {"step": "REQUIRED"},
    }


def test_check_loads_the_inputs_and_counts_them(project, capsys):
    assert run(["config", "check", str(project())]) == 0
    assert "576 rotations x 110592 voxels of 8.704 angstrom, template box 48" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tomogram": "t9.mrc"}, "tomogram = t9.mrc: no such file (looked in "),
        ({"lp_rad": 40}, "lp_rad = 40: expected 0 < lp_rad <= 24"),
        ({"miss_rate": 0.1}, "miss_rate = 0.1: is of strategy: coarse_to_fine alone"),
        ({"ctf": "amplitude"}, "ctf = amplitude needs column defocus"),
    ],
)
def test_check_names_what_is_wrong(project, capsys, changes, message):
    assert run(["config", "check", str(project(**changes))]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.splitlines()[-1].startswith("cryodask: error: ribosome.yaml row 0: ")


def test_show_prints_values_counts_and_threshold(project, capsys):
    assert run(["config", "show", "--json", str(project())]) == 0
    (values,) = json.loads(capsys.readouterr().out)
    assert (values["interpolation"], values["n_rotations"], values["n_voxels"]) == ("cubic", 576, 48**3)
    assert values["threshold_sigma"] == pytest.approx(5.4, abs=0.2)


def test_show_works_without_the_files_and_says_so(project, capsys):
    assert run(["config", "show", str(project(tomogram="t9.mrc"))]) == 0
    output = capsys.readouterr()
    assert "interpolation            cubic" in output.out
    assert "note: no counts: ribosome.yaml row 0: tomogram = t9.mrc: no such file" in output.err


def test_convert_goes_round_all_dialects(project, tmp_path, capsys):
    native = project(
        noise_correction="ratio", interpolation="linear", statistics_grid="exact", tilts="w.star"
    )
    steps = [("a.star", []), ("b.star", ["--to", "stopgap"]), ("c.yaml", [])]
    source = native
    for name, words in steps:
        assert run(["config", "convert", str(source), "-o", str(tmp_path / name), *words]) == 0
        source = tmp_path / name
    before, after = (read_parameters(path)[0].model_dump() for path in (native, source))
    differing = {key for key, value in after.items() if value != before[key]}
    # STOPGAP has no voxel size, and its maps are EM
    assert differing == {"voxel_size", "formats", "angles"}
    assert after["angles"]["file"] == before["angles"]["file"]
    assert "not in STOPGAP and left out: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["config"], "-o, or one of init, check, show, convert and wedge-list, is required"),
        (["config", "-o", "tm.txt"], "tm.txt: expected a name that ends in .star, .yaml or .yml"),
        (["config", "check", "nowhere.star"], "nowhere.star: no such file"),
        (
            ["config", "convert", "a.star", "-o", "b.yaml", "--to", "stopgap"],
            "--to stopgap and b.yaml do not fit",
        ),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(capsys, words, message):
    assert run(words) == 2
    assert message in capsys.readouterr().err
