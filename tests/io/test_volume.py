"""Volumes of every format: the same array comes back, at the same place."""

import h5py
import numpy as np
import pytest
import xarray as xr
import zarr

from cryodask.errors import InputError
from cryodask.io import ome_zarr
from cryodask.io.volume import open_volume, read_header, read_region, read_volume, write_volume

FORMATS = ["mrc", "rec", "map", "em", "zarr", "hdf"]


@pytest.fixture
def volume():
    return np.random.default_rng(1).normal(size=(20, 31, 17)).astype(np.float32)


@pytest.mark.parametrize("suffix", FORMATS)
def test_write_then_read_gives_the_same_volume(tmp_path, volume, suffix):
    path = tmp_path / f"a.{suffix}"
    write_volume(path, volume, voxel_size=8.704, origin=(1.5, -2, 3))
    header = read_header(path)
    assert (header.shape, header.voxel_size) == (volume.shape, 8.704)
    assert header.origin == ((0, 0, 0) if suffix == "em" else (1.5, -2, 3))
    np.testing.assert_array_equal(read_volume(path), volume)
    np.testing.assert_array_equal(open_volume(path).compute(), volume)
    part = (slice(2, 7), slice(30, 31), slice(4, None))
    np.testing.assert_array_equal(read_region(path, part), volume[part])


@pytest.mark.parametrize("suffix", ["mrc", "em", "zarr"])
def test_slabs_and_a_function_write_what_the_array_writes(tmp_path, volume, suffix):
    write_volume(tmp_path / f"array.{suffix}", volume)
    slabs = [volume] if suffix == "zarr" else [volume[:3], volume[3:11], volume[11:]]
    write_volume(tmp_path / f"slabs.{suffix}", iter(slabs), shape=volume.shape)
    write_volume(tmp_path / f"call.{suffix}", lambda z0, z1: volume[z0:z1], shape=volume.shape)
    for name in ("array", "slabs", "call"):
        np.testing.assert_array_equal(read_volume(tmp_path / f"{name}.{suffix}"), volume)


def test_a_lazy_volume_can_be_written(tmp_path, volume):
    write_volume(tmp_path / "a.mrc", volume)
    write_volume(tmp_path / "b.em", open_volume(tmp_path / "a.mrc"))
    np.testing.assert_array_equal(read_volume(tmp_path / "b.em"), volume)


def test_an_existing_file_is_kept_unless_overwritten(tmp_path, volume):
    path = tmp_path / "scores_0_126.mrc"
    write_volume(path, volume)
    with pytest.raises(InputError, match=r"scores_0_126.mrc exists; use --overwrite"):
        write_volume(path, volume + 1)
    np.testing.assert_array_equal(read_volume(path), volume)
    write_volume(path, volume + 1, overwrite=True)
    np.testing.assert_array_equal(read_volume(path), volume + 1)


@pytest.mark.parametrize("suffix", ["mrc", "zarr"])
def test_a_failed_write_leaves_nothing_behind(tmp_path, volume, suffix):
    def broken(start, stop):
        raise RuntimeError("disk on fire")

    with pytest.raises(RuntimeError):
        write_volume(tmp_path / f"a.{suffix}", broken, shape=volume.shape)
    with pytest.raises(InputError, match=r"slabs end at z = 3, expected 20"):
        write_volume(tmp_path / f"a.{suffix}", [volume[:3]], shape=volume.shape)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("t9.mrc", r"t9.mrc: no such file \(looked in .*\)"),
        ("t9.zarr", r"t9.zarr: no such file"),
        ("memory://nothing/t9.zarr", r"memory://nothing/t9.zarr: "),
        ("t9.tif", r"t9.tif: unknown volume format, expected .mrc"),
    ],
)
def test_missing_and_unknown_files_are_named(tmp_path, name, message):
    with pytest.raises(InputError, match=message):
        open_volume(name if "://" in name else tmp_path / name)


def test_every_em_file_of_the_reference_data_opens(shared_data):
    folder = shared_data / "tomogram_matching"
    scores = read_volume(folder / "local_correlation/id_2_scores.em")
    assert scores.shape == (48, 48, 48)
    assert np.unravel_index(scores.argmax(), scores.shape) == (20, 25, 25)
    assert scores.max() == pytest.approx(0.147959, abs=1e-6)
    assert read_header(folder / "angle_lists/angles_07_45123.em").shape == (1, 45123, 3)
    assert read_header(folder / "maps/human_ribo_21A.em").voxel_size is None


