"""Listed orientations and integrals over CTFs: poses, priors, and agreement with the polar search."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cryodask as cd
from cryodask.io.star import read_star, write_star
from tests.jobs.likelihood_works import pose_errors, simulate

STILL = {"max_displacement_pixels": 2, "n_displacements_x": 9, "n_displacements_y": 9}


@pytest.fixture
def groel(shared_data: Path) -> str:
    return str(shared_data / "structures" / "1mnf_chainA.pdb")


def orientations_of(star: Path, path: Path, extra: int = 30) -> Path:
    """Write a list that holds every particle's own orientation after others."""
    table = read_star(star)["particles"]
    names = ["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]
    own = table[names].to_numpy(float)
    others = np.random.default_rng(8).uniform([-180, 0, -180], [180, 180, 180], (extra, 3))
    np.savetxt(path, np.concatenate([others, own])[:, [0, 1, 2]], fmt="%.9f")
    return path


@pytest.mark.parametrize("axes", ["relion", "cryolike", "bioem"])
def test_listed_orientations_are_found_with_relions_poses(tmp_path: Path, groel: str, axes: str) -> None:
    star = simulate(tmp_path / "p.star", groel)
    if axes == "relion":
        listed = orientations_of(star, tmp_path / "list.txt")
    else:  # the other axes have orientations of their own for the same pose
        listed = tmp_path / "list.txt"
        truth = read_star(star)["particles"][["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]].to_numpy(float)
        rot, tilt, psi = truth.T
        own = np.stack([rot - 180, 180 - tilt, 270 - psi], axis=1)
        np.savetxt(listed, np.concatenate([np.tile([1.0, 2.0, 3.0], (30, 1)), own]), fmt="%.9f")
    ds = cd.likelihood(
        star,
        {"groel": groel},
        axes=axes,
        viewing_distance={"file": str(listed)},
        rotations_from_file=True,
        keep=["best", "likelihood", "summary"],
        output=None,
        files=["zarr", "star"],
        **STILL,
    )
    ds.cryo.store(tmp_path / "out.zarr")
    found = read_star(tmp_path / "out_best.star")["particles"]
    angle, distance = pose_errors(found, read_star(star)["particles"])
    assert angle.max() < 1e-3
    assert distance.max() < 1.5  # steps of half a pixel, 2 angstrom
    result = cd.open_result(tmp_path / "out.zarr")
    np.testing.assert_array_equal(result.best_template.values[0], 30 + np.arange(12))
    assert result.cross_correlation.min() > 0.95


def test_every_orientation_one_by_one_agrees_with_the_polar_search(tmp_path: Path, groel: str) -> None:
    """An integral over one CTF scores all orientations one by one, on another grid of frequencies."""
    star = simulate(tmp_path / "p.star", groel, count=6, snr=3.0)
    options: dict[str, Any] = {
        "viewing_distance": 0.5, "n_inplanes": 48, "displacement_centre": "star", "n_displacements_x": 1,
        "n_displacements_y": 1, "keep": ["best", "likelihood"],
    }  # fmt: skip
    polar = cd.likelihood(star, {"g": groel}, **options).compute()
    one = {"defocus": [0, 0, 1, "star", 100.0]}
    listed = cd.likelihood(star, {"g": groel}, ctf_integration=one, **options).compute()
    assert listed.best_defocus.values == pytest.approx(np.zeros((1, 6)))
    same = (listed.best_template // 48 == polar.best_template).values
    assert same.sum() >= 5  # one particle lies between two views
    turn = np.abs((listed.psi - polar.psi + 180) % 360 - 180).values
    assert turn[same].max() < 1e-3
    np.testing.assert_allclose(listed.correlation, polar.correlation, atol=0.03)


def test_one_ctf_is_no_integral_and_priors_that_are_even_are_none(tmp_path: Path, groel: str) -> None:
    star = simulate(tmp_path / "p.star", groel, count=3, snr=0.5)
    listed = orientations_of(star, tmp_path / "list.txt", 10)
    rows = np.loadtxt(listed)
    np.savetxt(tmp_path / "even.txt", np.column_stack([rows, np.full(len(rows), -3.0)]))
    np.savetxt(tmp_path / "tilted.txt", np.column_stack([rows, np.linspace(-3, 3, len(rows))]))
    options: dict[str, Any] = {"rotations_from_file": True, "precision": "double", **STILL}

    def score(name: str, **changes: Any) -> np.ndarray:
        view = {"file": str(tmp_path / name)}
        return cd.likelihood(
            star, {"g": groel}, viewing_distance=view, keep=["likelihood"], **options, **changes
        ).log_likelihood.values

    plain = score("list.txt")
    np.testing.assert_allclose(score("even.txt", orientation_prior="file"), plain, rtol=0, atol=1e-9)
    assert np.abs(score("tilted.txt", orientation_prior="file") - plain).max() > 0.1
    one = {"defocus": [0, 50, 1, "star", 500.0], "amplitude": [0.1, 0.2, 1, 0, 1.0]}
    np.testing.assert_allclose(score("list.txt", ctf_integration=one), plain, rtol=0, atol=1e-8)
    many = {"defocus": [-2000, 2000, 4, "star", 500.0], "amplitude": [0.0, 0.3, 3, 0.1, 0.1]}
    assert np.abs(score("list.txt", ctf_integration=many) - plain).max() > 1e-3


def test_top_orientations_and_credible_poses_of_an_integral(tmp_path: Path, groel: str) -> None:
    star = simulate(tmp_path / "p.star", groel, count=4, snr=1.0)
    listed = orientations_of(star, tmp_path / "list.txt")
    ds = cd.likelihood(
        star,
        {"g": groel},
        viewing_distance={"file": str(listed)},
        rotations_from_file=True,
        ctf_integration={"defocus": [-1000, 1000, 4, "star", 500.0]},
        keep=["best", "likelihood", "summary", "top", "template"],
        top=3,
        **STILL,
    ).compute()
    np.testing.assert_array_equal(ds.top_template[0, 0], 30 + np.arange(4))
    total = np.exp(ds.top_log_posterior.values[0]).sum(axis=0)
    assert (total <= 1 + 1e-6).all()
    assert (ds.n_credible.values >= 1).all()
    assert (ds.n_effective.values >= 0.99).all()
    assert set(np.unique(ds.best_defocus)) <= {-1000.0, -500.0, 0.0, 500.0}


BAD = [
    ({"rotations_from_file": True}, "rotations_from_file: true needs a list"),
    ({"projection": "pixels"}, "atoms.projection = pixels: expected slices, or grid.rotations_from_file"),
    ({"ctf_integration": {}}, "expected at least one of defocus, b_envelope, amplitude"),
    ({"ctf_integration": {"defocus": [2, 1, 3, 0, 1]}}, "expected [from, to >= from, points >= 1"),
    ({"ctf_integration": {"amplitude": [0.5, 1.9, 4, 0, 1]}}, "expected amplitudes in 0..1"),
    (
        {"ctf_integration": {"b_envelope": [0, 9, 3, 0, 1]}, "optics": "none"},
        "ctf_integration.defocus: with optics: none give absolute defoci",
    ),
    (
        {"ctf_integration": {"b_envelope": [0, 9, 3, 0, 1]}, "effective_samples": "pixels",
         "resolution_factor": 0.5},
        "grid.resolution_factor: effective_samples: pixels takes every coefficient",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), BAD, ids=[message[:30] for _, message in BAD])
def test_what_does_not_go_together_is_refused(
    tmp_path: Path, groel: str, changes: dict[str, Any], message: str
) -> None:
    star = simulate(tmp_path / "p.star", groel, count=2)
    with pytest.raises(cd.InputError) as caught:
        cd.likelihood(star, {"g": groel}, **changes)
    assert message in str(caught.value)


LISTS = {
    "3\n1 0 0 0\n0 1 0 0\n": "line 1 says 3, found 2",
    "2\n1 0 0 0\n0 1 0\n": "line 3: expected 4 or 5 numbers, found 3",
    "2\n1 0 0 0\n0 1 0 1\n": "line 3: norm 1.41, expected a unit quaternion",
    "10 20\n10\n": "line 2: expected 2 numbers, found 1",
    "1 2 3 4 5 6\n": "line 1: expected 2 or 3 numbers, found 6",
}


@pytest.mark.parametrize(("content", "message"), LISTS.items())
def test_wrong_lists_are_named_with_their_line(
    tmp_path: Path, groel: str, content: str, message: str
) -> None:
    star = simulate(tmp_path / "p.star", groel, count=2)
    (tmp_path / "quats.txt").write_text(content)
    view = {"file": str(tmp_path / "quats.txt")}
    with pytest.raises(cd.InputError) as caught:
        cd.likelihood(star, {"g": groel}, viewing_distance=view, rotations_from_file=True)
    assert message in str(caught.value)
    assert "quats.txt" in str(caught.value)


def test_a_star_file_is_a_list(tmp_path: Path, groel: str) -> None:
    star = simulate(tmp_path / "p.star", groel, count=3)
    table = read_star(star)["particles"][["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]]
    write_star(tmp_path / "views.star", {"particles": table})
    view = {"file": str(tmp_path / "views.star")}
    listed = cd.likelihood(
        star, {"g": groel}, viewing_distance=view, rotations_from_file=True, keep=["best"], **STILL
    )
    np.testing.assert_array_equal(listed.best_template.values[0], [0, 1, 2])
    polar = cd.likelihood(star, {"g": groel}, viewing_distance=view, keep=["best"], **STILL).compute()
    np.testing.assert_array_equal(polar.best_template.values[0], [0, 1, 2])
    angle = np.abs(polar.psi.values[0] - table["rlnAnglePsi"].to_numpy(float) + 180) % 360 - 180
    assert np.abs(angle).max() < 4
    origin = read_star(star)["particles"]["rlnOriginXAngst"].to_numpy(float)
    np.testing.assert_allclose(polar.origin_x.values[0], origin, atol=2.0)
