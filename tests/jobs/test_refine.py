"""Refinement of particles: planted poses come back, the scale of the match, workers, resume, refusals."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

import cryodask as cd
from cryodask.errors import IncompleteError, InputError, ResourceError
from cryodask.geometry.local_grid import LocalGrid
from cryodask.geometry.zyz import zyz_angles, zyz_matrices
from cryodask.io.image import write_image
from cryodask.jobs.execution import execute
from cryodask.jobs.micrograph_matching import pose_run
from cryodask.jobs.micrograph_matching.binning import choose_binning
from cryodask.jobs.micrograph_matching.map_statistics import map_binning, map_region
from cryodask.jobs.micrograph_matching.pose_problem import PoseProblem
from cryodask.jobs.micrograph_matching.refine import open_refinement
from cryodask.jobs.micrograph_matching.refine_config import RefineConfig
from tests.jobs.planted import NO_WHITENING, OPTICS, plant, reference_particles, three_particles

GRID = LocalGrid(1.25, 0.25, 1.2, 0.3)
MAPS = {"mip": "mip", "scaled_mip": "scaled_mip", "correlation_mean": "correlation_mean"}


@pytest.fixture
def planted(tmp_path):
    return plant(tmp_path, three_particles())


def angular_errors(table, truth):
    found = zyz_matrices(table[["refined_phi", "refined_theta", "refined_psi"]].to_numpy(float))
    wanted = zyz_matrices(truth[["phi", "theta", "psi"]].to_numpy(float))
    return np.degrees(Rotation.from_matrix(np.swapaxes(found, 1, 2) @ wanted).magnitude())


def refine(planted, table, **options):
    return cd.refine_particles(
        table, planted.folder / "template.mrc", box=40, **{"filters": NO_WHITENING, "padding": 2, **options}
    )


def test_poses_defoci_and_places_come_back(planted):
    truth = planted.truth
    turns = Rotation.from_rotvec(np.eye(3), degrees=True).as_matrix()
    off = zyz_angles(turns @ zyz_matrices(truth[["phi", "theta", "psi"]].to_numpy()))
    angles = dict(zip(("phi", "theta", "psi"), off.T, strict=True))
    start = planted.table(defocus=truth["defocus"] + 30.0, x=truth["x"] + 2, y=truth["y"] - 1, **angles)
    table = refine(planted, start, orientations=LocalGrid(1.2, 0.2, 1.2, 0.15), defocus=(-60.0, 60.0, 30.0))
    assert angular_errors(table, truth).max() <= 0.2
    assert np.abs(table["refined_relative_defocus"] - truth["defocus"]).max() <= 15.0
    assert table["refined_pos_x"].tolist() == truth["x"].tolist()
    assert table["refined_pos_y"].tolist() == truth["y"].tolist()
    place = (truth["x"] + 16 + table["subpixel_x"]) * OPTICS["pixel_size"]
    np.testing.assert_allclose(table["refined_pos_x_img_angstrom"], place, rtol=1e-6)
    assert table[["subpixel_x", "subpixel_y"]].abs().to_numpy().max() < 0.1
    np.testing.assert_allclose(table["phi"], start["phi"], rtol=1e-8)


def test_a_refined_table_refines_to_itself(planted):
    start = planted.table(phi=planted.truth["phi"] + 0.8)
    first = refine(planted, start, orientations=GRID, defocus=None)
    second = refine(planted, first, orientations=GRID, defocus=None)
    assert (second["refined_scaled_mip"] >= first["refined_scaled_mip"] - 1e-4).all()
    poses = [
        zyz_matrices(t[["refined_phi", "refined_theta", "refined_psi"]].to_numpy(float))
        for t in (first, second)
    ]
    apart = Rotation.from_matrix(np.swapaxes(poses[0], 1, 2) @ poses[1]).magnitude()
    assert np.degrees(apart).max() <= 0.45


def test_coarse_to_fine_finds_what_the_full_grid_finds(planted):
    start = planted.table(theta=planted.truth["theta"] + 0.9)
    grid = LocalGrid(1.5, 0.25, 0.9, 0.3)
    full = refine(planted, start, orientations=grid, defocus=None)
    fast = refine(planted, start, orientations=grid, defocus=None, strategy="coarse_to_fine")
    np.testing.assert_allclose(fast["refined_scaled_mip"], full["refined_scaled_mip"], rtol=5e-4)


def test_a_planted_pixel_size_is_found(tmp_path):
    planted = plant(tmp_path, three_particles(), scale=1.0 / 0.98)
    table = refine(
        planted,
        planted.table(),
        orientations={"enabled": False},
        defocus=None,
        pixel_sizes={"pixel_size_min": -0.06, "pixel_size_max": 0.06, "pixel_size_step": 0.006},
    )
    np.testing.assert_allclose(table["refined_pixel_size"], 0.98 * OPTICS["pixel_size"], atol=0.007)


def test_filter_from_the_box_gives_scores_of_its_own(planted):
    whole = refine(planted, planted.table(), orientations={"enabled": False}, defocus=None, filters=None)
    box = refine(
        planted,
        planted.table(),
        orientations={"enabled": False},
        defocus=None,
        filters=None,
        filter_from="box",
    )
    assert (box["refined_scaled_mip"] > 0).all()
    assert (whole["refined_scaled_mip"] - box["refined_scaled_mip"]).abs().min() > 1e-3


def test_leopard_em_compatibility_changes_the_scale_as_described(planted, tmp_path):
    write_image(tmp_path / "std.mrc", np.full((65, 81), 4.0), pixel_size=1.5, overwrite=True)
    start = planted.table().assign(correlation_variance=4.0, scaled_mip=5.0)
    plain = refine(planted, start, orientations={"enabled": False}, defocus=None, padding=1, gridding="none")
    theirs = refine(
        planted, start, orientations={"enabled": False}, defocus=None, padding=1, compat="leopard-em-1.2"
    )
    np.testing.assert_allclose(plain["refined_scaled_mip"], plain["refined_mip"] / 4.0, rtol=1e-5)
    np.testing.assert_allclose(theirs["refined_scaled_mip"], theirs["refined_mip"] / 2.0, rtol=1e-5)
    np.testing.assert_allclose(theirs["refined_mip"], plain["refined_mip"] * 40 / 41, rtol=5e-3)


def test_z_at_the_start_is_the_match_s(shared_data, tmp_path):
    table, template = reference_particles(shared_data, tmp_path, above=5.3)
    found = cd.refine_particles(
        table,
        template,
        box=130,
        orientations={"enabled": False},
        defocus=None,
        gridding="none",
    )
    assert len(found) == 9
    np.testing.assert_allclose(found["refined_scaled_mip"], table["scaled_mip"], atol=1e-4)
    np.testing.assert_allclose(found["refined_mip"], table["mip"], atol=1e-4)


@pytest.fixture
def config(planted):
    return RefineConfig.from_mapping(
        {
            "template_volume_path": str(planted.folder / "template.mrc"),
            "particle_stack": {
                "df_path": planted.write(),
                "extracted_box_size": [40, 40],
                "original_template_size": [32, 32],
            },
            "orientation_refinement_config": {
                "theta_step_coarse": 0.75,
                "theta_step_fine": 0.25,
                "psi_step_coarse": 0.6,
                "psi_step_fine": 0.3,
            },
            "defocus_refinement_config": {"defocus_min": -30, "defocus_max": 30, "defocus_step": 30},
            "preprocessing_filters": NO_WHITENING,
        }
    )  # fmt: skip


def test_same_bytes_for_any_chunks_splits_and_workers(config, tmp_path, monkeypatch):
    texts = []
    for number, (particles, batch, workers) in enumerate([(3, None, 1), (1, 8, 2), (2, 24, 4)]):
        monkeypatch.setattr(pose_run, "MOST_PARTICLES", particles)
        run = open_refinement(config, tmp_path / f"r{number}.csv")
        with ThreadPoolExecutor(workers) as pool:
            run_with(pool, run, batch)
        texts.append(run.final.read_bytes())
    assert texts[0] == texts[1] == texts[2]


def run_with(pool, run, batch):
    from cryodask.search.driver import PlannedRun, Progress, drive
    from cryodask.search.task import Run

    task = Run(0, run.problem, run.store)
    size = batch or run.problem.hypotheses
    planned = PlannedRun(
        task, run.plan, size, run.begin, lambda: run.complete(Progress(), keep_run=False), "r"
    )
    drive([planned], pool, slots=2)


def test_an_interrupted_run_continues_where_it_stopped(config, tmp_path, monkeypatch):
    monkeypatch.setattr(pose_run, "MOST_PARTICLES", 1)
    whole = open_refinement(config, tmp_path / "whole.csv")
    execute([whole])
    searched, search = [], PoseProblem.fold

    def fails(self, tile, batch):
        searched.append(tile.index)
        if tile.index == 2:
            raise OSError("the worker died")
        return search(self, tile, batch)

    monkeypatch.setattr(PoseProblem, "fold", fails)
    output = tmp_path / "r.csv"
    with pytest.raises(IncompleteError, match="--resume"):
        execute([open_refinement(config, output)])
    assert not output.exists() and sorted(set(searched)) == [0, 1, 2]
    monkeypatch.setattr(PoseProblem, "fold", lambda *a: (searched.append(a[1].index), search(*a))[1])
    searched.clear()
    changed = config.with_own(padding=2)
    with pytest.raises(InputError, match=r"cryodask.padding 1 -> 2"):
        open_refinement(changed, output, resume=True)
    execute([open_refinement(config, output, resume=True)])
    assert searched == [2] and output.read_bytes() == whole.final.read_bytes()
    assert not list(tmp_path.glob("*.partial.zarr"))


def test_a_particle_without_any_place_gets_nan(planted):
    table = refine(planted, planted.table(x=[8, 300, 70]), orientations={"enabled": False}, defocus=None)
    assert np.isnan(table["refined_scaled_mip"]).tolist() == [False, True, False]


def test_a_partly_refined_table_starts_from_the_match(planted, config, tmp_path):
    table = refine(planted, planted.table(), orientations={"enabled": False}, defocus=None)
    table.loc[1, "refined_phi"] = np.nan
    path = tmp_path / "half.csv"
    table.to_csv(path)
    stack = config.particle_stack.model_copy(update={"df_path": str(path)})
    told = []
    open_refinement(config.model_copy(update={"particle_stack": stack}), tmp_path / "o.csv", tell=told.append)
    assert any("1 of 3 rows have no refined pose, starting from the match's" in notice for notice in told)


def broken(config, planted, **changes):
    """Return the configuration with dotted keys changed."""
    values = config.model_dump(mode="json")
    for key, value in changes.items():
        at = values
        *parents, last = key.split("__")
        for parent in parents:
            at = at[parent]
        at[last] = value
    return RefineConfig.from_mapping(values)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"particle_stack__df_path": "nowhere.csv"}, "df_path: nowhere.csv: no such file"),
        ({"template_volume_path": "none.mrc"}, "template_volume_path: none.mrc: no such file"),
        ({"particle_stack__original_template_size": [30, 30]}, r"expected \[32, 32\], the edge"),
        ({"particle_stack__extracted_box_size": [41, 41]}, "expected an even, square box"),
        ({"particle_stack__extracted_box_size": [32, 32]}, "expected more than the template's edge of 32 px"),
        ({"particle_stack__hdf5_path": "p.h5"}, "hdf5_path = p.h5: not supported"),
        ({"movie_config": {"enabled": True}}, "movie_config .*not supported, align the movie first"),
        ({"orientation_refinement_config__base_grid_method": "basic"}, "not supported, use uniform"),
        ({"orientation_refinement_config__psi_step_fine": 0}, "psi_step_fine = 0: expected more than 0 deg"),
        (
            {"pixel_size_refinement_config": {"enabled": True, "pixel_size_min": -0.5}},
            "pixel-size search: .*expected 0.8 to 1.25",
        ),
    ],
)  # fmt: skip
def test_wrong_values_are_named_before_anything_is_written(config, planted, tmp_path, changes, text):
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match=text):
        open_refinement(broken(config, planted, **changes), tmp_path / "o.csv")
    assert sorted(tmp_path.iterdir()) == before


def test_files_that_do_not_fit_are_named_with_both_shapes(config, planted, tmp_path):
    write_image(tmp_path / "mean.mrc", np.zeros((60, 60)), pixel_size=1.5, overwrite=True)
    with pytest.raises(InputError, match=r"mean.mrc: 60 x 60, expected 65 x 81"):
        open_refinement(config, tmp_path / "o.csv")
    Path(tmp_path / "mean.mrc").unlink()
    with pytest.raises(InputError, match=r"correlation_average_path = .*mean.mrc: no such file"):
        open_refinement(config, tmp_path / "o.csv")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda t: t.drop(columns="phi"), r"particles.csv: missing columns phi"),
        (lambda t: t.assign(theta=[1.0, np.nan, 2.0]), r"particles.csv row 1: theta: expected a number"),
        (
            lambda t: t.assign(correlation_variance=1.7),
            r"correlation_variance fits neither meaning: .*misses",
        ),
        (
            lambda t: t.assign(even_zernikes="{bad"),
            r"even_zernikes, .*expected JSON, as Leopard-EM writes it",
        ),
        (lambda t: t.assign(mag_matrix="[1, 0, 0]"), r"mag_matrix = \[1, 0, 0\]: expected 4 numbers"),
        (lambda t: t.iloc[:0], r"particles.csv: no particles"),
    ],
)
def test_wrong_tables_are_named(config, planted, tmp_path, change, text):
    change(planted.table()).to_csv(config.particle_stack.df_path)
    with pytest.raises(InputError, match=text):
        open_refinement(config, tmp_path / "o.csv")


def test_a_header_of_another_voxel_size_and_a_plan_over_memory(config, planted, tmp_path):
    table = planted.table().assign(pixel_size=1.2, refined_pixel_size=1.2)
    table.to_csv(config.particle_stack.df_path)
    with pytest.raises(InputError, match=r"header voxel size 1.5 A, the image's pixel size is 1.2 A"):
        open_refinement(config, tmp_path / "o.csv")
    planted.write()
    with pytest.raises(ResourceError, match=r"a particle needs .* GiB, a worker has .*--memory"):
        open_refinement(config, tmp_path / "o.csv", memory=1e5)


def test_pixels_that_are_no_numbers_stop_the_run_and_leave_nothing(config, tmp_path):
    with mrcfile.mmap(tmp_path / "micrograph.mrc", mode="r+") as file:
        file.data[3, 4] = np.nan
    with pytest.raises(InputError, match=r"micrograph.mrc: 1 pixels are not finite.*\(3, 4\)"):
        execute([open_refinement(config, tmp_path / "o.csv")])
    assert not list(tmp_path.glob("o*"))


def test_coarse_steps_too_wide_for_the_particle_are_refused(config, planted, tmp_path):
    wide = broken(config, planted, orientation_refinement_config__theta_step_fine=5.0)
    with pytest.raises(InputError, match="theta_step_fine = 5 is too coarse for a particle of"):
        open_refinement(wide, tmp_path / "o.csv", strategy="coarse_to_fine")


def test_a_result_store_is_picked_and_refined(planted, tmp_path):
    dataset = cd.match_micrograph(
        tmp_path / "micrograph.mrc",
        tmp_path / "template.mrc",
        optics=OPTICS,
        orientations=planted.truth[["phi", "theta", "psi"]].to_numpy(),
        defocus=[0.0],
        filters=NO_WHITENING,
        assume_symmetry=True,
    )
    dataset.cryo.store(tmp_path / "r.zarr")
    picked = cd.pick(tmp_path / "r.zarr", metric="global", cutoff=5.0)
    assert picked["correlation_average_path"].iloc[0].endswith("r.zarr/score_mean")
    table = refine(planted, picked, orientations={"enabled": False}, defocus=None, padding=1, gridding="none")
    assert (table["refined_scaled_mip"] >= picked["scaled_mip"] - 1e-4).all()


def test_particles_of_a_binned_search_are_refined_at_full_size(tmp_path):
    truth = three_particles().assign(y=[7, 51, 20], x=[9, 30, 71], defocus=0.0)
    planted = plant(tmp_path, truth, noise=0.4, signal=15.0)
    dataset = cd.match_micrograph(
        tmp_path / "micrograph.mrc",
        tmp_path / "template.mrc",
        optics=OPTICS,
        orientations=np.concatenate([truth[["phi", "theta", "psi"]], cd.OrientationGrid(45, 45).angles()]),
        defocus=[0.0],
        filters=NO_WHITENING,
        bin_to=4.5,
        assume_symmetry=True,
    )
    dataset.cryo.store(tmp_path / "r.zarr")
    picked = cd.pick(tmp_path / "r.zarr", metric="global", cutoff=6.5).sort_values("pos_x", ignore_index=True)
    assert len(picked) == 3 and dataset.sizes["y"] < 50
    from_store = refine(planted, picked, orientations={"enabled": False}, defocus=None)
    np.testing.assert_allclose(from_store["refined_mip"], picked["mip"], rtol=0.25)
    for column, value in (("correlation_average_path", 0.0), ("correlation_variance_path", 1.0)):
        path = tmp_path / f"{column}.mrc"
        flat = np.full(dataset["mip"].shape, value)
        write_image(path, flat, pixel_size=dataset.attrs["searched_pixel_size"])
        picked[column] = str(path)
    table = refine(planted, picked, orientations={"enabled": False}, defocus=None)
    wanted = truth.sort_values("x")
    assert table["refined_pos_y"].tolist() == wanted["y"].tolist()
    assert table["refined_pos_x"].tolist() == wanted["x"].tolist()
    np.testing.assert_allclose(table["refined_pixel_size"], 1.5)


def test_maps_of_a_binned_search_are_read_at_the_pixels_of_the_micrograph(tmp_path):
    path, image, edge = str(tmp_path / "ramp.mrc"), (97, 115), 32
    binning = choose_binning(4.5, 1.5, edge, image)
    shape = tuple(int(length * binning.ratio) - binning.searched_box + 1 for length in image)
    corners = [binning.centres(np.arange(count)) - edge // 2 for count in shape]
    ramp = corners[0][:, None] + 1000 * corners[1]
    write_image(path, ramp, pixel_size=1.5 / binning.ratio)
    found = map_binning(path, shape, image, edge, 1.5)
    assert found == binning
    values = map_region(path, slice(11, 20), slice(30, 41), shape, found)
    np.testing.assert_allclose(values, np.arange(11, 20)[:, None] + 1000 * np.arange(30, 41), rtol=1e-6)
    assert map_region(path, slice(0, 2), slice(0, 3), shape, found).shape == (2, 3)


def test_a_map_of_no_binning_of_the_micrograph_is_refused(planted, tmp_path):
    write_image(tmp_path / "mean.mrc", np.zeros((40, 40)), pixel_size=2.0, overwrite=True)
    with pytest.raises(InputError, match=r"mean.mrc: 40 x 40, expected 65 x 81"):
        refine(planted, planted.table())
