"""CTF, dose, whitening and the other weights of a match: what they compute and what they gain."""

import json

import mrcfile
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

import cryodask as cd
from cryodask.geometry.euler import rotation_from_euler
from cryodask.io.volume import write_volume
from cryodask.io.wedge_list import write_wedge_list
from cryodask.jobs.tomogram_matching.area import search_area
from cryodask.jobs.tomogram_matching.independence import independent_scores
from cryodask.jobs.tomogram_matching.planning import Resources, make_problem, write_constants
from cryodask.jobs.tomogram_matching.refinement import LocalSearch, Pose
from cryodask.jobs.tomogram_matching.reopening import reopened_inputs
from cryodask.optics.bandpass import BandPass
from cryodask.optics.ctf import ctf_curve
from cryodask.optics.defocus_gradient import DefocusCells, tilts_at
from cryodask.optics.dose import DoseFilter
from cryodask.optics.frequency import half_frequencies
from cryodask.optics.template_filter import template_filter
from cryodask.optics.tilts import TiltSeries
from cryodask.optics.tomogram_filter import tomogram_filter
from cryodask.optics.whitening import cube_power, cube_slices, whitening

from .conftest import BOX, rotated

SHAPE = (48, 80, 72)
ANGLES = np.arange(-54.0, 57.0, 6.0)
ROTATIONS = np.array([[0, 0, 0], [40, 60, 10], [-70, 110, 35], [15, 80, 160], [100, 35, -120]], float)
BINNING, VOLTAGE = 4, 200.0
THREADS = ("--cluster", "threads", "--workers", 1)


def series(voxel_size, **changes):
    given = {
        "exposure": 6.0 * (1 + np.argsort(np.argsort(np.abs(ANGLES + 0.1)))),
        "defocus": 35000 + 20 * ANGLES,
        "voltage": VOLTAGE,
        "pixel_size": voxel_size / BINNING,
    }
    return TiltSeries(angles=ANGLES, **{**given, **changes})


def detailed_particle():
    """A particle with detail up to the edge of the band, and its mask."""
    z, y, x = np.indices((BOX,) * 3) - BOX // 2
    mask = np.clip(10.5 - np.sqrt(z**2 + y**2 + x**2), 0, 1).astype(np.float32)
    density = gaussian_filter(np.random.default_rng(3).standard_normal((BOX,) * 3), 0.7)
    return density.astype(np.float32), mask


