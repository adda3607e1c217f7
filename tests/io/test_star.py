"""STAR files of every layout are read, and a wrong line is named."""

import pandas as pd
import pytest
import starfile

from cryodask.errors import InputError
from cryodask.io.star import read_star, read_star_table, read_star_text, write_star

LAYOUT = """# a comment

data_one

_voltage   300
_name  "two words"  # the microscope

 data_

loop_
_x #1
_tomo_name #2
# between header and rows

1.5  '001'
# between rows

-2   002

"""


@pytest.fixture
def write(tmp_path):
    def write(text, name="t.star"):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def test_blank_lines_comments_quotes_and_both_kinds_of_block(write):
    blocks = read_star(write(LAYOUT))
    assert list(blocks) == ["one", ""]
    assert blocks["one"].iloc[0].to_dict() == {"voltage": 300, "name": "two words"}
    assert blocks[""]["x"].tolist() == [1.5, -2]
    assert blocks[""]["tomo_name"].tolist() == ["001", "002"]
    assert blocks[""].index.tolist() == [15, 18]


def test_short_row_is_named_by_its_line(write):
    columns = "".join(f"_c{i}\n" for i in range(17))
    text = "data_x\n\nloop_\n" + columns + "\n" + ("1 " * 17 + "\n") * 9 + "1 " * 16 + "\n"
    with pytest.raises(InputError, match=r"t.star line 31: 16 values for 17 columns"):
        read_star(write(text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hello\n", "t.star line 1: 'hello' before the first data_ block"),
        ("\n", "t.star: no data_ block"),
        ("data_a\n_x 1\ndata_a\n", "t.star line 3: second block data_a"),
        ("data_a\nloop_\n_x\n_y\n_x\n", "t.star line 5: second column _x"),
        ("data_a\n_x 1 2\n", "t.star line 2: expected _name value, found '_x 1 2'"),
    ],
)
def test_what_is_not_star_is_named(write, text, message):
    with pytest.raises(InputError, match=message):
        read_star(write(text))


def test_an_empty_loop_is_an_empty_table_and_no_rows_where_rows_are_needed(write):
    path = write("data_x\nloop_\n_a\n_b\n\n")
    assert read_star(path)["x"].shape == (0, 2)
    with pytest.raises(InputError, match=r"t.star: no rows"):
        read_star_table(path, "a")
    with pytest.raises(InputError, match=r"t.star: missing column c"):
        read_star_table(path, "a", "c")


@pytest.mark.parametrize(
    "name",
    [
        "relion_3.0.star",
        "relion_3.1_optics2.star",
        "relion_4.0.star",
        "class6_er_mr1_1_sg.star",
        "bin1_1deg_500.star",
        "wedgeutils_data/wedge_list.star",
        "wedgeutils_data/wedge_list_018.star",
        "TS_018/018_gctf.star",
    ],
)
def test_real_files_are_read_as_starfile_reads_them(shared_data, name):
    path = shared_data / "tomogram_matching/tilt_metadata" / name
    expected = starfile.read(path, always_dict=True)
    found = read_star(path)
    assert list(found) == [str(key) for key in expected]
    for key, frame in found.items():
        pd.testing.assert_frame_equal(
            frame.reset_index(drop=True), expected[key], check_dtype=False, check_index_type=False
        )


def test_text_reading_keeps_every_character(write):
    assert read_star_text(write("data_x\n_n 0010\n"))["x"]["n"].tolist() == ["0010"]


@pytest.mark.parametrize("numbers", ["#", ""])
def test_written_tables_keep_small_numbers_and_words(tmp_path, numbers):
    table = pd.DataFrame({"a": [1e-7, 123456.789], "name": ["x y", "z"]})
    write_star(tmp_path / "t.star", {"x": table}, column_numbers=numbers)
    assert starfile.read(tmp_path / "t.star")["a"].tolist() == [1e-7, 123456.789]
    pd.testing.assert_frame_equal(
        read_star(tmp_path / "t.star")["x"].reset_index(drop=True), table, check_dtype=False
    )
    assert ("_a #1" in (tmp_path / "t.star").read_text()) is bool(numbers)
    with pytest.raises(InputError, match=r"t.star exists; use --overwrite"):
        write_star(tmp_path / "t.star", {"x": table})
