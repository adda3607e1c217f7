"""A project's list of tomograms as the rows of one parameter file."""

import pytest
import yaml

from cryodask.errors import InputError
from cryodask.io.star import write_star
from cryodask.jobs.tomogram_matching.parameters import read_parameters

COMMON = {"template": "ribo.mrc", "mask": {"sphere": 150}, "angles": {"step": 30}}


@pytest.fixture
def project(tmp_path):
    """Write a RELION 5 project of three tomograms, and return what writes parameters beside it."""
    import pandas as pd

    names = ["TS_01", "TS_03", "TS_12"]
    table = pd.DataFrame(
        {
            "rlnTomoName": names,
            "rlnTomoTiltSeriesStarFile": [f"tilt_series/{name}.star" for name in names],
            "rlnTomoReconstructedTomogram": [f"tomograms/rec_{name}.mrc" for name in names],
        }
    )
    (tmp_path / "tomograms").mkdir()
    for name in names:
        (tmp_path / "tomograms" / f"rec_{name}.mrc").touch()
    write_star(tmp_path / "tomograms.star", {"global": table})
    write_star(tmp_path / "bare.star", {"global": table.drop(columns="rlnTomoReconstructedTomogram")})

    def make(content):
        path = tmp_path / "params.yaml"
        path.write_text(yaml.safe_dump(content))
        return path

    return make


def test_each_row_of_a_relion_star_is_a_row_of_parameters(project, tmp_path):
    path = project(COMMON | {"tilts": "tomograms.star", "tomogram_mask": "masks/slab_$xxx.mrc"})
    rows = read_parameters(path)
    assert [row.display_name for row in rows] == ["TS_01", "TS_03", "TS_12"]
    assert [row.tomo_num for row in rows] == [1, 3, 12]
    assert [row.tomogram_mask for row in rows] == [f"masks/slab_{n}.mrc" for n in ("001", "003", "012")]
    assert rows[1].tomogram == str(tmp_path / "tomograms" / "rec_TS_03.mrc")
    assert [row.source.row for row in rows] == [0, 1, 2]
    chosen = read_parameters(path, rows=[2], overrides={"angles.step": 20})
    assert (chosen[0].display_name, chosen[0].angles.step) == ("TS_12", 20)


def test_tokens_name_the_files_of_each_tomogram(project):
    given = {
        "tilts": "bare.star",
        "tomogram": "denoised/$tomo_name.mrc",
        "orientations": {"near": "membranes/$tomo_name.csv", "cone": 40},
        "output": "out/$xx",
    }
    rows = read_parameters(project(COMMON | given))
    assert [row.tomogram for row in rows] == [f"denoised/TS_{n}.mrc" for n in ("01", "03", "12")]
    assert rows[2].orientations.near == "membranes/TS_12.csv"
    assert [row.output for row in rows] == ["out/01", "out/03", "out/12"]


def test_files_of_a_pattern_are_rows_and_a_list_may_mix_all_kinds(project, tmp_path):
    (tmp_path / "warp").mkdir()
    for name in ("b_7", "a_7"):
        (tmp_path / "warp" / f"{name}.xml").touch()
    single = COMMON | {"tomogram": "one.mrc", "tilts": [-60, 60]}
    pattern = COMMON | {"tomogram": "warp/$tomo_name.mrc", "tilts": "warp/*.xml"}
    rows = read_parameters(project([single, pattern, COMMON | {"tilts": "tomograms.star"}]))
    assert [row.display_name for row in rows] == ["one", "a_7", "b_7", "TS_01", "TS_03", "TS_12"]
    assert [row.tomo_num for row in rows] == [None, 1, 2, 1, 3, 12]
    assert rows[1].tilts == str(tmp_path / "warp" / "a_7.xml")


def test_a_tomogram_that_is_given_takes_its_row_of_the_star_as_before(project):
    rows = read_parameters(project(COMMON | {"tomogram": "TS_03.mrc", "tilts": "tomograms.star"}))
    assert [(row.tomogram, row.tilts) for row in rows] == [("TS_03.mrc", "tomograms.star")]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tilts": "bare.star"}, "params.yaml row 0: tomogram is required: bare.star names none for TS_01"),
        ({"tilts": "none/*.xml", "tomogram": "$x.mrc"}, "tilts = none/*.xml: no such files (looked in "),
        (
            {"tilts": "tomograms.star", "tomogram_mask": "$x.mrc"},
            "$x.mrc: number 12 of TS_12 needs 2 digits, token $x has 1",
        ),
        ({"tilts": "wedge.tlt"}, "tomogram is required"),
    ],
)
def test_what_cannot_be_listed_is_refused(project, given, message):
    with pytest.raises(InputError) as caught:
        read_parameters(project(COMMON | given))
    assert message in str(caught.value)
