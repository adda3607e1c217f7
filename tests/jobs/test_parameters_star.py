"""Parameters from GAPSTOP and STOPGAP STAR files."""

import logging

import pytest

from cryodask.errors import InputError
from cryodask.jobs.tomogram_matching.checks import check_files, check_supported, check_tilts
from cryodask.jobs.tomogram_matching.parameters import read_parameters
from cryodask.optics.tilts import TiltSeries

# a parameter file as people write it for GAPSTOP
GAPSTOP = {
    "rootdir": "/data",
    "outputdir": "tm_outputs/",
    "vol_ext": ".mrc",
    "tomo_name": "t126.em",
    "tomo_num": "126",
    "wedgelist_name": "wedge_list.star",
    "tmpl_name": "ribosome.em",
    "mask_name": "mask.em",
    "symmetry": "C1",
    "anglist_name": "AGL_anglist_20_deg_c1.csv",
    "anglist_order": "zzx",
    "smap_name": "scores",
    "omap_name": "angles",
    "lp_rad": "16",
    "hp_rad": "1",
    "binning": "4",
}
INCREMENTS = {"anglist_name": None, "anglist_order": None, "angincr": "10"}


@pytest.fixture
def star(tmp_path):
    """Write rows as a loop and read them back as parameters."""

    def write(*changes, name="tm_param.star", block="tm"):
        rows = [
            {k: v for k, v in {**GAPSTOP, **change}.items() if v is not None} for change in changes or [{}]
        ]
        columns = list(dict.fromkeys(column for row in rows for column in row))
        header = "".join(f"_{column} #{k}\n" for k, column in enumerate(columns, 1))
        lines = [" ".join(str(row.get(column, "none")) for column in columns) for row in rows]
        path = tmp_path / name
        path.write_text(f"\ndata_{block}\n\nloop_\n{header}\n# rows\n" + "\n\n".join(lines) + "\n")
        return path

    return write


def only(path, **options):
    (parameters,) = read_parameters(path, **options)
    return parameters


def test_a_gapstop_row_has_gapstops_defaults(star):
    parameters = only(star())
    assert (parameters.noise_correction, parameters.noise_copies, parameters.search_grid) == (
        "ratio",
        1,
        "auto",
    )
    assert (parameters.interpolation, parameters.statistics_grid) == ("linear", "exact")
    assert (parameters.lp_rad, parameters.lp_sigma, parameters.hp_rad, parameters.hp_sigma) == (16, 3, 1, 2)
    assert (parameters.angles.file, parameters.angles.order) == ("AGL_anglist_20_deg_c1.csv", "zzx")
    assert (parameters.names.score, parameters.names.angles, parameters.names.noise) == (
        "scores",
        "angles",
        "noise",
    )
    assert (parameters.formats, parameters.output, parameters.binning) == (("zarr", "mrc"), "tm_outputs/", 4)
    assert parameters.locate(parameters.tomogram) == "/data/t126.em"
    assert (parameters.dose, parameters.ctf, parameters.write_raw) == ("none", "none", False)


def test_increments_are_golden_with_half_cones_of_increment_times_iterations(star):
    whole = only(star(INCREMENTS)).angles
    assert (whole.step, whole.method, whole.cone, whole.inplane_step) == (10, "golden", None, None)
    cone = only(star({**INCREMENTS, "angiter": "6", "phi_angincr": "5", "phi_angiter": "4"})).angles
    assert (cone.cone, cone.inplane_step, cone.inplane_range) == (60, 5, 20)
    full = only(star({**INCREMENTS, "angiter": "40", "phi_angiter": "18"})).angles
    assert (full.cone, full.inplane_range) == (180, None)


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("True", ("ratio", 1)),
        ("False", ("none", 1)),
        ("1", ("ratio", 1)),
        ("0", ("none", 1)),
        ("5", ("ratio", 5)),
    ],
)
def test_noise_corr_is_a_boolean_or_a_number_of_copies(star, cell, expected):
    parameters = only(star({"noise_corr": cell}))
    assert (parameters.noise_correction, parameters.noise_copies) == expected


def test_native_keys_are_columns_too_and_set_replaces_any_of_them(star):
    cells = {"wedge": "none", "tilt_sign": "-1", "angles.method": "rings", "region": '{"z":[0,100]}'}
    parameters = only(star({**INCREMENTS, **cells}), overrides={"lp_rad": "18", "moments": "false"})
    assert (parameters.wedge, parameters.tilt_sign, parameters.angles.method) == ("none", -1, "rings")
    assert (parameters.region.z, parameters.lp_rad, parameters.moments) == ((0, 100), 18, False)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"formats": "zarr,em", "output": "/here"}, {"formats": ("zarr", "em"), "output": "/here"}),
        ({"lowpass": "30"}, {"lowpass": 30, "lp_rad": None}),
        ({"noise_correction": "subtract"}, {"noise_correction": "subtract"}),
        ({"tomogram": "other.mrc"}, {"tomogram": "other.mrc"}),
    ],
)
def test_an_override_replaces_every_spelling_of_a_setting(star, overrides, expected):
    parameters = only(star({"noise_corr": "True"}), overrides=overrides)
    assert {key: getattr(parameters, key) for key in expected} == expected


