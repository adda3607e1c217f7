"""IMOD: defocus files of versions 2 and 3, tilt.com, and what has no angles."""

import numpy as np
import pytest

from cryodask.errors import InputError
from cryodask.io.imod import read_imod_defocus, read_tilt_commands
from cryodask.io.tilts import read_tilts


@pytest.fixture
def project(shared_data):
    return shared_data / "tomogram_matching/relion5_project"


def written(tmp_path, text, name="a.defocus"):
    (tmp_path / name).write_text(text)
    return tmp_path / name


def test_version_2_joined_to_raw_tilts(project):
    tilts = read_tilts(project / "test_angles.rawtlt", defocus=project / "test_imod.defocus")
    assert tilts.defocus[0] == pytest.approx(30830)
    assert len(tilts.defocus) == 35 and tilts.phase_shift is None
    alone = read_tilts(project / "test_imod.defocus")
    np.testing.assert_array_equal(alone.defocus, tilts.defocus)
    np.testing.assert_allclose(alone.angles, tilts.angles, atol=0.011)


@pytest.mark.parametrize(
    ("flags", "tail", "phase"),
    [
        (0, "", None),
        (1, " 2000 10", None),
        (3, " 2000 0.2", None),
        (4, " 45", 45),
        (5, " 2000 10 45", 45),
        (13, " 2000 10 1.5707963", 90),
        (12, " 1.5707963", 90),
        (37, " 2000 10 45 0.03", 45),
        (44, " 1.5707963 0.03", 90),
        (63, " 2000 0.2 1.5707963 0.03", 90),
    ],
)
def test_version_3_flags(tmp_path, flags, tail, phase):
    path = written(tmp_path, f"{flags} 0 0. 0. 0 3\n1 1 -3.5 -2.5 3000{tail}\n2 2 0 0 3100{tail}\n")
    table = read_imod_defocus(path)
    first = np.array([3000, 3100])
    expected = (first + 2000) / 2 if flags & 1 else first
    np.testing.assert_allclose(table.defocus, 10 * expected)
    np.testing.assert_allclose(table.angles, (3, 0) if flags & 16 else (-3, 0))
    if phase is None:
        assert table.phase_shift is None
    else:
        np.testing.assert_allclose(table.phase_shift, phase, atol=1e-5)


def test_ranges_of_views_are_interpolated(tmp_path):
    path = written(tmp_path, "3 5 -1 1 2000 2\n1 3 -3 -1 1000\n")
    with pytest.raises(InputError, match="sixth value"):
        read_imod_defocus(written(tmp_path, "1 1 0 0 3000\n", "b.defocus"))
    table = read_imod_defocus(path)
    np.testing.assert_allclose(table.defocus, [10000, 10000, 15000, 20000, 20000])
    assert table.angles is None
    with pytest.raises(InputError, match=r"a.defocus: ranges of views, expected a row for every tilt"):
        read_tilts(path)


def test_tilt_com_gives_the_tomogram_and_names_the_angles(shared_data):
    folder = shared_data / "tomogram_matching/tilt_metadata/TS_018"
    tilts = read_tilts(folder / "tilt.com")
    assert (tilts.tomogram_shape, tilts.z_shift) == ((1800, 4096, 4096), 100)
    np.testing.assert_array_equal(tilts.angles, np.loadtxt(folder / "018.tlt"))
    assert read_tilts(folder / "018.tlt", tilt_com=folder / "tilt.com").z_shift == 100


def test_tilt_com_without_shift(tmp_path):
    commands = read_tilt_commands(written(tmp_path, "$tilt\nFULLIMAGE 40,30\nTHICKNESS 20\n", "tilt.com"))
    assert (commands.tomogram_shape, commands.z_shift, commands.tilt_file) == ((20, 30, 40), 0, None)


def test_another_order_of_tilts_is_doubted(project, tmp_path, caplog):
    angles = np.loadtxt(project / "test_angles.rawtlt")
    np.savetxt(tmp_path / "a.tlt", angles[::-1])
    read_tilts(tmp_path / "a.tlt", defocus=project / "test_imod.defocus")
    assert "differ by up to 102.0 degrees from those of a.tlt; one series, in the same order?" in caplog.text


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.xf", "1 0 0 1 0 0\n", r"a.xf: alignment transforms hold no tilt angles, give the .tlt file"),
        (
            "a.defocus",
            "1 1 0 0 30 4\n",
            r"a.defocus line 1: expected version 2 or 3 as the sixth value, found",
        ),
        ("a.defocus", "1 1 0 0 30 2\n2 2 1 1\n", r"a.defocus line 2: expected 5 numbers, found 4"),
        ("a.defocus", "4 0 0 0 0 3\n1 1 0 0 30\n", r"a.defocus line 2: expected 6 numbers, found 5"),
        ("a.defocus", "64 0 0 0 0 3\n1 1 0 0 30\n", r"a.defocus line 1: flags 64, expected 0 to 63"),
        ("a.defocus", "1 0 0 0 0 3\n", r"a.defocus: no rows"),
        ("a.defocus", "20 20 0 0 30 2\n21 21 1 1 30\n", r"views 20 to 21, expected to begin at 1"),
        ("tilt.com", "THICKNESS 4\n", r"tilt.com: no FULLIMAGE"),
        ("tilt.com", "FULLIMAGE 4\n", r"tilt.com line 1: FULLIMAGE 4, expected 2 numbers"),
        ("tilt.com", "FULLIMAGE 4 4\nTHICKNESS x\n", r"tilt.com line 2: THICKNESS x, expected 1 numbers"),
        ("tilt.com", "FULLIMAGE 4 4\nTHICKNESS 4\n", r"tilt.com: no TILTFILE"),
        ("tilt.com", "FULLIMAGE 4 4\nTHICKNESS 4\nTILTFILE b.tlt\n", r"b.tlt: no such file"),
    ],
)
def test_wrong_imod_files_are_named(tmp_path, name, text, message):
    with pytest.raises(InputError, match=message):
        read_tilts(written(tmp_path, text, name))
