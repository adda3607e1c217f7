"""What surrounds the likelihood: ready templates, converted particles, lists, conditions, given poses."""

from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import cryodask as cd
from cryodask.cli.main import run
from cryodask.geometry.polar import PolarGrid
from cryodask.io.cryolike import TEMPLATE_LIST
from cryodask.io.particle_lists import open_particle_list, select_rows
from cryodask.io.star import read_star, write_star
from cryodask.jobs.likelihood.images import downsampled

BOX, PIXEL = 32, 4.0
SEARCH: dict[str, Any] = {
    "viewing_distance": 1.0,
    "n_inplanes": 32,
    "max_displacement_pixels": 1,
    "n_displacements_x": 3,
    "n_displacements_y": 3,
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A text model, a map, and five noisy images in two stacks with their STAR file."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(3)
    rows = np.column_stack([rng.normal(size=(40, 3)) * 14, np.full(40, 4.0), rng.uniform(5, 15, 40)])
    np.savetxt("model.txt", rows)
    volume = rng.normal(size=(16, 16, 16)).astype(np.float32)
    mrcfile.write("map.mrc", volume, voxel_size=6.0)
    pixels = (np.arange(BOX) - BOX // 2) * PIXEL
    points = rows[:, :3] - np.average(rows[:, :3], axis=0, weights=rows[:, 4])
    x, y = np.exp(-(((pixels[:, None, None] - points[None, :, :2]) / 5.6) ** 2)).transpose(2, 0, 1)
    images = y @ x.T + rng.normal(size=(5, BOX, BOX)) * 2
    for name, part in (("a", images[:3]), ("b", images[3:])):
        mrcfile.write(f"{name}.mrcs", part.astype(np.float32), voxel_size=PIXEL)
    optics = pd.DataFrame({"rlnOpticsGroup": [1], "rlnVoltage": [300.0], "rlnImagePixelSize": [PIXEL]})
    optics = optics.assign(rlnSphericalAberration=2.7, rlnAmplitudeContrast=0.1)
    names = [f"{i + 1:06d}@{stack}.mrcs" for stack, n in (("a", 3), ("b", 2)) for i in range(n)]
    particles = pd.DataFrame({"rlnImageName": names, "rlnOpticsGroup": 1})
    particles = particles.assign(rlnDefocusU=np.linspace(9000, 15000, 5), rlnDefocusV=10000.0)
    particles = particles.assign(rlnDefocusAngle=20.0, rlnClassNumber=[1, 2, 2, 1, 1], rlnOriginXAngst=1.5)
    particles = particles.assign(rlnOriginYAngst=-2.0)
    write_star("p.star", {"optics": optics, "particles": particles})
    return tmp_path


def log_likelihood(images: Any, structures: Any, **options: Any) -> np.ndarray:
    return cd.likelihood(images, structures, keep=["likelihood"], **SEARCH | options).log_likelihood.values


def test_ready_templates_give_the_same_bytes(folder: Path, capsys: Any) -> None:
    command = ["make-templates", "model.txt", "map.mrc", "-o", "t.zarr", "--box", "32", "--pixel-size", "4"]
    assert run([*command, "--views", "57.29577951308232", "--n-inplanes", "32"]) == 0
    assert capsys.readouterr().out.strip() == "t.zarr"
    made = log_likelihood("p.star", {"model": "model.txt", "map": "map.mrc"})
    options = {key: value for key, value in SEARCH.items() if key not in ("viewing_distance", "n_inplanes")}
    ready = cd.likelihood("p.star", [{"path": "t.zarr"}], keep=["likelihood"], **options)
    assert list(ready.structure.values) == ["model", "map"]
    assert ready.log_likelihood.values.tobytes() == made.tobytes()
    second = cd.likelihood("p.star", [{"path": "t.zarr", "i_template": 1}], keep=["likelihood"], **options)
    np.testing.assert_array_equal(second.log_likelihood.values[0], made[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"i_template": 2}, "i_template = 2: list has 2"),
        ({"pixel_size": 2.0}, "t.zarr: box 32 x 2 A, templates 32 x 4 A"),
        ({"n_inplanes": 64}, "n_inplanes 64, templates 1, 32; leave both out"),
        ({"axes": "cryolike"}, "templates in axes relion, likelihood.axes = cryolike"),
    ],
)
def test_ready_templates_that_do_not_fit(folder: Path, change: dict[str, Any], message: str) -> None:
    structures = {"a": "model.txt", "b": "model.txt"}
    cd.make_templates(
        structures, box=32, pixel_size=4.0, viewing_distance=1.0, n_inplanes=32, output="t.zarr"
    )
    entry = {"path": "t.zarr"} | {key: change[key] for key in change if key == "i_template"}
    options = {key: value for key, value in change.items() if key != "i_template"}
    with pytest.raises(cd.InputError, match=message.replace("(", r"\(")):
        cd.likelihood("p.star", [entry], **options)