def test_an_increment_given_as_override_replaces_the_list(star):
    angles = only(star(), overrides={"angincr": "12"}).angles
    assert (angles.file, angles.step) == (None, 12)


def test_compat_sets_what_the_file_does_not(star):
    stopgap = only(star({"interpolation": "cubic"}), compat="stopgap")
    assert (stopgap.normalization, stopgap.interpolation, stopgap.compat) == ("product", "cubic", "stopgap")
    assert only(star({"compat": "cryocat"})).normalization == "support"


def test_name_value_blocks_and_chosen_rows(tmp_path, star):
    path = tmp_path / "pairs.star"
    path.write_text("data_\n\n" + "\n".join(f"_{name}   {value}" for name, value in GAPSTOP.items()) + "\n")
    assert only(path).tomo_num == 126
    rows = read_parameters(star({}, {"tomo_num": "7"}, {"tomo_num": "8"}), rows=[2, 1])
    assert [(row.source.row, row.tomo_num) for row in rows] == [(2, 8), (1, 7)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lp_radius": "3"}, "unknown column lp_radius (did you mean lp_rad?)"),
        ({"tmpl_name": "REQUIRED"}, "tmpl_name is still REQUIRED"),
        ({"tmpl_name": "none"}, "tmpl_name is required"),
        ({"wedgelist_name": None}, "wedgelist_name is required"),
        ({"anglist_name": "none"}, "anglist_name or angincr is required"),
        ({"anglist_order": "zyz"}, "anglist_order = zyz: expected zxz or zzx"),
        ({"symmetry": "X5"}, "symmetry = X5: expected Cn, Dn, T, T3, O, I, I1, I2"),
        ({"hp_rad": "20"}, "hp_rad = 20: expected less than lp_rad = 16"),
        ({"lp_rad": "-1"}, "lp_rad = -1: expected a number > 0"),
        ({"lp_rad": "wide"}, "lp_rad = wide: expected a number > 0"),
        ({"tomo_num": "1.5"}, "tomo_num = 1.5: expected an integer >= 0"),
        ({"scoring_fcn": "scf"}, "scoring_fcn = scf: only flcf is supported"),
        ({"vol_ext": ".tif"}, "vol_ext = .tif: expected .em or .mrc"),
        ({"tiling": "old"}, "tiling = old: expected legacy, legacy_fix or new"),
        ({"calc_ctf": "perhaps"}, "calc_ctf = perhaps: expected true or false"),
        ({"noise_corr": "17"}, "noise_corr = 17: expected true, false or 1 to 16 copies"),
        ({"smap_name": "a/b"}, "smap_name = a/b: expected a name without path separators"),
        ({**INCREMENTS, "angincr": "200"}, "angincr = 200: expected 0 < angincr <= 180"),
        ({**INCREMENTS, "angiter": "0"}, "angiter = 0: expected an integer >= 1"),
        ({**INCREMENTS, "angincr": None, "angiter": "3"}, "angiter = 3 needs angincr"),
        ({"binning": "0"}, "binning = 0: expected a number > 0"),
    ],
)
def test_a_wrong_cell_names_file_line_row_column_and_expectation(star, changes, message):
    path = star({}, changes)
    with pytest.raises(InputError) as error:
        read_parameters(path)
    text = str(error.value)
    assert message in text
    line = len(path.read_text().splitlines())
    assert "unknown column" in message or text.startswith(
        (f"tm_param.star line {line} (row 1): ", "tm_param.star")
    )


def test_rows_that_are_short_or_missing_are_named(star):
    path = star()
    lines = path.read_text().rstrip("\n").rsplit(" ", 1)[0]
    path.write_text(lines)
    with pytest.raises(InputError, match=r"tm_param.star line \d+: 15 values for 16 columns"):
        read_parameters(path)
    path.write_text(lines.split("# rows")[0])
    with pytest.raises(InputError, match=r"tm_param.star: no rows"):
        read_parameters(path)


def test_a_list_with_increments_warns_and_uses_the_list(star, caplog):
    with caplog.at_level(logging.WARNING, logger="cryodask"):
        parameters = only(star({"angincr": "10", "angiter": "3"}))
    assert parameters.angles.step is None
    assert caplog.messages == ["row 0: anglist_name and angincr given, using anglist_name"]


