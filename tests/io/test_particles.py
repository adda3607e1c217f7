"""Particle tables: the same particles in every dialect."""

import numpy as np
import pandas as pd
import pytest
import starfile
from scipy.spatial.transform import Rotation

from cryodask.errors import InputError
from cryodask.io.particle_table import COLUMNS
from cryodask.io.particles import read_particles, write_particles
from cryodask.io.volume import read_volume

FORMATS = {
    "stopgap": "star",
    "em": "em",
    "relion3.1": "star",
    "relion4": "star",
    "relion5": "star",
    "dynamo": "tbl",
    "csv": "csv",
}
OPTIONS = {"voxel_size": 8.704, "binning": 4.0, "tomogram_shape": (1800, 4096, 4000)}


@pytest.fixture
def table():
    rng = np.random.default_rng(3)
    count = 7
    return pd.DataFrame(
        {
            "tomo_name": ["TS_017"] * 4 + ["TS_018"] * 3,
            "tomo_num": [17] * 4 + [18] * 3,
            "class": [1, 2, 1, 1, 1, 1, 1],
            **dict(zip("xyz", rng.uniform(0, 400, (3, count)), strict=True)),
            "score": rng.uniform(size=count),
            "phi": rng.uniform(-179, 179, count),
            "theta": rng.uniform(1, 179, count),
            "psi": rng.uniform(-179, 179, count),
        }
    )


@pytest.mark.parametrize(("format", "suffix"), FORMATS.items())
def test_written_particles_are_read_back(tmp_path, table, format, suffix):
    path = tmp_path / f"p.{suffix}"
    write_particles(table, path, format, **OPTIONS)
    found = read_particles(path, **OPTIONS)
    assert tuple(found.columns) == COLUMNS
    numbers = ["tomo_num", "class", "x", "y", "z", "score", "phi", "theta", "psi"]
    tolerance = 2e-4 if format == "em" else 1e-5
    np.testing.assert_allclose(found[numbers], table[numbers], atol=tolerance)
    if format not in ("csv", "stopgap", "em", "dynamo"):
        assert found["tomo_name"].tolist() == table["tomo_name"].tolist()
    np.testing.assert_allclose(found[["x_a", "y_a", "z_a"]], 8.704 * table[["x", "y", "z"]], atol=2e-3)


def one_particle(**changes):
    row = {"tomo_name": "TS_001", "tomo_num": 1, "class": 1, "x": 10.25, "y": 20.75, "z": 30.0, "score": 0.5}
    return pd.DataFrame([row | {"phi": 30.0, "theta": 40.0, "psi": 50.0} | changes])


def test_stopgap_columns_follow_the_formulas(tmp_path):
    write_particles(one_particle(), tmp_path / "p.star")
    text = (tmp_path / "p.star").read_text()
    assert "data_stopgap_motivelist" in text
    assert "#1" not in text
    row = starfile.read(tmp_path / "p.star")
    assert list(row) == [
        *("motl_idx", "tomo_num", "object", "subtomo_num", "halfset", "orig_x", "orig_y", "orig_z", "score"),
        *("x_shift", "y_shift", "z_shift", "phi", "psi", "the", "class"),
    ]
    assert row.iloc[0].tolist() == [1, 1, 1, 1, "A", 11, 22, 31, 0.5, 0.25, -0.25, 0, 30, 50, 40, 1]


def test_half_sets_alternate(tmp_path, table):
    write_particles(table, tmp_path / "p.star", split_halves=True)
    assert starfile.read(tmp_path / "p.star")["halfset"].tolist() == list("ABABABA")
    write_particles(table, tmp_path / "r.star", "relion3.1", **OPTIONS)
    relion = starfile.read(tmp_path / "r.star")["particles"]
    assert relion["rlnRandomSubset"].tolist() == [1, 2, 1, 2, 1, 2, 1]


def test_em_list_is_float32_with_twenty_values_a_particle(tmp_path):
    write_particles(one_particle(), tmp_path / "p.em", object_number=3)
    expected = [0.5, 0, 0, 1, 1, 3, 0, 11, 22, 31, 0.25, -0.25, 0, 0, 0, 0, 30, 50, 40, 1]
    np.testing.assert_array_equal(read_volume(tmp_path / "p.em"), [[expected]])


def test_dynamo_columns_follow_the_formulas(tmp_path):
    write_particles(one_particle(), tmp_path / "p.tbl", tilt_range=(-60, 60), object_number=2)
    row = np.loadtxt(tmp_path / "p.tbl")
    expected = np.zeros(35)
    expected[[0, 1, 2, 3, 4, 6, 7, 8, 9, 12]] = 1, 1, 1, 0.25, -0.25, -50, -40, -30, 0.5, 1
    expected[[13, 14, 19, 20, 21, 23, 24, 25]] = -60, 60, 1, 2, 1, 11, 22, 31
    np.testing.assert_array_equal(row, expected)