def imaged(volume, voxel_size, tilts, transfer):
    """What the nearest tilt makes of every frequency between the limits of a series."""
    kz, ky, kx = half_frequencies(volume.shape, voxel_size)
    angle = (np.degrees(np.arctan2(kz, kx)) + 90) % 180 - 90
    nearest = np.abs(angle[..., None] - tilts.angles).argmin(axis=-1)
    weights = np.zeros((volume.shape[0], volume.shape[1], volume.shape[2] // 2 + 1))
    f = np.sqrt(kz**2 + ky**2 + kx**2)
    for tilt in range(len(tilts.angles)):
        weights += (nearest == tilt) * transfer(f, tilt)
    weights[np.broadcast_to(np.abs(angle) > 57, weights.shape)] = 0
    return np.fft.irfftn(np.fft.rfftn(volume) * weights, volume.shape, axes=(0, 1, 2))


class Series:
    """A tomogram with planted particles as its tilts image them, and a STAR job that matches it."""

    def __init__(self, folder, *, voxel_size=10.0, shape=SHAPE, noise=1.0, form=np.abs, **changes):
        self.folder, self.voxel_size, self.shape = folder, voxel_size, shape
        self.tilts = series(voxel_size, **changes)
        self.template, self.mask = detailed_particle()
        matrices = rotation_from_euler(ROTATIONS).as_matrix()
        density, generator = np.zeros(shape), np.random.default_rng(11)
        self.planted = []
        for number, (y, x) in enumerate((y, x) for y in (16, 40, 64) for x in range(14, shape[2] - 12, 22)):
            row, z = number % len(ROTATIONS), (15, 32)[number % 2]
            place = tuple(slice(c - BOX // 2, c + BOX // 2) for c in (z, y, x))
            if y + BOX // 2 <= shape[1]:
                density[place] += rotated(self.template * self.mask, matrices[row])
                self.planted.append((z, y, x, row))

        def transfer(f, tilt):
            ctf = ctf_curve(f, self.tilts.defocus[tilt], voltage=VOLTAGE)
            return form(ctf) * DoseFilter().curve(f, self.tilts.exposure[tilt], VOLTAGE)

        signal = imaged(density, voxel_size, self.tilts, transfer)
        hiss = imaged(generator.standard_normal(shape), voxel_size, self.tilts, lambda f, tilt: 1.0)
        self.tomogram = (signal / signal.std() + noise * hiss / hiss.std()).astype(np.float32)
        for name in ("tomogram", "template", "mask"):
            write_volume(folder / f"{name}.mrc", getattr(self, name), voxel_size=voxel_size)
        write_wedge_list(folder / "wedge.star", {7: self.tilts})
        np.savetxt(folder / "angles.csv", ROTATIONS, delimiter=",")

    def star(self, name, **changes):
        cells = {
            "rootdir": self.folder,
            "outputdir": f"{name}/",
            "vol_ext": ".mrc",
            "tomo_name": "tomogram.mrc",
            "tomo_num": 7,
            "wedgelist_name": "wedge.star",
            "tmpl_name": "template.mrc",
            "mask_name": "mask.mrc",
            "anglist_name": "angles.csv",
            "lp_rad": 9,
            "hp_rad": 1,
            "binning": BINNING,
            "noise_corr": False,
            **changes,
        }
        header = "\n".join(f"_{column}" for column in cells)
        path = self.folder / f"{name}.star"
        path.write_text(f"data_\n\nloop_\n{header}\n\n{' '.join(map(str, cells.values()))}\n")
        return path

    def matched(self, run_cli, name, *words, **changes):
        status, _, error = run_cli("match-tomogram", self.star(name, **changes), *THREADS, *words)
        assert status == 0, error
        return cd.open_result(self.folder / name / "scores_0_7.zarr").load()

    def scores(self, result):
        """The best score within a voxel of every planted particle, and whether it has the right row."""
        found = []
        for z, y, x, row in self.planted:
            near = {axis: slice(c - 1, c + 2) for axis, c in zip("zyx", (z, y, x), strict=True)}
            part = result.score_raw[0].isel(near).values
            best = np.unravel_index(part.argmax(), part.shape)
            found.append((part[best], int(result.orientation[0].isel(near).values[best]) == row))
        return np.array([score for score, _ in found]), np.mean([right for _, right in found])


@pytest.fixture
def planted(tmp_path):
    return Series(tmp_path)


def test_the_filter_that_fits_the_optics_finds_particles_with_higher_scores(planted, run_cli):
    results = {
        name: planted.scores(planted.matched(run_cli, name, calc_ctf=ctf, calc_exp=dose))
        for name, ctf, dose in (
            ("none", False, False),
            ("ctf", True, False),
            ("dose", False, True),
            ("both", True, True),
        )
    }
    means = {name: scores.mean() for name, (scores, _) in results.items()}
    assert means["both"] > max(means["ctf"], means["dose"])
    assert min(means["ctf"], means["dose"]) > means["none"]
    assert (results["both"][0] > results["none"][0] + 0.03).all()
    assert results["both"][1] == 1


def test_an_uncorrected_tomogram_needs_the_signed_ctf(tmp_path, run_cli):
    project = Series(tmp_path, form=lambda ctf: ctf, defocus=60000 + 20 * ANGLES)
    scores = {
        form: project.scores(project.matched(run_cli, form, ctf=form, calc_exp=True))[0]
        for form in ("none", "amplitude", "signed")
    }
    assert (scores["signed"] > scores["amplitude"]).all()
    assert scores["signed"].mean() > 1.2 * scores["none"].mean()


def reference(project, row, weights, factors):
    """FLCF of one rotation over a whole, periodic tomogram in float64: equations of section "The score"."""
    spectrum = np.fft.rfftn(project.tomogram - project.tomogram.mean(dtype=np.float64)) * factors
    data = np.fft.irfftn(spectrum, project.shape, axes=(0, 1, 2))
    data /= data.std()
    mask = project.mask.astype(np.float64)
    template = rotated(
        project.template.astype(np.float64), rotation_from_euler(ROTATIONS[row : row + 1]).as_matrix()[0]
    )
    template = np.fft.irfftn(np.fft.rfftn(template) * weights, template.shape, axes=(0, 1, 2))
    template -= (mask * template).sum() / mask.sum()
    u = mask * template / np.sqrt((mask * template**2).sum() / mask.sum())

    def correlated(kernel, volume):
        padded = np.zeros(project.shape)
        padded[:BOX, :BOX, :BOX] = kernel
        padded = np.roll(padded, (-(BOX // 2),) * 3, axis=(0, 1, 2))
        product = np.conj(np.fft.rfftn(padded)) * np.fft.rfftn(volume)
        return np.fft.irfftn(product, project.shape, axes=(0, 1, 2))

    variance = mask.sum() * correlated(mask, data**2) - correlated(mask, data) ** 2
    return correlated(u, data) / np.sqrt(variance)


WEIGHTS = {
    "ctf and dose": ({"calc_ctf": True, "calc_exp": True}, {"ctf": "amplitude", "dose": DoseFilter}),
    "signed, cos, product": (
        {"ctf": "signed", "dose": "bfactor", "tilt_weight": "cos", "filter_average": "product"},
        {
            "ctf": "signed",
            "dose": lambda **_: DoseFilter("bfactor"),
            "tilt_weight": "cos",
            "filter_average": "product",
        },
    ),
    "laplacian": ({"calc_ctf": True, "apply_laplacian": True}, {"ctf": "amplitude"}),
    "whitened": ({"calc_exp": True, "whiten": True}, {"dose": DoseFilter}),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_score_maps_are_those_of_the_whole_volume_in_double_precision(planted, run_cli, name):
    cells, options = WEIGHTS[name]
    np.savetxt(planted.folder / "angles.csv", ROTATIONS[1:2], delimiter=",")
    result = planted.matched(run_cli, "one", boundary="wrap", **cells)
    size, radial = planted.voxel_size, []
    if "whiten" in cells:
        cubes = cube_slices(tuple((0, n) for n in SHAPE), BOX)
        powers = [cube_power(planted.tomogram[cube], size, planted.tilts, BOX) for cube in cubes]
        radial = [whitening(powers, size, 64)]
    if "apply_laplacian" in cells:
        radial = [np.square]
    if "dose" in options:
        options = options | {"dose": options["dose"](scale_with_voltage=False)}
    band = BandPass(9, 3, 1, 2)
    weights = template_filter(BOX, size, planted.tilts, band, radial_weights=radial, **options)
    frequencies = half_frequencies(SHAPE, size)
    factors = tomogram_filter(*frequencies, BOX, size, planted.tilts, band, radial_weights=radial)
    expected = reference(planted, 1, weights, factors)
    np.testing.assert_allclose(result.score_raw[0].values, expected, atol=1e-5)
    with mrcfile.open(planted.folder / "one" / "scores_0_7.mrc") as scores:
        np.testing.assert_array_equal(scores.data, result.score[0].values)


def test_the_result_records_what_weighted_the_frequencies(planted, run_cli):
    result = planted.matched(run_cli, "all", calc_ctf=True, calc_exp=True, whiten=True, tilt_weight="cos")
    filters = json.loads(result.attrs["filters"])
    assert (filters["ctf"], filters["dose"], filters["tilt_weight"]) == ("amplitude", "grant", "cos")
    assert filters["band"] == {
        "lp_rad": 9,
        "lp_sigma": 3,
        "hp_rad": 1,
        "hp_sigma": 2,
        "interpolation": "formula",
    }
    assert (filters["scale_with_voltage"], filters["defocus_cells"]) == (False, [1, 1])
    assert max(json.loads(result.attrs["whitening"])["shells"]) >= 0.99
    stopgap = planted.matched(run_cli, "stopgap", "--compat", "stopgap", calc_ctf=True, calc_exp=True)
    assert json.loads(stopgap.attrs["filters"])["filter_average"] == "product"


@pytest.fixture
def gradient(tmp_path):
    """A tomogram in whose band the defocus gradient counts: two cells or more."""
    optics = {"defocus": 9000 + 5 * ANGLES, "exposure": 0.2 * np.arange(len(ANGLES))}
    return Series(tmp_path, voxel_size=2.5, shape=(48, 40, 160), **optics)


def test_tiling_changes_no_score_with_whitening_ctf_and_defocus_gradient(gradient, run_cli):
    filters = {"calc_ctf": True, "calc_exp": True, "whiten": True, "defocus_hand": -1, "noise_corr": True}
    one = gradient.matched(run_cli, "whole", "-n", 1, **filters)
    rows, columns = json.loads(one.attrs["filters"])["defocus_cells"]
    assert rows * columns >= 2
    for tiling in (("-n", 6), ("--tile-shape", "48,50,64")):
        two = gradient.matched(run_cli, f"cut{tiling[0]}", *tiling, **filters)
        for name in ("score_raw", "noise", "score", "score_mean", "score_std"):
            np.testing.assert_allclose(one[name], two[name], atol=2e-5, err_msg=name)
        assert float((one.orientation != two.orientation).mean()) < 1e-3
    flat = gradient.matched(run_cli, "flat", **{**filters, "defocus_hand": 0})
    assert float(np.abs(one.score_raw - flat.score_raw).max()) > 1e-3


def test_every_cell_is_scored_with_its_own_defocus(gradient, run_cli):
    np.savetxt(gradient.folder / "angles.csv", ROTATIONS[1:2], delimiter=",")
    result = gradient.matched(run_cli, "one", calc_ctf=True, defocus_hand=-1, boundary="wrap")
    cells = DefocusCells(gradient.shape, tuple(json.loads(result.attrs["filters"])["defocus_cells"]))
    band, size = BandPass(9, 3, 1, 2), gradient.voxel_size
    factors = tomogram_filter(*half_frequencies(gradient.shape, size), BOX, size, gradient.tilts, band)
    for cell, start, stop in cells.pieces((0, 0, 0), gradient.shape):
        z, x = (size * place for place in cells.centre(cell))
        weights = template_filter(BOX, size, tilts_at(gradient.tilts, -1, z, x), band, ctf="amplitude")
        place = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
        expected = reference(gradient, 1, weights, factors)[place]
        np.testing.assert_allclose(result.score_raw[0].values[place], expected, atol=1e-5)


def test_python_takes_the_filters_too(planted):
    dataset = cd.match_tomogram(
        str(planted.folder / "tomogram.mrc"),
        str(planted.folder / "template.mrc"),
        mask=str(planted.folder / "mask.mrc"),
        angles=ROTATIONS[:1],
        tilts=str(planted.folder / "wedge.star"),
        tomo_num=7,
        binning=BINNING,
        lowpass=27,
        ctf="amplitude",
        dose="grant",
        whiten=True,
    )
    stored = dataset.cryo.store(planted.folder / "stored.zarr")
    lazy = dataset.score_raw.compute(scheduler="threads")
    np.testing.assert_array_equal(lazy.values, cd.open_result(stored).score_raw.values)
    assert json.loads(dataset.attrs["filters"])["scale_with_voltage"] is True


def test_refinement_scores_with_the_filters_of_the_search(gradient, run_cli, tmp_path):
    filters = {"calc_ctf": True, "calc_exp": True, "whiten": True, "defocus_hand": -1}
    result = gradient.matched(run_cli, "one", interpolation="linear", **filters)
    inputs = reopened_inputs(result, "a test")
    problem = make_problem(inputs, tmp_path / "constants", Resources())
    write_constants(inputs, problem, search_area(inputs))
    problem.prepare()
    scores, rows = result.score_raw[0].values, result.orientation[0].values
    for half in (slice(0, 80), slice(80, 160)):
        z, y, x = np.unravel_index(scores[:, :, half].argmax(), scores[:, :, half].shape)
        place = (int(z), int(y), int(x) + half.start)
        matrix = rotation_from_euler(ROTATIONS[rows[place]]).as_matrix().reshape(3, 3)
        found = LocalSearch(problem, step=0.0, position=False)(Pose(place, matrix))
        assert found.score == pytest.approx(scores[place], abs=1e-5)
    assert 1 < independent_scores(result)[0] < result.n_voxels[0] * len(ROTATIONS)


def test_the_coarse_grid_has_the_filters_of_every_cell(tmp_path, run_cli):
    optics = {"defocus": 9000 + 5 * ANGLES, "exposure": 0.2 * np.arange(len(ANGLES))}
    gradient = Series(tmp_path, voxel_size=2.0, shape=(48, 40, 240), **optics)
    filters = {"calc_ctf": True, "calc_exp": True, "whiten": True, "defocus_hand": -1, "noise_corr": False}
    found, full = (
        gradient.matched(run_cli, f"grid_{grid}", **filters, lp_rad=8, lp_sigma=0.7, search_grid=grid)
        for grid in (0.75, "full")
    )
    assert found.attrs["search_factor"] == 0.75
    assert np.prod(json.loads(found.attrs["filters"])["defocus_cells"]) > 1
    exact = found.rescored.values > 0
    ours, theirs = found.score_raw.values[0][exact], full.score_raw.values[0][exact]
    same = found.orientation.values[0][exact] == full.orientation.values[0][exact]
    assert same.mean() > 0.4
    assert np.abs(ours - theirs)[same].max() < 1e-4
    assert (ours - theirs).max() < 1e-4
