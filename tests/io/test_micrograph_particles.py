"""Particles of micrographs in RELION's and cisTEM's files, as those programs would read them."""

import mrcfile
import numpy as np
import pandas as pd
import pytest
import starfile

from cryodask.errors import InputError
from cryodask.io.image import write_image
from cryodask.io.micrograph_particles import (
    write_cistem_coordinates,
    write_cistem_star,
    write_relion,
    write_relion30,
)
from cryodask.io.particle_boxes import write_particle_stack
from tests.jobs.planted import table_of, three_particles


@pytest.fixture
def table(tmp_path):
    found = table_of(tmp_path, three_particles(), 32)
    shift = {"subpixel_x": [0.25, -0.5, 0.0], "subpixel_y": [0.0, 0.125, 0.0]}
    return found.assign(score=[9.0, 8.0, 7.0], phase_shift=30.0, refined_phi=[41.0, 200.0, 310.0], **shift)


def test_relion_reads_places_origins_and_defoci(table, tmp_path):
    write_relion(tmp_path / "p.star", table)
    blocks = starfile.read(tmp_path / "p.star", always_dict=True)
    optics, particles = blocks["optics"], blocks["particles"]
    assert optics["rlnMicrographPixelSize"].tolist() == [1.5] and optics["rlnVoltage"].tolist() == [300]
    row = particles.iloc[0]
    assert (row["rlnCoordinateX"], row["rlnCoordinateY"]) == (8 + 16, 6 + 16)
    assert (row["rlnOriginXAngst"], row["rlnOriginYAngst"]) == (-0.375, 0.0)
    assert (row["rlnAngleRot"], row["rlnAngleTilt"], row["rlnAnglePsi"]) == (41.0, 70.0, 25.0)
    assert particles["rlnDefocusU"].tolist() == [5200.0, 5260.0, 5120.0]
    assert particles["rlnAutopickFigureOfMerit"].tolist() == [9.0, 8.0, 7.0]
    assert particles["rlnOpticsGroup"].tolist() == [1, 1, 1]


def test_relion_30_is_one_block_with_origins_in_pixels(table, tmp_path):
    write_relion30(tmp_path / "p.star", table)
    (particles,) = starfile.read(tmp_path / "p.star", always_dict=True).values()
    assert particles["rlnOriginX"].tolist() == [-0.25, 0.5, 0.0]
    pixel = 1e4 * particles["rlnDetectorPixelSize"] / particles["rlnMagnification"]
    np.testing.assert_allclose(pixel, 1.5)


def test_cistem_coordinates_and_star(table, tmp_path):
    write_cistem_coordinates(tmp_path / "c.txt", table)
    row = np.loadtxt(tmp_path / "c.txt")[1]
    np.testing.assert_allclose(row, [160, 35, 200, (30 + 16) * 1.5, (50 + 16) * 1.5, 60, 1.5, 8])
    write_cistem_star(tmp_path / "s.star", table, "stack.mrcs")
    (particles,) = starfile.read(tmp_path / "s.star", always_dict=True).values()
    assert particles["cisTEMPositionInStack"].tolist() == [1, 2, 3]
    np.testing.assert_allclose(particles["cisTEMPhaseShift"], np.radians(30.0))
    np.testing.assert_allclose(particles["cisTEMXShift"], [0.375, -0.75, 0.0])
    assert set(particles["cisTEMStackFilename"].str.strip("'")) == {"stack.mrcs"}


def test_coordinates_of_several_micrographs_are_refused(table, tmp_path):
    with pytest.raises(InputError, match="hold one micrograph, found 2"):
        write_cistem_coordinates(tmp_path / "c.txt", table.assign(micrograph_path=["a", "a", "b"]))
    assert not (tmp_path / "c.txt").exists()


def test_boxes_have_a_border_of_mean_0_and_variance_1(tmp_path):
    image = np.random.default_rng(0).normal(5.0, 3.0, (40, 50)).astype(np.float32)
    write_image(tmp_path / "m.mrc", image, pixel_size=1.5)
    centres = np.array([[20, 25], [2, 48]])
    beyond = write_particle_stack(
        tmp_path / "s.mrcs", [str(tmp_path / "m.mrc")] * 2, centres, 12, pixel_size=1.5
    )
    with mrcfile.open(tmp_path / "s.mrcs") as file:
        stack, pixel = file.data.copy(), float(file.voxel_size.x)
    assert (beyond, stack.shape, pixel) == (1, (2, 12, 12), 1.5)
    border = np.concatenate([stack[0, [0, -1]].ravel(), stack[0, 1:-1, [0, -1]].ravel()])
    assert abs(border.mean()) < 1e-6 and stack.var(axis=(1, 2)) == pytest.approx(1.0, abs=1e-5)
    cut = image[14:26, 19:31]
    np.testing.assert_allclose(np.corrcoef(stack[0].ravel(), cut.ravel())[0, 1], 1.0, atol=1e-6)


def test_an_empty_table_is_written_with_its_columns(tmp_path):
    write_relion(tmp_path / "p.star", pd.DataFrame(table_of(tmp_path, three_particles(), 32).iloc[:0]))
    assert "_rlnCoordinateX" in (tmp_path / "p.star").read_text()
