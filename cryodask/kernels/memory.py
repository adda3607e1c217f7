"""Memory of one task: a tile's spectra, states and scratch."""

from typing import Literal

from cryodask.kernels.fused_layout import Shape, padded

MaskKind = Literal["spherical", "axial", "general"]

# Rotations whose half-done spectra are held between the two passes: more where the state is dear to update.
GROUP = 2
MOMENTS_GROUP = 4
GENERAL_GROUP = 1


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
    states = 8 * (1 + noise_copies) + 16 * moments
    if mask_kind == "general":
        return 8 + 4 * held_spectra(mask_kind, moments=moments) + states
    tile = 4 if mask_kind == "spherical" else 8
    return tile + 4 * held_spectra(mask_kind, moments=moments) + states + 4


def held_spectra(mask_kind: MaskKind, *, moments: bool) -> int:
    """Return how many half-done spectra the fused passes hold at a time, A and B included."""
    if mask_kind == "general":
        return 3 * GENERAL_GROUP
    group = MOMENTS_GROUP if moments else GROUP
    return group + 2 * (mask_kind == "axial")


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
    held = held_spectra(mask_kind, moments=moments)
    planes = 4 * (held + 2) * padded(py) * padded(px)
    per_voxel = 4 + bytes_per_voxel(mask_kind, moments=moments, noise_copies=noise_copies)
    return per_voxel * voxels + columns + planes
