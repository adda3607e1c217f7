"""SerialEM mdoc: angles and dose by the rules of its counters."""

import numpy as np
import pytest

from cryodask.errors import InputError
from cryodask.io.tilts import read_tilts

HEADING = "Voltage = 200\nDataMode = 1\n\n[T = some title, binning = 1]\n\n"


def mdoc(tmp_path, *sections):
    text = HEADING + "\n".join(f"[ZValue = {number}]\n{lines}\n" for number, lines in enumerate(sections))
    (tmp_path / "a.mdoc").write_text(text)
    return tmp_path / "a.mdoc"


def test_dose_by_the_end_of_each_tilt_of_ts_018(shared_data):
    folder = shared_data / "tomogram_matching/tilt_metadata/TS_018"
    tilts = read_tilts(folder / "018.mdoc")
    assert len(tilts.angles) == 60 and np.all(np.diff(tilts.angles) > 0)
    assert tilts.exposure[0] == pytest.approx(136.617, abs=5e-4)
    corrected = np.loadtxt(folder / "018_corrected_dose.txt")
    np.testing.assert_allclose(tilts.exposure, corrected, atol=0.006)
    assert tilts.voltage == 300


def test_dose_of_an_mdoc_goes_to_tilts_by_rising_angle(shared_data, tmp_path):
    folder = shared_data / "tomogram_matching/tilt_metadata/TS_018"
    angles = np.loadtxt(folder / "018.tlt")
    np.savetxt(tmp_path / "a.tlt", angles[::-1])
    tilts = read_tilts(tmp_path / "a.tlt", dose=folder / "018.mdoc")
    np.testing.assert_array_equal(tilts.exposure[::-1], read_tilts(folder / "018.mdoc").exposure)
    with pytest.raises(InputError, match=r"018.mdoc: 60 dose values for 35 tilts \(test_angles.rawtlt\)"):
        read_tilts(
            shared_data / "tomogram_matching/relion5_project/test_angles.rawtlt", dose=folder / "018.mdoc"
        )


@pytest.mark.parametrize("prior", ["", "PriorRecordDose = 0\n"])
def test_without_prior_dose_exposures_are_summed_in_time(tmp_path, prior):
    path = mdoc(
        tmp_path,
        f"TiltAngle = 3\nExposureDose = 4\n{prior}DateTime = 06-Jun-2023  00:00:05",
        f"TiltAngle = -3\nExposureDose = 2\n{prior}DateTime = 06-Jun-23  00:01:00",
        f"TiltAngle = 0\nExposureDose = 1\n{prior}DateTime = 05-Jun-23  23:59:59",
    )
    tilts = read_tilts(path)
    assert tilts.angles.tolist() == [-3, 0, 3]
    assert tilts.exposure.tolist() == [7, 1, 5]
    assert tilts.voltage == 200


def test_no_exposure_is_no_dose(tmp_path):
    path = mdoc(tmp_path, "TiltAngle = 3", "TiltAngle = 0")
    assert read_tilts(path).exposure is None
    (tmp_path / "a.tlt").write_text("0\n3\n")
    with pytest.raises(InputError, match=r"a.mdoc: no dose \(ExposureDose\)"):
        read_tilts(tmp_path / "a.tlt", dose=path)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ("StageZ = 1", r"a.mdoc line 8: no TiltAngle in this section"),
        ("TiltAngle = x", r"a.mdoc line 9: TiltAngle = x, expected a number"),
        ("TiltAngle = 1", r"a.mdoc line 8: no ExposureDose in this section"),
        ("TiltAngle = 1\nExposureDose = 1", r"a.mdoc line 8: no DateTime in this section"),
        (
            "TiltAngle = 1\nExposureDose = 1\nDateTime = today",
            r"a.mdoc line 11: DateTime = today, expected such as 06-Jun-23 23:19:46",
        ),
    ],
)
def test_wrong_sections_are_named(tmp_path, second, message):
    first = "TiltAngle = 0\nExposureDose = 1\nDateTime = 06-Jun-23  00:01:00"
    text = HEADING.replace("\n\n", "\n") + f"[ZValue = 0]\n{first}\n[ZValue = 1]\n{second}\n"
    (tmp_path / "a.mdoc").write_text(text.replace("\n\n", "\n"))
    with pytest.raises(InputError, match=message):
        read_tilts(tmp_path / "a.mdoc")


def test_an_mdoc_without_tilts(tmp_path):
    with pytest.raises(InputError, match=r"a.mdoc: no \[ZValue\] section"):
        read_tilts(mdoc(tmp_path))