def test_templates_of_arrays_and_functions(folder: Path) -> None:
    volume = mrcfile.read("map.mrc")
    options: dict[str, Any] = {"box": 16, "pixel_size": 6.0, "viewing_distance": 1.0, "precision": "double"}
    of_file = cd.make_templates("map.mrc", **options)
    of_array = cd.make_templates(volume, voxel_size=6.0, **options)
    np.testing.assert_allclose(of_array.templates, of_file.templates, atol=1e-6)
    position = np.array([9.0, -4.0, 6.0])

    def transform(k: np.ndarray) -> np.ndarray:
        return np.exp(-2j * np.pi * (k @ position) - 200 * (k**2).sum(axis=-1))

    of_function = cd.make_templates(transform, **options)
    np.savetxt("one.txt", [[*position, np.sqrt(200 / (2 * np.pi**2)), 1.0]])
    of_atom = cd.make_templates("one.txt", model="atom_gaussian", centre="none", **options)
    assert of_function.templates.shape == of_file.templates.shape == of_atom.templates.shape
    grid = PolarGrid(16, 1.0, 32)
    norm = (np.abs(of_function.templates.values) ** 2 * grid.weights[:, None]).sum(axis=(-2, -1)) * 2
    np.testing.assert_allclose(norm, 1)
    with pytest.raises(cd.InputError, match="voxel_size is required with an array"):
        cd.make_templates(volume, box=16, pixel_size=6.0)


def test_converted_particles_are_the_same_images(folder: Path, capsys: Any) -> None:
    assert run(["convert-particles", "p.star", "-o", "p.zarr", "--batch-size", "2", "--plots"]) == 0
    assert capsys.readouterr().out.split() == ["p.zarr", "p_images.png"]
    expected = log_likelihood("p.star", {"m": "model.txt"}, displacement_centre="star")
    found = log_likelihood("p.zarr", {"m": "model.txt"}, displacement_centre="star")
    np.testing.assert_array_equal(found, expected)
    assert run(["convert-particles", "p.star", "-o", "half.zarr", "--downsample", "2"]) == 0
    half = log_likelihood("half.zarr", {"m": "model.txt"})
    np.testing.assert_allclose(half, log_likelihood("p.star", {"m": "model.txt"}, downsample=2), atol=1e-3)
    assert run(["convert-particles", "p.star", "-o", "p.zarr"]) == 2
    assert "p.zarr exists; use --overwrite" in capsys.readouterr().err


def test_stacks_are_joined_in_order(folder: Path) -> None:
    expected = log_likelihood("p.star", {"m": "model.txt"}, optics="none")
    found = log_likelihood(["a.mrcs", "b.mrcs"], {"m": "model.txt"}, optics="none")
    np.testing.assert_array_equal(found, expected)
    first = log_likelihood(["a.mrcs", "b.mrcs"], {"m": "model.txt"}, optics="none", n_stacks=1)
    np.testing.assert_array_equal(first, expected[:, :3])
    assert len(open_particle_list(["p.star"], n_stacks=1)) == 3
    joined = open_particle_list(["p.star", "p.star"])
    assert joined.table["optics_group"].tolist() == [1] * 5 + [2] * 5
    with pytest.raises(cd.InputError, match="n_stacks = 3: found 2"):
        open_particle_list(["a.mrcs", "b.mrcs"], n_stacks=3)


