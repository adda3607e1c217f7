"""From inputs to tables, tiles, and what tells one run from another."""

import os

import numpy as np
import pytest

from cryodask.errors import InputError, ResourceError
from cryodask.geometry.euler import rotation_from_euler
from cryodask.jobs.tomogram_matching.area import search_area
from cryodask.jobs.tomogram_matching.inputs import load_inputs
from cryodask.jobs.tomogram_matching.parameters import read_parameters
from cryodask.jobs.tomogram_matching.planning import (
    Resources,
    fingerprint,
    make_plan,
    make_problem,
    make_tables,
    noise_template,
    working_set,
)
from cryodask.kernels.rotation import rotation_coefficients
from cryodask.optics.template_filter import template_filter
from cryodask.search.store import check_same_run


@pytest.mark.parametrize("shape", [(12, 12, 12), (13, 13, 13)])
def test_noise_templates_have_the_amplitudes_of_the_template_and_other_phases(shape):
    template = np.random.default_rng(1).standard_normal(shape).astype(np.float32) + 1
    noise = noise_template(template, 0, 0, 0)
    assert noise.dtype == np.float32
    amplitudes = np.abs(np.fft.rfftn(template.astype(np.float64)))
    found = np.abs(np.fft.rfftn(noise.astype(np.float64)))
    np.testing.assert_allclose(found, amplitudes, atol=1e-5 * amplitudes.max())
    flat = [volume.ravel() - volume.mean() for volume in (template, noise)]
    assert abs(np.corrcoef(*flat)[0, 1]) < 0.1


def test_seed_template_and_copy_alone_decide_the_noise():
    template = np.random.default_rng(1).standard_normal((12,) * 3).astype(np.float32)
    noise = noise_template(template, 3, 0, 1)
    np.testing.assert_array_equal(noise, noise_template(template, 3, 0, 1))
    for other in ((4, 0, 1), (3, 1, 1), (3, 0, 2)):
        assert np.abs(noise - noise_template(template, *other)).max() > 0.5
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([3, 0, 1])))
    white = np.fft.rfftn(generator.standard_normal((12,) * 3))
    phases = np.angle(np.fft.rfftn(noise.astype(np.float64)))
    np.testing.assert_allclose(np.exp(1j * phases), white / np.abs(white), atol=1e-4)


def test_tables_hold_rotations_templates_masks_and_the_template_filters(job, tmp_path):
    inputs = load_inputs(job(noise_correction="ratio", noise_copies=3, tilts=[-60, 60], lp_rad=5))
    tables = make_tables(inputs, make_problem(inputs, tmp_path, Resources()))
    volumes = [noise_template(inputs.particle.template, 0, 0, copy) for copy in range(3)]
    for found, volume in zip(tables.templates, [inputs.particle.template, *volumes], strict=True):
        np.testing.assert_array_equal(found, rotation_coefficients(volume, "cubic"))
    np.testing.assert_allclose(tables.matrices, rotation_from_euler(inputs.angles).as_matrix())
    expected = template_filter(12, 10.0, inputs.tilts, inputs.band)
    np.testing.assert_array_equal(tables.template_filters, expected[None])
    bare = load_inputs(job())
    assert make_tables(bare, make_problem(bare, tmp_path, Resources())).template_filters is None
    unfiltered = load_inputs(job(tilts=[-60, 60], wedge="none"))
    assert make_tables(unfiltered, make_problem(unfiltered, tmp_path, Resources())).template_filters is None


def test_plans_fit_the_memory_and_skip_what_is_not_searched(job, tmp_path):
    mask = np.zeros((20, 24, 22), np.float32)
    mask[:5] = 1
    inputs = load_inputs(job(tomogram_mask=mask))
    problem, area = make_problem(inputs, tmp_path, Resources()), search_area(inputs)
    plan = make_plan(inputs, problem, area, Resources(ntiles=4))
    assert np.prod(plan.grid) == 4
    assert 0 < len(plan.tiles) <= 4
    searched = np.zeros(inputs.shape, bool)
    for tile in plan.tiles:
        searched[tile.slices] = True
    assert searched[mask > 0].all()
    least = working_set(problem, plan.block, plan.core)
    with pytest.raises(ResourceError, match=r"smallest tile needs .* GiB, a worker has .* GiB"):
        make_plan(inputs, problem, area, Resources(memory=least / 100))
    with pytest.raises(InputError, match="ntiles = 997: no grid of tiles has exactly that many"):
        make_plan(inputs, problem, area, Resources(ntiles=997))
    assert make_plan(inputs, problem, area, Resources(tile_shape=(24, 30, 32))).block == (24, 30, 32)


@pytest.mark.parametrize("name", ["tomogram", "template", "mask", "tomogram_mask", "angles.file", "tilts"])
def test_a_changed_input_file_is_another_run(job, tmp_path, name):
    (tmp_path / "list.csv").write_text("0,0,0\n10,20,30\n")
    (tmp_path / "tilts.tlt").write_text("-60\n0\n60\n")
    native = {"angles": "list.csv", "tilts": "tilts.tlt", "tomogram_mask": np.ones((20, 24, 22), np.float32)}
    parameters = job(**native)
    before = fingerprint(load_inputs(parameters))
    assert fingerprint(load_inputs(parameters)) == before
    path = tmp_path / {"angles.file": "list.csv", "tilts": "tilts.tlt"}.get(name, f"{name}.mrc")
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 10**9))
    after = fingerprint(load_inputs(parameters))
    assert {key for key in before if before[key] != after[key]} == {f"{name} (file)"}
    with pytest.raises(InputError, match=rf"^differs from the unfinished run: {name} \(file\) .* -> "):
        check_same_run(before, after)


def test_where_results_go_is_no_part_of_a_run_and_settings_are(job):
    before = fingerprint(load_inputs(job()))
    files = {"tomogram": "tomogram.mrc", "template": "template.mrc", "mask": "mask.mrc"}
    assert fingerprint(load_inputs(job(**files, output="elsewhere", formats="zarr,mrc"))) == before
    for key, change in {
        "seed": {"seed": 1},
        "lowpass": {"lowpass": 40},
        "angles.step": {"angles": {"step": 90}},
        "noise_correction": {"noise_correction": "ratio"},
    }.items():
        after = fingerprint(load_inputs(job(**files, **change)))
        assert before[key] != after[key]
    with pytest.raises(InputError, match="differs from the unfinished run: lowpass none -> 40"):
        check_same_run(before, fingerprint(load_inputs(job(**files, lowpass=40))))


def test_a_star_job_names_what_changed_by_its_columns(job, tmp_path):
    parameters = job()
    (tmp_path / "tilts.tlt").write_text("-60\n0\n60\n")
    header = ("tomo_name", "tomo_num", "wedgelist_name", "tmpl_name", "mask_name", "angincr", "hp_rad")
    values = ("tomogram.mrc", "7", "tilts.tlt", "template.mrc", "mask.mrc", "60", "1")
    columns = "\n".join(f"_{name}" for name in ("rootdir", *header, "lp_rad"))
    path = tmp_path / "params.star"

    def marks(low):
        path.write_text(f"data_\n\nloop_\n{columns}\n{parameters.root} {' '.join(values)} {low}\n")
        return fingerprint(load_inputs(*read_parameters(path)))

    with pytest.raises(InputError, match=r"^differs from the unfinished run: lp_rad 4 -> 4\.5$"):
        check_same_run(marks("4"), marks("4.5"))
    assert "tmpl_name (file)" in marks("4")