def test_tiling_is_noted_once(star, caplog):
    with caplog.at_level(logging.INFO, logger="cryodask"):
        check_supported(read_parameters(star({"tiling": "new"}, {"tiling": "new"})))
    assert caplog.messages == ["tiling is ignored: results do not depend on it"]


def test_rec_maps_are_written_as_mrc_with_a_warning(star, caplog):
    assert only(star({"vol_ext": ".rec"})).formats == ("zarr", "mrc")
    assert "vol_ext = .rec: writing .mrc" in caplog.text


def test_filters_miss_columns_in_the_words_of_the_file(star):
    parameters = only(star({"calc_ctf": "True"}))
    with pytest.raises(InputError, match="calc_ctf = True needs column defocus"):
        check_tilts(parameters, TiltSeries(angles=[-60.0, 60.0]))
    check_tilts(parameters, TiltSeries(angles=[-60.0, 60.0], defocus=[3e4, 3e4]))
    with pytest.raises(InputError, match="calc_exp = True needs column exposure"):
        check_tilts(only(star({"calc_exp": "1"})), TiltSeries(angles=[-60.0, 60.0]))


def test_missing_files_are_named_by_column(star, tmp_path, shared_data):
    golden = shared_data / "tomogram_matching" / "local_correlation"
    names = {
        "rootdir": str(golden),
        "wedgelist_name": str(golden.parent / "tilt_metadata" / "wedgeutils_data" / "wedge_list.star"),
        "tmpl_name": "bin4_voxel2.176_ribosome.em",
        "mask_name": "mask48_r22.em",
        "tomo_name": "t9.mrc",
    }
    with pytest.raises(InputError) as error:
        check_files(only(star(names)))
    assert f"tomo_name = t9.mrc: no such file (looked in {golden})" in str(error.value)
    check_files(only(star({**names, "tomo_name": "id_2_scores.em"})))
    with pytest.raises(InputError, match=r"rootdir = /no/where: no such directory"):
        check_files(only(star({"rootdir": "/no/where"})))


@pytest.fixture
def stopgap(star, tmp_path):
    """Write a STOPGAP parameter file whose template list has the given rows."""

    def write(*templates, **changes):
        (tmp_path / "lists").mkdir(exist_ok=True)
        header = "data_stopgap_template_list\n\nloop_\n_tmpl_name\n_mask_name\n_symmetry\n_anglist_name\n"
        (tmp_path / "lists" / "tlist.star").write_text(header + "\n".join(templates) + "\n")
        cells = dict.fromkeys(("outputdir", "vol_ext", "tmpl_name", "mask_name", "symmetry", "anglist_name"))
        own = {
            "rootdir": f"{tmp_path}/",
            "tlist_name": "tlist.star",
            "tilesize": "192",
            "completed_p_tm": "0",
        }
        numbers = {"calc_exp": "0", "calc_ctf": "0", "noise_corr": "3", "tomo_mask_name": "tm.em"}
        return star(
            {**cells, "anglist_order": None, **own, **numbers, **changes}, block="stopgap_tm_parameters"
        )

    return write


def test_a_stopgap_file_is_read_with_its_folders_and_list_order(stopgap, caplog):
    with caplog.at_level(logging.INFO, logger="cryodask"):
        parameters = only(stopgap("ribo.em mask.em C1 angles.csv"))
    assert (parameters.template, parameters.mask) == ("templates/ribo.em", "masks/mask.em")
    assert (parameters.angles.file, parameters.angles.order) == ("lists/angles.csv", "zzx")
    assert (parameters.tilts, parameters.tomogram_mask) == ("lists/wedge_list.star", "masks/tm.em")
    assert (parameters.output, parameters.noise_copies) == ("maps/", 3)
    assert caplog.messages == ["tm_param.star: dropped tilesize, completed_p_tm"]


def test_a_stopgap_list_of_several_templates_becomes_templates(stopgap):
    parameters = only(stopgap("a.em ma.em C1 a.csv", "b.em mb.em D2 b.csv", maskdir="m2/"))
    assert [(item.name, item.mask, item.symmetry) for item in parameters.templates] == [
        ("a", "m2/ma.em", "C1"),
        ("b", "m2/mb.em", "D2"),
    ]


def test_a_stopgap_file_without_its_template_list_says_so(stopgap):
    with pytest.raises(InputError, match=r"tlist_name = other.star: no such file \(looked in .*lists\)"):
        read_parameters(stopgap("a.em m.em C1 a.csv", tlist_name="other.star"))
