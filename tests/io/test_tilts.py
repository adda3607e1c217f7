"""Tilt series from wedge lists and tilt files."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryodask.errors import InputError
from cryodask.io.tilts import read_tilts
from cryodask.io.wedge_list import write_wedge_list
from cryodask.optics.tilts import TiltSeries


def assert_same_series(first, second):
    for field in dataclasses.fields(TiltSeries):
        a, b = getattr(first, field.name), getattr(second, field.name)
        if a is None or b is None:
            assert a is b, field.name
        else:
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5, err_msg=field.name)


@pytest.fixture
def metadata(shared_data):
    return shared_data / "tomogram_matching/tilt_metadata"


def test_wedge_list_of_ts_018(metadata):
    tilts = read_tilts(metadata / "wedgeutils_data/wedge_list_018.star", 18)
    assert len(tilts.angles) == 60
    np.testing.assert_allclose(tilts.angle_range, (-54.01, 69.97), atol=0.01)
    assert tilts.tomogram_shape == (1800, 4096, 4096)
    assert (tilts.pixel_size, tilts.voltage, tilts.amplitude_contrast, tilts.cs) == (2.4, 300, 0.07, 2.7)
    assert tilts.defocus[0] == pytest.approx(35152.38)
    assert tilts.exposure is None
    assert tilts.z_shift == 100
    angles = np.loadtxt(metadata / "TS_018/018.tlt")
    np.testing.assert_allclose(read_tilts(metadata / "TS_018/018.tlt").angles, angles)
    np.testing.assert_allclose(tilts.angles, angles, atol=0.02)


def test_unknown_tomogram_is_named_with_those_there_are(metadata):
    path = metadata / "wedgeutils_data/wedge_list.star"
    with pytest.raises(InputError, match=r"no rows for tomo_num 9 \(has 17, 18\)"):
        read_tilts(path, 9)
    with pytest.raises(InputError, match=r"tomo_num is required \(has 17, 18\)"):
        read_tilts(path)
    assert read_tilts(path, 17).tomogram_shape == (1500, 4096, 4096)


def test_em_wedge_list_gives_a_range(metadata):
    tilts = read_tilts(metadata / "wedgeutils_data/wedge_list.em", 18)
    assert tilts.is_range
    np.testing.assert_allclose(tilts.angles, (-54.01, 69.97), atol=0.02)


def test_exposure_two_defoci_and_default_optics(tmp_path):
    (tmp_path / "w.star").write_text(
        "data_stopgap_wedgelist\nloop_\n_tomo_num\n_tilt_angle\n_defocus1\n_defocus2\n_pshift\n_exposure\n"
        "3 -1 2.0 3.0 90 1.5\n3 2 1 1 90 3\n"
    )
    tilts = read_tilts(tmp_path / "w.star")
    assert tilts.defocus.tolist() == [25000, 10000]
    assert tilts.exposure.tolist() == [1.5, 3]
    assert tilts.phase_shift.tolist() == [90, 90]
    assert (tilts.voltage, tilts.amplitude_contrast, tilts.cs, tilts.pixel_size) == (300, 0.07, 2.7, None)


def test_several_columns_need_tilt_column(shared_data):
    folder = shared_data / "tomogram_matching/relion5_project"
    path = folder / "test_angles_multi_column.rawtlt"
    with pytest.raises(InputError, match=r"multi_column.rawtlt line 1: 2 numbers, expected 1"):
        read_tilts(path)
    np.testing.assert_array_equal(
        read_tilts(path, tilt_column=1).angles, read_tilts(folder / "test_angles.rawtlt").angles
    )
    with pytest.raises(InputError, match="line 1: no column 3"):
        read_tilts(path, tilt_column=3)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.tlt", "3\n", "a.tlt: 1 tilt, expected 2 or more"),
        ("a.tlt", "\n", "a.tlt: no rows"),
        ("a.star", "data_x\nloop_\n_tomo_num\n_tilt_angle\n\n", "a.star: no rows"),
        ("a.star", "data_x\nloop_\n_tomo_num\n_angle\n1 1\n", "a.star: missing column tilt_angle"),
        (
            "a.star",
            "data_x\nloop_\n_tomo_num\n_tilt_angle\n1 1\n1 x\n",
            "a.star line 6: tilt_angle = x, expected a number",
        ),
        ("a.jpg", "", "a.jpg: unknown tilt file, expected .star"),
    ],
)
def test_wrong_tilt_files_are_named(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        read_tilts(tmp_path / name)


def test_wedge_lists_written_are_read_back(metadata, tmp_path):
    source = metadata / "wedgeutils_data/wedge_list.star"
    series = {17: read_tilts(source, 17), 18: read_tilts(source, 18)}
    full = TiltSeries(
        angles=[-10.125, 0, 12.5],
        exposure=[3.25, 1.125, 2.5],
        defocus=[31234.5, 30830, 29999],
        phase_shift=[88, 90, 91.5],
        voltage=200,
        amplitude_contrast=0.1,
        cs=2.62,
        pixel_size=1.724,
        tomogram_shape=(2000, 3838, 3710),
        z_shift=-12.5,
    )
    write_wedge_list(tmp_path / "w.star", {**series, 3: full})
    for number, tilts in {**series, 3: full}.items():
        assert_same_series(read_tilts(tmp_path / "w.star", number), tilts)
    with pytest.raises(InputError, match=r"w.star exists; use --overwrite"):
        write_wedge_list(tmp_path / "w.star", series)


@st.composite
def tilt_series(draw):
    angles = draw(st.lists(st.floats(-90, 90), min_size=2, max_size=6))

    def column(low, high):
        return draw(st.none() | st.lists(st.floats(low, high), min_size=len(angles), max_size=len(angles)))

    return TiltSeries(
        angles=angles,
        exposure=column(0, 400),
        defocus=column(1e3, 1e5),
        phase_shift=column(0, 180),
        pixel_size=draw(st.none() | st.floats(0.5, 10)),
        tomogram_shape=draw(st.none() | st.tuples(*[st.integers(1, 10**5)] * 3)),
        z_shift=draw(st.floats(-1e3, 1e3)),
    )


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.dictionaries(st.integers(0, 10**6), tilt_series(), min_size=1, max_size=3))
def test_any_series_side_by_side_keep_their_own_columns(tmp_path_factory, series):
    path = tmp_path_factory.mktemp("wedge") / "w.star"
    write_wedge_list(path, series)
    for number, tilts in series.items():
        assert_same_series(read_tilts(path, number), tilts)


def test_wedge_list_without_geometry_says_what_peers_need(tmp_path, caplog):
    tilts = TiltSeries(angles=[-1, 1])
    write_wedge_list(tmp_path / "w.star", {1: tilts})
    assert "w.star: without pixelsize, tomo_x, tomo_y, tomo_z, which STOPGAP and GAPSTOP need" in caplog.text
    assert_same_series(read_tilts(tmp_path / "w.star"), tilts)
    with pytest.raises(InputError, match="tomo_num 2 has only a tilt range, expected all tilts"):
        write_wedge_list(tmp_path / "r.star", {2: TiltSeries(angles=[-60, 60], is_range=True)})
    with pytest.raises(InputError, match=r"r.star: no tilt series to write"):
        write_wedge_list(tmp_path / "r.star", {})


def test_strong_astigmatism_and_steep_tilts_are_told(tmp_path, caplog):
    text = "data_\nloop_\n_tomo_num\n_tilt_angle\n_defocus1\n_defocus2\n1 0 3.0 3.4\n1 2 3.0 3.1\n"
    (tmp_path / "w.star").write_text(text)
    assert read_tilts(tmp_path / "w.star").defocus.tolist() == pytest.approx([32000, 30500])
    assert "w.star: astigmatism up to 0.40 µm is ignored" in caplog.text
    (tmp_path / "a.tlt").write_text("0\n91\n")
    with pytest.raises(InputError, match=r"a.tlt: tilt angle 91, expected -90 to 90 degrees"):
        read_tilts(tmp_path / "a.tlt")


def test_any_tilt_file_becomes_a_wedge_list(shared_data, tmp_path):
    folder = shared_data / "tomogram_matching"
    project = folder / "relion5_project"
    series = folder / "tilt_metadata/TS_018"
    sources = {
        1: read_tilts(project / "warptools_xml_example/gs04_ts_003.xml"),
        2: read_tilts(project / "relion5_project_example/Tomograms/job009/tomograms.star", 107),
        3: read_tilts(series / "018.mdoc"),
        4: read_tilts(project / "test_imod.defocus", dose=project / "test_dose.txt"),
    }
    write_wedge_list(tmp_path / "w.star", sources)
    for number, tilts in sources.items():
        # a wedge list has no place for these two
        kept = dataclasses.replace(tilts, voxel_size=None, defocus_hand=None)
        assert_same_series(read_tilts(tmp_path / "w.star", number), kept)


def test_files_of_ts_018_give_its_wedge_list(metadata):
    folder = metadata / "TS_018"
    tilts = read_tilts(folder / "tilt.com", defocus=folder / "018_gctf.star")
    expected = read_tilts(metadata / "wedgeutils_data/wedge_list_018.star")
    assert_same_series(dataclasses.replace(tilts, pixel_size=2.4), expected)


@pytest.mark.parametrize("unit", [1e4, 1e-4])
def test_defocus_of_another_unit_is_refused(tmp_path, unit):
    (tmp_path / "w.star").write_text(
        f"data_\nloop_\n_tomo_num\n_tilt_angle\n_defocus\n1 0 {3 * unit}\n1 2 {3 * unit}\n"
    )
    with pytest.raises(InputError, match=r"w.star: median defocus .* µm, expected 0.002 to 25 µm"):
        read_tilts(tmp_path / "w.star")


def test_defocus_table_as_tilt_file(metadata):
    with pytest.raises(InputError, match=r"018_gctf.star: defocus without tilt angles, give a tilt file and"):
        read_tilts(metadata / "TS_018/018_gctf.star")
