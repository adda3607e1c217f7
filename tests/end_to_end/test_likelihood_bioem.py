"""What a user of BioEM does: a parameter file, a list of quaternions, text models; files of BioEM out."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

import cryodask as cd
from cryodask.cli.main import run

BOX, PIXEL, COUNT = 48, 2.0, 6
PARAMETERS = """##### Micrograph Parameters #######
NUMBER_PIXELS 48
PIXEL_SIZE 2.0

USE_QUATERNIONS
CTF_B_ENV 2.0 300. 2
CTF_DEFOCUS 0.5 2.5 4
CTF_AMPLITUDE 0.01 0.601 3
SIGMA_PRIOR_B_CTF 50.
SIGMA_PRIOR_DEFOCUS 0.4
PRIOR_DEFOCUS_CENTER 1.0
DISPLACE_CENTER 4 1
WRITE_PROB_ANGLES 2
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Models that differ by a bend, images of the first at listed orientations and whole displacements."""
    rng = np.random.default_rng(1)
    points = rng.normal(size=(150, 3)) * [14, 10, 8]
    points -= points.mean(axis=0)
    bent = points + np.where(points[:, :1] > 0, [0, 7.0, 0], 0)
    for name, each in (("straight", points), ("bent", bent)):
        np.savetxt(tmp_path / name, np.column_stack([each, np.full(150, 1.0), np.full(150, 7.0)]), fmt="%.3f")
    quaternions = Rotation.random(12, random_state=2).as_quat()
    np.savetxt(tmp_path / "quats", quaternions, fmt="%12.8f", header="12", comments="")
    images = []
    k = np.hypot(np.fft.fftfreq(BOX)[:, None], np.fft.rfftfreq(BOX)) / PIXEL
    phase = -np.pi * 0.019866 * 10000 * k**2
    ctf = (-np.sqrt(1 - 0.01**2) * np.sin(phase) + 0.01 * np.cos(phase)) * np.exp(-(k**2))
    for i in range(COUNT):
        rotated = points @ Rotation.from_quat(quaternions[i]).as_matrix()  # BioEM turns the other way
        at = np.floor(rotated[:, :2] / PIXEL + BOX / 2 + 0.5).astype(int)
        image = np.zeros((BOX, BOX))
        np.add.at(image, (at[:, 0], at[:, 1]), 7.0)  # array axis 0 is x
        image = np.roll(np.fft.irfft2(np.fft.rfft2(image) * ctf, s=(BOX, BOX)), (i - 2, 1), (0, 1))
        images.append(image + rng.normal(size=image.shape) * image.std() * 1.5)
    np.save(tmp_path / "p.npy", np.array(images, np.float32))
    (tmp_path / "Param_Input").write_text(PARAMETERS)
    return tmp_path


def command(folder: Path, *more: str) -> list[str]:
    models = [f"{name}={folder / name}" for name in ("straight", "bent")]
    return [
        "likelihood", str(folder / "Param_Input"), "--images", str(folder / "p.npy"),
        "--structure", models[0], "--structure", models[1], "--orientations", str(folder / "quats"),
        "-o", str(folder / "out.zarr"), "--cluster", "threads", *more,
    ]  # fmt: skip


def test_parameter_file_of_bioem_as_it_is(folder: Path) -> None:
    assert run(command(folder, "--files", "csv,star,bioem")) == 0
    ds = cd.open_result(folder / "out.zarr").load()
    assert (ds.log_likelihood[0] > ds.log_likelihood[1]).all()
    np.testing.assert_array_equal(ds.best_template[0], np.arange(COUNT))
    np.testing.assert_allclose(ds.displacement_x[0], PIXEL * (np.arange(COUNT) - 2.0))
    np.testing.assert_allclose(ds.displacement_y[0], PIXEL)
    assert ds.best_defocus.values[0] == pytest.approx(np.full(COUNT, 10000.0), abs=5001)
    assert set(np.unique(ds.best_amplitude).astype(float).round(3)) <= {0.01, 0.207, 0.404}
    assert (ds.scale[0] > 0).all()
    assert ds.top_template.shape == (2, 2, COUNT)
    np.testing.assert_array_equal(ds.top_template[0, 0], np.arange(COUNT))
    text = (folder / "out_straight_Output_Probabilities").read_text()
    values = [float(v) for v in re.findall(r"RefMap: \d+ LogProb: +(\S+)", text)]
    np.testing.assert_allclose(values, ds.log_likelihood[0] + np.log(0.5), rtol=1e-5)
    best = re.findall(r"Maximizing Param: (.*)", text)
    quaternion = np.array([float(v) for v in re.findall(r"(\S+) \[\]", best[4])[:4]])
    expected = np.loadtxt(folder / "quats", skiprows=1)[3]
    np.testing.assert_allclose(quaternion * np.sign(quaternion @ expected), expected, atol=1e-5)
    angles = (folder / "out_straight_ANG_PROB").read_text().splitlines()
    assert len([line for line in angles if re.match(r" \d+ ", line)]) == 2 * COUNT


def test_integral_over_ctfs_is_the_sum_over_single_ones(folder: Path) -> None:
    """BioEM 2.1's priors: the envelope's exponent is subtracted, those of defocus and amplitude are added."""
    assert run(command(folder, "--keep", "likelihood")) == 0
    whole = cd.open_result(folder / "out.zarr").log_likelihood.values
    terms, weights = [], []
    for defocus in 0.5 + np.arange(4) * 0.5:
        for b in (2.0, 151.0):
            for amplitude in 0.01 + np.arange(3) * 0.197:
                text = PARAMETERS.replace("0.5 2.5 4", f"{defocus} {defocus} 1")
                text = text.replace("2.0 300. 2", f"{b} {b} 1")
                text = text.replace("0.01 0.601 3", f"{amplitude} {amplitude} 1")
                (folder / "Param_Input").write_text(text)
                assert run(command(folder, "--keep", "likelihood", "--overwrite")) == 0
                terms.append(cd.open_result(folder / "out.zarr").log_likelihood.values)
                weights.append(
                    -(b**2) / (2 * 50**2) + (defocus - 1) ** 2 / (2 * 0.4**2) + amplitude**2 / (2 * 0.5**2)
                )
    log_weights = np.array(weights) - np.logaddexp.reduce(weights)
    expected = np.logaddexp.reduce(np.array(terms) + log_weights[:, None, None], axis=0)
    np.testing.assert_allclose(whole, expected, rtol=0, atol=5e-3)


BAD = [
    (("CTF_B_ENV 2.0 300. 2\n", ""), "Param_Input: CTF_B_ENV is missing"),
    (("USE_QUATERNIONS", "USE_PSF"), "line 5: USE_PSF: not supported; give CTF_B_ENV, CTF_DEFOCUS and"),
    (
        ("DISPLACE_CENTER 4 1", "DISPLACE_CENTRE 4 1"),
        "unknown keyword DISPLACE_CENTRE (did you mean",
    ),
    (("CTF_DEFOCUS 0.5 2.5 4", "CTF_DEFOCUS 0.5 2.5"), "line 7: CTF_DEFOCUS: expected 3 numbers"),
    (("NUMBER_PIXELS 48", "NUMBER_PIXELS 64"), "box = 64: the images have 48 pixels"),
    (("DISPLACE_CENTER 4 1", "DISPLACE_CENTER 30 1"), "max_displacement_pixels = 30: expected 0 <= x < 24"),
    (("USE_QUATERNIONS", "USE_QUATERNIONS\nPRIOR_ANGLES"), "quats line 2: expected 5 numbers, found 4"),
]


@pytest.mark.parametrize(("change", "message"), BAD, ids=[message[:24] for _, message in BAD])
def test_wrong_keywords_are_one_line(
    folder: Path, capsys: Any, change: tuple[str, str], message: str
) -> None:
    (folder / "Param_Input").write_text(PARAMETERS.replace(*change))
    assert run(command(folder)) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert error.count("\n") == 0
    assert not list(folder.glob("*.zarr"))


@pytest.mark.acceptance
def test_tutorial_of_bioem(shared_data: Path, tmp_path: Path) -> None:
    """MODEL_1 wins by 616.4 nats within 5 %: BioEM's 20 tutorial images, 576 orientations, one CTF."""
    data = shared_data / "likelihood"
    with np.load(data / "bioem_20_particles.npz") as file:
        np.save(tmp_path / "p.npy", file["images"])
    text = (data / "bioem_Param_ModelComparison.txt").read_text()
    for grid, one in (("2.0 300. 4", "2 2 1"), ("0.5 4.5 8", "2.8 2.8 1"), ("0.01 0.601 5", "0.1 0.1 1")):
        assert grid in text
        text = text.replace(grid, one)
    (tmp_path / "Param").write_text(text)
    models = [f"{name}={data / f'bioem_{name}.txt.gz'}" for name in ("MODEL_1", "MODEL_2")]
    words = [
        "likelihood", str(tmp_path / "Param"), "--images", str(tmp_path / "p.npy"),
        "--orientations", str(data / "bioem_quat_576.txt"), "-o", str(tmp_path / "out.zarr"),
        "--cluster", "threads",
    ]  # fmt: skip
    assert run([*words, "--structure", models[0], "--structure", models[1]]) == 0
    found = cd.open_result(tmp_path / "out.zarr").load()
    lead = found.log_likelihood.values[0] - found.log_likelihood.values[1]
    assert lead.sum() == pytest.approx(616.4, rel=0.05)
    assert (lead > 0).sum() >= 18
    assert (found.correlation > 0).all()
