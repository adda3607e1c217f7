"""The likelihood job, from files to results: CryoLike's case through the engine, poses, optics, restart."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.special import logsumexp

import cryodask as cd
from cryodask.geometry.views import Views, ring_views
from cryodask.io.particle_stack import particles_from_array
from cryodask.io.star import read_star, write_star
from cryodask.jobs.execution import execute
from cryodask.jobs.likelihood.job import LikelihoodRun, load_inputs, open_run
from cryodask.jobs.likelihood.parameters import LikelihoodParameters
from cryodask.jobs.likelihood.planning import make_plan, make_problem
from cryodask.jobs.likelihood.problem import LikelihoodProblem
from cryodask.search.task import score_tile
from cryodask.search.tiles import Batch, Tile
from tests.jobs.likelihood_works import PIXEL, pose_errors, simulate

VIEWS = ring_views(16 / (4 * np.pi))
GRID = {"n_inplanes": 64, "max_displacement_pixels": 2, "n_displacements_x": 5, "n_displacements_y": 5}


@pytest.fixture
def groel(shared_data: Path) -> str:
    return str(shared_data / "structures" / "1mnf_chainA.pdb")


def case_problem(shared_data: Path, folder: Path, compat: str | None, **changes: Any) -> LikelihoodProblem:
    """CryoLike's case 1 with its own views, whose distance no configuration allows."""
    with np.load(shared_data / "likelihood" / "case1_gauss_32px_double.npz") as file:
        z = dict(file)
    optics = pd.DataFrame(
        {"defocus_u": z["defocusU"], "defocus_v": z["defocusV"], "defocus_angle": z["defocusAngle_deg"]}
    ).assign(voltage=float(z["voltage_kV"]), cs=float(z["sphericalAberration_mm"]))
    optics["amplitude_contrast"] = float(z["amplitudeContrast"])
    stack = particles_from_array(np.tile(z["images_raw"], (5, 1, 1)), pixel_size=PIXEL)
    for column in optics:
        stack.table[column] = np.tile(optics[column], 5)
    content: dict[str, Any] = {
        "images": "array",
        "structures": {"groel": str(shared_data / "structures" / "1mnf_chainA.pdb")},
        "grid": GRID | {"precision": changes.pop("precision", "double")},
        "keep": ["best", "likelihood", "summary", "template"],
    }
    content |= changes
    problem = make_problem(
        load_inputs(LikelihoodParameters.from_mapping(content, compat=compat), stack), folder
    )
    problem = replace(problem, views=(VIEWS,))
    problem.preparation.write(stack)
    problem.prepare()
    return problem


def finish(problem: LikelihoodProblem, tile: Tile, batch: int = 1000) -> dict[str, np.ndarray]:
    starts = range(0, problem.hypotheses, batch)
    batches = [Batch(first, min(first + batch, problem.hypotheses)) for first in starts]
    return problem.finish(tile, score_tile(problem, tile, batches))[0]


def test_case_of_cryolike_through_the_job(shared_data: Path, tmp_path: Path) -> None:
    with np.load(shared_data / "likelihood" / "case1_gauss_32px_double.npz") as file:
        z = dict(file)
    found = finish(case_problem(shared_data, tmp_path, "cryolike"), Tile(0, (0,), (8,), (8,)))
    np.testing.assert_allclose(
        found["log_likelihood"][0], z["log_likelihood_integrated_M_logweights"], rtol=0, atol=1e-3
    )
    np.testing.assert_allclose(
        found["log_likelihood_template"][0].T, z["log_likelihood_MS"], rtol=0, atol=1e-3
    )
    np.testing.assert_allclose(found["cross_correlation"][0], z["cross_correlation_M"], atol=1e-5)
    np.testing.assert_array_equal(found["best_template"][0], z["optimal_template_M"])
    for axis in "xy":
        np.testing.assert_allclose(
            found[f"displacement_{axis}"][0], z[f"optimal_displacement_{axis}_M"], atol=1e-5
        )
    np.testing.assert_allclose(
        np.radians(found["inplane_rotation"][0]), z["optimal_inplane_rotation_M"], atol=1e-5
    )
    raw = case_problem(shared_data, tmp_path, "cryolike", likelihood={"view_weights": "raw"})
    np.testing.assert_allclose(
        finish(raw, Tile(0, (0,), (8,), (8,)))["log_likelihood"][0],
        z["log_likelihood_integrated_M_asshipped"],
        rtol=0,
        atol=1e-3,
    )


