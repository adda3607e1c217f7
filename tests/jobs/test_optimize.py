"""Optimisation of a template's voxel size by particles of a known one."""

import numpy as np
import pandas as pd
import pytest

import cryodask as cd
from cryodask.errors import IncompleteError, InputError
from cryodask.io.model_map import model_map
from cryodask.jobs.micrograph_matching.optimize import dose_weighted, kept_scores, open_optimization, optimize
from cryodask.jobs.micrograph_matching.optimize_config import OptimizeConfig, SimulatorConfig
from cryodask.jobs.micrograph_matching.pose_problem import PoseProblem
from cryodask.jobs.micrograph_matching.voxel_optimum import Choice, parabola_optimum
from tests.jobs.planted import NO_WHITENING, plant, reference_particles, simulated_particles, three_particles


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


def test_an_interrupted_search_goes_on_from_what_is_scored(planted, tmp_path, monkeypatch):
    config, output = configured(planted), tmp_path / "sizes.csv"
    whole = optimize(open_optimization(config), choice=Choice(5.0))
    searched, search = [], PoseProblem.fold

    def fails(self, tile, batch):
        searched.append(tile.index)
        if len(searched) > 2:
            raise OSError("the worker died")
        return search(self, tile, batch)

    monkeypatch.setattr(PoseProblem, "fold", fails)
    with pytest.raises(IncompleteError), kept_scores(open_optimization(config), output) as kept:
        optimize(kept, choice=Choice(5.0))
    with pytest.raises(InputError, match=r"sizes.partial.zarr is unfinished; use --resume or --overwrite"):
        kept_scores(open_optimization(config), output).__enter__()
    other = open_optimization(config.with_own(padding=2))
    with pytest.raises(InputError, match=r"cryodask.padding 1 -> 2"):
        kept_scores(other, output, resume=True).__enter__()
    monkeypatch.setattr(PoseProblem, "fold", lambda *a: (searched.append(a[1].index), search(*a))[1])
    before = len(searched)
    with kept_scores(open_optimization(config), output, resume=True) as kept:
        found = optimize(kept, choice=Choice(5.0))
    pd.testing.assert_frame_equal(found.table, whole.table)
    resumed, before = len(searched) - before, len(searched)
    optimize(open_optimization(config), choice=Choice(5.0))
    assert resumed < len(searched) - before and not list(tmp_path.glob("sizes*"))


def test_those_that_count_reach_min_snr_or_are_the_best():
    z = np.array([3.0, 9.0, np.nan, 12.0, 8.0])
    assert np.flatnonzero(Choice().counted(z)).tolist() == [1, 3, 4]
    assert np.flatnonzero(Choice(best_n=2).counted(z)).tolist() == [1, 3]
    assert np.flatnonzero(Choice(best_n=9).counted(z)).tolist() == [0, 1, 3, 4]
    assert not Choice(min_snr=20.0).counted(z).any()


def test_the_parabola_gives_the_vertex_and_the_larger_of_two_errors():
    x, first = np.arange(5.0), np.ones(5, bool)
    alike = np.repeat(10 - (x - 2.2) ** 2, 4).reshape(5, 4)
    vertex, error = parabola_optimum(x, alike, first)
    assert vertex == pytest.approx(2.2) and error == pytest.approx(1 / np.sqrt(4 * 9.96 * 2))
    apart = 10 - (x[:, None] - np.array([1.2, 3.2])) ** 2
    vertex, error = parabola_optimum(x, apart, first)
    assert vertex == pytest.approx(2.2) and error == pytest.approx(1.0)
    assert np.isnan(parabola_optimum(x, x[:, None], first)[1])


def at_another_size(planted):
    """Return a table whose particles are all false."""
    return planted.table(x=planted.truth["x"] + 9, y=planted.truth["y"] + 11)


def test_particles_count_by_their_z_at_the_given_size_whatever_size_is_tried(planted):
    table = pd.concat([planted.table(), at_another_size(planted)], ignore_index=True)
    found = cd.optimize_template(table, planted.template, box=34, min_snr=15.0, filters=NO_WHITENING)
    alone = cd.optimize_template(planted.table(), planted.template, box=34, filters=NO_WHITENING)
    assert (found.table["particles"] == 3).all() and found.pixel_size == alone.pixel_size


def test_particles_no_better_than_noise_are_counted_aloud(tmp_path):
    planted = plant(tmp_path, three_particles(), noise=1.0)
    path = tmp_path / "p.csv"
    table = planted.table().assign(total_correlations=10**9)
    table.to_csv(path)
    stack = {"df_path": str(path), "extracted_box_size": [36, 36], "original_template_size": [32, 32]}
    told = []
    work = open_optimization(configured(planted, particle_stack=stack))
    optimize(work, choice=Choice(5.0), tell=told.append)
    assert not told
    table.assign(total_correlations=10.0**290).to_csv(path)
    work = open_optimization(configured(planted, particle_stack=stack))
    optimize(work, choice=Choice(5.0), tell=told.append)
    assert "3 of 3 counted particles have z below 36" in told[0]


@pytest.mark.parametrize("seed", [0, pytest.param(range(1, 13), marks=pytest.mark.acceptance)])
def test_a_simulated_micrograph_gives_its_own_pixel_size_within_the_error(tmp_path, seed):
    pulls = []
    for one in [seed] if isinstance(seed, int) else seed:
        table, template = simulated_particles(tmp_path, true=1.5, nominal=1.53, seed=one)
        found = cd.optimize_template(
            table, template, box=54, min_snr=5.0, filters=NO_WHITENING,
            coarse={"pixel_size_min": -0.075, "pixel_size_max": 0.075, "pixel_size_step": 0.015},
            fine={"pixel_size_min": -0.006, "pixel_size_max": 0.006, "pixel_size_step": 0.003},
        )  # fmt: skip
        pulls.append((found.pixel_size - 1.5) / found.uncertainty)
        assert found.uncertainty < 0.03
    assert np.sqrt(np.mean(np.square(pulls))) <= (2.0 if isinstance(seed, int) else 1.4)


def test_reference_particles_above_the_threshold_give_their_voxel_size(shared_data, tmp_path):
    table, template = reference_particles(shared_data, tmp_path, above=5.4)
    found = cd.optimize_template(table, template, box=132, min_snr=5.62)
    assert (found.table["particles"] == 4).all()
    assert abs(found.pixel_size - 1.0) <= found.uncertainty < 0.02


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