@pytest.mark.parametrize("kind", [1, 2, 4, 5, 9])
@pytest.mark.parametrize(("machine", "order"), [(6, "<"), (3, ">")])
def test_every_em_type_and_machine_is_read(tmp_path, kind, machine, order):
    values = np.arange(24).reshape(2, 3, 4)
    dtype = np.dtype({1: "i1", 2: "i2", 4: "i4", 5: "f4", 9: "f8"}[kind]).newbyteorder(order)
    header = bytes([machine, 0, 0, kind]) + np.array([4, 3, 2], f"{order}i4").tobytes()
    (tmp_path / "a.em").write_bytes(header.ljust(512, b"\0") + values.astype(dtype).tobytes())
    np.testing.assert_array_equal(read_volume(tmp_path / "a.em"), values)


def test_truncated_em_file_names_expected_and_found_bytes(tmp_path, volume):
    path = tmp_path / "a.em"
    write_volume(path, volume)
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(InputError, match=r"a.em: truncated, expected 42672 bytes, found 42665"):
        read_header(path)


def test_single_dataset_of_any_hdf5_file_is_read(tmp_path, volume):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["some/where"] = volume
        file["some/where"].attrs["element_size_um"] = [1e-3, 1e-3, 1e-3]
    assert read_header(tmp_path / "a.h5").voxel_size == 10
    np.testing.assert_array_equal(read_volume(tmp_path / "a.h5"), volume)
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["other"] = volume
    with pytest.raises(InputError, match="expected one three-dimensional dataset, found other, some/where"):
        read_header(tmp_path / "a.h5")


def test_ome_zarr_04_in_nanometres_with_a_channel_is_read(tmp_path, volume):
    path = tmp_path / "a.zarr"
    group = zarr.open_group(path, mode="w", zarr_format=2)
    for name in ("s0", "s1"):
        array = group.create_array(name, shape=(1, *volume.shape), chunks=(1, 8, 8, 8), dtype="f4")
        array[0] = volume + (name == "s1")
    axes = [{"name": "c", "type": "channel"}]
    axes += [{"name": n, "type": "space", "unit": "nanometer"} for n in "zyx"]
    datasets = [
        {"path": "s0", "coordinateTransformations": [{"type": "scale", "scale": [1, 0.5, 0.5, 0.5]}]},
        {
            "path": "s1",
            "coordinateTransformations": [
                {"type": "scale", "scale": [1, 1.2, 1.2, 1.2]},
                {"type": "translation", "translation": [0, 1, 2, 3]},
            ],
        },
    ]
    scaled = [{"type": "scale", "scale": [1, 2, 2, 2]}]
    group.attrs["multiscales"] = [
        {"version": "0.4", "axes": axes, "datasets": datasets, "coordinateTransformations": scaled}
    ]
    assert read_header(path).voxel_size == 10
    coarse = open_volume(path, level=1)
    assert coarse.attrs["voxel_size"] == 24
    assert coarse.attrs["origin"] == (20, 40, 60)
    np.testing.assert_array_equal(coarse.compute(), volume + 1)
    with pytest.raises(InputError, match="level 2, expected 0 to 1"):
        open_volume(path, level=2)


def test_axes_in_another_order_are_put_right(tmp_path, volume):
    path = tmp_path / "a.zarr"
    group = zarr.open_group(path, mode="w")
    group.create_array("0", data=np.ascontiguousarray(volume.transpose(2, 0, 1)))
    axes = [{"name": n, "type": "space", "unit": "angstrom"} for n in "xzy"]
    transforms = [{"type": "scale", "scale": [4.0, 2.0, 3.0]}]
    entry = {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": transforms}]}
    group.attrs["ome"] = {"version": "0.5", "multiscales": [entry]}
    assert read_header(path).spacing == (2, 3, 4)
    np.testing.assert_array_equal(read_volume(path), volume)


def test_written_ome_zarr_is_sharded_and_opens_in_zarr_and_xarray(tmp_path, volume):
    path = tmp_path / "a.zarr"
    write_volume(path, volume, voxel_size=7.0)
    array = zarr.open_group(path, mode="r")["0"]
    assert (array.chunks, array.shards) == ((64, 64, 64), (64, 64, 64))
    np.testing.assert_array_equal(xr.open_zarr(path, consolidated=False)["0"], volume)
    entry = zarr.open_group(path).attrs["ome"]["multiscales"][0]
    assert [axis["unit"] for axis in entry["axes"]] == ["angstrom"] * 3


def test_halving_averages_eight_voxels_and_keeps_constants():
    block = np.arange(8, dtype=np.float32).reshape(2, 2, 2)
    assert ome_zarr.halved(block).item() == 3.5
    assert (ome_zarr.halved(np.full((3, 5, 2), 7, "i2")) == 7).all()
    assert ome_zarr.halved(np.full((3, 5, 2), 7, "i2")).shape == (2, 3, 1)


def test_a_volume_in_memory_is_read_through_its_address(volume):
    address = "memory://cryodask-test/a.zarr"
    write_volume(address, volume, voxel_size=5)
    np.testing.assert_array_equal(read_volume(address), volume)
    assert open_volume(address).attrs["source"] == address
