"""What a match loads and checks before any work starts."""

import logging

import numpy as np
import pytest

from cryodask.errors import InputError
from cryodask.geometry.grids import crowther_step, rotation_grid
from cryodask.jobs.tomogram_matching.inputs import load_inputs, viewing_directions


@pytest.fixture
def wedge(tmp_path):
    def write(pixel_size, shape=(80, 96, 88)):
        names = ["tomo_num", "tilt_angle", "pixelsize", "tomo_z", "tomo_y", "tomo_x"]
        names += ["voltage", "amp_contrast", "cs"]
        sizes = " ".join(map(str, shape))
        rows = [f"7 {angle} {pixel_size} {sizes} 300 0.07 2.7" for angle in range(-60, 61, 10)]
        header = "\n".join(f"_{name}" for name in names)
        path = tmp_path / "wedge.star"
        path.write_text(f"data_stopgap_wedgelist\n\nloop_\n{header}\n" + "\n".join(rows) + "\n")
        return str(path)

    return write


def test_voxel_size_is_that_given_before_the_wedge_list_before_the_header(job, wedge):
    assert load_inputs(job()).voxel_size == 10.0
    tilts = {"tilts": wedge(2.5), "binning": 4}
    assert load_inputs(job(**tilts)).voxel_size == 10.0
    assert load_inputs(job(**tilts, header_voxel_size=None)).voxel_size == 10.0
    assert load_inputs(job(**tilts, voxel_size=8.0)).voxel_size == 8.0
    assert load_inputs(job(header_voxel_size=None, voxel_size=8.0)).voxel_size == 8.0
    with pytest.raises(
        InputError, match=r"^tomogram.mrc: voxel size unknown \(header 0 or 1\), set voxel_size$"
    ):
        load_inputs(job(header_voxel_size=None))


@pytest.mark.parametrize(("header", "warned"), [(10.009, False), (10.05, True), (9.91, True)])
def test_a_voxel_size_that_is_a_little_off_warns(job, wedge, caplog, header, warned):
    with caplog.at_level(logging.WARNING, logger="cryodask"):
        found = load_inputs(job(tilts=wedge(2.5), binning=4, header_voxel_size=header))
    assert found.voxel_size == 10.0
    text = f"voxel size {header:.3f} (header) contradicts 10.000 (pixelsize x binning)"
    assert caplog.messages == [text] * warned


def test_a_voxel_size_that_is_far_off_is_refused_unless_given(job, wedge, caplog):
    tilts = {"tilts": wedge(2.5), "binning": 4, "header_voxel_size": 10.2}
    text = r"^voxel size 10\.200 \(header\) contradicts 10\.000 \(pixelsize x binning\); set binning or"
    with pytest.raises(InputError, match=text):
        load_inputs(job(**tilts))
    with caplog.at_level(logging.WARNING, logger="cryodask"):
        assert load_inputs(job(**tilts, voxel_size=10)).voxel_size == 10.0
    assert caplog.messages == ["voxel size 10.200 (header) contradicts 10.000 (voxel_size)"]


def test_the_template_has_the_voxel_size_of_the_tomogram(job, tmp_path):
    from cryodask.io.volume import read_volume, write_volume

    parameters = job()
    template = read_volume(tmp_path / "template.mrc")
    write_volume(tmp_path / "other.mrc", template, voxel_size=12.0)
    with pytest.raises(InputError, match=r"12\.000 \(header of other.mrc\) contradicts 10\.000 \(tomogram\)"):
        load_inputs(job(template="other.mrc"))
    assert load_inputs(job(template="other.mrc", voxel_size=10)).voxel_size == 10.0
    assert load_inputs(parameters).particle.box == 12


def test_a_wedge_list_of_another_tomogram_size_warns(job, wedge, caplog):
    with caplog.at_level(logging.WARNING, logger="cryodask"):
        load_inputs(job(tilts=wedge(2.5), binning=4))
        assert not caplog.messages
        load_inputs(job(tilts=wedge(2.5, shape=(80, 96, 120)), binning=4))
    assert caplog.messages == ["shape 20,24,22, the wedge list / binning says 20,24,30"]


