"""Volumes at an address: only what is asked for travels, and what fails is tried three times."""

import json
import socket

import numpy as np
import pytest
import zarr

import cryodask as cd
from cryodask.errors import InputError
from cryodask.io import remote
from cryodask.io.convert import convert_volume
from cryodask.io.info import file_info
from cryodask.io.volume import open_volume, read_header, read_region, read_volume, write_volume


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch):
    monkeypatch.setattr(remote, "PAUSE", 0.0)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A folder with noise of 64 chunks in one shard and a pyramid, and the noise."""
    folder = tmp_path_factory.mktemp("remote")
    volume = np.random.default_rng(4).standard_normal((128, 128, 128), dtype=np.float32)
    write_volume(folder / "plain.mrc", volume, voxel_size=8, origin=(1, 2, 3))
    convert_volume(folder / "plain.mrc", folder / "t.zarr", chunk=32, pyramid=1)
    return folder, volume


def test_a_region_costs_the_chunks_that_it_touches(stored, serve):
    folder, volume = stored
    served = serve(folder)
    chunk = 4 * 32**3
    region = (slice(40, 60), slice(33, 64), slice(32, 40))
    np.testing.assert_array_equal(read_region(f"{served.address}/t.zarr", region), volume[region])
    assert served.sent_bytes("/c/") < 1.1 * chunk
    served.sent.clear()
    lazy = open_volume(f"{served.address}/t.zarr")
    assert lazy.attrs == {"voxel_size": 8, "origin": (1, 2, 3), "source": f"{served.address}/t.zarr"}
    assert served.sent_bytes("/c/") == 0
    np.testing.assert_array_equal(lazy[70:90, 0:64, 64:128].compute(), volume[70:90, 0:64, 64:128])
    assert served.sent_bytes("/c/") < 1.1 * 8 * chunk


def test_info_levels_and_convert_take_an_address(stored, serve, tmp_path):
    folder, volume = stored
    address = f"{serve(folder).address}/t.zarr"
    there, here = file_info(address), file_info(folder / "t.zarr")
    assert {**there, "file": ""} == {**here, "file": ""}
    assert read_header(address, 1).spacing == (16, 16, 16)
    convert_volume(address, tmp_path / "back.mrc")
    np.testing.assert_array_equal(read_volume(tmp_path / "back.mrc"), volume)
    assert read_header(tmp_path / "back.mrc").origin == (1, 2, 3)


def test_zarr_2_at_an_address_is_read(serve, tmp_path):
    volume = np.arange(60, dtype="f4").reshape(3, 4, 5)
    zarr.create_array(tmp_path / "old.zarr", data=volume, zarr_format=2)
    np.testing.assert_array_equal(read_volume(f"{serve(tmp_path).address}/old.zarr"), volume)


def test_two_failures_pass_and_the_third_is_told(stored, serve):
    served = serve(stored[0])
    address = f"{served.address}/t.zarr"
    served.failures = 2
    assert read_header(address).shape == (128, 128, 128)
    served.sent.clear()
    served.failures = 10
    with pytest.raises(InputError, match=rf"^{address}: ClientResponseError: 503"):
        cd.open_volume(address)
    assert len(served.sent) == 3


def test_an_address_without_a_server_is_named_with_the_reason():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}/t.zarr"
    with pytest.raises(InputError, match=rf"^{address}: ClientConnectorError: Cannot connect"):
        open_volume(address)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.zarr", "no Zarr store there"),
        ("plain.mrc", "only OME-Zarr is read from an address"),
    ],
)
def test_what_is_not_there_or_no_zarr_is_named(stored, serve, name, message):
    address = f"{serve(stored[0]).address}/{name}"
    with pytest.raises(InputError, match=f"^{address}: {message}"):
        open_volume(address)


def test_a_package_that_is_missing_is_named(monkeypatch):
    def missing(*_, **__):
        raise ImportError("HTTPFileSystem requires aiohttp")

    monkeypatch.setattr(zarr, "open", missing)
    with pytest.raises(InputError, match=r"requires aiohttp; cryodask\[remote\] brings what https:// needs"):
        open_volume("https://somewhere/t.zarr")


def test_a_volume_at_an_address_is_not_replaced_unasked():
    address = "memory://cryodask-remote/taken.zarr"
    write_volume(address, np.zeros((4, 4, 4)))
    with pytest.raises(InputError, match=f"^{address} exists; use --overwrite"):
        write_volume(address, np.ones((4, 4, 4)))
    write_volume(address, np.ones((4, 4, 4)), overwrite=True)
    assert read_volume(address).min() == 1
    with pytest.raises(InputError, match=r"^https://somewhere/t\.zarr: https:// is read, not written"):
        write_volume("https://somewhere/t.zarr", np.ones((4, 4, 4)))


def test_half_a_volume_at_an_address_is_no_volume():
    address = "memory://cryodask-remote/half.zarr"
    with pytest.raises(InputError, match="slabs end at z = 3"):
        write_volume(address, [np.zeros((3, 4, 4))], shape=(4, 4, 4))
    with pytest.raises(InputError, match="no multiscales metadata"):
        open_volume(address)


def test_the_command_line_takes_an_address(stored, serve, capsys):
    from cryodask.cli.main import run

    served = serve(stored[0])
    assert run(["info", "--quick", "--json", f"{served.address}/t.zarr"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["shape"] == [128, 128, 128]
    assert run(["info", f"{served.address}/none.zarr"]) == 2
    assert f"{served.address}/none.zarr: no Zarr store there" in capsys.readouterr().err
