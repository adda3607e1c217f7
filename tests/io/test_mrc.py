"""MRC files: what mrcfile reads, cryodask reads, and the other way round."""

import warnings

import mrcfile
import numpy as np
import pytest

from cryodask.errors import InputError
from cryodask.io.volume import open_volume, read_header, read_region, read_stored, read_volume, write_volume

IMOD_STAMP = np.array([1146047817, 0], "<i4").tobytes()


@pytest.fixture
def values():
    return np.random.default_rng(0).integers(0, 100, (5, 6, 7))


def mrcfile_data(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with mrcfile.open(path, permissive=True) as file:
            return np.array(file.data)


@pytest.mark.parametrize("dtype", ["i1", "i2", "f4", "u2", "f2"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_every_real_mode_in_both_byte_orders(tmp_path, values, dtype, order):
    path = tmp_path / "a.mrc"
    with mrcfile.new(path) as file:
        file.set_data(values.astype(order + dtype))
        file.voxel_size = (3.0, 3.0, 3.0)
    header = read_header(path)
    block = read_stored(path, (slice(1, 4), slice(None), slice(2, None)))
    assert (header.dtype, header.voxel_size, header.shape) == (np.dtype(dtype), 3.0, (5, 6, 7))
    assert block.dtype == np.dtype(dtype)
    assert block.flags.c_contiguous
    np.testing.assert_array_equal(block, values[1:4, :, 2:])


def test_imod_bytes_without_the_signed_flag_are_unsigned(tmp_path, values):
    path = tmp_path / "a.rec"
    with mrcfile.new(path.with_suffix(".mrc")) as file:
        file.set_data((values + 100).astype("u1").view("i1"))
    data = bytearray(path.with_suffix(".mrc").read_bytes())
    data[152:160] = IMOD_STAMP
    path.write_bytes(data)
    np.testing.assert_array_equal(read_volume(path), values + 100)


def test_axis_order_of_emd_3001_is_honoured(shared_data):
    path = shared_data / "tomogram_matching/maps/EMD-3001.map"
    header = read_header(path)
    # Columns run along z, rows along x, sections along y.
    assert header.shape == (73, 25, 43)
    np.testing.assert_array_equal(read_volume(path), mrcfile_data(path).transpose(2, 0, 1))
    np.testing.assert_allclose(header.spacing, (33.03 / 72, 4.71 / 12, 17.93 / 40), rtol=1e-5)
    np.testing.assert_allclose(header.origin, (0, -12 * 4.71 / 12, -21 * 17.93 / 40), rtol=1e-5)
    assert header.voxel_size is None


@pytest.mark.parametrize(
    ("name", "voxel_size"),
    [
        ("maps/EMD-3197.map", 11.4),
        ("maps/emd_3197.map.gz", 11.4),
        ("maps/emd_8621_shift.mrc.gz", 1.45),
        ("maps/emd_5592_21A.mrc", None),
        ("maps/negative_control_heart.mrc", 13.481),
        ("templates_10A/1bxn.mrc", 10.0),
        ("relion5_project/human_ribo_mask_32_8_5.mrc", None),
    ],
)
def test_real_maps_are_read_as_mrcfile_reads_them(shared_data, name, voxel_size):
    path = shared_data / "tomogram_matching" / name
    assert read_header(path).voxel_size == voxel_size
    part = (slice(3, 9), slice(1, None), slice(None, -2))
    np.testing.assert_array_equal(read_region(path, part), mrcfile_data(path)[part])


def test_truncated_file_names_expected_and_found_bytes(shared_data):
    path = shared_data / "tomogram_matching/relion5_project/header_only.mrc"
    with pytest.raises(InputError, match=r"header_only.mrc: truncated, expected 132096 bytes, found 1024"):
        read_header(path)


def test_written_volume_is_valid_and_carries_voxel_size_origin_and_statistics(tmp_path, values):
    path = tmp_path / "a.mrc"
    write_volume(path, values, voxel_size=8.704, origin=(10, 20, 30))
    assert mrcfile.validate(path)
    with mrcfile.open(path) as file:
        np.testing.assert_array_equal(file.data, values)
        assert float(file.voxel_size.x) == pytest.approx(8.704)
        assert file.header.origin.tolist() == (30, 20, 10)
        assert float(file.header.rms) == pytest.approx(values.std())
    assert (read_header(path).voxel_size, read_header(path).origin) == (8.704, (10, 20, 30))


def test_unknown_voxel_size_stays_unknown(tmp_path, values):
    write_volume(tmp_path / "a.mrc", values)
    assert read_header(tmp_path / "a.mrc").voxel_size is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({12: 4}, "mode 4, expected one of 0, 1, 2, 6, 12"),
        ({0: 0}, "not an MRC file"),
        ({88: 401}, "a stack of volumes"),
    ],
)
def test_unusable_headers_are_named(tmp_path, values, change, message):
    path = tmp_path / "a.mrc"
    write_volume(path, values)
    data = bytearray(path.read_bytes())
    for offset, value in change.items():
        data[offset : offset + 4] = np.array(value, "<i4").tobytes()
    path.write_bytes(data)
    with pytest.raises(InputError, match=message):
        read_header(path)


def test_open_volume_is_lazy_and_has_coordinates_in_angstrom(shared_data):
    path = shared_data / "tomogram_matching/maps/negative_control_heart.mrc"
    volume = open_volume(path)
    assert volume.dims == ("z", "y", "x")
    assert volume.attrs["voxel_size"] == 13.481
    assert float(volume.x[0]) == pytest.approx(-194.734)
    assert float(volume.z[3] - volume.z[2]) == pytest.approx(13.481)
    np.testing.assert_array_equal(volume.isel(z=20).compute(), mrcfile_data(path)[20])
    graph = dict(volume.data.dask)
    assert all(not isinstance(part, np.ndarray) or part.size < 10 for part in graph.values())
