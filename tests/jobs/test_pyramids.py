"""Pyramids of result maps: what OME-Zarr 0.5 asks for, at the right place, within bounded memory."""

import json
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

from cryodask.io.volume import open_volume
from cryodask.jobs.consolidation import consolidate
from cryodask.jobs.tomogram_matching.pyramids import add_pyramids, count_levels
from cryodask.search.aggregates import NO_ID

SHAPE = (60, 131, 70)
PYRAMIDS = ("pyramid/*", "pyramid/*/*")


def make_store(path, shape=SHAPE, core=(32, 80, 70)):
    """Return the path of a store with a score and an orientation map (template, z, y, x)."""
    rng = np.random.default_rng(1)
    group = zarr.open_group(path, mode="w", zarr_format=3)
    group.create_group("run/constants")
    rows = rng.integers(0, 50, (1, *shape), dtype="u4")
    rows[:, :8] = NO_ID
    maps = {"score": rng.standard_normal((1, *shape), dtype="f4"), "orientation": rows}
    for name, values in maps.items():
        array = group.create_array(
            name,
            shape=values.shape,
            shards=(1, *core),
            chunks=(1, core[0] // 2, core[1] // 2, core[2] // 2),
            dtype=values.dtype,
            fill_value=0 if name == "score" else int(NO_ID),
            dimension_names=("template", "z", "y", "x"),
        )
        array[:] = values
    return str(path)


@pytest.fixture
def store(tmp_path):
    path = make_store(tmp_path / "result.zarr")
    group = zarr.open_group(path)
    group.attrs["ome"] = add_pyramids(path, ["score", "orientation"], 10.0, (5.0, 6.0, 7.0))
    consolidate(path, PYRAMIDS)
    return path


def test_coarse_scores_are_means_and_coarse_rows_are_rows(store):
    group = zarr.open_group(store, mode="r")
    score, rows = group["score"][0], group["orientation"][0]
    padded = np.pad(score, [(0, 0), (0, 1), (0, 0)], mode="edge")
    expected = padded.reshape(30, 2, 66, 2, 35, 2).mean(axis=(1, 3, 5))
    np.testing.assert_allclose(group["pyramid/score/1"][0], expected, atol=1e-6)
    np.testing.assert_array_equal(group["pyramid/orientation/1"][0], rows[::2, ::2, ::2])
    np.testing.assert_array_equal(group["pyramid/orientation/2"][0], rows[::4, ::4, ::4])
    assert group["pyramid/orientation/2"].fill_value == NO_ID


def test_every_level_lies_over_the_voxels_it_was_made_of(store):
    full = open_volume(store)
    for level in (1, 2):
        coarse = open_volume(store, level=level)
        assert coarse.attrs["voxel_size"] == 10 * 2**level
        for axis in "zyx":
            parts = full[axis].values[: 2**level]
            assert coarse[axis].values[0] == parts.mean()


def test_the_metadata_are_those_of_ome_zarr_05(store):
    """The MUSTs of the specification's section on multiscales, for each image."""
    group = zarr.open_group(store, mode="r")
    ome = group.attrs["ome"]
    assert ome["version"] == "0.5" and [i["name"] for i in ome["multiscales"]] == ["score", "orientation"]
    for image in ome["multiscales"]:
        axes = image["axes"]
        assert 2 <= len(axes) <= 5 and len({axis["name"] for axis in axes}) == len(axes)
        assert [axis["type"] for axis in axes] == ["channel", "space", "space", "space"]
        assert [axis["name"] for axis in axes] == ["template", "z", "y", "x"]
        assert [axis.get("unit") for axis in axes] == [None, *["angstrom"] * 3]
        steps = []
        for dataset in image["datasets"]:
            array = group[dataset["path"]]
            assert array.metadata.dimension_names == ("template", "z", "y", "x")
            assert array.dtype == group[image["name"]].dtype
            scale, translation = dataset["coordinateTransformations"]
            assert (scale["type"], translation["type"]) == ("scale", "translation")
            assert len(scale["scale"]) == len(translation["translation"]) == len(axes)
            steps.append(scale["scale"])
        assert steps == [[1, 10, 10, 10], [1, 20, 20, 20], [1, 40, 40, 40]]


def test_a_validator_of_ome_zarr_accepts_the_store(store):
    models = pytest.importorskip("ome_zarr_models.v05", reason="needs cryodask[ngff]")
    image = models.Image.from_zarr(zarr.open_group(store, mode="r"))
    assert len(image.ome_attributes.multiscales) == 2


def test_xarray_sees_the_full_maps_alone_and_warns_of_nothing(store):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset = xr.open_zarr(store)
    assert set(dataset.data_vars) == {"score", "orientation"}
    assert dataset.score.shape == (1, *SHAPE)


def test_consolidated_metadata_are_what_each_array_says_without_the_run(store):
    root = Path(store)
    nodes = json.loads((root / "zarr.json").read_text())["consolidated_metadata"]["metadata"]
    assert "run" not in nodes and "pyramid/score/2" in nodes
    for name, node in nodes.items():
        assert json.loads((root / name / "zarr.json").read_text()) == node


def test_doing_it_again_changes_nothing(store):
    before = zarr.open_group(store, mode="r")["pyramid/score/2"][:]
    again = add_pyramids(store, ["score", "orientation"], 10.0, (5.0, 6.0, 7.0))
    consolidate(store, PYRAMIDS)
    group = zarr.open_group(store, mode="r")
    assert group.attrs["ome"] == again
    np.testing.assert_array_equal(group["pyramid/score/2"][:], before)


def test_small_maps_have_no_levels_and_the_coarsest_fits_a_chunk():
    assert [count_levels((n, 3, 3)) for n in (1, 64, 65, 128, 129, 1000)] == [0, 0, 1, 1, 2, 4]


def test_memory_does_not_grow_with_the_map(tmp_path):
    peaks = []
    for depth in (64, 512):
        path = make_store(tmp_path / f"{depth}.zarr", (depth, 160, 160), (64, 160, 160))
        tracemalloc.start()
        add_pyramids(path, ["score"], 10.0, (0.0, 0.0, 0.0))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 48 << 20 < 4 * 512 * 160 * 160
