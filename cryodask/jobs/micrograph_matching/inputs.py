"""From a configuration to checked inputs: files read or measured, grids made, sizes compared."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from cryodask.errors import InputError
from cryodask.geometry.zyz import zyz_matrices
from cryodask.io.files import require_exists
from cryodask.io.image import read_image, read_image_header
from cryodask.jobs.micrograph_matching.binning import Binning, choose_binning
from cryodask.jobs.micrograph_matching.config import MatchConfig
from cryodask.jobs.micrograph_matching.preparation import binned_share, check_image
from cryodask.jobs.micrograph_matching.template import check_symmetry, randomized_phases, read_template

LEAST_SCALE, LARGEST_SCALE = 0.8, 1.25
MOST_HYPOTHESES = 2**32 - 1
# Where 99 % of the template's energy lies this far out, the interpolation without padding shows.
WIDE_RADIUS = 0.28


@dataclass(frozen=True)
class Explicit:
    """Lists given as arrays in place of the configuration's grids.

    Parameters
    ----------
    angles
        (n_o, 3) phi, theta, psi, degrees.
    defoci, pixel_sizes
        Relative, angstrom.
    """

    angles: np.ndarray | None = None
    defoci: np.ndarray | None = None
    pixel_sizes: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class MatchInputs:
    """What a search of one micrograph reads.

    Parameters
    ----------
    config
        The parameters.
    image_shape
        (H, W) pixels.
    template
        (n, n, n) float32, with random phases where they are asked for.
    voxel_size
        Of the template, angstrom.
    angles, defoci, pixel_offsets
        Searched.
    allowed
        (H, W) where a particle's centre may lie; None for everywhere.
    binning
        Ratio of the searched size.
    share
        Of the template's filtered power that the binning keeps.
    notices
        What a user should know before the search.
    is_one_of_many
        Its image is read and checked only when its turn comes.
    """

    config: MatchConfig
    image_shape: tuple[int, int]
    template: np.ndarray
    voxel_size: float
    angles: np.ndarray
    defoci: np.ndarray
    pixel_offsets: np.ndarray
    allowed: np.ndarray | None
    binning: Binning
    share: float = 1.0
    notices: tuple[str, ...] = ()
    is_one_of_many: bool = False
    explicit: Explicit = field(default_factory=Explicit)

    @property
    def box(self) -> int:
        """Edge of the template, voxels."""
        return int(self.template.shape[0])

    @property
    def hypotheses(self) -> int:
        """M, all combinations of orientation, defocus and pixel size."""
        return len(self.angles) * len(self.defoci) * len(self.pixel_offsets)

    @property
    def positions_shape(self) -> tuple[int, int]:
        """(y, x) searched positions."""
        height, width = self.binning.searched_shape
        if self.config.cryodask.crop == "same":
            return height, width
        if self.binning.is_on:  # positions whose template lies inside the unpadded image
            ratio = self.binning.ratio
            height, width = (int(length * ratio) for length in self.image_shape)
        return height - self.binning.searched_box + 1, width - self.binning.searched_box + 1

    @property
    def scales(self) -> np.ndarray:
        """Voxel size of the template over each searched pixel size."""
        if self.config.cryodask.compat:
            return np.full(len(self.pixel_offsets), self.voxel_size / self.config.optics_group.pixel_size)
        return self.voxel_size / (self.config.optics_group.pixel_size + self.pixel_offsets)


def load_inputs(
    config: MatchConfig,
    *,
    explicit: Explicit | None = None,
    is_one_of_many: bool = False,
    templates: "TemplateCache | None" = None,
) -> MatchInputs:
    """Read and check what a configuration names.

    Parameters
    ----------
    config
        The configuration.
    explicit
        Arrays in place of its grids.
    is_one_of_many
        Check the image's header alone.
    templates
        Shared by the configurations of a batch, so that each template is read once.

    Raises
    ------
    InputError
        A wrong file or value, in one line.
    """
    own, source, lists = config.cryodask, config.source, explicit or Explicit()
    shape = _image_shape(config, read_pixels=not is_one_of_many)
    shared = templates or TemplateCache()
    values, voxel_size = shared.get(config)
    if min(shape) < values.shape[0]:
        raise source.error(
            f"micrograph_path: image of {shape[0]} x {shape[1]} is smaller than the template of "
            f"{values.shape[0]}"
        )
    angles = shared.angles(config) if lists.angles is None else _angle_rows(lists.angles)
    defoci = config.defocus_search_config.values(own.compat) if lists.defoci is None else lists.defoci
    pixels = (
        own.pixel_size_search_config.values(own.compat) if lists.pixel_sizes is None else lists.pixel_sizes
    )
    binning = choose_binning(own.bin_to, config.optics_group.pixel_size, values.shape[0], shape)
    inputs = MatchInputs(
        config=config,
        image_shape=shape,
        template=values,
        voxel_size=voxel_size,
        angles=np.asarray(angles, np.float64),
        defoci=np.asarray(defoci, np.float64),
        pixel_offsets=np.asarray(pixels, np.float64),
        allowed=_read_mask(config, shape),
        binning=binning,
        is_one_of_many=is_one_of_many,
        explicit=lists,
    )
    _check_lists(inputs)
    return replace(inputs, share=_share(inputs), notices=_notices(inputs))


class TemplateCache:
    """Templates that are read, checked and changed once for many micrographs, and their angle lists."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[np.ndarray, float]] = {}
        self._angles: dict[str, np.ndarray] = {}

    def angles(self, config: MatchConfig) -> np.ndarray:
        """Return the angle list of a configuration: one array for all micrographs, since it may be long."""
        key = repr(config.orientation_search_config)
        if key not in self._angles:
            self._angles[key] = config.orientation_search_config.angles()
        return self._angles[key]

    def get(self, config: MatchConfig) -> tuple[np.ndarray, float]:
        """Return the template of a configuration, with random phases where asked for, and its voxel size."""
        phases = config.preprocessing_filters.phase_randomization_filter
        groups = config.orientation_search_config.groups
        key = repr(
            (config.template_volume_path, config.cryodask, phases, groups, config.optics_group.pixel_size)
        )
        if key not in self._known:
            values, voxel_size = read_template(config)
            check_symmetry(config, values)
            # Leopard-EM 1.2 reads the setting but never applies it
            if phases.enabled and not config.cryodask.compat:
                values = randomized_phases(values, phases.cuton or 0.0, config.cryodask.seed)
            self._known[key] = values, voxel_size
        return self._known[key]


