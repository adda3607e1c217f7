"""The command `info`."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from cryodask.cli.info import info
from cryodask.cli.main import run
from cryodask.io.volume import write_volume


def invoke(*arguments):
    return CliRunner().invoke(info, [str(argument) for argument in arguments], catch_exceptions=False)


@pytest.fixture
def tomogram(tmp_path):
    values = np.random.default_rng(0).normal(5, 2, size=(10, 12, 14)).astype("f4")
    values[3, 7, 1] = values[3, 11, 0] = np.nan
    values[9, 0, 0] = np.inf
    write_volume(tmp_path / "t.mrc", values, voxel_size=8.704, origin=(1, 2, 3))
    return tmp_path / "t.mrc", values


def test_statistics_are_those_of_the_finite_voxels(tomogram):
    path, values = tomogram
    (facts,) = json.loads(invoke(path, "--json").output)
    finite = values[np.isfinite(values)].astype(float)
    assert facts["shape"] == [10, 12, 14]
    assert (facts["voxel_size"], facts["origin"], facts["dtype"]) == (8.704, [1, 2, 3], "float32")
    assert (facts["nan_count"], facts["first_nan"]) == (3, [3, 7, 1])
    expected = [finite.min(), finite.max(), finite.mean(), finite.std()]
    np.testing.assert_allclose([facts[name] for name in ("min", "max", "mean", "std")], expected, rtol=1e-12)


def test_text_for_people(tomogram):
    lines = invoke(tomogram[0]).output.splitlines()
    assert lines[0] == str(tomogram[0])
    assert "  shape (z, y, x)             10, 12, 14" in lines
    assert "  voxel size (angstrom)       8.704" in lines
    assert "  NaN or infinite voxels      3" in lines


def test_quick_reads_the_header_alone(tomogram):
    (facts,) = json.loads(invoke(tomogram[0], "--json", "--quick").output)
    assert "mean" not in facts


def test_several_files_and_star_blocks(shared_data):
    folder = shared_data / "tomogram_matching"
    star = folder / "tilt_metadata/wedgeutils_data/wedge_list_018.star"
    template = folder / "templates_10A/1bxn.mrc"
    output = invoke(star, template).output
    assert "  data_stopgap_wedgelist      60 rows: tomo_num, pixelsize, tomo_x" in output
    assert "  shape (z, y, x)             52, 52, 52" in output
    found = json.loads(invoke(star, template, "--json").output)
    assert [facts["format"] for facts in found] == ["star", "mrc"]
    assert found[0]["blocks"]["stopgap_wedgelist"]["rows"] == 60


def test_files_before_a_bad_one_are_described(tomogram):
    result = CliRunner().invoke(info, [str(tomogram[0]), str(tomogram[0].with_name("missing.mrc"))])
    assert "missing.mrc: no such file" in str(result.exception)
    assert "  shape (z, y, x)             10, 12, 14" in result.output


def test_devices_are_listed(capsys):
    assert run(["info", "--devices", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found[0]["device"] == "cpu" and found[0]["cores"] >= 1 and found[0]["memory_bytes"] > 0
    assert run(["info"]) == 2
    assert "name a file, or give --devices" in capsys.readouterr().err
