"""Memory of one task: a tile's spectra, states and scratch."""

from typing import Literal

from cryodask.kernels.fused_layout import Shape, padded

MaskKind = Literal["spherical", "axial", "general"]

# Spectra of half-done rotations that the fused passes hold at a time: num, and A and B where each has a mask.
HELD = {"spherical": 2, "axial": 2, "general": 3}


def bytes_per_voxel(mask_kind: MaskKind, *, moments: bool, noise_copies: int) -> int:
    """Return the bytes a task needs for each voxel of its block, beyond the block itself.

    Parameters
    ----------
    mask_kind
        ``spherical``, ``axial`` or ``general``: how often local statistics are made.
    moments
        Sums of the template's scores are kept.
    noise_copies
        Noise templates, each with a state of its own.
    """
    spectra = 4 if mask_kind == "spherical" else 8
    norm = 0 if mask_kind == "general" else 4
    return spectra + 4 * HELD[mask_kind] + 8 * (1 + noise_copies) + 16 * moments + norm


def workspace_bytes(
    shape: Shape, valid: Shape, *, box: int, mask_kind: MaskKind, moments: bool, noise_copies: int
) -> int:
    """Return the bytes of a task on one tile: block, spectra, states and scratch.

    Parameters
    ----------
    shape, valid
        (Pz, Py, Px) voxels and (Tz, Ty, Tx) positions.
    box
        Edge n of the template box, voxels.
    mask_kind, moments, noise_copies
        See :func:`bytes_per_voxel`.
    """
    pz, py, px = shape
    voxels = pz * py * max(px, 2 * padded(px // 2))
    columns = 128 * box * py
    planes = 4 * (HELD[mask_kind] + 2) * padded(py) * padded(px)
    per_voxel = 4 + bytes_per_voxel(mask_kind, moments=moments, noise_copies=noise_copies)
    return per_voxel * voxels + columns + planes
