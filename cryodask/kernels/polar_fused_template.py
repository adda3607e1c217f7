"""Displaced spectra of a template in the layout of `polar_fused`, 16 shells at a time.

The transform over the angle of K_d T sqrt(w) for every displacement is what a template costs before the
first image is scored. Real and imaginary parts lie in planes, so that a product of real matrices gives
those of the complex one.
"""

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

from cryodask.kernels.likelihood_form import LikelihoodForm
from cryodask.kernels.simd import LANES, aligned_empty, fill, load, store
from cryodask.kernels.transforms import JIT, ROW, factors, forward, order, stages


@dataclass(frozen=True)
class FusedTemplate:
    """A template in the kernel's layout.

    Parameters
    ----------
    operand : (W/2+1, D, 2 n) float32
        Displaced spectra, real parts first.
    power : (W/4+1, n) complex64
        As `TemplateSpectra.power`.
    offset : (D, W/2, rank) or (1, 1, rank) float32
        As `TemplateSpectra.offset`.
    """

    operand: np.ndarray
    power: np.ndarray
    offset: np.ndarray


def can_fuse_templates(rotations: int, shells: int) -> bool:
    """Say whether there is a transform of this length and a full vector of shells."""
    return bool(factors(rotations)) and shells >= LANES


def planar_phases(phases: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return displacement phases (D, n, W/2) times sqrt(w) as (D, W/2, 2, n) float32, once for all
    templates."""
    moved = np.moveaxis(phases * np.sqrt(weights)[:, None], 2, 1)
    return np.ascontiguousarray(np.stack([moved.real, moved.imag], axis=2), np.float32)


def planar_basis(basis: np.ndarray | None, weights: np.ndarray) -> np.ndarray | None:
    """Return the transforms of the offset basis (rank, n, W/2) for a real product: (W/4+1, 2 n, 2 rank)
    float32."""
    if basis is None:
        return None
    # the FFT over all angles at q = 2 u is twice the real FFT over half of them; the inverse takes that half
    rows = np.conj(np.fft.rfft(basis * np.sqrt(weights)[:, None], axis=-1)).transpose(2, 1, 0)
    upper = np.concatenate([rows.real, rows.imag], axis=2)
    lower = np.concatenate([-rows.imag, rows.real], axis=2)
    return np.ascontiguousarray(np.concatenate([upper, lower], axis=1), np.float32)


def fused_template(
    half_plane: np.ndarray,
    planes: np.ndarray,
    weights: np.ndarray,
    form: LikelihoodForm,
    basis: np.ndarray | None,
) -> FusedTemplate:
    """Prepare one template.

    Parameters
    ----------
    half_plane : (n, W/2) complex64
        The template on half of the angles.
    planes, basis
        From `planar_phases` and `planar_basis`.
    weights : (n,)
    form
        The likelihood.
    """
    shells, half = half_plane.shape
    rows = np.stack([half_plane.real.T, half_plane.imag.T], axis=1).astype(np.float32)
    operand = np.empty((half + 1, len(planes), 2 * shells), np.float32)
    table, twiddles = stages(2 * half)
    _displace(
        rows.reshape(-1), planes.reshape(-1), operand.reshape(-1), len(planes), shells, half,
        order(2 * half), table, twiddles, aligned_empty((2 * half * ROW,)),
    )  # fmt: skip
    w = (2 * weights[:, None]).astype(np.float32)
    power = np.fft.rfft(w * np.abs(half_plane) ** 2, axis=-1).T.astype(np.complex64)
    if form.offset == "exact" and basis is not None:
        products = np.matmul(operand[::2], basis[: len(operand[::2])])
        rank = basis.shape[2] // 2
        spectrum = products[..., :rank] + 1j * products[..., rank:]
        overlaps = np.fft.irfft(spectrum, n=half, axis=0)
        offset = np.ascontiguousarray(overlaps.transpose(1, 0, 2), np.float32)
    elif form.offset == "template":
        offset = (w * half_plane.real).reshape(1, 1, -1)
    else:
        offset = np.zeros((1, 1, 0), np.float32)
    return FusedTemplate(operand, power, offset)


@numba.njit(**JIT)
def _displace(
    rows: Any,
    planes: Any,
    operand: Any,
    displacements: int,
    shells: int,
    half: int,
    place: Any,
    table: Any,
    twiddles: Any,
    line: Any,
) -> None:
    """Transform K_d T over the angle; the second half of the angles is the conjugate of the first."""
    groups = (shells + LANES - 1) // LANES
    step = displacements * 2 * shells
    zero = fill(np.float32(0.0))
    for d in range(displacements):
        for group in range(groups):
            first = min(group * LANES, shells - LANES)  # the last vector overlaps the one before
            for j in range(half):
                at = j * 2 * shells + first
                to = d * half * 2 * shells + at
                tr, ti = load(rows, at), load(rows, at + shells)
                kr, ki = load(planes, to), load(planes, to + shells)
                re, im = tr * kr - ti * ki, tr * ki + ti * kr
                store(line, j * ROW, re)
                store(line, j * ROW + LANES, im)
                store(line, (j + half) * ROW, re)
                store(line, (j + half) * ROW + LANES, zero - im)
            forward(line, 0, table, twiddles)
            for q in range(half + 1):
                source = place[q] * ROW
                to = q * step + d * 2 * shells + first
                store(operand, to, load(line, source))
                store(operand, to + shells, load(line, source + LANES))
