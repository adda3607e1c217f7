"""Matching a tomogram that lies at an address."""

import numpy as np
import pytest

import cryodask as cd
from cryodask.errors import InputError
from cryodask.io.volume import write_volume
from tests.jobs.conftest import ball, blob

MAPS = ("score", "orientation")
SETTINGS = {"angles": {"step": 90}, "noise_correction": "none", "device": "cpu"}


@pytest.fixture
def tomogram(tmp_path):
    """A tomogram of 2 x 3 x 2 chunks in a folder that can be served."""
    (tmp_path / "public").mkdir()
    noise = np.random.default_rng(8).standard_normal((40, 130, 70)).astype("f4")
    write_volume(tmp_path / "public" / "t.zarr", noise, voxel_size=10)
    return tmp_path / "public" / "t.zarr"


def test_a_remote_tomogram_gives_the_maps_of_a_local_one(tomogram, serve, tmp_path):
    served = serve(tomogram.parent)
    for name, array in (("template", blob((12,) * 3)), ("mask", ball((12,) * 3, 4))):
        write_volume(tmp_path / f"{name}.mrc", array, voxel_size=10)
    files = {"template": str(tmp_path / "template.mrc"), "mask": str(tmp_path / "mask.mrc")}
    here = cd.match_tomogram(str(tomogram), **files, **SETTINGS)
    there = cd.match_tomogram(f"{served.address}/t.zarr", **files, **SETTINGS)
    assert served.sent_bytes("/c/") == 0
    path = there.cryo.store(tmp_path / "r.zarr")
    part = here[list(MAPS)].compute()
    for name in MAPS:
        np.testing.assert_array_equal(cd.open_result(path)[name], part[name])


def test_matching_a_region_reads_the_chunks_it_touches(tomogram, serve):
    served = serve(tomogram.parent)
    region = cd.open_volume(f"{served.address}/t.zarr")[:, 70:110, 10:50]
    template, mask = blob((12,) * 3), ball((12,) * 3, 4)
    found = cd.match_tomogram(region, template, mask=mask, voxel_size=10.0, **SETTINGS)
    assert found.score.shape == (1, 40, 40, 40)
    assert np.isfinite(found.score.values).all()
    assert served.sent_bytes("/c/") < 1.1 * 4 * 64 * 64 * 64


def test_an_unreachable_tomogram_is_named_with_its_field(serve, job, tmp_path, monkeypatch):
    monkeypatch.setattr("cryodask.io.remote.PAUSE", 0.0)
    served = serve(tmp_path)
    served.failures = 99
    with pytest.raises(InputError, match=f"{served.address}/t.zarr: ClientResponseError: 503"):
        cd.match_tomogram(job(tomogram=f"{served.address}/t.zarr"))
    assert len(served.sent) == 3


def test_a_result_is_not_stored_at_an_address(job):
    from cryodask.jobs.tomogram_matching.planning import Resources
    from cryodask.jobs.tomogram_matching.runs import open_runs

    message = "a result is written into a folder; copy it to an address when it is complete"
    with pytest.raises(InputError, match=f"memory://results: {message}"):
        open_runs([job(output="memory://results")], Resources())
    with pytest.raises(InputError, match=f"s3://bucket/r.zarr: {message}"):
        cd.match_tomogram(job()).cryo.store("s3://bucket/r.zarr")