def _image_shape(config: MatchConfig, *, read_pixels: bool) -> tuple[int, int]:
    path, source = config.micrograph_path, config.source
    with source.placed("micrograph_path"):
        require_exists(path)
        header = read_image_header(path)
        if read_pixels:
            check_image(read_image(path), Path(path).name)
    return header.shape[1], header.shape[2]


def _angle_rows(angles: np.ndarray) -> np.ndarray:
    rows = np.asarray(angles, np.float64)
    if rows.ndim != 2 or rows.shape[1] != 3 or not len(rows):
        raise InputError(f"orientations: shape {rows.shape}, expected (row, 3): phi, theta, psi")
    return rows


def _read_mask(config: MatchConfig, shape: tuple[int, int]) -> np.ndarray | None:
    path = config.cryodask.mask_path
    if path is None:
        return None
    with config.source.placed("cryodask.mask_path"):
        require_exists(path)
        mask = read_image(path) > 0.5
        if mask.shape != shape:
            raise InputError(
                f"{Path(path).name}: mask of {mask.shape[0]} x {mask.shape[1]}, expected "
                f"{shape[0]} x {shape[1]}, the micrograph's"
            )
    return mask


def position_mask(inputs: MatchInputs) -> np.ndarray | None:
    """Return which searched positions (y, x) the mask allows, None where there is no mask.

    Raises
    ------
    InputError
        None at all.
    """
    if inputs.allowed is None:
        return None
    height, width = inputs.image_shape
    rows, columns = (
        np.rint(inputs.binning.centres(np.arange(count))).astype(int) for count in inputs.positions_shape
    )
    found = inputs.allowed[rows % height][:, columns % width]
    if not found.any():
        raise inputs.config.source.error(
            f"cryodask.mask_path: {Path(str(inputs.config.cryodask.mask_path)).name} leaves no position, "
            f"of {found.shape[0]} x {found.shape[1]}"
        )
    return found


def _check_lists(inputs: MatchInputs) -> None:
    source, pixel = inputs.config.source, inputs.config.optics_group.pixel_size
    scales = inputs.scales
    if scales.min() < LEAST_SCALE or scales.max() > LARGEST_SCALE:
        worst = scales[np.argmax(np.abs(np.log(scales)))]
        raise source.error(
            f"pixel size: a template of {inputs.voxel_size:g} angstrom at pixels of {pixel:g} is scaled by "
            f"{worst:.3g}, expected {LEAST_SCALE} to {LARGEST_SCALE}"
        )
    if inputs.hypotheses > MOST_HYPOTHESES:
        raise source.error(f"{inputs.hypotheses} hypotheses, expected fewer than 2^32; use larger steps")
    if min(inputs.positions_shape) < 1:
        raise source.error("cryodask.bin_to: no position is left; search at full size")
    position_mask(inputs)


def _share(inputs: MatchInputs) -> float:
    if not inputs.binning.is_on:
        return 1.0
    config = inputs.config
    return binned_share(
        inputs.template,
        zyz_matrices(inputs.angles),
        config.preprocessing_filters,
        config.optics_group.ctf(zernike_radius=config.cryodask.zernike_radius),
        inputs.binning.ratio,
    )


def _notices(inputs: MatchInputs) -> tuple[str, ...]:
    config = inputs.config
    optics, found = config.optics_group, []
    if optics.defocus_u < optics.defocus_v:
        found.append(
            f"defocus_u = {optics.defocus_u:g} is below defocus_v = {optics.defocus_v:g}: the angle is the "
            "axis of u, the smaller (Leopard-EM takes it for the larger)"
        )
    if config.computational_config.backend != "streamed":
        found.append(f"computational_config.backend = {config.computational_config.backend}: no effect")
    radius = particle_radius(inputs.template) / inputs.box
    if radius > WIDE_RADIUS and config.cryodask.padding == 1:
        found.append(
            f"the particle's radius is {radius:.2f} of the box: projections lose up to 2 % of their "
            "correlation; cryodask.padding: 2 avoids it"
        )
    return tuple(found)


def particle_radius(template: np.ndarray) -> float:
    """Return the radius that holds 99 % of a template's energy, voxels."""
    n = template.shape[0]
    axis = np.square(np.arange(n) - n // 2)
    radius = np.sqrt(axis[:, None, None] + axis[:, None] + axis).astype(np.intp).ravel()
    energy = np.bincount(radius, np.square(template - np.median(template), dtype=np.float64).ravel())
    total = np.cumsum(energy)
    return float(np.searchsorted(total, 0.99 * total[-1]) + 1)
