"""Conversions keep values, place and type, and their memory does not grow with the volume."""

import subprocess
import sys
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from cryodask.errors import InputError
from cryodask.io.convert import convert_volume, nearest_dtype, reading_blocks
from cryodask.io.header import VolumeHeader, block_slices
from cryodask.io.volume import read_header, read_stored, read_volume, write_volume

FORMATS = ["mrc", "em", "zarr", "hdf"]
WHOLE = (slice(None),) * 3


@pytest.mark.parametrize("source", FORMATS)
@pytest.mark.parametrize("target", FORMATS)
def test_every_pair_of_formats_keeps_values_type_voxel_size_and_origin(tmp_path, source, target):
    values = np.random.default_rng(0).integers(-1000, 1000, (70, 33, 130))
    first, second = tmp_path / f"a.{source}", tmp_path / f"b.{target}"
    write_volume(first, values, voxel_size=8.704, origin=(10, 20, 30), dtype="i2")
    header = convert_volume(first, second, chunk=32)
    assert (header.dtype, header.voxel_size) == (np.dtype("i2"), 8.704)
    assert header.origin == ((0, 0, 0) if "em" in (source, target) else (10, 20, 30))
    np.testing.assert_array_equal(read_stored(second, WHOLE), values)


def test_axes_and_three_voxel_sizes_of_a_real_map_survive(shared_data, tmp_path):
    source = shared_data / "tomogram_matching/maps/EMD-3001.map"
    convert_volume(source, tmp_path / "a.zarr")
    convert_volume(tmp_path / "a.zarr", tmp_path / "b.mrc")
    assert mrcfile.validate(tmp_path / "b.mrc")
    np.testing.assert_array_equal(read_volume(tmp_path / "b.mrc"), read_volume(source))
    for name in ("a.zarr", "b.mrc"):
        np.testing.assert_allclose(read_header(tmp_path / name).spacing, read_header(source).spacing)
        np.testing.assert_allclose(read_header(tmp_path / name).origin, read_header(source).origin, rtol=1e-5)


def test_pyramid_levels_halve_and_stay_in_place(tmp_path):
    z, y, x = np.meshgrid(*(np.arange(n) for n in (40, 70, 36)), indexing="ij")
    write_volume(tmp_path / "a.mrc", x + 2.0 * y - z, voxel_size=5, origin=(1, 2, 3))
    convert_volume(tmp_path / "a.mrc", tmp_path / "a.zarr", chunk=16, pyramid=2)
    for level in (1, 2):
        header = read_header(tmp_path / "a.zarr", level)
        assert header.voxel_size == 5 * 2**level
        coarse = read_volume(tmp_path / "a.zarr", level)[:-1, :-1, :-1]
        # A linear ramp keeps its value at every position in angstrom.
        places = [
            np.arange(n) * header.voxel_size + o for n, o in zip(coarse.shape, header.origin, strict=True)
        ]
        zc, yc, xc = np.meshgrid(*places, indexing="ij")
        np.testing.assert_allclose(coarse, ((xc - 3) + 2 * (yc - 2) - (zc - 1)) / 5, rtol=1e-5, atol=1e-4)
    convert_volume(tmp_path / "a.zarr", tmp_path / "b.em", level=2)
    assert read_header(tmp_path / "b.em").shape == (10, 18, 9)


def test_chunks_and_shards_are_what_was_asked(tmp_path):
    write_volume(tmp_path / "a.mrc", np.zeros((40, 300, 36)))
    convert_volume(tmp_path / "a.mrc", tmp_path / "a.zarr", chunk=32)
    array = zarr.open_group(tmp_path / "a.zarr")["0"]
    assert (array.chunks, array.shards) == ((32, 32, 32), (64, 256, 64))


@pytest.mark.parametrize(
    ("dtype", "kind", "expected"),
    [
        *(("u1", "mrc", "i2"), ("i4", "mrc", "f4"), ("f8", "mrc", "f4"), ("u2", "mrc", "u2")),
        *(
            ("u1", "em", "i2"),
            ("u2", "em", "i4"),
            ("f2", "em", "f4"),
            ("u1", "zarr", "u1"),
            ("f8", "hdf5", "f8"),
        ),
    ],
)
def test_the_nearest_type_that_the_format_has(dtype, kind, expected):
    assert nearest_dtype(np.dtype(dtype), kind) == np.dtype(expected)


