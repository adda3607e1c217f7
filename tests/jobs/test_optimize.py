"""Optimisation of a template's voxel size by particles of a known one."""

import numpy as np
import pandas as pd
import pytest

import cryodask as cd
from cryodask.errors import InputError
from cryodask.io.model_map import model_map
from cryodask.jobs.micrograph_matching.optimize import (
    Choice,
    dose_weighted,
    open_optimization,
    optimize,
    parabola_optimum,
)
from cryodask.jobs.micrograph_matching.optimize_config import OptimizeConfig, SimulatorConfig
from tests.jobs.planted import NO_WHITENING, plant, three_particles


@pytest.fixture
def planted(tmp_path):
    return plant(tmp_path, three_particles())


def test_the_voxel_size_of_the_planted_template_is_found(planted):
    found = cd.optimize_template(
        planted.table(), planted.template, box=36, min_snr=5.0, filters=NO_WHITENING, padding=2,
        coarse={"pixel_size_min": -0.06, "pixel_size_max": 0.06, "pixel_size_step": 0.02},
        fine={"pixel_size_min": -0.01, "pixel_size_max": 0.01, "pixel_size_step": 0.005},
    )  # fmt: skip
    assert found.pixel_size == pytest.approx(1.5, abs=0.003) and 0 < found.uncertainty < 0.1
    assert found.table["stage"].tolist() == ["coarse"] * 7 + ["fine"] * 5
    assert (found.table["particles"] == 3).all()


def test_falling_scores_end_a_list_where_asked_for(planted, tmp_path):
    config = configured(planted, pixel_size_fine_search={"enabled": False})
    found = optimize(open_optimization(config), choice=Choice(5.0), consecutive_threshold=2)
    scores = found.table["score"].to_numpy()
    assert len(scores) < 11 and scores[-1] < scores[-2] < scores[-3]


def configured(planted, **changes):
    return OptimizeConfig.from_mapping(
        {
            "template_volume_path": str(planted.folder / "template.mrc"),
            "particle_stack": {
                "df_path": planted.write(),
                "extracted_box_size": [36, 36],
                "original_template_size": [32, 32],
            },
            "preprocessing_filters": NO_WHITENING,
            **changes,
        }
    )


def test_no_particle_of_enough_signal_is_refused_with_the_highest_z(planted):
    with pytest.raises(InputError, match=r"no particle reaches min_snr = 90, the highest z is 59\.\d+"):
        cd.optimize_template(planted.table(), planted.template, box=36, min_snr=90.0, filters=NO_WHITENING)


def test_best_n_counts_so_many():
    z = np.array([3.0, 9.0, np.nan, 12.0, 8.0])
    assert Choice().score(z) == (pytest.approx(29 / 3), 3)
    assert Choice(best_n=2).score(z) == (10.5, 2)
    assert Choice(min_snr=20.0).score(z)[1] == 0


def test_the_parabola_gives_vertex_and_error():
    x = np.arange(5.0)
    table = pd.DataFrame({"pixel_size": x, "score": 10 - (x - 2.2) ** 2, "particles": 4, "stage": "fine"})
    vertex, error = parabola_optimum(table)
    assert vertex == pytest.approx(2.2) and error == pytest.approx(1 / np.sqrt(4 * 9.96 * 2))
    assert np.isnan(parabola_optimum(table.assign(score=x))[1])


def test_dose_weighting_keeps_the_mean_and_fades_fine_detail():
    volume = np.random.default_rng(0).random((16, 16, 16), dtype=np.float32)
    settings = SimulatorConfig(dose_start=0.0, dose_end=50.0)
    faded = dose_weighted(volume, 1.5, settings)
    assert faded.mean() == pytest.approx(volume.mean(), rel=1e-5) and faded.var() < 0.6 * volume.var()
    softer = dose_weighted(volume, 1.5, settings.model_copy(update={"dose_filter_modify_signal": "sqrt"}))
    assert faded.var() < softer.var() < volume.var()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"template_volume_path": None}, "expected one of simulator and template_volume_path"),
        ({"pixel_size_coarse_search": {"pixel_size_min": -0.5}}, "expected 0.8 to 1.25"),
        (
            {
                "template_volume_path": None,
                "simulator": {
                    "pdb_filepath": "m.pdb", "volume_shape": [32, 32, 32], "pixel_spacing": 1.5,
                    "simulator_config": {"mtf_reference": "falcon4EC_300kv"},
                },
            },
            "mtf_reference = falcon4EC_300kv: not supported here.*ttsim3d",
        ),
    ],
)  # fmt: skip
def test_wrong_values_are_named(planted, changes, text):
    with pytest.raises(InputError, match=text):
        open_optimization(configured(planted, **changes))


def test_a_template_made_of_a_model_fits_at_its_own_voxel_size(tmp_path, shared_data):
    model = str(shared_data / "structures" / "1mh1.pdb")
    truth = three_particles().assign(y=[4, 60, 70], x=[5, 80, 10])
    planted = plant(tmp_path, truth, template=model_map(model, box=48, voxel_size=1.5), shape=(120, 132))
    stack = {
        "df_path": planted.write(),
        "extracted_box_size": [52, 52],
        "original_template_size": [48, 48],
    }
    simulator = {
        "pdb_filepath": model,
        "volume_shape": [48, 48, 48],
        "pixel_spacing": 1.5,
        "simulator_config": {"apply_dose_weighting": False},
    }
    coarse = {"pixel_size_min": -0.04, "pixel_size_max": 0.04, "pixel_size_step": 0.02}
    config = configured(
        planted,
        template_volume_path=None,
        simulator=simulator,
        particle_stack=stack,
        pixel_size_coarse_search=coarse,
        pixel_size_fine_search={"enabled": False},
    )
    found = optimize(open_optimization(config), choice=Choice(5.0))
    assert found.pixel_size == pytest.approx(1.5, abs=0.01)
    assert found.table["score"].max() > 18.0
