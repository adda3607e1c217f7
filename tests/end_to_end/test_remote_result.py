"""A stored result as others see it: in OME-Zarr viewers, in xarray, and at an address."""

import warnings

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr

import cryodask as cd
from cryodask.errors import InputError
from cryodask.io.volume import open_volume


def test_every_map_has_a_pyramid_that_the_metadata_name(matched):
    group = zarr.open_group(matched, mode="r")
    images = {image["name"]: image for image in group.attrs["ome"]["multiscales"]}
    dataset = cd.open_result(matched)
    assert next(iter(images)) == "score"  # what viewers open
    assert set(images) == {name for name in dataset.data_vars if dataset[name].ndim > 2} - {"euler"}
    for name, image in images.items():
        paths = [level["path"] for level in image["datasets"]]
        assert paths == [name, f"pyramid/{name}/1"]
        axes = [axis["name"] for axis in image["axes"]]
        assert [group[path].metadata.dimension_names for path in paths] == [tuple(axes)] * 2
    rows, coarse = dataset.orientation.values, group["pyramid/orientation/1"][:]
    np.testing.assert_array_equal(coarse, rows[:, ::2, ::2, ::2])
    assert set(np.unique(group["pyramid/valid/1"][:])) == {0, 1}


def test_xarray_opens_the_root_without_a_warning(matched):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        xr.testing.assert_identical(xr.open_zarr(matched), cd.open_result(matched))


def test_a_result_at_an_address_opens_and_is_picked_without_lists_of_folders(matched, serve):
    served = serve(matched.parent)
    address = f"{served.address}/{matched.name}"
    there = cd.open_result(address)
    assert served.sent_bytes("/score/c/") == 0
    xr.testing.assert_equal(there[["score", "euler"]].load(), cd.open_result(matched)[["score", "euler"]])
    here = cd.pick(matched, false_positives=1)
    assert len(here) == 18
    pd.testing.assert_frame_equal(cd.pick(address, false_positives=1), here)
    assert open_volume(address, level=1).shape == (30, 48, 45)


def test_the_command_line_picks_at_an_address(matched, serve, run_cli, tmp_path):
    address = f"{serve(matched.parent).address}/{matched.name}"
    assert run_cli("pick", address, "-o", tmp_path / "there.csv")[0] == 0
    assert run_cli("pick", matched, "-o", tmp_path / "here.csv")[0] == 0
    assert (tmp_path / "there.csv").read_text() == (tmp_path / "here.csv").read_text()


def test_a_result_that_is_not_at_its_address_is_named(tmp_path, serve, monkeypatch):
    monkeypatch.setattr("cryodask.io.remote.PAUSE", 0.0)
    served = serve(tmp_path)
    address = f"{served.address}/none.zarr"
    for read in (cd.open_result, cd.pick):
        with pytest.raises(InputError, match=f"^{address}: no Zarr store there"):
            read(address)
    served.failures = 99
    with pytest.raises(InputError, match=f"^{address}: ClientResponseError: 503"):
        cd.open_result(address)
