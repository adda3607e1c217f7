"""Maps of atomic models: PDB and mmCIF to density on a grid, by gemmi.

Electron form factors of each element, with B-factors; the density is drawn broadened, so that no atom is
narrower than the grid, and sharpened again in Fourier space.
"""

import math
import os
from pathlib import Path

import numpy as np
import scipy.fft

from cryodask.errors import InputError
from cryodask.io.files import require_exists
from cryodask.optics.frequency import half_frequencies

# B of a Gaussian that a grid of one voxel holds well, voxels^2 (gemmi's rule at 1.5 samples a resolution).
BLUR = 8.0 * math.pi**2 * 0.7**2


def model_map(
    path: str | os.PathLike[str],
    *,
    box: int,
    voxel_size: float,
    b_factor_scaling: float = 1.0,
    additional_b_factor: float = 0.0,
    keep_hydrogens: bool = True,
) -> np.ndarray:
    """Return the density of an atomic model, its centre of atoms at voxel box//2.

    Parameters
    ----------
    path
        PDB or mmCIF, perhaps gzipped; the first model.
    box
        Edge n, voxels.
    voxel_size
        Angstrom.
    b_factor_scaling, additional_b_factor
        The B-factor used is (B · scaling + additional)/4, as ttsim3d and cisTEM take it, angstrom^2.
    keep_hydrogens
        Draw hydrogens too.

    Returns
    -------
    numpy.ndarray
        (n, n, n) float32, (z, y, x), positive where atoms are.

    Raises
    ------
    InputError
        No such file, no atoms, or atoms beyond the box.
    """
    import gemmi

    path = require_exists(path)
    try:
        model = gemmi.read_structure(str(path))[0]
    except (RuntimeError, ValueError, IndexError) as error:
        raise InputError(f"{path.name}: expected a PDB or mmCIF model, {error}") from None
    if not keep_hydrogens:
        model.remove_hydrogens()
    atoms = [atom for chain in model for residue in chain for atom in residue]
    if not atoms:
        raise InputError(f"{path.name}: no atoms")
    places = np.array([atom.pos.tolist() for atom in atoms])
    _check_fits(path, places, box * voxel_size)
    shift = box // 2 * voxel_size - places.mean(axis=0)
    for atom, place in zip(atoms, places + shift, strict=True):
        atom.pos = gemmi.Position(*place)
        atom.b_iso = 0.25 * (atom.b_iso * b_factor_scaling + additional_b_factor)
        atom.aniso = gemmi.SMat33f(0, 0, 0, 0, 0, 0)
    calculator = gemmi.DensityCalculatorE()
    edge = box * voxel_size
    calculator.grid.set_unit_cell(gemmi.UnitCell(edge, edge, edge, 90, 90, 90))
    calculator.grid.set_size(box, box, box)
    calculator.blur = BLUR * voxel_size**2
    calculator.add_model_density_to_grid(model)
    drawn = np.asarray(calculator.grid.array, np.float32).transpose(2, 1, 0)
    return _sharpened(drawn, calculator.blur, voxel_size)


def _check_fits(path: Path, places: np.ndarray, edge: float) -> None:
    reach = float(np.abs(places - places.mean(axis=0)).max())
    if 2 * reach >= edge:
        raise InputError(
            f"{path.name}: the model reaches {reach:.0f} angstrom from its centre, the box {edge / 2:.0f}; "
            "enlarge template_model.box"
        )


def _sharpened(drawn: np.ndarray, blur: float, voxel_size: float) -> np.ndarray:
    kz, ky, kx = half_frequencies((drawn.shape[0], drawn.shape[1], drawn.shape[2]), voxel_size)
    k2 = kz**2 + ky**2 + kx**2
    nyquist = (0.5 / voxel_size) ** 2
    gain = np.exp(0.25 * blur * np.minimum(k2, nyquist)) * (k2 <= nyquist)
    return scipy.fft.irfftn(scipy.fft.rfftn(drawn) * gain.astype(np.float32), drawn.shape).astype(np.float32)
