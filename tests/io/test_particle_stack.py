"""One reader for every format of particle stacks, against files of other programs and files made here."""

from pathlib import Path

import h5py
import mrcfile
import numpy as np
import pandas as pd
import pytest
import zarr
from numpy.lib import recfunctions

from cryodask.errors import InputError
from cryodask.geometry.euler import rotation_from_euler
from cryodask.io.image_stacks import read_images
from cryodask.io.particle_stack import ParticleStack, open_particles, particles_from_array
from cryodask.io.particle_writing import origin_columns, write_particles
from cryodask.io.relion_stack import read_star_particles
from cryodask.io.star import read_star

IMAGES = np.random.default_rng(3).normal(size=(7, 8, 8)).astype(np.float32)


def write_mrcs(path: Path, images: np.ndarray, pixel_size: float = 1.5) -> Path:
    with mrcfile.new(path) as file:
        file.set_data(images)
        file.set_image_stack()
        file.voxel_size = pixel_size
    return path


def write_star31(path: Path, names: list[str], extra: str = "") -> Path:
    rows = "\n".join(f"{name} {1 + i % 2} {10000 + i} {9000 + i} 30 {i} 2.5" for i, name in enumerate(names))
    path.write_text(
        "data_optics\nloop_\n_rlnOpticsGroup #1\n_rlnVoltage #2\n_rlnSphericalAberration #3\n"
        "_rlnAmplitudeContrast #4\n_rlnImagePixelSize #5\n1 300 2.7 0.1 1.5\n2 200 2.0 0.07 1.5\n\n"
        "data_particles\nloop_\n_rlnImageName #1\n_rlnOpticsGroup #2\n_rlnDefocusU #3\n_rlnDefocusV #4\n"
        f"_rlnDefocusAngle #5\n_myColumn #6\n_rlnOriginXAngst #7\n{rows}\n{extra}"
    )
    return path


def test_real_files_of_relion_30_and_31(shared_data: Path) -> None:
    old = open_particles(shared_data / "stacks" / "sample_particles_relion30.star")
    new = open_particles(shared_data / "stacks" / "sample_particles_relion31.star")
    with mrcfile.open(shared_data / "stacks" / "sample.mrcs") as file:
        expected = file.data
        for stack in (old, new):
            np.testing.assert_array_equal(stack.images[3:9].compute(), expected[3:9])
            np.testing.assert_array_equal(
                stack.take([12, 0, 5]).images.compute(), expected[[12, 0, 5]].astype(np.float32)
            )
    assert (len(old), old.box, new.pixel_size) == (17, 200, 1.4)
    assert old.pixel_size == pytest.approx(5e4 / 37369.207, rel=1e-6)
    assert set(new.table["voltage"]) == {200.0, 300.0}
    assert set(new.table["optics_group"]) == {1, 2}
    np.testing.assert_allclose(new.table["defocus_u"], old.table["defocus_u"])
    rows = old.blocks["model_class_1"]["rlnOriginX"].to_numpy(float)
    np.testing.assert_allclose(old.table["origin_x"], rows * old.pixel_size)


def test_ctf_tables_of_cryolike(shared_data: Path) -> None:
    star = shared_data / "likelihood" / "cryolike_particle_data.star"
    table = read_star_particles(star, images="stack.mrcs").table
    assert len(table) == 483
    assert (table["defocus_u"] < table["defocus_v"]).sum() == 473
    assert table["pixel_size"].iloc[0] == pytest.approx(1e4 * 14 / 104089)
    groups = read_star_particles(shared_data / "likelihood" / "cryolike_relion_style_particles.star").table
    assert len(groups) == 106
    assert set(groups["optics_group"]) == {1}
    assert set(groups["pixel_size"]) == {0.725}


def test_all_formats_of_the_same_images_agree(tmp_path: Path) -> None:
    mrcs = write_mrcs(tmp_path / "a.mrcs", IMAGES)
    names = [f"{i + 1:06d}@a.mrcs" for i in range(7)]
    np.save(tmp_path / "a.npy", IMAGES)
    store = zarr.create_array(tmp_path / "a.zarr", data=IMAGES)
    store.attrs["pixel_size"] = 1.5
    with h5py.File(tmp_path / "a.hdf", "w") as file:
        for i, image in enumerate(IMAGES):
            file[f"MDF/images/{i}/image"] = image
            file[f"MDF/images/{i}"].attrs["EMAN.apix_x"] = 1.5
    sources = [
        open_particles(write_star31(tmp_path / "p.star", names)),
        open_particles(mrcs),
        open_particles(tmp_path / "a.npy", pixel_size=1.5),
        open_particles(tmp_path / "a.zarr"),
        open_particles(tmp_path / "a.hdf"),
        open_particles(write_cs(tmp_path / "p.cs")),
        particles_from_array(IMAGES, pixel_size=1.5),
    ]
    for stack in sources:
        np.testing.assert_array_equal(stack.images.compute(), IMAGES)
        np.testing.assert_array_equal(stack.take([4, 1]).images.compute(), IMAGES[[4, 1]])
        assert stack.pixel_size == pytest.approx(1.5)
    assert [stack.has_defocus for stack in sources] == [True, *[False] * 4, True, False]
    assert read_images(tmp_path / "a.hdf", [5, 0, 5, 2]).tobytes() == IMAGES[[5, 0, 5, 2]].tobytes()


