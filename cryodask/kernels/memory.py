"""Memory of one task: a tile's spectra, states and scratch."""

from typing import Literal

from cryodask.kernels.fused_layout import Shape, padded

MaskKind = Literal["spherical", "axial", "general"]

# Rotations whose half-done spectra are held between the two passes: more where the state is dear to update.
GROUP = 2
MOMENTS_GROUP = 4
GENERAL_GROUP = 1


def bytes_per_voxel(mask_kind: MaskKind, *, moments: bool, noise_copies: int) -> int:
    """Return the bytes a task needs for each voxel of a periodic block, beyond the block itself.

    Parameters
    ----------
    mask_kind
        ``spherical``, ``axial`` or ``general``: how often local statistics are made.
    moments
        Sums of the template's scores are kept.
    noise_copies
        Noise templates, each with a state of its own.
    """
    spectra = tile_spectra_held(mask_kind) + held_spectra(mask_kind, moments=moments)
    norm = 4 * (mask_kind != "general")
    return 4 * spectra + 8 * (1 + noise_copies) + 16 * moments + norm


def tile_spectra_held(mask_kind: MaskKind) -> int:
    """Return how many spectra of the tile are held: of its square too, where statistics are made again."""
    return 1 if mask_kind == "spherical" else 2


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
    positions = valid[0] * valid[1] * valid[2]
    per_position = 8 * (1 + noise_copies) + 16 * moments + 4 * (mask_kind != "general")
    held = held_spectra(mask_kind, moments=moments)
    half_plane = 8 * padded(shape[1]) * padded(shape[2] // 2)
    spectra = half_plane * (shape[0] * tile_spectra_held(mask_kind) + valid[0] * held)
    scratch = 128 * box * shape[1] + half_plane * (held + 6)
    return 4 * shape[0] * shape[1] * shape[2] + spectra + scratch + per_position * positions
