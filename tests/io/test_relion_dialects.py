"""Particles from RELION 3.0 to 3.1 and back, records of cryoSPARC copied, stacks of EMAN written."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cryodask.io.cryosparc import copy_records, read_cs_particles
from cryodask.io.image_stacks import read_images, read_stack_header, write_eman_stack
from cryodask.io.relion_dialects import as_relion30, as_relion31


def test_there_and_back() -> None:
    old = pd.DataFrame(
        {
            "rlnImageName": ["1@a.mrcs", "2@a.mrcs", "3@a.mrcs"],
            "rlnVoltage": [300.0, 200.0, 300.0],
            "rlnSphericalAberration": 2.7,
            "rlnAmplitudeContrast": 0.1,
            "rlnDetectorPixelSize": 5.0,
            "rlnMagnification": 25000.0,
            "rlnOriginX": [1.0, -2.0, 0.5],
            "rlnOriginY": 0.0,
            "myOwnColumn": [7, 8, 9],
        }
    )
    new = as_relion31({"": old}, "", 2.0)
    assert list(new) == ["optics", "particles"]
    assert new["optics"]["rlnVoltage"].tolist() == [300.0, 200.0]
    assert new["particles"]["rlnOpticsGroup"].tolist() == [1, 2, 1]
    assert new["particles"]["rlnOriginXAngst"].tolist() == [2.0, -4.0, 1.0]
    assert "rlnMagnification" not in new["particles"]
    assert as_relion31(new, "particles", 2.0) is new
    back = as_relion30(new, "particles", 2.0)[""]
    shared = [name for name in old if name not in ("rlnDetectorPixelSize", "rlnMagnification")]
    pd.testing.assert_frame_equal(back[shared], old[shared])
    assert (1e4 * back["rlnDetectorPixelSize"] / back["rlnMagnification"] == 2.0).all()


def test_records_are_copied_by_name(tmp_path: Path) -> None:
    kind = [("uid", "u8"), ("blob/path", "S20"), ("blob/idx", "u4"), ("blob/psize_A", "f4")]
    records = np.array([(90 + i, b">J1/a.mrc", i, 1.5) for i in range(5)], kind)
    with (tmp_path / "in.cs").open("wb") as stream:
        np.save(stream, records)
    names = read_cs_particles(tmp_path / "in.cs")["name"].tolist()
    copy_records(tmp_path / "in.cs", tmp_path / "out.cs", [names[3], names[1]])
    with (tmp_path / "out.cs").open("rb") as stream:
        found = np.load(stream)
    assert found.dtype == records.dtype and found["uid"].tolist() == [93, 91]


def test_a_stack_of_eman_is_read_back(tmp_path: Path) -> None:
    images = np.random.default_rng(0).standard_normal((3, 8, 6)).astype(np.float32)
    rows = [{"members": np.arange(k + 1, dtype=np.int32), "n_objects": np.int32(k + 1)} for k in range(3)]
    write_eman_stack(tmp_path / "a.hdf", images, pixel_size=2.5, attributes=rows)
    header = read_stack_header(tmp_path / "a.hdf")
    assert (header.count, header.shape) == (3, (8, 6)) and header.pixel_size == pytest.approx(2.5)
    assert (read_images(tmp_path / "a.hdf", [2, 0]) == images[[2, 0]]).all()