def test_a_tilt_range_and_the_other_sense_of_tilts(job):
    assert load_inputs(job(tilts=[-50, 62])).tilts.angle_range == (-50, 62)
    assert load_inputs(job(tilts=[-50, 62], tilt_sign=-1)).tilts.angle_range == (-62, 50)


def test_rotations_are_read_as_they_are_or_generated(job, tmp_path, caplog):
    (tmp_path / "list.csv").write_text("10,20,30\n40,50,60\n")
    zzx = load_inputs(job(angles={"file": "list.csv", "order": "zzx"})).angles
    np.testing.assert_allclose(zzx, [[10, 30, 20], [40, 60, 50]])
    made = load_inputs(job(angles={"step": 30, "cone": 40, "method": "golden"}, symmetry="C1")).angles
    np.testing.assert_array_equal(made, rotation_grid(30, method="golden", cone=40))
    assert not caplog.records


@pytest.mark.parametrize(
    ("native", "resolution"),
    [
        ({"lowpass": 40}, 40),
        ({}, 20),
        ({"lp_rad": 4}, 30),
        ({"angles": {"diameter": 90, "resolution": 50}, "lowpass": 40}, 50),
    ],
)
def test_the_angular_step_follows_from_diameter_and_resolution(job, native, resolution):
    given = {"angles": {"diameter": 90}, **native}
    expected = rotation_grid(crowther_step(90, resolution, 10.0), method="healpix")
    np.testing.assert_array_equal(load_inputs(job(**given)).angles, expected)


def test_symmetry_mates_in_a_list_are_counted(job, tmp_path, caplog):
    (tmp_path / "list.csv").write_text("0,30,10\n90,30,10\n45,30,10\n0,60,10\n")
    z, y, x = np.ogrid[-6:6, -6:6, -6:6]
    ring = np.exp(-((np.hypot(y, x) - 3) ** 2 + z**2) / 4).astype(np.float32)
    with caplog.at_level(logging.WARNING, logger="cryodask"):
        inputs = load_inputs(job(template=ring, angles="list.csv", symmetry="C4"))
    assert len(inputs.angles) == 4
    assert caplog.messages == ["1 of 4 rotations are C4 mates of others"]


def test_viewing_directions_number_what_an_axial_mask_needs_once():
    angles = rotation_grid(40)
    numbers = viewing_directions(angles)
    pairs = np.unique(np.round(angles[:, 1:], 6), axis=0)
    assert numbers.max() + 1 == len(pairs)
    for number in range(len(pairs)):
        assert len(np.unique(np.round(angles[numbers == number, 1:], 6), axis=0)) == 1


def test_imod_tilts_take_defocus_dose_and_size_from_the_files_beside_them(job, shared_data, caplog):
    folder = shared_data / "tomogram_matching" / "tilt_metadata" / "TS_018"
    files = {"defocus_file": "018_gctf.star", "dose_file": "018_corrected_dose.txt", "tilt_com": "tilt.com"}
    companions = {key: str(folder / name) for key, name in files.items()}
    tilts = load_inputs(job(tilts=str(folder / "018.tlt"), **companions)).tilts
    assert (len(tilts.angles), tilts.z_shift) == (60, 100.0)
    assert tilts.tomogram_shape == (1800, 4096, 4096)
    assert tilts.defocus[0] == pytest.approx(35152.38, abs=0.01)
    assert tilts.exposure.max() > 100
    assert any("the wedge list / binning says 1800,4096,4096" in message for message in caplog.messages)
    with pytest.raises(
        InputError, match=r"^dose_file = d\.txt: needs the tilts it belongs to, a file in tilts$"
    ):
        job(tilts=[-60, 60], dose_file="d.txt")


def test_a_relion_star_gives_tilts_and_voxel_size(job, shared_data):
    project = shared_data / "tomogram_matching" / "relion5_project" / "relion5_project_example"
    tilts = str(project / "Tomograms" / "job009" / "tomograms.star")
    found = load_inputs(job(tilts=tilts, tomo_name="tomo200528_107", header_voxel_size=None))
    assert found.voxel_size == pytest.approx(14.0, abs=1e-3)
    assert len(found.tilts.angles) > 30
