"""The template of a search: read, checked, made symmetric proof of, with random phases if asked for."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import scipy.fft
from scipy import ndimage
from scipy.spatial.transform import Rotation

from cryodask.errors import InputError
from cryodask.io import volume
from cryodask.io.files import require_exists
from cryodask.jobs.micrograph_matching.config import MatchConfig
from cryodask.optics.frequency import half_frequencies

MODEL_SUFFIXES = (".pdb", ".ent", ".cif", ".mmcif")
LEAST_SYMMETRY = 0.8
# Symmetry shows at low resolution: larger volumes are thinned.
LARGEST_TESTED = 96
HEADER_TOLERANCE = 0.005
PHASE_STREAM = 17
# Of a 5-fold axis of an icosahedron with 2-folds on x, y and z.
FIVE_FOLD = (0.5257311121, 0.8506508084)


def is_model(path: str) -> bool:
    """Say whether a template is an atomic model."""
    name = Path(path).name.lower().removesuffix(".gz")
    return name.endswith(MODEL_SUFFIXES)


def read_template(config: MatchConfig) -> tuple[np.ndarray, float]:
    """Return the template (n, n, n) float32 and its voxel size, angstrom.

    Raises
    ------
    InputError
        No such file, no cube, an odd edge, no density, or a header that says another voxel size.
    """
    source, path = config.source, config.template_volume_path
    given = config.cryodask.template_pixel_size
    voxel_size = given if isinstance(given, float) else config.optics_group.pixel_size
    with source.placed("template_volume_path"):
        require_exists(path)
        if is_model(path):
            return _model_map(config, voxel_size), voxel_size
        header = volume.read_header(path)
        _check_cube(Path(path).name, header.shape)
        values = volume.read_volume(path)
        check_template(Path(path).name, values)
    stored = header.voxel_size
    if given == "same" and stored is not None and abs(stored / voxel_size - 1) > HEADER_TOLERANCE:
        raise source.error(
            f"template_volume_path: {Path(path).name} has voxels of {stored:g} angstrom, the image pixels of "
            f"{voxel_size:g}; set cryodask.template_pixel_size to {stored:g} or to ignore_header"
        )
    return values, voxel_size


def check_template(name: str, values: np.ndarray) -> None:
    """Refuse a template that is no even cube, has voxels that are no numbers, or no variance."""
    _check_cube(name, values.shape)
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        raise InputError(
            f"{name}: {len(bad)} voxels are not finite, the first at (z, y, x) = {tuple(bad[0].tolist())}"
        )
    if not values.std(dtype=np.float64) > 0:
        raise InputError(f"{name}: template has no variance")


def _check_cube(name: str, shape: tuple[int, ...]) -> None:
    if len(set(shape)) != 1:
        raise InputError(f"{name}: template of {' x '.join(map(str, shape))}, expected a cube")
    if shape[0] % 2:
        raise InputError(f"{name}: template of edge {shape[0]}, expected an even edge")


def _model_map(config: MatchConfig, voxel_size: float) -> np.ndarray:
    from cryodask.io.model_map import model_map

    settings = config.cryodask.template_model
    if settings is None:
        raise InputError("an atomic model needs cryodask.template_model: {box: EDGE}")
    return model_map(
        config.template_volume_path,
        box=settings.box,
        voxel_size=voxel_size,
        b_factor_scaling=settings.b_factor_scaling,
        additional_b_factor=settings.additional_b_factor,
    )


def randomized_phases(values: np.ndarray, cuton: float, seed: int) -> np.ndarray:
    """Return the volume with random phases of all coefficients with |k| >= cuton, moduli kept.

    Parameters
    ----------
    values
        (z, y, x).
    cuton
        Cycles per voxel.
    seed
        Fixes the phases.
    """
    sequence = np.random.SeedSequence([seed, PHASE_STREAM])
    noise = np.random.Generator(np.random.Philox(sequence)).standard_normal(values.shape, dtype=np.float32)
    white, spectrum = scipy.fft.rfftn(noise), scipy.fft.rfftn(values.astype(np.float32))
    length = np.abs(white)
    random = np.abs(spectrum) * np.divide(white, length, out=np.ones_like(white), where=length > 0)
    kz, ky, kx = half_frequencies((values.shape[0], values.shape[1], values.shape[2]), 1.0)
    chosen = kz**2 + ky**2 + kx**2 >= cuton**2
    return scipy.fft.irfftn(np.where(chosen, random, spectrum), values.shape).astype(np.float32)


def check_symmetry(config: MatchConfig, values: np.ndarray) -> None:
    """Refuse a template that does not have the symmetry that the search counts on.

    Raises
    ------
    InputError
        The template turned by a generator correlates with itself by less than 0.8.
    """
    if config.cryodask.assume_symmetry:
        return
    step = max(1, math.ceil(values.shape[0] / LARGEST_TESTED))
    small = ndimage.uniform_filter(values, step)[::step, ::step, ::step] if step > 1 else values
    for group in dict.fromkeys(config.orientation_search_config.groups):
        for name, turns in _generators(group.strip().upper()):
            found = max(_self_correlation(small, turn) for turn in turns)
            if found < LEAST_SYMMETRY:
                raise config.source.error(
                    f"symmetry = {group}: the template turned by {name} correlates with itself by "
                    f"{found:.2f}, below {LEAST_SYMMETRY}; turn its axes, or set "
                    "cryodask.assume_symmetry: true"
                )


def _generators(group: str) -> Iterator[tuple[str, list[Rotation]]]:
    """Yield the name of each generator and the turns any of which will do."""

    def turn(degrees: float, axis: tuple[float, float, float]) -> Rotation:
        unit = np.array(axis) / np.linalg.norm(axis)
        return Rotation.from_rotvec(math.radians(degrees) * unit)

    x, z, diagonal = (1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (1.0, 1.0, 1.0)
    if group[0] in "CD":
        order = int(group[1:])
        if order > 1:
            yield f"{360 / order:g} degrees about z", [turn(360 / order, z)]
        if group[0] == "D":
            yield "180 degrees across z", [turn(180, x), turn(180, (0.0, 1.0, 0.0))]
        return
    fold = 90 if group == "O" else 180
    yield f"{fold} degrees about z", [turn(fold, z)]
    yield f"{fold} degrees about x", [turn(fold, x)]
    yield "120 degrees about (1, 1, 1)", [turn(120, diagonal)]
    if group[0] == "I":  # in either of the two settings with 2-folds on x, y, z
        short, long = FIVE_FOLD
        yield "72 degrees about a 5-fold axis", [turn(72, (0.0, short, long)), turn(72, (short, 0.0, long))]


def _self_correlation(values: np.ndarray, turn: Rotation) -> float:
    n = values.shape[0]
    centre = np.full(3, n // 2)
    inverse = turn.as_matrix().T[::-1, ::-1]
    turned = ndimage.affine_transform(values, inverse, centre - inverse @ centre, order=1)
    axis = np.arange(n) - n // 2
    inside = axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2 < (n // 2 - 1) ** 2
    return float(np.corrcoef(values[inside], turned[inside])[0, 1])
