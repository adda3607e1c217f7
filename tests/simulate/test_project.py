"""A project on disk is complete, and its two parameter files ask for the same search."""

import dataclasses

import numpy as np
import pytest

from cryodask.errors import InputError
from cryodask.io.particles import read_particles
from cryodask.io.volume import open_volume, read_volume
from cryodask.jobs.tomogram_matching.checks import check_files, check_supported
from cryodask.jobs.tomogram_matching.parameters import read_parameters
from cryodask.simulate.project import SIZES, TILTS, write_project

TINY = dataclasses.replace(SIZES["small"], shape=(48, 72, 72), wanted=2, others=1)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "project"
    return folder, write_project(folder, TINY, seed=4)


def test_tomogram_is_the_same_in_both_formats(project):
    folder, simulated = project
    mrc, zarr = open_volume(folder / "tomogram.mrc"), open_volume(folder / "tomogram.zarr")
    assert mrc.attrs["voxel_size"] == zarr.attrs["voxel_size"] == TINY.voxel_size
    np.testing.assert_array_equal(mrc.values, simulated.volume.values)
    np.testing.assert_array_equal(zarr.values, mrc.values)


def test_star_and_yaml_ask_for_the_same_search(project):
    folder, _ = project
    star, yaml = (read_parameters(folder / f"params.{kind}")[0] for kind in ("star", "yaml"))
    apart = {"output", "root", "formats", "names", "lp_rad", "hp_rad", "lowpass", "highpass", "search_grid"}
    assert star.model_dump(exclude=apart) == yaml.model_dump(exclude=apart)
    assert star.band(TINY.box, TINY.voxel_size) == yaml.band(TINY.box, TINY.voxel_size)
    assert star.locate(star.tomogram) == yaml.locate(yaml.tomogram)
    assert star.locate(star.output) != yaml.locate(yaml.output)
    for parameters in (star, yaml):
        check_supported([parameters])
        check_files(parameters)


def test_tilts_give_the_voxel_size_of_the_tomogram(project):
    from cryodask.io.tilts import read_tilts

    tilts = read_tilts(project[0] / "wedge_list.star", tomo_num=1)
    np.testing.assert_allclose(tilts.angles, TILTS)
    assert tilts.pixel_size * 4 == TINY.voxel_size
    assert tilts.tomogram_shape == tuple(4 * n for n in TINY.shape)
    np.testing.assert_allclose(tilts.defocus, 30_000)


@pytest.mark.parametrize("name", ["truth.csv", "truth.star"])
def test_truth_holds_the_wanted_particles(project, name):
    folder, simulated = project
    wanted = simulated.truth[simulated.truth["template"] == "ribosome"]
    read = read_particles(folder / name)
    columns = ["x", "y", "z", "phi", "theta", "psi"]
    np.testing.assert_allclose(read[columns], wanted[columns], atol=1e-4)
    assert len(read_particles(folder / "others.csv")) == 1


def test_template_fills_its_mask(project):
    folder, _ = project
    template, mask = read_volume(folder / "ribosome.mrc"), read_volume(folder / "mask.mrc")
    assert template.shape == mask.shape == (TINY.box,) * 3
    assert template[mask > 0.5].sum() > 0.97 * template.sum()


def test_existing_project_is_not_replaced_unasked(project):
    with pytest.raises(InputError, match=r"tomogram\.mrc exists; use --overwrite"):
        write_project(project[0], TINY, seed=4)