def test_relion_angles_and_positions_follow_the_formulas(tmp_path):
    options = {"voxel_size": 8.0, "binning": 4.0, "tomogram_shape": (100, 200, 300)}
    rows = {}
    for name in ("relion3.1", "relion4", "relion5"):
        write_particles(one_particle(), tmp_path / f"{name}.star", name, **options)
        blocks = starfile.read(tmp_path / f"{name}.star", always_dict=True)
        assert list(blocks) == ["optics", "particles"]
        rows[name] = blocks["particles"].iloc[0]
        assert rows[name][["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]].tolist() == [60, 40, -140]
        pixel = "rlnImagePixelSize" if name == "relion3.1" else "rlnTomoTiltSeriesPixelSize"
        assert blocks["optics"][pixel].item() == (8 if name == "relion3.1" else 2)
    place = [f"rlnCoordinate{axis}" for axis in "XYZ"]
    assert rows["relion3.1"][place].tolist() == [10.25, 20.75, 30]
    assert rows["relion4"][place].tolist() == [41, 83, 120]
    assert rows["relion4"]["rlnTomoParticleName"] == "TS_001/1"
    centred = rows["relion5"][[f"rlnCenteredCoordinate{axis}Angst" for axis in "XYZ"]]
    assert centred.tolist() == [2 * (41 - 150), 2 * (83 - 100), 2 * (120 - 50)]


@pytest.mark.parametrize(
    ("name", "count", "first"),
    [
        ("class6_er_mr1_1_sg.star", None, (824.2121 - 1, 754.6012 - 1, 678.4676 - 1)),
        ("relion_3.0.star", 3, (1028.455, 733.955, 422.955)),
        ("relion_3.1_optics2.star", 3, (915.549 + 0.25289 / 2.446, 1480.63 + 2.69889 / 2.446, None)),
        ("relion_4.0.star", None, (1700 - 1.260416 / 1.971, 428 - 2.364176 / 1.971, None)),
        ("b4_motl_CR_tm_topbott_clean600_1_dynamo.tbl", None, (507 + 1.0651 - 1, 548 + 1.1602 - 1, None)),
        ("crop.tbl", None, (781.5 + 0.21 - 1, 254.5 - 0.26 - 1, 219.5 - 0.5 - 1)),
    ],
)
def test_real_tables_read_written_and_read_are_the_same(shared_data, tmp_path, name, count, first):
    table = read_particles(shared_data / "tomogram_matching/tilt_metadata" / name)
    assert count in (None, len(table))
    for found, expected in zip(table.loc[0, ["x", "y", "z"]], first, strict=True):
        assert expected is None or found == pytest.approx(expected, abs=1e-4)
    for format, suffix in FORMATS.items():
        write_particles(table, tmp_path / f"{format}.{suffix}", format, **OPTIONS)
        again = read_particles(tmp_path / f"{format}.{suffix}", **OPTIONS)
        tolerance = 2e-4 if format == "em" else 1e-5
        np.testing.assert_allclose(again[["x", "y", "z"]], table[["x", "y", "z"]], atol=tolerance)
        np.testing.assert_allclose(rotations(again), rotations(table), atol=1e-5)
        np.testing.assert_array_equal(again["class"], table["class"])


def rotations(table):
    return Rotation.from_euler("zxz", table[["phi", "theta", "psi"]], degrees=True).as_matrix()


def test_quaternions_carry_the_template_into_the_tomogram(tmp_path):
    write_particles(one_particle(), tmp_path / "p.csv")
    row = read_particles(tmp_path / "p.csv").iloc[0]
    matrix = Rotation.from_quat(row[["qx", "qy", "qz", "qw"]].to_numpy(float)).as_matrix()
    np.testing.assert_allclose(matrix[0], [0.263258, -0.829598, 0.492404], atol=1e-6)
    assert row["qw"] >= 0


@pytest.mark.parametrize(
    ("name", "format", "message"),
    [
        ("p.star", "relion5", "relion5: voxel_size is required"),
        ("p.star", "relion6", "format relion6: expected stopgap, em, relion3.1"),
        ("p.xyz", None, r"p.xyz: unknown table suffix, expected .star, .em, .tbl, .csv"),
    ],
)
def test_what_cannot_be_written_is_named_and_leaves_no_file(tmp_path, table, name, format, message):
    with pytest.raises(InputError, match=message):
        write_particles(table, tmp_path / name, format)
    assert list(tmp_path.iterdir()) == []


def test_relion5_needs_the_size_of_every_tomogram(tmp_path, table):
    sizes = {"TS_017": (100, 200, 300)}
    with pytest.raises(InputError, match="no tomogram_shape for TS_018"):
        write_particles(table, tmp_path / "p.star", "relion5", voxel_size=8, tomogram_shape=sizes)


def test_existing_table_is_kept(tmp_path, table):
    write_particles(table, tmp_path / "p.csv")
    with pytest.raises(InputError, match=r"p.csv exists; use --overwrite"):
        write_particles(table, tmp_path / "p.csv")
    write_particles(table[:2], tmp_path / "p.csv", overwrite=True)
    assert len(read_particles(tmp_path / "p.csv")) == 2


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("p.csv", "x,y,z\n1,2,3\n", "p.csv: missing column phi, theta, psi"),
        ("p.csv", "", "p.csv: No columns to parse"),
        ("p.tbl", "1 2 3\n", r"p.tbl line 1: expected 26 or more numbers, found 3"),
        ("p.star", "data_x\nloop_\n_a\n1\n", r"p.star: expected rlnCoordinateX or rlnCenteredCoordinateX"),
    ],
)
def test_wrong_tables_are_named(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        read_particles(tmp_path / name)