def write_cs(path: Path) -> Path:
    count = len(IMAGES)
    fields = {
        "blob/path": np.array([b">a.mrcs"] * count),
        "blob/idx": np.arange(count, dtype="u4"),
        "blob/psize_A": np.full(count, 1.5, "f4"),
        "ctf/accel_kv": np.full(count, 300, "f4"),
        "ctf/cs_mm": np.full(count, 2.7, "f4"),
        "ctf/amp_contrast": np.full(count, 0.1, "f4"),
        "ctf/df1_A": np.full(count, 12000, "f4"),
        "ctf/df2_A": np.full(count, 11000, "f4"),
        "ctf/df_angle_rad": np.full(count, np.pi / 6, "f4"),
        "ctf/phase_shift_rad": np.zeros(count, "f4"),
    }
    columns = [np.asarray(values) for values in fields.values()]
    plain = np.rec.fromarrays(columns, names=list(fields))
    poses = np.zeros(count, [("alignments3D/shift", "f4", 2), ("alignments3D/pose", "f4", 3)])
    poses["alignments3D/shift"] = [2, -1]
    poses["alignments3D/pose"] = [0.3, -0.2, 1.1]
    with path.open("wb") as file:
        np.save(file, recfunctions.merge_arrays([np.asarray(plain), poses], flatten=True))
    return path


def test_cryosparc_units_and_poses(tmp_path: Path) -> None:
    write_mrcs(tmp_path / "a.mrcs", IMAGES)
    row = open_particles(write_cs(tmp_path / "p.cs")).table.iloc[0]
    assert (row["defocus_u"], row["voltage"]) == (12000, 300)
    assert row["defocus_angle"] == pytest.approx(30)
    assert (row["origin_x"], row["origin_y"]) == pytest.approx((3.0, -1.5))
    rotation = rotation_from_euler(row[["rot", "tilt", "psi"]].to_numpy(float), "relion")[0]
    np.testing.assert_allclose(rotation.as_rotvec(), [-0.3, 0.2, -1.1], atol=1e-6)


def test_star_is_written_back_with_every_column(tmp_path: Path) -> None:
    write_mrcs(tmp_path / "a.mrcs", IMAGES)
    stack = open_particles(write_star31(tmp_path / "p.star", [f"{i + 1}@a.mrcs" for i in range(7)]))
    shift = np.linspace(-1, 1, 7)
    chosen = stack.take([6, 2])
    write_particles(tmp_path / "o.star", chosen, origin_columns(chosen, shift[[6, 2]], shift[[6, 2]]))
    blocks = read_star(tmp_path / "o.star")
    assert list(blocks) == ["optics", "particles"]
    assert list(blocks["particles"])[:7] == list(stack.blocks["particles"])
    assert list(blocks["particles"]["myColumn"]) == [6, 2]
    np.testing.assert_allclose(blocks["particles"]["rlnOriginXAngst"], shift[[6, 2]])
    write_particles(
        tmp_path / "n.star", particles_from_array(IMAGES, pixel_size=2.0, optics={"voltage": 300}), {}
    )
    assert read_star(tmp_path / "n.star")["optics"]["rlnVoltage"].iloc[0] == 300


def test_images_are_looked_up_beside_the_star_and_above(tmp_path: Path) -> None:
    (tmp_path / "job" / "sub").mkdir(parents=True)
    write_mrcs(tmp_path / "a.mrcs", IMAGES)
    star = write_star31(tmp_path / "job" / "sub" / "p.star", ["2@a.mrcs"])
    np.testing.assert_array_equal(open_particles(star).images.compute(), IMAGES[1:2])
    with pytest.raises(InputError, match=r"p\.star row 1: 2@a\.mrcs: no such file \(looked in .*job\)"):
        open_particles(star, root=tmp_path / "job")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["1@a.mrcs", "000031@a.mrcs"], r"p\.star row 2: 000031@a\.mrcs: image 31, stack has 7 images"),
        (["0@a.mrcs"], r"row 1: 0@a\.mrcs: expected number@file, from 1"),
        (["1@a.mrcs", "1@b.mrcs"], r"optics group 2 has box 6, group 1 has 8"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, names: list[str], message: str) -> None:
    write_mrcs(tmp_path / "a.mrcs", IMAGES)
    write_mrcs(tmp_path / "b.mrcs", IMAGES[:, :6, :6])
    with pytest.raises(InputError, match=message):
        open_particles(write_star31(tmp_path / "p.star", names))


def test_pixel_sizes_that_differ_are_refused(tmp_path: Path) -> None:
    write_mrcs(tmp_path / "a.mrcs", IMAGES)
    star = write_star31(tmp_path / "p.star", ["1@a.mrcs", "2@a.mrcs"])
    star.write_text(star.read_text().replace("2 200 2.0 0.07 1.5", "2 200 2.0 0.07 1.52"))
    with pytest.raises(InputError, match=r"pixel size 1\.5 A .* and 1\.52 A .*optics group 2"):
        open_particles(star)
    assert open_particles(star, pixel_size=1.5).pixel_size == 1.5


def test_arrays_need_a_pixel_size_and_no_memory_map(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", IMAGES)
    with pytest.raises(InputError, match="pixel_size is required"):
        particles_from_array(IMAGES)
    with pytest.raises(InputError, match="memory map"):
        particles_from_array(np.load(tmp_path / "a.npy", mmap_mode="r"), pixel_size=1.0)
    with pytest.raises(InputError, match="unknown column defocus"):
        particles_from_array(IMAGES, pixel_size=1.0, optics=pd.DataFrame({"defocus": [1.0] * 7}))


def test_lazy_images_read_only_what_is_asked_for(tmp_path: Path) -> None:
    big = np.zeros((300, 200, 200), np.float32)
    stack: ParticleStack = open_particles(write_mrcs(tmp_path / "a.mrcs", big))
    assert len(stack.images.chunks[0]) > 1
    assert len(stack.images[:5].data.__dask_graph__()) <= len(stack.images.chunks[0]) + 1
    (tmp_path / "a.mrcs").unlink()
    with pytest.raises(FileNotFoundError):
        stack.images[:5].compute()