def test_particles_are_chosen_by_conditions(folder: Path) -> None:
    stack = open_particle_list(["p.star"])
    assert select_rows(stack, "rlnClassNumber == 2").tolist() == [1, 2]
    assert select_rows(stack, "rlnDefocusU > 12000 and rlnVoltage == 300").tolist() == [3, 4]
    assert select_rows(stack, "1-2,0").tolist() == [1, 2, 0]
    for text, message in (
        ("rlnClassNumber == 9", "no particle of 5 meets it"),
        ("rlnNothing > 1", "condition of STAR columns"),
        ("rlnClassNumber", "expected a condition"),
        ("@open('x')", "condition of STAR columns"),
        ("7", "the stack has 5 images"),
    ):
        with pytest.raises(cd.InputError, match=message):
            select_rows(stack, text)


def test_pooling_takes_mean_or_largest_of_squares() -> None:
    images = np.random.default_rng(0).normal(size=(2, 8, 8))
    squares = [[images[1, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2] for j in range(4)] for i in range(4)]
    np.testing.assert_allclose(downsampled(images, 2, "mean")[1], np.mean(squares, axis=(2, 3)))
    np.testing.assert_array_equal(downsampled(images, 2, "max")[1], np.max(squares, axis=(2, 3)))


@pytest.mark.parametrize("options", [{}, {"scale": "free", "offset": "none"}])
def test_likelihood_at_best_poses_is_the_best(folder: Path, options: dict[str, Any]) -> None:
    search = SEARCH | {"precision": "double"} | options
    found = cd.likelihood("p.star", {"m": "model.txt"}, keep=["best", "likelihood"], **search).compute()
    found.encoding = cd.likelihood("p.star", {"m": "model.txt"}, keep=["best"], **search).encoding
    found.cryo.to_relion("best.star")
    given: dict[str, Any] = {"precision": "double", "n_inplanes": 32} | options
    for poses in (found, "best.star", read_star("best.star")["particles"]):
        there = cd.likelihood_at("p.star", "model.txt", poses, **given)
        np.testing.assert_allclose(there["cross_correlation"], found.cross_correlation[0], atol=1e-6)
        np.testing.assert_allclose(there["log_likelihood"], found.log_likelihood_best[0], atol=1e-3)
        np.testing.assert_allclose(there["correlation"], found.correlation[0], atol=1e-6)
        np.testing.assert_allclose(there["scale"], found.scale[0], rtol=1e-5)
    with pytest.raises(cd.InputError, match="4 poses for 5 images"):
        cd.likelihood_at("p.star", "model.txt", read_star("best.star")["particles"][:4], **given)


def test_posterior_moves_by_the_log_ratio_of_priors(folder: Path) -> None:
    found = cd.likelihood("p.star", {"a": "model.txt", "b": "map.mrc"}, keep=["likelihood"], **SEARCH)
    found.cryo.store(folder / "o.zarr")
    stored = cd.open_result(folder / "o.zarr")
    even, uneven = stored.cryo.posterior(), stored.cryo.posterior({"b": 5.0})
    ratio = [np.log(each.posterior.values[:, 1] / each.posterior.values[:, 0]) for each in (uneven, even)]
    np.testing.assert_allclose(ratio[0] - ratio[1], np.log(5.0))
    np.testing.assert_allclose(even.posterior, stored.posterior)
    assert len(stored.cryo.likelihood().axes) == 3
    with pytest.raises(cd.InputError, match="prior: no structure c, expected a, b"):
        stored.cryo.posterior({"c": 2.0})
    with pytest.raises(cd.InputError, match="files: star needs keep: best"):
        stored.cryo.to_relion("best.star")
    assert not Path("best.star").exists()


def test_starting_file_is_a_configuration(folder: Path, capsys: Any) -> None:
    assert run(["config", "init", "likelihood", "-o", "c.yaml"]) == 0
    text = Path("c.yaml").read_text().replace("images: REQUIRED", "images: p.star")
    text = text.replace("path: REQUIRED", "path: model.txt").replace(
        "  # viewing_distance: 0.08", "  viewing_distance: 1"
    )
    Path("c.yaml").write_text(text)
    capsys.readouterr()
    assert run(["config", "check", "c.yaml"]) == 0
    assert capsys.readouterr().out.startswith("c.yaml: likelihood: images 5, templates")
    assert run(["config", "show", "c.yaml"]) == 0
    assert run(["config", "convert", "c.yaml", "-o", "d.yaml"]) == 2


