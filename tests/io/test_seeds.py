"""Seeds of a search from particle tables and normals."""

import numpy as np
import pandas as pd
import pytest

from cryodask.errors import InputError
from cryodask.geometry.euler import rotation_from_euler
from cryodask.io.particle_table import TableOptions
from cryodask.io.particles import write_particles
from cryodask.io.seeds import read_seeds
from cryodask.io.star import write_star

UNBINNED = (800, 1600, 1200)
OPTIONS = TableOptions(voxel_size=10.0, binning=4.0, tomogram_shape=UNBINNED, origin=(5.0, -10.0, 20.0))
PLACES = np.array([[10.5, 20.0, 30.25], [40.0, 50.0, 60.0], [7.0, 8.0, 9.0]])
ANGLES = np.array([[10.0, 20.0, 30.0], [-40.0, 50.0, 60.0], [0.0, 0.0, 0.0]])


@pytest.fixture
def table():
    columns = dict(zip(("x", "y", "z", "phi", "theta", "psi"), np.hstack([PLACES, ANGLES]).T, strict=True))
    return pd.DataFrame({"tomo_name": "TS_017", "tomo_num": 17, **columns})


@pytest.mark.parametrize(
    ("name", "dialect"),
    [
        ("a.star", "stopgap"),
        ("a.star", "relion3.1"),
        ("a.star", "relion4"),
        ("a.star", "relion5"),
        ("a.tbl", "dynamo"),
        ("a.em", "em"),
        ("a.csv", "csv"),
    ],
)
def test_every_particle_table_gives_places_and_orientations(tmp_path, table, name, dialect):
    options = {"voxel_size": 10.0, "binning": 4.0, "tomogram_shape": OPTIONS.tomogram_shape}
    write_particles(table, tmp_path / name, dialect, **options)
    seeds = read_seeds(tmp_path / name, "TS_017", 17, OPTIONS)
    assert seeds.has_inplane
    np.testing.assert_allclose(seeds.positions, PLACES[:, ::-1], atol=1e-3)
    np.testing.assert_allclose(seeds.matrices, rotation_from_euler(ANGLES).as_matrix(), atol=1e-5)


NORMALS = np.array([[0.0, 0.0, 2.0], [1.0, -2.0, 0.5], [0.0, 0.0, -1.0]])


@pytest.mark.parametrize("name", ["n.csv", "n.star"])
@pytest.mark.parametrize("unit", ["voxel", "angstrom"])
def test_normals_give_rotations_that_carry_z_onto_them(tmp_path, name, unit):
    names, places = ("x", "y", "z"), PLACES
    if unit == "angstrom":
        names, places = ("x_a", "y_a", "z_a"), PLACES * 10.0 + np.array([20.0, -10.0, 5.0])
    frame = pd.DataFrame(dict(zip((*names, "nx", "ny", "nz"), np.hstack([places, NORMALS]).T, strict=True)))
    path = tmp_path / name
    if name.endswith("csv"):
        frame.rename(columns=str.upper).to_csv(path, index=False)
    else:
        write_star(path, {"normals": frame})
    seeds = read_seeds(path, "any", None, OPTIONS)
    assert not seeds.has_inplane
    np.testing.assert_allclose(seeds.positions, PLACES[:, ::-1], atol=1e-6)
    unit_normals = NORMALS / np.linalg.norm(NORMALS, axis=1)[:, None]
    np.testing.assert_allclose(seeds.matrices[:, :, 2], unit_normals, atol=1e-12)


def test_rows_are_those_of_the_tomogram_by_name_or_number(tmp_path, table):
    other = table.assign(tomo_name="TS_018", tomo_num=18, x=1.0)
    pd.concat([table, other]).to_csv(tmp_path / "all.csv", index=False)
    assert len(read_seeds(tmp_path / "all.csv", "TS_018", None, OPTIONS)) == 3
    assert read_seeds(tmp_path / "all.csv", "rec", 18, OPTIONS).positions[0, 2] == 1.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x,y,z,nx,ny,nz\n1,2,3,0,0,0\n", "bad.csv row 2: a normal of length 0"),
        ("x,y,z,nx,ny,nz\n1,2,3,0,0,1\n1,2,,0,0,1\n", "bad.csv row 3: z = nan, expected a finite number"),
        ("x,y,nx,ny,nz\n1,2,0,0,1\n", "bad.csv: missing column x, y, z (voxels) or x_a, y_a, z_a"),
        ("x,y,z\n1,2,3\n", "bad.csv: missing column phi, theta, psi"),
        ("x,y,z,nx,ny,nz\n", "bad.csv: no rows"),
        (
            "tomo_num,x,y,z,nx,ny,nz\n17,1,2,3,0,0,1\n",
            "bad.csv: no rows for tomo_name TS_9 or tomo_num 9 (has 17)",
        ),
    ],
)
def test_a_bad_table_is_refused_with_its_row(tmp_path, text, message):
    (tmp_path / "bad.csv").write_text(text)
    with pytest.raises(InputError) as caught:
        read_seeds(tmp_path / "bad.csv", "TS_9", 9, OPTIONS)
    assert message in str(caught.value)
