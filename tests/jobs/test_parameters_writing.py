"""Parameters written to a file and read back are the same."""

import pytest
import yaml

from cryodask.errors import InputError
from cryodask.io.star import read_star_text, write_star
from cryodask.jobs.tomogram_matching import templates
from cryodask.jobs.tomogram_matching.parameters import MatchParameters, read_parameters
from cryodask.jobs.tomogram_matching.star_columns import PLAIN_COLUMNS, TRANSLATED_COLUMNS
from cryodask.jobs.tomogram_matching.stopgap_writing import write_stopgap
from cryodask.jobs.tomogram_matching.writing import write_gapstop, write_native

BASE = {"tomogram": "a.mrc", "tomo_num": 17, "tilts": "w.star", "template": "t.mrc", "mask": "m.mrc"}
CASES = {
    "plain": {"angles": {"file": "my list.csv", "order": "zzx"}, "lp_rad": 16, "hp_rad": 1},
    "sphere": {"mask": {"sphere": 150, "edge": 20}, "angles": {"step": 7}, "lowpass": 30, "output": "out"},
    "filters": {
        "angles": {"step": 7},
        "ctf": "amplitude",
        "dose": "grant",
        "highpass": 300,
        "search_grid": "full",
    },
    "own": {
        "angles": {"step": 7, "cone": 21, "inplane_step": 3, "inplane_range": 10.5, "method": "rings"},
        "tilts": [-60, 60],
        "noise_correction": "subtract",
        "noise_copies": 3,
        "wedge": "none",
        "region": {"z": [0, 100]},
        "formats": "mrc,em",
        "dose": "bfactor",
        "compat": "stopgap",
        "seed": 5,
    },
    "no wedge": {"angles": {"diameter": 300, "resolution": 20}, "tilts": None, "names": {"noise": "n"}},
}


@pytest.fixture(params=CASES)
def parameters(request, tmp_path):
    return MatchParameters.from_native({**BASE, **CASES[request.param], "root": str(tmp_path)})


@pytest.mark.parametrize(("write", "name"), [(write_native, "p.yaml"), (write_gapstop, "p.star")])
def test_written_parameters_are_read_back_the_same(parameters, tmp_path, write, name):
    write([parameters], tmp_path / name)
    (again,) = read_parameters(tmp_path / name)
    assert again.model_dump() == parameters.model_dump()


@pytest.mark.parametrize(("write", "name"), [(write_native, "p.yaml"), (write_gapstop, "p.star")])
def test_rows_of_different_kinds_share_a_file(tmp_path, write, name):
    rows = [MatchParameters.from_native({**BASE, **case, "root": str(tmp_path)}) for case in CASES.values()]
    write(rows, tmp_path / name)
    assert [row.model_dump() for row in read_parameters(tmp_path / name)] == [
        row.model_dump() for row in rows
    ]


def test_a_star_row_that_gapstop_can_express_has_its_columns_alone(tmp_path):
    star = {
        **CASES["plain"],
        "noise_correction": "ratio",
        "interpolation": "linear",
        "statistics_grid": "exact",
    }
    row = MatchParameters.from_native(
        {**BASE, **star, "angles": {"step": 7, "cone": 21, "method": "golden"}, "formats": "zarr,em"}
    )
    assert write_gapstop([row], tmp_path / "p.star") == []
    (table,) = read_star_text(tmp_path / "p.star").values()
    assert set(table.columns) <= {*PLAIN_COLUMNS, *TRANSLATED_COLUMNS}
    assert table["angiter"].tolist() == ["3"]


def test_stopgap_files_are_read_back_the_same(tmp_path):
    own = {
        "noise_correction": "ratio",
        "interpolation": "linear",
        "statistics_grid": "exact",
        "formats": "zarr,em",
    }
    rows = [
        MatchParameters.from_native(
            {**BASE, **CASES["plain"], **own, "tomo_num": number, "root": str(tmp_path)}
        )
        for number in (1, 2)
    ]
    assert write_stopgap(rows, tmp_path / "params" / "p.star") == []
    again = read_parameters(tmp_path / "params" / "p.star")
    differing = [
        {key for key, value in new.model_dump().items() if value != old.model_dump()[key]} - {"angles"}
        for new, old in zip(again, rows, strict=True)
    ]
    assert differing == [set(), set()]
    assert [row.angles.file for row in again] == ["my list.csv"] * 2


def test_what_stopgap_cannot_hold_is_refused_or_named(tmp_path):
    generated = MatchParameters.from_native({**BASE, **CASES["plain"], "angles": {"step": 7}})
    with pytest.raises(InputError, match=r"angles.file: STOPGAP needs a list of phi,psi,theta \(order zzx\)"):
        write_stopgap([generated], tmp_path / "p.star")
    listed = MatchParameters.from_native({**BASE, **CASES["plain"], "boundary": "wrap", "formats": "zarr,em"})
    lost = write_stopgap([listed], tmp_path / "q.star")
    assert "boundary" in lost


@pytest.mark.parametrize("angles", ["list", "increments"])
def test_a_filled_star_template_means_gapstops_defaults(tmp_path, angles):
    import pandas as pd

    full, bare = (templates.star_fields(angles, defaults=defaults) for defaults in (True, False))
    filling = {"tomo_num": "3", "lp_rad": "16", "hp_rad": "1", "angincr": "7"}
    values = []
    for number, fields in enumerate((full, bare)):
        filled = {
            key: filling.get(key, "x") if value == "REQUIRED" else value for key, value in fields.items()
        }
        path = tmp_path / f"{number}.star"
        write_star(path, {templates.STAR_BLOCK: pd.DataFrame([filled])})
        values += [row.model_dump() for row in read_parameters(path)]
    assert values[0] == values[1]


@pytest.mark.parametrize("angles", ["list", "increments"])
def test_a_filled_native_template_means_the_defaults(angles):
    full, bare = (
        yaml.safe_load(templates.native_text(angles, defaults=defaults)) for defaults in (True, False)
    )
    values = []
    for mapping in (full, bare):
        key = "file" if angles == "list" else "step"
        mapping |= {"tomogram": "a", "template": "b", "mask": "c"}
        mapping["angles"][key] = "x" if angles == "list" else 7
        values.append(MatchParameters.from_native(mapping).model_dump())
    assert values[0] == values[1]
