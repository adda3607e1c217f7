"""`batch-params`: tokens become numbers in every row."""

import os
from pathlib import Path

import pytest

from cryodask.cli.main import run
from cryodask.io.star import read_star_text
from cryodask.jobs.batch_params import read_numbers

TEMPLATE = """data_tm

loop_
_rootdir #1
_tomo_name #2
_tomo_num #3
_wedgelist_name #4
_outputdir #5
/data {tomo_name} {tomo_num} wedge_$xx.star out_$x
/data b_$XXXX.rec 0 wedge.star out
"""


@pytest.fixture
def batch(tmp_path):
    """Write a template and numbers, run the verb, return its status and output path."""

    def call(numbers, *, tomo_name="a_$xxx.rec", tomo_num="0", options=()):
        (tmp_path / "tm.star").write_text(TEMPLATE.format(tomo_name=tomo_name, tomo_num=tomo_num))
        (tmp_path / "numbers.txt").write_text(numbers)
        words = [
            "batch-params",
            "-t",
            str(tmp_path / "tm.star"),
            "-b",
            str(tmp_path / "numbers.txt"),
            *options,
        ]
        return run(words), tmp_path / "tm.batch.star"

    return call


def test_each_row_is_repeated_for_every_number(batch):
    status, path = batch("1 2 # two of them\n\n\t9\n")
    assert status == 0
    (table,) = read_star_text(path).values()
    assert table["tomo_name"].tolist() == [
        "a_001.rec",
        "a_002.rec",
        "a_009.rec",
        "b_0001.rec",
        "b_0002.rec",
        "b_0009.rec",
    ]
    assert table["tomo_num"].tolist() == ["1", "2", "9"] * 2
    assert table["wedgelist_name"].tolist() == [
        "wedge_01.star",
        "wedge_02.star",
        "wedge_09.star",
        *["wedge.star"] * 3,
    ]
    assert table["outputdir"].tolist()[:3] == ["out_1", "out_2", "out_9"]


@pytest.mark.parametrize(
    ("numbers", "changes", "message"),
    [
        ("1", {"tomo_name": "a.rec"}, "tm.star row 0: tomo_name = a.rec: no $x token"),
        ("1234", {"options": ()}, "tm.star: number 1234 needs 4 digits, token $xxx has 3"),
        ("1", {"tomo_num": "$xx"}, "tm.star row 0: tomo_num = $xx: no token here"),
        ("1\n2 b", {}, "numbers.txt line 2: b: expected an integer >= 0"),
        ("# none\n", {}, "numbers.txt: no numbers"),
    ],
)
def test_wrong_input_is_one_line_and_writes_nothing(batch, capsys, numbers, changes, message):
    status, path = batch(numbers, **changes)
    assert status == 2
    assert message in capsys.readouterr().err
    assert not path.exists()


def test_an_existing_file_is_kept_without_overwrite(batch, capsys):
    assert batch("1")[0] == 0
    assert batch("1")[0] == 2
    assert "tm.batch.star exists; use --overwrite" in capsys.readouterr().err
    assert batch("1", options=["--overwrite"])[0] == 0


@pytest.mark.skipif(not Path("/dev/fd").is_dir(), reason="no /dev/fd here")
def test_numbers_come_through_a_pipe_too():
    reader, writer = os.pipe()
    try:
        os.write(writer, b"3\n14\n")
        os.close(writer)
        assert read_numbers(f"/dev/fd/{reader}") == [3, 14]
    finally:
        os.close(reader)
