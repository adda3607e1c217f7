"""Leopard-EM's particle table: its columns in its order, both meanings of correlation_variance, bad rows."""

import numpy as np
import pandas as pd
import pytest

from cryodask.errors import InputError
from cryodask.io.leopard_em import (
    CONSTRAINED_COLUMNS,
    MATCH_COLUMNS,
    REFINED_COLUMNS,
    parse_setting,
    read_leopard_em,
    variance_meaning,
    write_leopard_em,
)
from tests.jobs.planted import table_of, three_particles


@pytest.fixture
def table(tmp_path):
    return table_of(tmp_path, three_particles(), 32)


@pytest.mark.parametrize(
    ("added", "columns"),
    [
        ({}, MATCH_COLUMNS),
        ({"refined_scaled_mip": 9.0}, REFINED_COLUMNS),
        ({"refined_scaled_mip": 9.0, "original_offset_phi": 0.0}, CONSTRAINED_COLUMNS),
    ],
)
def test_columns_are_leopard_ems_and_ours_come_last(table, tmp_path, added, columns):
    assert {len(MATCH_COLUMNS), len(REFINED_COLUMNS), len(CONSTRAINED_COLUMNS)} == {39, 51, 54}
    path = tmp_path / "table.csv"
    write_leopard_em(path, table.assign(subpixel_x=0.25, note="mine", **added))
    written = pd.read_csv(path)
    assert written.columns.tolist() == ["Unnamed: 0", *columns, "subpixel_x", "note"]
    found = read_leopard_em(path)
    for name in ("phi", "pos_x", "defocus_u", "micrograph_path"):
        assert found[name].tolist() == table[name].tolist()


@pytest.mark.parametrize(("power", "meaning"), [(1, "std"), (2, "variance")])
def test_the_meaning_of_variance_is_told_from_the_z_scores(table, power, meaning):
    spread = np.array([1.2, 2.5, 0.8])
    table = table.assign(correlation_variance=spread**power, scaled_mip=(20.0 - 0.0) / spread)
    assert variance_meaning(table, "t.csv") == meaning


def test_a_variance_of_neither_meaning_is_refused_with_both_misfits(table):
    with pytest.raises(
        InputError, match=r"fits neither meaning.*misses scaled_mip by.*as a standard deviation"
    ):
        variance_meaning(table.assign(correlation_variance=3.3), "t.csv")


def test_missing_columns_and_rows_without_pose_are_named(table, tmp_path):
    path = tmp_path / "table.csv"
    write_leopard_em(path, table)
    pd.read_csv(path).drop(columns=["psi", "voltage"]).to_csv(path)
    with pytest.raises(InputError, match="missing columns psi, voltage"):
        read_leopard_em(path)
    many = pd.concat([table] * 3, ignore_index=True)
    many.loc[1:7, "theta"] = np.nan
    write_leopard_em(path, many, overwrite=True)
    with pytest.raises(InputError, match="row 1, 2, 3, 4, 5 and 2 more: theta: expected a number"):
        read_leopard_em(path)


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("", None),
        ("None", None),
        ('{"Z44c": 0.1}', {"Z44c": 0.1}),
        ("{'Z60': 1}", {"Z60": 1}),
        ("[1, 0]", [1, 0]),
    ],
)
def test_cells_of_settings_are_json_or_python(cell, value):
    assert parse_setting(cell) == value
