"""The command `convert`."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from cryodask.cli.convert import convert
from cryodask.errors import InputError
from cryodask.io.volume import read_header, read_volume, write_volume


@pytest.fixture
def tomogram(tmp_path):
    values = np.random.default_rng(0).normal(size=(10, 12, 14)).astype("f4")
    write_volume(tmp_path / "t.mrc", values, voxel_size=8, origin=(1, 2, 3))
    return tmp_path / "t.mrc", values


def invoke(*arguments):
    return CliRunner().invoke(convert, [str(argument) for argument in arguments], catch_exceptions=False)


def test_mrc_becomes_ome_zarr_and_comes_back(tomogram, tmp_path):
    path, values = tomogram
    result = invoke(path, tmp_path / "t.zarr", "--pyramid", 1)
    assert result.output == f"{tmp_path / 't.zarr'}: 10 x 12 x 14 float32, voxel size 8 angstrom\n"
    assert read_header(tmp_path / "t.zarr", level=1).voxel_size == 16
    facts = json.loads(invoke(tmp_path / "t.zarr", tmp_path / "back.mrc", "--json").output)
    assert facts["origin"] == [1, 2, 3]
    np.testing.assert_array_equal(read_volume(tmp_path / "back.mrc"), values)


def test_options_reach_the_output(tomogram, tmp_path):
    path, _ = tomogram
    invoke(path, tmp_path / "t.em", "--voxel-size", 4, "--dtype", "int16")
    header = read_header(tmp_path / "t.em")
    assert (header.voxel_size, header.dtype) == (4, np.dtype("i2"))


def test_existing_output_is_kept_without_overwrite(tomogram, tmp_path):
    path, _ = tomogram
    (tmp_path / "t.em").write_text("precious")
    with pytest.raises(InputError, match=r"t.em exists; use --overwrite"):
        invoke(path, tmp_path / "t.em")
    assert (tmp_path / "t.em").read_text() == "precious"
    assert invoke(path, tmp_path / "t.em", "--overwrite").exit_code == 0
    assert read_header(tmp_path / "t.em").shape == (10, 12, 14)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["t.mrc", "u.tif"], r"u.tif: unknown volume format, expected .mrc"),
        (["t.mrc", "u.mrc.gz"], r"u.mrc.gz: compressed volumes are read, not written"),
        (["v.mrc", "u.em"], r"v.mrc: no such file \(looked in .*\)"),
        (["t.mrc", "u.em", "--pyramid", 2], "pyramid = 2: only OME-Zarr has levels"),
        (["t.mrc", "u.em", "--level", 2], r"t.mrc: level 2, but only OME-Zarr has levels"),
        (["t.mrc", "u.zarr", "--chunk", 500], "chunk = 500: expected 1 to 128"),
    ],
)
def test_wrong_requests_are_named_and_write_nothing(tomogram, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        invoke(*arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["t.mrc"]
