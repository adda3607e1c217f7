"""Which template filter a match uses, and the pieces of a tile that share one."""

from dataclasses import replace

import numpy as np
import pytest

from cryodask.jobs.tomogram_matching.inputs import load_inputs
from cryodask.jobs.tomogram_matching.parameters import MatchParameters
from cryodask.jobs.tomogram_matching.pieces import cut_tile, join_pieces
from cryodask.jobs.tomogram_matching.planning import Resources, make_problem
from cryodask.jobs.tomogram_matching.weighting import describe, dose_filter, make_cells, make_template_filters
from cryodask.optics.bandpass import BandPass
from cryodask.optics.defocus_gradient import DefocusCells, tilts_at
from cryodask.optics.dose import DoseFilter
from cryodask.optics.template_filter import template_filter
from cryodask.search.tiles import Tile

ANGLES = range(-54, 60, 6)


@pytest.fixture
def wedge(tmp_path):
    names = ["tomo_num", "tilt_angle", "pixelsize", "defocus", "exposure", "voltage", "amp_contrast", "cs"]
    rows = [f"7 {a} 2.5 {3 + 0.01 * i} {3 * i + 3} 200 0.07 2.7" for i, a in enumerate(ANGLES)]
    header = "\n".join(f"_{name}" for name in names)
    (tmp_path / "wedge.star").write_text(
        f"data_stopgap_wedgelist\n\nloop_\n{header}\n" + "\n".join(rows) + "\n"
    )
    return {"tilts": "wedge.star", "tomo_num": 7, "binning": 4, "lp_rad": 5}


@pytest.mark.parametrize(
    ("native", "options"),
    [
        ({"ctf": "amplitude"}, {"ctf": "amplitude"}),
        ({"ctf": "signed", "dose": "grant"}, {"ctf": "signed", "dose": DoseFilter()}),
        ({"dose": "bfactor", "tilt_weight": "cos"}, {"dose": DoseFilter("bfactor"), "tilt_weight": "cos"}),
        (
            {"dose": "grant", "critical_dose": [0.3, -1.5, 2]},
            {"dose": DoseFilter("grant", (0.3, -1.5, 2.0))},
        ),
        (
            {"ctf": "amplitude", "dose": "grant", "filter_average": "product"},
            {"ctf": "amplitude", "dose": DoseFilter(), "filter_average": "product"},
        ),
        ({"ctf": "amplitude", "wedge": "none"}, {"ctf": "amplitude", "wedge": "none"}),
        ({"laplacian": True}, {"radial_weights": (np.square,)}),
    ],
)
def test_the_template_filter_is_that_of_the_parameters(job, wedge, native, options):
    inputs = load_inputs(job(**wedge, **native))
    expected = template_filter(12, 10.0, inputs.tilts, BandPass(5), **options)
    np.testing.assert_array_equal(make_template_filters(inputs, make_cells(inputs)), expected[None])
    assert {name: describe(inputs, make_cells(inputs))[name] for name in native if name in FILTERS} == {
        name: value for name, value in native.items() if name in FILTERS
    }


FILTERS = ("ctf", "dose", "tilt_weight", "filter_average", "wedge", "laplacian")


def test_compat_stopgap_averages_dose_and_ctf_apart(job, wedge):
    given = job(**wedge, ctf="amplitude", dose="grant")
    native = given.model_dump(exclude_unset=True)
    compat = load_inputs(MatchParameters.from_native(native, compat="stopgap"))
    found = make_template_filters(compat, make_cells(compat))[0]
    band = BandPass(5, interpolation="pchip")
    options = {"ctf": "amplitude", "dose": DoseFilter(), "filter_average": "product"}
    np.testing.assert_array_equal(found, template_filter(12, 10.0, compat.tilts, band, **options))


def test_the_critical_dose_of_star_jobs_takes_no_account_of_the_voltage(job, wedge):
    parameters = job(**wedge, dose="grant")
    assert dose_filter(parameters) == DoseFilter(scale_with_voltage=True)
    star = parameters.model_copy()
    star._source = replace(parameters.source, dialect="star")
    assert dose_filter(star) == DoseFilter(scale_with_voltage=False)


def test_weights_without_band_and_wedge_still_make_a_filter(job):
    for native, weights in (({"laplacian": True}, (np.square,)), ({"whiten": True}, ())):
        inputs = load_inputs(job(**native))
        expected = template_filter(12, 10.0, None, BandPass(np.inf), radial_weights=weights)
        np.testing.assert_array_equal(make_template_filters(inputs, make_cells(inputs))[0], expected)


def test_every_cell_has_the_filter_of_its_own_defocus(job, wedge):
    inputs = load_inputs(job(**wedge, ctf="signed", defocus_hand=-1))
    cells = DefocusCells(inputs.shape, (2, 3))
    found = make_template_filters(inputs, cells)
    assert found.shape == (6, 12, 12, 7)
    for cell, (z, x) in enumerate([(-5.5, -8), (-5.5, -1), (-5.5, 6.5), (4.5, -8), (4.5, -1)]):
        tilts = tilts_at(inputs.tilts, -1, 10 * z, 10 * x)
        expected = template_filter(12, 10.0, tilts, BandPass(5), ctf="signed")
        np.testing.assert_allclose(found[cell], expected, atol=1e-6)
    assert np.abs(found[0] - found[5]).max() > 1e-3
    assert len(make_cells(inputs)) == 1
    small = load_inputs(
        job(
            tilts="wedge.star",
            tomo_num=7,
            lp_rad=5,
            ctf="signed",
            defocus_hand=1,
            voxel_size=0.5,
            header_voxel_size=None,
        )
    )
    assert len(make_cells(small)) == len(make_problem(small, ".", Resources()).cells) > 1


def test_a_tile_is_cut_at_cells_and_its_states_are_put_together_again():
    cells = DefocusCells((20, 24, 22), (2, 3))
    tile = Tile(3, (5, 2, 8), (16, 20, 22), (24, 32, 32))
    pieces = cut_tile(tile, cells, 11)
    assert [cell for cell, _ in pieces] == [1, 2, 4, 5]
    assert all(piece.block[1] == 32 for _, piece in pieces)
    assert all(
        length >= n + 11 for _, piece in pieces for n, length in zip(piece.shape, piece.block, strict=True)
    )
    whole = np.random.default_rng(1).random(cells.shape)
    states = [
        {
            "score": {"value": whole[piece.slices]},
            "moments": {"sum": whole[piece.slices], "count": np.asarray(7)},
        }
        for _, piece in pieces
    ]
    joined = join_pieces(tile, [piece for _, piece in pieces], states)
    np.testing.assert_array_equal(joined["score"]["value"], whole[tile.slices])
    np.testing.assert_array_equal(joined["moments"]["sum"], whole[tile.slices])
    assert joined["moments"]["count"] == 7
    (only,) = cut_tile(tile, DefocusCells(cells.shape), 11)
    assert only == (0, tile)
