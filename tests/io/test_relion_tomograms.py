"""RELION 5 projects: rows of tomograms.star and the tilt-series files they name."""

import numpy as np
import pytest

from cryodask.errors import InputError
from cryodask.io.relion_tomograms import list_tomograms
from cryodask.io.tilts import read_tilts

COLUMNS = ["rlnTomoName", "rlnTomoTiltSeriesStarFile"]


def star(path, columns, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    names = "".join(f"_{name}\n" for name in columns)
    path.write_text(f"data_global\nloop_\n{names}" + "".join(f"{row}\n" for row in rows))
    return path


@pytest.fixture
def tomograms(shared_data):
    folder = shared_data / "tomogram_matching/relion5_project/relion5_project_example"
    return folder / "Tomograms/job009/tomograms.star"


@pytest.mark.parametrize("selection", [{"tomo_name": "tomo200528_107"}, {"tomo_num": 107}])
def test_row_of_the_example_project(tomograms, selection):
    tilts = read_tilts(tomograms, **selection)
    assert tilts.voxel_size == pytest.approx(14.000, abs=1e-3)
    assert tilts.defocus_hand == -1
    assert (tilts.voltage, tilts.cs, tilts.amplitude_contrast) == (200, 2.7, 0.08)
    assert (tilts.pixel_size, tilts.tomogram_shape) == (1.724, (2000, 4000, 4000))
    assert len(tilts.angles) == 35 and tilts.angle_range == (-50.99, 51)
    assert tilts.defocus[0] == pytest.approx((24013.296875 + 22401.580078) / 2)
    assert (tilts.exposure.min(), tilts.exposure[0]) == pytest.approx((2.2, 70.4))


def test_tilt_series_file_by_itself(tomograms):
    source = tomograms.parent / "tilt_series/tomo200528_107.star"
    alone, whole = read_tilts(source), read_tilts(tomograms, tomo_name="tomo200528_107")
    for name in ("angles", "defocus", "exposure"):
        np.testing.assert_array_equal(getattr(alone, name), getattr(whole, name))
    assert alone.defocus_hand is None and alone.pixel_size is None


def test_tomograms_are_listed_and_found_from_every_parent(tomograms, tmp_path):
    entries = list_tomograms(tomograms)
    assert [entry.name for entry in entries][:2] == ["tomo200528_100", "tomo200528_101"]
    assert entries[0].tomogram == "Tomograms/job009/tomograms/rec_tomo200528_100.mrc"
    columns = [*COLUMNS, "rlnTomoReconstructedTomogram"]
    path = star(tmp_path / "T/job1/tomograms.star", columns, "a T/job1/a.star T/job1/a.mrc")
    (tmp_path / "T/job1/a.mrc").touch()
    assert list_tomograms(path)[0].tomogram == str(tmp_path / "T/job1/a.mrc")


def test_files_are_found_from_the_working_directory(tmp_path, monkeypatch):
    path = star(tmp_path / "elsewhere/tomograms.star", COLUMNS, "a a.star")
    star(tmp_path / "here/a.star", ["rlnTomoNominalStageTiltAngle"], "-3", "3")
    monkeypatch.chdir(tmp_path / "here")
    assert read_tilts(path).angles.tolist() == [-3, 3]


def test_dose_of_one_tilt_is_the_stated_one(tmp_path):
    path = star(tmp_path / "tomograms.star", [*COLUMNS, "rlnTomoImportFractionalDose"], "a a.star 2.5")
    columns = ["rlnTomoNominalStageTiltAngle", "rlnMicrographPreExposure", "rlnTomoYTilt", "rlnPhaseShift"]
    star(tmp_path / "a.star", columns, "0 0 1 90", "3 2 4 91")
    tilts = read_tilts(path)
    assert tilts.angles.tolist() == [1, 4]
    assert tilts.exposure.tolist() == [2.5, 4.5]
    assert tilts.phase_shift.tolist() == [90, 91]
    assert tilts.defocus is None and tilts.voxel_size is None


def test_unknown_rows_are_named_with_those_there_are(tomograms):
    with pytest.raises(InputError, match=r"tomograms.star: no row for tomo_name x \(has tomo200528_100, "):
        read_tilts(tomograms, tomo_name="x")
    with pytest.raises(InputError, match=r"tomograms.star: no row for tomo_num 3 \(has tomo200528_100, "):
        read_tilts(tomograms, 3)
    with pytest.raises(InputError, match=r"tomograms.star: tomo_name is required \(has tomo200528_100, "):
        read_tilts(tomograms)


@pytest.mark.parametrize(
    ("columns", "row", "series", "message"),
    [
        (
            COLUMNS,
            "a b.star",
            "1\n2",
            r"tomograms.star line 5: rlnTomoTiltSeriesStarFile = b.star: no such file",
        ),
        ([*COLUMNS, "rlnTomoHand"], "a a.star 0", "1\n2", r"line 6: rlnTomoHand = 0, expected 1 or -1"),
        ([*COLUMNS, "rlnVoltage"], "a a.star x", "1\n2", r"line 6: rlnVoltage = x, expected a number"),
        (COLUMNS, "a a.star", "1", r"a.star: 1 tilt, expected 2 or more"),
        (COLUMNS, "a a.star", "1\nx", r"a.star line 5: rlnTomoYTilt = x, expected a number"),
        (["rlnTomoName"], "a", "1", r"tomograms.star: missing column rlnTomoTiltSeriesStarFile"),
    ],
)
def test_wrong_projects_are_named(tmp_path, columns, row, series, message):
    star(tmp_path / "a.star", ["rlnTomoYTilt"], series)
    with pytest.raises(InputError, match=message):
        read_tilts(star(tmp_path / "tomograms.star", columns, row))


def test_a_dose_that_never_grows_is_none(tmp_path):
    star(tmp_path / "a.star", ["rlnTomoYTilt", "rlnMicrographPreExposure"], "1 0", "2 0")
    assert read_tilts(tmp_path / "a.star").exposure is None
