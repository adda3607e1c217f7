"""Native parameters: defaults, compatible settings, and messages that name field, value and expectation."""

import logging

import pytest

from cryodask.errors import InputError
from cryodask.jobs.tomogram_matching.checks import check_band, check_files, check_supported, check_tilts
from cryodask.jobs.tomogram_matching.parameters import MatchParameters, read_parameters
from cryodask.optics.tilts import TiltSeries

EXAMPLE = {
    "tomogram": "TS_017.mrc",
    "tomo_num": 17,
    "tilts": "wedge_list.star",
    "template": "ribo.mrc",
    "mask": {"sphere": 150, "edge": 20},
    "lowpass": 30,
    "angles": {"step": 7},
}


def make(**changes):
    return MatchParameters.from_native({**EXAMPLE, **changes})


def test_native_defaults_are_those_of_the_specification():
    parameters = make()
    assert (parameters.noise_correction, parameters.interpolation, parameters.angles.method) == (
        "none",
        "cubic",
        "healpix",
    )
    assert (parameters.normalization, parameters.wedge, parameters.boundary, parameters.statistics_grid) == (
        "weighted",
        "filled",
        "pad",
        "auto",
    )
    assert (parameters.formats, parameters.seed, parameters.angle_base) == (("zarr",), 0, 0)
    assert parameters.display_name == "TS_017"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lowpass_": 30}, "unknown key lowpass_ (did you mean lowpass?)"),
        ({"angles": {"stepp": 3}}, "unknown key angles.stepp (did you mean step?)"),
        ({"angles": {}}, "angles: one of file, step and diameter is required"),
        ({"angles": {"step": 200}}, "angles.step = 200: expected 0 < angles.step <= 180"),
        ({"template": None}, "template is required"),
        ({"mask": {"sphere": -1}}, "mask.sphere = -1: expected a number > 0"),
        ({"symmetry": "X5"}, "symmetry = X5: expected Cn, Dn, T, T3, O, I, I1, I2"),
        ({"symmetry": "C100"}, "expected Cn, Dn, T, T3, O, I, I1, I2"),
        ({"score": "scf"}, "score = scf: only flcf is supported"),
        ({"wedge": "round"}, "wedge = round: expected filled, slices or none"),
        ({"seed": -1}, "seed = -1: expected an integer >= 0"),
        ({"voxel_size": float("inf")}, "voxel_size = inf: expected a number > 0"),
        ({"tilts": [60, -60]}, "expected [min, max] with -90 <= min < max <= 90"),
        ({"tilts": [-60, 60], "wedge": "slices"}, "wedge = slices: needs every tilt's angle"),
        ({"region": {"z": [90, 10]}}, "region.z = [90, 10]: expected [low, high] with low < high"),
        ({"lp_rad": 10}, "lp_rad and lowpass given, choose one"),
        ({"highpass": 20}, "highpass = 20: expected more than lowpass = 30"),
        ({"formats": "zarr,tif"}, "formats = tif: expected zarr, mrc or em"),
        ({"critical_dose": [1, 2]}, "critical_dose = [1, 2]: expected a list of 3 numbers"),
        ({"names": {"noise": "scores"}}, "expected three different names, found scores, angles, scores"),
    ],
)
def test_a_wrong_value_is_named_with_what_was_expected(changes, message):
    with pytest.raises(InputError) as error:
        make(**changes)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_explicit_values_win_over_compatible_settings():
    stopgap = make(compat="stopgap", interpolation="cubic")
    assert (stopgap.normalization, stopgap.bandpass_interpolation, stopgap.angle_base) == (
        "product",
        "pchip",
        1,
    )
    assert stopgap.interpolation == "cubic"
    cryocat = MatchParameters.from_native(EXAMPLE, compat="cryocat")
    assert (cryocat.normalization, cryocat.interpolation, cryocat.angle_base) == ("support", "linear", 0)


def test_none_is_a_choice_where_the_field_has_it_and_unset_elsewhere():
    parameters = make(wedge="none", noise_correction="none", highpass="none", tomo_name="", tilts=None)
    assert (parameters.wedge, parameters.noise_correction) == ("none", "none")
    assert (parameters.highpass, parameters.tomo_name, parameters.tilts) == (None, None, None)


def test_a_list_wins_over_increments_with_a_warning(caplog):
    with caplog.at_level(logging.WARNING, logger="cryodask"):
        parameters = make(angles={"file": "a.csv", "step": 7})
    assert parameters.angles.step is None
    assert caplog.messages == ["row 0: angles.file and angles.step given, using angles.file"]


def test_the_band_is_in_fourier_pixels_of_the_template_box():
    band = make(lowpass=30, highpass=300, lowpass_sigma=0.01).band(48, 10.0)
    assert (band.lp_rad, band.hp_rad) == (16.0, 1.6)
    assert (band.lp_sigma, band.hp_sigma) == (pytest.approx(4.8), 2.0)
    assert make(lowpass=None).band(48, 10.0) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lowpass": None, "lp_rad": 40}, "lp_rad = 40: expected 0 < lp_rad <= 24"),
        ({"lowpass": 15}, "lowpass = 15: expected at least two voxels, 20"),
    ],
)
def test_a_band_beyond_the_template_box_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        check_band(make(**changes), 48, 10.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_by": "zscore"}, "class_by = zscore: needs several templates"),
        ({"miss_rate": 0.05}, "miss_rate = 0.05: is of strategy: coarse_to_fine alone"),
        ({"false_positives": 3}, "false_positives = 3: is of strategy: coarse_to_fine alone"),
        (
            {"strategy": "coarse_to_fine", "search_grid": 0.75},
            "strategy = coarse_to_fine: does not go with search_grid = 0.75",
        ),
        (
            {"strategy": "coarse_to_fine", "orientations": {"near": "seeds.star", "cone": 20}},
            "strategy = coarse_to_fine: does not go with orientations",
        ),
        ({"orientations": {"near": "seeds.star"}}, "orientations.near = seeds.star: restricts nothing"),
    ],
)
def test_what_this_release_cannot_do_is_refused_by_name(changes, message):
    with pytest.raises(InputError, match=message):
        check_supported([make(**changes)])


