"""`config wedge-list`: metadata of other programs as the wedge list that STOPGAP and GAPSTOP read."""

import shutil

import numpy as np
import pytest

from cryodask.cli.main import run
from cryodask.io.star import read_star, write_star
from cryodask.io.tilts import read_tilts


@pytest.fixture
def folder(shared_data):
    return shared_data / "tomogram_matching"


def test_imod_files_give_the_wedge_list_expected_of_ts_018(folder, tmp_path):
    source, out = folder / "tilt_metadata" / "TS_018", tmp_path / "wedge.star"
    words = ["--tomo-num", "18", "--pixel-size", "2.4", "--tilt-com", source / "tilt.com"]
    words += ["--defocus", source / "018_gctf.star", "-o", out]
    assert run(["config", "wedge-list", str(source / "018.tlt"), *map(str, words)]) == 0
    found = read_tilts(out, 18)
    expected = read_tilts(folder / "tilt_metadata/wedgeutils_data/wedge_list_018.star", 18)
    np.testing.assert_allclose(found.angles, expected.angles, atol=0.02)
    np.testing.assert_allclose(found.defocus, expected.defocus, rtol=1e-5)
    assert found.tomogram_shape == expected.tomogram_shape
    assert (found.pixel_size, found.z_shift) == (expected.pixel_size, expected.z_shift)


def test_a_relion_project_and_a_warp_series_share_a_list(folder, tmp_path, capsys):
    example = folder / "relion5_project/relion5_project_example/Tomograms"
    shutil.copytree(example, tmp_path / "Tomograms")
    star = tmp_path / "Tomograms/job009/tomograms.star"
    tables = read_star(star)  # of its tomograms one has its tilt series here
    write_star(star, {k: t[t["rlnTomoName"] == "tomo200528_107"] for k, t in tables.items()}, overwrite=True)
    shutil.copy(folder / "relion5_project/warptools_xml_example/gs04_ts_003.xml", tmp_path)
    out = tmp_path / "all.star"
    words = ["config", "wedge-list", str(star), str(tmp_path / "gs04_ts_003.xml"), "-o", str(out)]
    assert run(words) == 0
    assert "tilts of tomo_num 107, 3" in capsys.readouterr().out
    for number, source in ((107, star), (3, tmp_path / "gs04_ts_003.xml")):
        found, expected = read_tilts(out, number), read_tilts(source)
        np.testing.assert_allclose(found.angles, expected.angles, atol=1e-4)
        np.testing.assert_allclose(found.exposure, expected.exposure, rtol=1e-5)
        np.testing.assert_allclose(found.defocus, expected.defocus, rtol=1e-5)
        assert (found.voltage, found.cs) == (expected.voltage, expected.cs)
    assert run(words) == 2
    assert "all.star exists; use --overwrite" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a.tlt", "b.tlt", "--dose", "dose.txt"], "dose: belongs to one tilt series, 2 are given"),
        (["a.tlt", "b.tlt", "--tomo-num", "3,3"], "tomo_num: 1 different numbers for 2 tilt series"),
        (["c.tlt"], "c.tlt: no such file"),
    ],
)
def test_what_makes_no_list_is_refused(tmp_path, capsys, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    for name in ("a.tlt", "b.tlt"):
        (tmp_path / name).write_text("-3\n0\n3\n")
    (tmp_path / "dose.txt").write_text("1\n2\n3\n")
    assert run(["config", "wedge-list", *words, "-o", "out.star"]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out.star").exists()
