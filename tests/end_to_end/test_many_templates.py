"""Several templates in one search: each map as if alone, and the right class at every particle."""

import mrcfile
import numpy as np
import pytest
import yaml

import cryodask as cd
from cryodask.io.volume import write_volume
from cryodask.jobs.tomogram_matching.independence import independent_scores

from .conftest import BOX, VOXEL, particle


def barrel() -> np.ndarray:
    """Return a particle unlike the project's: a ring of six blobs."""
    z, y, x = np.indices((BOX - 2,) * 3) - (BOX - 2) // 2
    spots = [(0, 7 * np.sin(t), 7 * np.cos(t)) for t in np.arange(6) * np.pi / 3]
    return sum(np.exp(-((z - a) ** 2 + (y - b) ** 2 + (x - c) ** 2) / 8) for a, b, c in spots).astype("f4")


@pytest.fixture(scope="module")
def matched(project):
    """Both templates searched together, and each alone, in the project's tomogram with barrels put in."""
    folder = project.folder / "many"
    folder.mkdir()
    template, mask = particle()
    ring = barrel()
    with mrcfile.open(project.folder / "tomogram.mrc") as stored:
        tomogram = np.array(stored.data)
    places = [(30, 31, 30), (30, 63, 58)]
    edge = ring.shape[0]
    for z, y, x in places:
        at = tuple(slice(c - edge // 2, c - edge // 2 + edge) for c in (z, y, x))
        tomogram[at] += ring * (template[mask > 0.5].std() / ring[ring > 0.1].std())
    for name, array in (("tomogram", tomogram), ("ribosome", template), ("barrel", ring)):
        write_volume(folder / f"{name}.mrc", array, voxel_size=VOXEL)
    common = {
        "tomogram": "tomogram.mrc",
        "tomo_num": 7,
        "lowpass": 25.0,
        "lowpass_sigma": 0.0125,
        "angles": {"step": 45.0, "method": "rings"},
        "interpolation": "linear",
        "formats": ["zarr", "mrc"],
    }
    templates = [
        {"name": "ribosome", "template": "ribosome.mrc", "mask": {"sphere": 100.0, "edge": 10.0}},
        {
            "name": "barrel",
            "template": "barrel.mrc",
            "mask": {"sphere": 100.0, "edge": 10.0},
            "symmetry": "C6",
            "angles": {"step": 36.0, "method": "rings"},
        },
    ]
    from cryodask.cli.main import run

    rows = {"both": common | {"templates": templates}}
    for entry in templates:
        alone = {key: value for key, value in entry.items() if key != "name"}
        rows[entry["name"]] = common | {"angles": entry.get("angles", common["angles"])} | alone
    for name, row in rows.items():
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(row | {"output": name}))
        words = ["--angle-batch", "64"] if name == "both" else []
        assert run(["match-tomogram", str(path), "--cluster", "threads", *words]) == 0
    results = {name: cd.open_result(folder / name / "tomogram.zarr").load() for name in rows}
    return folder, places, results


@pytest.mark.parametrize(("number", "name"), [(0, "ribosome"), (1, "barrel")])
def test_each_template_scores_as_if_alone(matched, number, name):
    _, _, results = matched
    both, alone = results["both"].isel(template=number), results[name].isel(template=0)
    assert both.template.item() == name
    np.testing.assert_allclose(both.score_raw, alone.score_raw, atol=2e-5)
    assert float((both.orientation != alone.orientation).mean()) < 1e-3
    np.testing.assert_allclose(both.score_mean, alone.score_mean, atol=1e-5)
    assert int(both.n_rotations) == int(alone.n_rotations)
    assert float(both.sigma) == pytest.approx(float(alone.sigma), rel=1e-4)
    rows = int(alone.n_rotations)
    np.testing.assert_allclose(both.euler[:rows], alone.euler[:rows])
    assert np.isnan(both.euler[rows:]).all()


def test_particles_get_the_class_of_their_template(project, matched):
    _, places, results = matched
    both = results["both"]
    assert both.attrs["class_by"] == "zscore"
    values = both.zscore.values
    expected = np.argmax(values, axis=0)
    searched = (both.orientation != 0xFFFFFFFF).any("template").values
    np.testing.assert_array_equal(both.class_id.values[searched], expected[searched])
    margin = np.abs(values[0] - values[1])
    np.testing.assert_allclose(both.margin.values[searched], margin[searched], atol=1e-6)
    assert [int(both.class_id[place]) for place in places] == [1, 1]
    ribosomes = [int(both.class_id[place[:3]]) for place in project.planted]
    assert np.mean(np.array(ribosomes) == 0) >= 0.95


def test_picks_carry_the_template_and_maps_its_name(matched):
    folder, places, results = matched
    least = min(float(results["both"].score_raw[1][place]) for place in places)
    table = cd.pick(
        folder / "both" / "tomogram.zarr", score="score_raw", threshold=0.95 * least, min_distance=80.0
    )
    barrels = table[table["class"] == 2]
    assert set(barrels["template"]) == {"barrel"}
    found = barrels[["z", "y", "x"]].round().astype(int).to_numpy().tolist()
    for place in places:
        assert min(np.abs(np.array(found) - place).max(axis=1)) <= 1
    names = {path.name for path in (folder / "both").iterdir()}
    for name in ("scores_0_7_ribosome.mrc", "angles_0_7_barrel.csv", "class_0_7.mrc", "margin_0_7.mrc"):
        assert name in names
    with mrcfile.open(folder / "both" / "class_0_7.mrc") as classes:
        assert classes.data[places[0]] == 1.0


def test_two_templates_of_one_name_are_refused(matched, run_cli):
    folder, _, _ = matched
    row = yaml.safe_load((folder / "both.yaml").read_text())
    row["templates"][1]["name"] = "ribosome"
    (folder / "twice.yaml").write_text(yaml.safe_dump(row))
    status, _, error = run_cli("match-tomogram", folder / "twice.yaml")
    assert status == 2
    assert "templates: two are named ribosome, give them different names" in error


def test_classes_are_not_taken_from_scores_that_lack_their_mean_noise(matched, run_cli):
    folder, _, _ = matched
    row = yaml.safe_load((folder / "both.yaml").read_text()) | {
        "noise_correction": "subtract",
        "output": "other",
    }
    path = folder / "subtract.yaml"
    path.write_text(yaml.safe_dump(row | {"class_by": "score"}))
    status, _, error = run_cli("match-tomogram", path, "--dry-run")
    assert status == 2
    assert "class_by = score: does not go with subtract, use zscore" in error
    path.write_text(yaml.safe_dump(row))
    assert cd.match_tomogram(cd.read_parameters(path)[0]).attrs["class_by"] == "zscore"


def test_each_template_counts_its_own_independent_scores(matched):
    folder, _, results = matched
    both = independent_scores(results["both"])
    alone = [independent_scores(results[name])[0] for name in ("ribosome", "barrel")]
    np.testing.assert_allclose(both, alone, rtol=0.02)  # its box is larger, and other pairs may be drawn
    made = results["both"].n_voxels.values * results["both"].n_rotations.values
    assert (both < made / 10).all()
    options = {"false_positives": 1, "score": "score_raw", "min_distance": 80.0}
    lower = cd.pick(folder / "both" / "tomogram.zarr", independent="effective", **options)
    higher = cd.pick(folder / "both" / "tomogram.zarr", **options)
    for less, more in zip(lower.attrs["thresholds"], higher.attrs["thresholds"], strict=True):
        assert less < more
    assert len(set(lower.attrs["thresholds"])) == 2


def test_orientations_are_refined_with_the_template_of_each_class(matched):
    folder, places, results = matched
    least = 0.95 * min(float(results["both"].score_raw[1][place]) for place in places)
    options = {"score": "score_raw", "threshold": least, "min_distance": 80.0, "refine": "both"}
    table = cd.pick(folder / "both" / "tomogram.zarr", **options)
    barrels = cd.pick(folder / "barrel" / "tomogram.zarr", **options)
    assert set(table["class"]) == {1, 2}
    assert (table["score_raw"] >= table["score_grid"] - 1e-6).all()
    assert (table["score_raw"] > table["score_grid"]).any()
    for found in table[table["class"] == 2].itertuples():
        apart = np.linalg.norm(barrels[["z", "y", "x"]] - [found.z, found.y, found.x], axis=1)
        assert apart.min() < 0.2
        assert found.score_raw == pytest.approx(barrels["score_raw"].iloc[int(apart.argmin())], abs=2e-3)
