"""Defocus and dose tables joined to the tilts they belong to."""

import numpy as np
import pytest

from cryodask.errors import InputError
from cryodask.io.ctf_tables import read_defocus_text
from cryodask.io.tilts import read_tilts

GCTF = "data_\nloop_\n_rlnDefocusU\n_rlnDefocusV\n"


@pytest.fixture
def series(shared_data):
    return shared_data / "tomogram_matching/tilt_metadata/TS_018"


def test_gctf_gives_the_defocus_of_the_wedge_list(series):
    tilts = read_tilts(series / "018.tlt", defocus=series / "018_gctf.star")
    assert tilts.defocus[0] == pytest.approx(35152.38, abs=0.01)
    known = read_tilts(series.parent / "wedgeutils_data/wedge_list_018.star")
    np.testing.assert_allclose(tilts.defocus, known.defocus, atol=0.01)
    assert (tilts.voltage, tilts.cs, tilts.amplitude_contrast) == (300, 2.7, 0.07)


def test_ctffind_with_its_header(series, tmp_path, caplog):
    tilts = read_tilts(series / "018.tlt", defocus=series / "018_ctffind4.txt")
    assert len(tilts.defocus) == 60
    assert tilts.defocus[0] == pytest.approx((14477.870117 + 13500.001953) / 2)
    assert not tilts.phase_shift.any()
    assert "018_ctffind4.txt: astigmatism up to 0.38 µm is ignored" in caplog.text
    (tmp_path / "c.txt").write_text(
        "# acceleration voltage: 200.0 keV ; spherical aberration: 2.60 mm ; amplitude contrast: 0.10\n"
        "1 20000 21000 3 1.5707963 0.1 9\n2 22000 23000 3 0.7853982 0.1 9\n"
    )
    table = read_defocus_text(tmp_path / "c.txt")
    np.testing.assert_allclose(table.phase_shift, [90, 45], atol=1e-5)
    assert table.optics == {"voltage": 200, "cs": 2.6, "amplitude_contrast": 0.1}


def test_phase_shifts_of_gctf_are_degrees(tmp_path):
    (tmp_path / "g.star").write_text(
        "data_\nloop_\n_rlnDefocusU\n_rlnDefocusV\n_rlnPhaseShift\n20000 21000 88\n1e4 1e4 92\n"
    )
    (tmp_path / "a.tlt").write_text("-3\n3\n")
    tilts = read_tilts(tmp_path / "a.tlt", defocus=tmp_path / "g.star")
    assert tilts.defocus.tolist() == [20500, 10000]
    assert tilts.phase_shift.tolist() == [88, 92]


def test_one_defocus_and_one_dose_a_line(shared_data):
    folder = shared_data / "tomogram_matching/relion5_project"
    tilts = read_tilts(
        folder / "test_angles.rawtlt", defocus=folder / "test_defocus.txt", dose=folder / "test_dose.txt"
    )
    imod = read_tilts(folder / "test_angles.rawtlt", defocus=folder / "test_imod.defocus")
    np.testing.assert_allclose(tilts.defocus, imod.defocus)
    assert (tilts.exposure[0], tilts.exposure.min()) == (60.165, 0.955)


def test_fewer_defoci_than_tilts(series, tmp_path):
    lines = (series / "018_gctf.star").read_text().splitlines()
    (tmp_path / "g.star").write_text("\n".join(lines[: 16 + 41]) + "\n")
    message = r"g.star: 41 defocus values for 60 tilts \(018.tlt\)"
    with pytest.raises(InputError, match=message):
        read_tilts(series / "018.tlt", defocus=tmp_path / "g.star")


@pytest.mark.parametrize(
    ("kind", "name", "text", "message"),
    [
        ("dose", "d.txt", "1\n2\n3\n", r"d.txt: 3 dose values for 2 tilts \(a.tlt\)"),
        ("dose", "d.txt", "1\n-2\n", r"d.txt line 2: dose -2, expected 0 or more"),
        ("dose", "d.txt", "1 2\n2 3\n", r"d.txt line 1: 2 numbers, expected 1 \(accumulated dose\)"),
        ("dose", "d.txt", "3\n3\n", r"d.txt: dose 3 at every tilt, expected the dose accumulated by its end"),
        ("defocus", "d.txt", "30830\n30840\n", r"d.txt: median defocus 30.835 µm, expected 0.002 to 25 µm"),
        (
            "defocus",
            "d.star",
            GCTF + "3.5 3.5\n3 3\n",
            r"d.star: median defocus 0.000325 µm, expected 0.002 to",
        ),
        ("defocus", "d.txt", "1 2 3\n2 3 4\n", r"d.txt line 1: 3 numbers, expected 1 \(defocus in nm\) or"),
        ("defocus", "d.txt", "1 2 3 4 5\n2 3\n", r"d.txt line 2: expected 5 numbers, found 2"),
        ("defocus", "d.star", "data_\nloop_\n_rlnDefocusU\n1\n", r"d.star: missing column rlnDefocusV"),
        (
            "defocus",
            "d.star",
            GCTF + "1 x\n",
            r"d.star line 5: rlnDefocusV = x, expected a number",
        ),
    ],
)
def test_wrong_tables_are_named(tmp_path, kind, name, text, message):
    (tmp_path / "a.tlt").write_text("-3\n3\n")
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        read_tilts(tmp_path / "a.tlt", **{kind: tmp_path / name})


def test_a_range_takes_no_table(series):
    wedge = series.parent / "wedgeutils_data/wedge_list.em"
    with pytest.raises(
        InputError, match=r"defocus values need every tilt angle, wedge_list.em holds a range"
    ):
        read_tilts(wedge, 18, defocus=series / "018_gctf.star")


def test_overfocus_is_told(tmp_path, caplog):
    (tmp_path / "a.tlt").write_text("-3\n3\n")
    (tmp_path / "g.star").write_text(GCTF + "-30000 -31000\n-30000 -30000\n")
    assert read_tilts(tmp_path / "a.tlt", defocus=tmp_path / "g.star").defocus.tolist() == [-30500, -30000]
    assert "g.star: defocus is negative, expected positive for underfocus" in caplog.text