def test_another_type_rounds_and_refuses_what_does_not_fit(tmp_path):
    write_volume(tmp_path / "a.mrc", np.full((2, 3, 4), 99.6), voxel_size=2)
    header = convert_volume(tmp_path / "a.mrc", tmp_path / "b.mrc", dtype="int8", voxel_size=3)
    assert (header.dtype, header.voxel_size) == (np.dtype("i1"), 3)
    assert (read_stored(tmp_path / "b.mrc", WHOLE) == 100).all()
    write_volume(tmp_path / "c.mrc", np.full((2, 3, 4), 312.4))
    with pytest.raises(InputError, match=r"value 312.4 does not fit dtype int8"):
        convert_volume(tmp_path / "c.mrc", tmp_path / "d.zarr", dtype="int8")
    with pytest.raises(InputError, match="dtype float64 does not exist in mrc, expected int8, int16"):
        convert_volume(tmp_path / "c.mrc", tmp_path / "d.mrc", dtype="float64")
    assert not list(tmp_path.glob("*d.*"))


def test_truncated_input_leaves_no_output(tmp_path):
    write_volume(tmp_path / "a.mrc", np.zeros((4, 5, 6)))
    data = (tmp_path / "a.mrc").read_bytes()
    (tmp_path / "a.mrc").write_bytes(data[:-1])
    with pytest.raises(InputError, match=r"a.mrc: truncated, expected 1504 bytes, found 1503"):
        convert_volume(tmp_path / "a.mrc", tmp_path / "b.zarr")
    assert [path.name for path in tmp_path.iterdir()] == ["a.mrc"]


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    shape=st.tuples(*[st.integers(1, 40_000)] * 3),
    chunks=st.none() | st.tuples(*[st.integers(1, 128)] * 3),
)
def test_blocks_of_any_volume_are_small_and_begin_at_its_chunks(shape, chunks):
    header = VolumeHeader("zarr", shape, np.dtype("f4"), None, chunks=chunks)
    z, y, x = next(iter(reading_blocks(header)))
    assert (z.stop * y.stop * x.stop * 4 <= 64 << 20) or z.stop == 1 or y.stop <= (chunks or (1, 1, 1))[1]
    assert x.stop == shape[2]


@settings(max_examples=30, deadline=None, derandomize=True)
@given(shape=st.tuples(*[st.integers(1, 12)] * 3), block=st.tuples(*[st.integers(1, 5)] * 3))
def test_blocks_cover_every_voxel_once(shape, block):
    seen = np.zeros(shape, int)
    for slices in block_slices(shape, block):
        seen[slices] += 1
    assert (seen == 1).all()


# pages of a mapped input count as resident but can be taken back: anonymous memory is what is held
MEASURED = """
import sys, threading
from cryodask.io.convert import convert_volume
peak, done = 0, threading.Event()
def watch():
    global peak
    while not done.wait(0.005):
        lines = open("/proc/self/status").read().splitlines()
        peak = max(peak, *(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon")))
watcher = threading.Thread(target=watch)
watcher.start()
convert_volume(sys.argv[1], sys.argv[2], pyramid=int(sys.argv[3]))
done.set(); watcher.join()
print(peak)
"""


def peak_bytes(source, target, pyramid):
    command = [sys.executable, "-c", MEASURED, str(source), str(target), str(pyramid)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_memory_stays_far_below_the_size_of_the_volume(tmp_path):
    slab = np.random.default_rng(0).normal(size=(8, 1024, 1024)).astype("f4")
    write_volume(tmp_path / "a.mrc", lambda z0, z1: slab[: z1 - z0], shape=(128, 1024, 1024))
    limit = 0.75 * (tmp_path / "a.mrc").stat().st_size
    assert peak_bytes(tmp_path / "a.mrc", tmp_path / "a.zarr", 1) < limit
    assert peak_bytes(tmp_path / "a.zarr", tmp_path / "b.mrc", 0) < limit


def test_the_image_has_the_name_of_the_file(tmp_path):
    write_volume(tmp_path / "TS_017.zarr", np.zeros((8, 8, 8), np.float32))
    assert zarr.open(tmp_path / "TS_017.zarr").attrs["ome"]["multiscales"][0]["name"] == "TS_017"