def test_calibrated_case_through_the_job(shared_data: Path, tmp_path: Path) -> None:
    changes = {
        "atoms": {"weight": "shape", "template_offset": "gaussian"},
        "likelihood": {"axes": "cryolike", "astigmatism": "absolute"},
    }
    found = finish(case_problem(shared_data, tmp_path, None, **changes), Tile(0, (0,), (8,), (8,)))
    assert found["log_likelihood"][0, :2] == pytest.approx([1568.72397, 1561.43909], abs=1e-3)
    assert found["entropy"][0, 0] == pytest.approx(0.68202, abs=1e-3)
    assert found["pmax"][0, 0] == pytest.approx(0.57500, abs=1e-3)
    assert found["n_effective"][0, 0] == pytest.approx(1.95604, abs=2e-3)
    assert found["n_credible"][0, 0] == 2
    single = finish(case_problem(shared_data, tmp_path / "s", None, precision="single", **changes),
                    Tile(0, (0,), (8,), (8,)))  # fmt: skip
    np.testing.assert_allclose(single["log_likelihood"], found["log_likelihood"], rtol=0, atol=1e-2)
    np.testing.assert_allclose(single["cross_correlation"], found["cross_correlation"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("precision", ["single", "double"])
def test_same_bytes_for_any_batches_and_tiles(shared_data: Path, tmp_path: Path, precision: str) -> None:
    problem = case_problem(shared_data, tmp_path, None, precision=precision)
    whole = finish(problem, Tile(0, (0,), (40,), (40,)))
    for batch in (1, 5):
        for name, values in finish(problem, Tile(0, (0,), (40,), (40,)), batch).items():
            assert values.tobytes() == whole[name].tobytes(), name
    pieces = [finish(problem, Tile(i, (a,), (b,), (32,))) for i, (a, b) in enumerate([(0, 32), (32, 40)])]
    for name, values in whole.items():
        assert np.concatenate([piece[name] for piece in pieces], axis=-1).tobytes() == values.tobytes(), name


SEARCH = {
    "viewing_distance": 0.25,
    "max_displacement_pixels": 2,
    "n_displacements_x": 9,
    "n_displacements_y": 9,
}


@pytest.mark.parametrize("axes", ["relion", "cryolike"])
def test_poses_of_relion_are_found(tmp_path: Path, groel: str, axes: str) -> None:
    star = simulate(tmp_path / "p.star", groel)
    ds = cd.likelihood(
        star, {"groel": groel}, axes=axes, keep=["best"], output=None, files=["zarr", "star"], **SEARCH
    )
    ds.cryo.store(tmp_path / "out.zarr")
    found = read_star(tmp_path / "out_best.star")["particles"]
    truth = read_star(star)["particles"]
    assert list(found)[: len(truth.columns)] == list(truth)
    angle, distance = pose_errors(found, truth)
    assert np.median(angle) < 9
    assert angle.max() < 16
    assert distance.max() < 3.0
    assert cd.open_result(tmp_path / "out.zarr").cross_correlation.min() > 0.9


def test_images_centred_by_the_star_find_the_same_poses(tmp_path: Path, groel: str) -> None:
    star = simulate(tmp_path / "p.star", groel)
    still = {"n_displacements_x": 1, "n_displacements_y": 1, "viewing_distance": 0.25, "keep": ["best"]}
    ds = cd.likelihood(star, {"groel": groel}, displacement_centre="star", **still).compute()
    truth = read_star(star)["particles"]
    np.testing.assert_allclose(ds.origin_x[0], truth["rlnOriginXAngst"], atol=1e-4)
    assert ds.cross_correlation.min() > 0.9


def test_swapping_u_and_v_with_a_quarter_turn_changes_nothing(tmp_path: Path, groel: str) -> None:
    star = simulate(tmp_path / "p.star", groel, count=4, snr=0.5)
    blocks = read_star(star)
    blocks["particles"]["rlnDefocusU"], blocks["particles"]["rlnDefocusV"] = (
        blocks["particles"]["rlnDefocusV"].copy(),
        blocks["particles"]["rlnDefocusU"].copy(),
    )
    blocks["particles"]["rlnDefocusAngle"] += 90
    write_star(tmp_path / "q.star", blocks)
    keep = {"keep": ["likelihood"], "precision": "double", "viewing_distance": 0.8} | GRID
    a, b = (
        cd.likelihood(tmp_path / n, {"g": groel}, **keep).log_likelihood.values for n in ("p.star", "q.star")
    )
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-8)
    c = cd.likelihood(tmp_path / "p.star", {"g": groel}, astigmatism="absolute", **keep).log_likelihood.values
    assert np.abs(a - c).max() > 0.1


def test_two_optics_groups_equal_two_runs(tmp_path: Path, groel: str) -> None:
    star = simulate(tmp_path / "p.star", groel, count=6, snr=0.5, voltages=(300.0, 200.0))
    keep = {"keep": ["likelihood"], "precision": "double", "viewing_distance": 0.8} | GRID
    both = cd.likelihood(star, {"g": groel}, **keep).log_likelihood.values
    for group in (0, 1):
        rows = ",".join(str(i) for i in range(group, 6, 2))
        alone = cd.likelihood(star, {"g": groel}, select=rows, **keep).log_likelihood.values
        np.testing.assert_allclose(alone, both[:, group::2], rtol=0, atol=1e-7)


def test_zero_displacement_that_is_added_takes_no_part_in_integrals(tmp_path: Path, groel: str) -> None:
    star = simulate(tmp_path / "p.star", groel, count=2)
    even = GRID | {
        "n_displacements_x": 4,
        "n_displacements_y": 4,
        "viewing_distance": 0.8,
        "precision": "double",
    }
    run = cd.likelihood(star, {"g": groel}, keep=["likelihood", "best", "template"], **even)
    assert run.sizes["displacement"] == 17
    assert run.displacement_weight.values[-1] == 0
    equal = cd.likelihood(star, {"g": groel}, keep=["likelihood"], zero_weight="equal", **even)
    assert np.abs(equal.log_likelihood - run.log_likelihood).max() > 0.01
    weights = run.weight.values[0] / run.weight.values[0].sum()
    by_template = run.log_likelihood_template.values[0].astype(float)
    total = logsumexp(by_template + np.log(weights)[:, None], axis=0) - np.log(16 * 64)
    np.testing.assert_allclose(total, run.log_likelihood.values[0], rtol=0, atol=1e-3)


def test_wide_gaussian_prior_is_the_uniform_one(tmp_path: Path, groel: str) -> None:
    star = simulate(tmp_path / "p.star", groel, count=2)
    keep = {"keep": ["likelihood"], "viewing_distance": 0.8} | GRID
    uniform = cd.likelihood(star, {"g": groel}, **keep).log_likelihood.values
    wide = cd.likelihood(
        star, {"g": groel}, displacement_prior={"gaussian": 1e6}, **keep
    ).log_likelihood.values
    narrow = cd.likelihood(
        star, {"g": groel}, displacement_prior={"gaussian": 2.0}, **keep
    ).log_likelihood.values
    np.testing.assert_allclose(wide, uniform, rtol=0, atol=1e-3)
    assert np.abs(narrow - uniform).max() > 0.1


def test_views_of_a_symmetric_structure_stand_for_all(tmp_path: Path, groel: str) -> None:
    turns = [np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1.0]])]
    points = np.random.default_rng(2).normal(size=(30, 3)) * [16, 16, 14]
    for _ in range(2):
        turns.append(turns[0] @ turns[-1])
    every = np.concatenate([points, *(points @ turn.T for turn in turns)])
    np.savetxt(tmp_path / "c4.txt", np.column_stack([every, np.full(120, 4.0), np.full(120, 8.0)]))
    star = simulate(tmp_path / "p.star", groel, count=2)
    keep = {"keep": ["likelihood"], "precision": "double", "viewing_distance": 0.4} | GRID
    entry = {"name": "c4", "path": str(tmp_path / "c4.txt"), "symmetry": "C4"}
    quarter = cd.likelihood(star, [entry], **keep)
    run = open_run(quarter.encoding["cryodask_plan"].inputs, 2**31, tmp_path / "o.zarr")
    views = run.problem.views[0]
    azimuth = np.concatenate([views.azimuth + 90 * i for i in range(4)])
    apart = {"folder": str(tmp_path / "w")}
    whole = replace(
        run.problem,
        **apart,
        template_keys=("whole",),
        preparation=replace(run.problem.preparation, **apart),
        views=(Views(azimuth, np.tile(views.polar, 4), np.tile(views.weight, 4) / 4),),
    )
    whole.preparation.write(run.inputs.stack)
    whole.prepare()
    expected = finish(whole, Tile(0, (0,), (2,), (2,)))["log_likelihood"]
    np.testing.assert_allclose(quarter.log_likelihood.values, expected, rtol=0, atol=1e-4)