def test_without_torch_folders_of_cryolike_name_the_extra(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    Path("particles/fft").mkdir(parents=True)
    for suffix in ("pt", "npz"):
        Path(f"particles/fft/particles_fourier_stack_000000.{suffix}").touch()
    np.savez("particles/fft/particles_fourier_stack_000000.npz", n_pixels=[32, 32], pixel_size=[4.0, 4.0],
             radius_max=8.0, n_inplanes=64)  # fmt: skip
    Path("particles/phys").mkdir()
    Path("particles/phys/particles_phys_stack_000000.pt").touch()
    with pytest.raises(cd.InputError, match=r"needs the extra torch: pip install 'cryodask\[torch\]'"):
        cd.likelihood("particles", {"m": "model.txt"})
    with pytest.raises(cd.InputError, match="n_stacks = 9: folder has 1"):
        cd.likelihood("particles", {"m": "model.txt"}, n_stacks=9)
    Path("particles/fft/particles_fourier_stack_000001.pt").touch()
    with pytest.raises(cd.InputError, match=r"stack 1 has no \.npz"):
        cd.likelihood("particles", {"m": "model.txt"})
    Path("list").mkdir()
    with pytest.raises(cd.InputError, match=f"no {TEMPLATE_LIST}"):
        cd.likelihood("p.star", [{"path": "list", "kind": "templates"}])


def test_folders_of_cryolike_there_and_back(folder: Path) -> None:
    torch = pytest.importorskip("torch")
    command = ["convert-particles", "p.star", "-o", "q.zarr", "--batch-size", "3", "--files", "cryolike"]
    assert run(command) == 0
    spectra = torch.load("q/fft/particles_fourier_stack_000000.pt", weights_only=True)
    assert spectra.shape == (3, 33, 64) and spectra.dtype == torch.complex64
    options = SEARCH | {"viewing_distance": 1.0, "n_inplanes": 64}
    command = ["make-templates", "model.txt", "-o", "u.zarr", "--box", "32", "--pixel-size", "4", "--views"]
    assert run([*command, "57.29577951308232", "--compat", "cryolike", "--files", "cryolike"]) == 0
    keep = {"keep": ["best", "likelihood"], "compat": "cryolike"}
    direct = cd.likelihood("p.star", {"model": "model.txt"}, **options, **keep).compute()
    loaded = cd.likelihood("q", [{"path": "u"}], **options, **keep)
    np.testing.assert_allclose(loaded.log_likelihood, direct.log_likelihood, rtol=0, atol=1e-3)
    np.testing.assert_array_equal(loaded.rot, direct.rot)
    loaded.cryo.store(folder / "o.zarr")
    cd.open_result(folder / "o.zarr").cryo.to_cryolike("OUT")
    read = {path.name: torch.load(path, weights_only=False) for path in Path("OUT/template0").rglob("*.pt")}
    assert read["optimal_template_stack_000000.pt"].tolist() == direct.best_template.values[0, :3].tolist()
    assert read["optimal_template_stack_000000.pt"].dtype == torch.int64
    angle = read["optimal_inplane_rotation_stack_000001.pt"].numpy()
    np.testing.assert_allclose(np.degrees(angle), direct.inplane_rotation.values[0, 3:], atol=1e-4)
    total = read["log_likelihood_integrated_fourier_stack_000001.pt"].numpy()
    np.testing.assert_allclose(total, direct.log_likelihood.values[0, 3:], atol=1e-3)
    grid = torch.load("OUT/displacements_set.pt", weights_only=False)
    assert isinstance(grid, np.ndarray) and grid.shape == (2, 9)
    with pytest.raises(cd.InputError, match="add --compat cryolike"):
        cd.likelihood("p.star", {"m": "model.txt"}, **SEARCH).cryo.to_cryolike("NOT")


def test_stored_templates_open_as_a_dataset(folder: Path) -> None:
    made = cd.make_templates("model.txt", box=16, pixel_size=8.0, viewing_distance=1.0, output="t.zarr")
    xr.testing.assert_identical(made.compute(), xr.open_zarr("t.zarr", consolidated=False).compute())
    assert made.templates.dims == ("structure", "template", "shell", "angle")