def test_several_templates_share_the_rotations_of_the_job_and_one_in_a_list_is_taken():
    entries = [{"name": name, "template": f"{name}.em", "mask": "m.em"} for name in ("a", "b")]
    rest = {key: value for key, value in EXAMPLE.items() if key not in ("template", "mask")}
    entries[0]["angles"] = {"step": 5}
    several = MatchParameters.from_native({**rest, "templates": entries, "angles": {"step": 9}})
    check_supported([several])
    assert several.angles.step == 5
    assert [entry.angles.step for entry in several.templates] == [5, 9]
    single = MatchParameters.from_native({**rest, "templates": entries[:1]})
    check_supported([single])
    assert single.angles.step == 5
    assert (single.template, single.mask, single.templates) == ("a.em", "m.em", ())


FILTERS = {"ctf": "signed", "defocus_hand": "file", "dose": "grant", "tilt_weight": "cos", "whiten": True}


def test_filters_are_taken_where_the_tilts_have_what_they_need():
    full = TiltSeries(angles=[-60.0, 60.0], defocus=[3e4, 3e4], exposure=[2.0, 4.0], defocus_hand=-1)
    parameters = make(**FILTERS, laplacian=True, critical_dose=[0.2, -1.6, 3])
    check_supported([parameters])
    check_tilts(parameters, full)
    check_tilts(make(), None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ctf": "amplitude"}, "ctf = amplitude needs column defocus"),
        ({"dose": "grant"}, "dose = grant needs column exposure"),
        ({"tilt_weight": "cos"}, "tilt_weight = cos: needs every tilt's angle, a file in tilts"),
    ],
)
def test_filters_name_what_the_tilts_lack(changes, message):
    for tilts in (None, TiltSeries(angles=[-60.0, 60.0], is_range=True)):
        with pytest.raises(InputError, match=message):
            check_tilts(make(**changes), tilts)


def test_a_hand_that_the_file_does_not_give_is_missed():
    tilts = TiltSeries(angles=[-60.0, 60.0], defocus=[3e4, 3e4])
    check_tilts(make(ctf="signed", defocus_hand=-1), tilts)
    with pytest.raises(InputError, match="defocus_hand = file: tilts gives no hand, expected 1 or -1"):
        check_tilts(make(ctf="signed", defocus_hand="file"), tilts)


def test_settings_of_a_filter_that_is_off_are_refused():
    with pytest.raises(InputError, match=r"critical_dose = \[0.2, -1.6, 3.0\]: needs dose = grant"):
        make(dose="bfactor", critical_dose=[0.2, -1.6, 3])
    with pytest.raises(InputError, match="defocus_hand = -1: needs ctf"):
        make(defocus_hand=-1)


def test_a_missing_file_is_named_with_where_it_was_looked_for(tmp_path):
    with pytest.raises(InputError) as error:
        check_files(make(root=str(tmp_path)))
    assert str(error.value) == f"tomogram = TS_017.mrc: no such file (looked in {tmp_path})"


def test_yaml_holds_one_mapping_or_a_list(tmp_path):
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    one.write_text("{tomogram: a.mrc, template: t.mrc, mask: {sphere: 150, edge: 20}, angles: {step: 7}}\n")
    assert read_parameters(one, overrides={"root": "data"})[0].locate("a.mrc") == str(
        tmp_path / "data" / "a.mrc"
    )
    two.write_text(f"- {one.read_text()}- {one.read_text()}")
    (single,) = read_parameters(one)
    assert single.root == str(tmp_path)
    assert single.locate("a.mrc") == str(tmp_path / "a.mrc")
    assert single.locate("https://x.org/a.zarr") == "https://x.org/a.zarr"
    rows = read_parameters(two, rows=[1], overrides={"angles.step": "12", "lowpass": "40", "tomo_num": 3})
    assert [(row.source.row, row.angles.step, row.lowpass, row.tomo_num) for row in rows] == [(1, 12, 40, 3)]
    (pixels,) = read_parameters(one, overrides={"lowpass": "40"})
    assert (pixels.lowpass, pixels.lp_rad) == (40, None)
    with pytest.raises(InputError, match=r"two.yaml: no row 2 \(has rows 0 to 1\)"):
        read_parameters(two, rows=[2])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "p.yaml: no rows"),
        ("a: [1", "p.yaml line 1: expected YAML"),
        ("- 3", "p.yaml row 0: expected a mapping of parameters, found 3"),
        ("angles: {step: REQUIRED}", "p.yaml row 0: angles.step is still REQUIRED"),
        ("tomogram: a.mrc", "p.yaml row 0: template is required"),
    ],
)
def test_a_wrong_yaml_names_file_and_place(tmp_path, text, message):
    path = tmp_path / "p.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        read_parameters(path)
    assert message in str(error.value)
