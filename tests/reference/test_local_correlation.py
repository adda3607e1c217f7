"""A real ribosome subtomogram: score and angle maps published with cryoCAT."""

from pathlib import Path

import numpy as np
import pytest
import scipy.fft
from scipy.spatial.transform import Rotation

from cryodask.kernels.rotation import rotate, rotate_mask, rotation_coefficients
from cryodask.kernels.template import filter_template, normalise, normalization_mask
from cryodask.kernels.volume_correlation import (
    correlate_general,
    empty_state,
    finish_general,
    tile_spectra,
)

BOX = 48
# Of the subtomogram: phi, theta, psi.
OFFSET = (-0.411447763, 10.59562396, 7.545420765)


def read_em(path: Path) -> np.ndarray:
    return np.frombuffer(path.read_bytes()[512:], "<f4").reshape(BOX, BOX, BOX)


def half_filter(full: np.ndarray) -> np.ndarray:
    mirrored = np.roll(full[::-1, ::-1, ::-1], 1, axis=(0, 1, 2))
    return (0.5 * (full + mirrored))[:, :, : BOX // 2 + 1]


class Case:
    """Inputs of one published map."""

    def __init__(self, folder: Path, target: str, filters: tuple[str, str] | None) -> None:
        self.template = read_em(folder / "bin4_voxel2.176_ribosome.em")
        self.mask = read_em(folder / "mask48_r22.em")
        volume = read_em(folder / target).astype(np.float64)
        volume = volume - volume.mean()
        offset = Rotation.identity()
        self.filter = None
        if filters is not None:
            tile, template = (half_filter(read_em(folder / name)) for name in filters)
            volume = scipy.fft.irfftn(scipy.fft.rfftn(volume) * tile, volume.shape)
            self.filter = template.astype(np.float32)
            offset = Rotation.from_euler("zxz", OFFSET, degrees=True)
        self.volume = (volume / volume.std()).astype(np.float32)
        angles = np.loadtxt(folder / "AGL_anglist_20_deg_c1.csv", delimiter=",")
        rotations = Rotation.from_euler("zxz", angles[:, [0, 2, 1]], degrees=True)
        self.matrices = (rotations * offset).as_matrix()

    def search(self, normalizations, rows=slice(None)):
        """One state for each normalisation, from the same rotated templates and masks."""
        block = np.roll(self.volume, BOX // 2, axis=(0, 1, 2))
        spectra = tile_spectra(block, box=BOX, valid=block.shape, squares=True)
        states = {name: empty_state(block.shape, moments=True) for name in normalizations}
        coefficients = rotation_coefficients(self.template, "linear")
        mask_coefficients = rotation_coefficients(self.mask, "linear")
        for row in range(len(self.matrices))[rows]:
            rotated = rotate(coefficients, self.matrices[row], "linear")
            if self.filter is not None:
                rotated = filter_template(rotated, self.filter)
            rotated_mask = rotate_mask(mask_coefficients, self.matrices[row])
            for name, state in states.items():
                mask = normalization_mask(rotated_mask, name)
                u, count = normalise(rotated, mask, normalization=name)
                correlate_general(spectra, u[None], mask[None], [count], [row], state)
        for state in states.values():
            finish_general(state)
        return states


TARGETS = {
    "id_0": ("bin4_voxel2.176_ribosome.em", None),
    "id_2": (
        "subtomo_ribosome_mmotl_ribosome_b4_trim_shift_t126_t126_b4_s48.em",
        ("tile_filt_48_t126_b4_f24.em", "tmpl_filt_48_t126_b4_f24.em"),
    ),
}


@pytest.fixture(scope="module")
def folder(shared_data):
    return shared_data / "tomogram_matching" / "local_correlation"


@pytest.fixture(scope="module", params=list(TARGETS))
def found(request, folder):
    case = Case(folder, *TARGETS[request.param])
    return request.param, case, case.search(["support", "weighted"])


def test_support_scores_and_rows_are_the_published_ones(folder, found):
    name, _, states = found
    score = np.clip(states["support"]["value"], 0.0, None)
    np.testing.assert_allclose(score, read_em(folder / f"{name}_scores.em"), atol=1e-6)
    np.testing.assert_array_equal(states["support"]["id"] + 1, read_em(folder / f"{name}_angles.em"))
    peak, position = {"id_0": (1.0, (24, 24, 24)), "id_2": (0.147959, (20, 25, 25))}[name]
    assert np.unravel_index(score.argmax(), score.shape) == position
    assert score.max() == pytest.approx(peak, abs=1e-6)
    assert states["support"]["id"][position] == 0


def test_weighted_peaks_and_their_zscores(found):
    name, case, states = found
    state = states["weighted"]
    best = np.unravel_index(state["value"].argmax(), state["value"].shape)
    mean = state["sum"][best] / len(case.matrices)
    spread = np.sqrt(state["square_sum"][best] / len(case.matrices) - mean**2)
    peak, zscore = {"id_0": (1.0, 11.359), "id_2": (0.142038, 10.344)}[name]
    assert state["value"][best] == pytest.approx(peak, abs=1e-6)
    assert (state["value"][best] - mean) / spread == pytest.approx(zscore, abs=1e-3)


def test_product_peak(folder):
    state = Case(folder, *TARGETS["id_2"]).search(["product"], rows=slice(0, 1))["product"]
    assert state["value"].max() == pytest.approx(0.146909, abs=1e-6)
