"""The maps of Leopard-EM 1.2 at every position, and the particles planted in its image."""

import json

import numpy as np
import pandas as pd
import pytest

import cryodask as cd


@pytest.fixture(scope="module")
def case(shared_data):
    folder = shared_data / "micrograph_matching" / "search_512"
    names = ("image", "template", "euler_angles", "defocus")
    arrays = {name: np.load(folder / f"{name}.npy") for name in names}
    with np.load(folder / "reference_maps.npz") as stored:
        reference = dict(stored)
    return (
        arrays,
        json.loads((folder / "optics.json").read_text()),
        reference,
        pd.read_csv(folder / "truth.csv"),
    )


def matched(case, **options):
    arrays, optics, _, _ = case
    dataset = cd.match_micrograph(
        arrays["image"],
        arrays["template"],
        optics=optics,
        orientations=arrays["euler_angles"],
        defocus=arrays["defocus"],
        crop="same",
        **options,
    )
    return dataset.compute(scheduler="single-threaded")


@pytest.fixture(scope="module")
def found(case):
    return matched(case)


def test_maps_are_those_of_leopard_em(case, found):
    reference = case[2]
    np.testing.assert_allclose(found.mip, reference["mip"], atol=1e-4)
    np.testing.assert_allclose(found.score_mean, reference["correlation_mean"], atol=2e-5)
    np.testing.assert_allclose(found.score_std, reference["correlation_variance"], rtol=1e-4)
    np.testing.assert_allclose(found.scaled_mip, reference["scaled_mip"], atol=1e-4)
    different = found.hypothesis.values != reference["best_global_index"]
    assert different.mean() < 2e-3
    for ours, theirs in (("best_phi", "best_phi"), ("best_psi", "best_psi"), ("defocus", "best_defocus")):
        np.testing.assert_allclose(found[ours].values[~different], reference[theirs][~different], atol=1e-3)
    assert found.attrs["total_projections"] == reference["total_projections"]


def test_compat_scales_projections_as_leopard_em_does(case):
    compatible = matched(case, compat="leopard-em-1.2")
    np.testing.assert_allclose(compatible.mip, case[2]["mip"], atol=5e-5)
    np.testing.assert_allclose(compatible.scaled_mip, case[2]["scaled_mip"], atol=5e-5)


def test_all_planted_particles_are_found(case, found):
    truth = case[3]
    for row in truth.itertuples():
        here = found.isel(y=row.y_topleft, x=row.x_topleft)
        assert (int(here.orientation), float(here.defocus)) == (row.orient_index, row.defocus)
        near = found.scaled_mip.values[
            max(0, row.y_topleft - 2) : row.y_topleft + 3, max(0, row.x_topleft - 2) : row.x_topleft + 3
        ]
        offset = (row.y_topleft, row.x_topleft) == (190, 165)
        assert (near.max() == float(here.scaled_mip)) != offset


def test_thresholds_of_the_field(found):
    from cryodask.picking.thresholds import false_positive_threshold

    values = [
        (512**2 * 720, 1, 5.72090),
        (385**2 * 720, 1, 5.62325),
        (4096**2 * 20_598_240, 1, 7.80850),
        (3585**2 * 20_598_240, 1, 7.77483),
        (1e6, 0.005, 5.73073),
    ]
    for searched, expected, value in values:
        assert false_positive_threshold(1.0, searched, expected) == pytest.approx(value, abs=1e-5)
    assert found.attrs["threshold"] == pytest.approx(5.72090, abs=1e-5)