def test_formats_of_the_same_images_give_the_same_result(tmp_path: Path, groel: str) -> None:
    star = simulate(tmp_path / "p.star", groel, count=3, snr=0.5)
    table = read_star(star)["particles"]
    columns = {"defocus_u": "rlnDefocusU", "defocus_v": "rlnDefocusV", "defocus_angle": "rlnDefocusAngle"}
    optics = pd.DataFrame({house: table[name].to_numpy(float) for house, name in columns.items()})
    optics = optics.assign(voltage=300.0, cs=2.7, amplitude_contrast=0.1)
    keep = {"keep": ["likelihood", "best"], "viewing_distance": 0.8} | GRID
    images = mrcfile.read(tmp_path / "p.mrcs")
    from_star = cd.likelihood(star, {"g": groel}, **keep).compute()
    from_array = cd.likelihood(images, {"g": groel}, pixel_size=PIXEL, optics=optics, **keep).compute()
    dark = cd.likelihood(
        -images, {"g": groel}, pixel_size=PIXEL, optics=optics, contrast="dark", **keep
    ).compute()
    for name in ("log_likelihood", "cross_correlation", "rot", "origin_x"):
        np.testing.assert_allclose(from_array[name], from_star[name], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(dark[name], from_star[name], rtol=1e-5, atol=1e-5)


class StoppedError(Exception):
    """What a test raises in place of a killed client."""


@pytest.mark.parametrize("after", [1, 3])
def test_a_stopped_run_continues_to_the_same_bytes(tmp_path: Path, groel: str, after: int) -> None:
    star = simulate(tmp_path / "p.star", groel, count=5, snr=0.3)
    content = {"images": str(star), "structures": {"g": groel}, "grid": GRID | {"viewing_distance": 0.8}}
    inputs = load_inputs(LikelihoodParameters.from_mapping(content))

    def run(name: str, **options: Any) -> LikelihoodRun:
        return open_run(inputs, 2**31, tmp_path / f"{name}.zarr", **options)

    def stop_after(count: int) -> Callable[[Any], None]:
        seen = iter(range(1000))

        def listen(progress: Any) -> None:
            if next(seen) >= count:
                raise StoppedError

        return listen

    execute([run("whole")], batch=1000)
    with pytest.raises(StoppedError):
        execute([run("parts")], batch=20, listen=stop_after(after))
    assert not (tmp_path / "parts.zarr").exists()
    execute([run("parts", resume=True)], batch=7)
    whole, parts = (
        xr.open_zarr(tmp_path / f"{n}.zarr", consolidated=False).load() for n in ("whole", "parts")
    )
    for name in whole.variables:
        assert np.asarray(whole[name].values).tobytes() == np.asarray(parts[name].values).tobytes(), name


def test_a_changed_run_is_not_resumed(tmp_path: Path, groel: str) -> None:
    star = simulate(tmp_path / "p.star", groel, count=3)
    content: dict[str, Any] = {
        "images": str(star),
        "structures": {"g": groel},
        "grid": GRID | {"viewing_distance": 0.8},
    }
    inputs = load_inputs(LikelihoodParameters.from_mapping(content))

    def stop(progress: Any) -> None:
        if progress.hypotheses_done:
            raise StoppedError

    with pytest.raises(StoppedError):
        execute([open_run(inputs, 2**31, tmp_path / "o.zarr")], batch=10, listen=stop)
    changed = LikelihoodParameters.from_mapping(content | {"keep": ["best"]})
    with pytest.raises(
        cd.InputError, match=r"differs from the unfinished run: keep .*likelihood.* -> .*best"
    ):
        open_run(load_inputs(changed), 2**31, tmp_path / "o.zarr", resume=True)
    with pytest.raises(cd.InputError, match="unfinished; use --resume or --overwrite"):
        open_run(inputs, 2**31, tmp_path / "o.zarr")


def test_task_fits_its_memory_or_is_refused(tmp_path: Path, groel: str) -> None:
    star = simulate(tmp_path / "p.star", groel, count=3)
    inputs = load_inputs(LikelihoodParameters.from_mapping({"images": str(star), "structures": {"g": groel}}))
    problem = make_problem(inputs, tmp_path)
    assert make_plan(problem, 2**31).core == (32,)
    with pytest.raises(cd.CryodaskError, match=r"needs .* GiB, a worker has 0\.019 GiB"):
        make_plan(problem, 20e6)


def test_every_level_follows_from_all_poses(tmp_path: Path, groel: str) -> None:
    star = simulate(tmp_path / "p.star", groel, count=5, snr=0.2)
    levels = ["best", "likelihood", "template", "rotation", "displacement", "full", "top"]
    options = GRID | {"viewing_distance": 0.9, "top": 4}
    cd.likelihood(star, {"g": groel}, keep=levels, **options).cryo.store(tmp_path / "all.zarr")
    all_poses = cd.open_result(tmp_path / "all.zarr").isel(structure=0).load()
    weight = all_poses.weight.reset_coords(drop=True)
    all_poses = all_poses.reset_coords(drop=True)
    cc, score = all_poses.cross_correlation_full, all_poses.log_likelihood_full.astype(float)
    for level, axes in (("template", ["displacement", "rotation"]), ("rotation", ["displacement"]),
                        ("displacement", ["rotation"])):  # fmt: skip
        xr.testing.assert_allclose(cc.max(axes), all_poses[f"cross_correlation_{level}"].astype("f4"))
        summed = score.reduce(logsumexp, axes)
        np.testing.assert_allclose(summed, all_poses[f"log_likelihood_{level}"], rtol=0, atol=2e-3)
    np.testing.assert_allclose(cc.max(["template", "displacement", "rotation"]), all_poses.cross_correlation)
    log_weight = np.log(weight / weight.sum())
    total = (score + log_weight).reduce(logsumexp, ["template", "displacement", "rotation"]) - np.log(25 * 64)
    np.testing.assert_allclose(total, all_poses.log_likelihood, rtol=0, atol=1e-3)
    orientations = (score + log_weight).reduce(logsumexp, ["displacement"]) - np.log(25 * 64) - total
    flat = orientations.stack(pose=["template", "rotation"]).transpose("image", "pose")
    expected = -np.sort(-flat.values, axis=1)[:, :4]
    np.testing.assert_allclose(all_poses.top_log_posterior.T, expected, rtol=0, atol=2e-3)
    first = flat.argmax("pose").values
    np.testing.assert_array_equal(all_poses.top_template[0] * 64 + all_poses.top_rotation[0], first)
    fused = cd.likelihood(star, {"g": groel}, keep=["best", "likelihood"], **options).isel(structure=0)
    np.testing.assert_allclose(fused.log_likelihood, all_poses.log_likelihood, rtol=0, atol=1e-3)
    np.testing.assert_array_equal(fused.inplane_rotation, all_poses.inplane_rotation)
