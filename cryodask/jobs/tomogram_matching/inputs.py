"""Everything a match needs, loaded and checked before any work starts."""

import functools
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from cryodask.geometry.euler import rotation_from_euler
from cryodask.geometry.grids import crowther_step, rotation_grid
from cryodask.geometry.symmetry import count_symmetry_mates
from cryodask.io.angles import read_angle_list
from cryodask.io.header import VolumeHeader
from cryodask.io.seeds import Seeds
from cryodask.io.tilts import read_tilts
from cryodask.io.volume import read_header, read_volume
from cryodask.jobs.tomogram_matching.checks import check_files, check_tilts
from cryodask.jobs.tomogram_matching.particle import Particle, Sphere, box_edge, make_particle
from cryodask.jobs.tomogram_matching.seeding import count_rows, load_seeds
from cryodask.jobs.tomogram_matching.settings import SphereMask
from cryodask.optics.bandpass import BandPass
from cryodask.optics.masks import MaskKind, mask_kind
from cryodask.optics.tilts import TiltSeries

if TYPE_CHECKING:
    from cryodask.jobs.tomogram_matching.parameters import MatchParameters

log = logging.getLogger("cryodask")
CONFLICT, DOUBT = 0.01, 0.001


@dataclass(frozen=True, eq=False)
class MatchInputs:
    """The inputs of one match.

    Parameters
    ----------
    parameters
        As the user gave them.
    shape, voxel_size, origin
        (z, y, x) voxels, angstrom, and (z, y, x) in angstrom.
    particle
        Template and mask.
    angles
        (row, 3) phi, theta, psi in degrees, zxz.
    tilts, band
        Tilt series and band-pass; none where not set.
    mask_kind
        What the mask saves.
    name
        The template's name.
    seeds
        What the orientations are searched near, or none.
    others
        The same of further templates, in boxes of the same size.
    """

    parameters: "MatchParameters"
    shape: tuple[int, int, int]
    voxel_size: float
    origin: tuple[float, float, float]
    particle: Particle
    angles: np.ndarray
    tilts: TiltSeries | None
    band: BandPass | None
    mask_kind: MaskKind
    name: str
    seeds: Seeds | None = None
    others: tuple["MatchInputs", ...] = ()

    @property
    def every(self) -> tuple["MatchInputs", ...]:
        """The inputs of each template."""
        return (self, *self.others)

    @functools.cached_property
    def seed_rows(self) -> np.ndarray:
        """How many rotations each seed allows; empty without seeds."""
        return count_rows(self)

    @property
    def tomogram(self) -> str:
        """Path of the tomogram."""
        return self.parameters.locate(self.parameters.tomogram)

    @property
    def particle_diameter(self) -> float:
        """Angstrom: as given, else that of the mask."""
        return self.parameters.particle_diameter or self.particle.diameter * self.voxel_size


def load_inputs(parameters: "MatchParameters") -> MatchInputs:
    """Load and check everything but the tomogram's voxels.

    Raises
    ------
    InputError
        One line naming file, row, field, value and expectation.
    """
    check_files(parameters)
    header = _header(parameters, "tomogram", parameters.tomogram, parameters.level)
    tilts = _load_tilts(parameters)
    check_tilts(parameters, tilts)
    voxel_size = _voxel_size(parameters, header, tilts)
    _check_shapes(parameters, header, tilts)
    rows = list(_one_template_each(parameters))
    particles = [_load_particle(row, voxel_size, header) for row, _ in rows]
    box = max(particle.box for particle in particles)
    found = [
        _template_inputs(row, name, particle.in_box(box), header, voxel_size, tilts)
        for (row, name), particle in zip(rows, particles, strict=True)
    ]
    seeds = load_seeds(parameters, header, voxel_size, tilts)
    # one tomogram has one band: that of the first template, whose Fourier pixels count
    others = tuple(replace(each, band=found[0].band, seeds=seeds) for each in found[1:])
    return replace(found[0], seeds=seeds, others=others)


def _one_template_each(parameters: "MatchParameters") -> Iterator[tuple["MatchParameters", str]]:
    """Yield the parameters and name of each template; the first stands at the top of the parameters too."""
    names: list[str] = []
    for number, entry in enumerate(parameters.templates or (None,)):
        row = parameters
        if entry is not None and number > 0:
            own = entry.model_dump(include={"template", "symmetry"}) | {"mask": entry.mask}
            own["angles"] = entry.angles or parameters.angles
            row = parameters.model_copy(update=own)
        name = (entry.name if entry is not None else None) or Path(row.template).name.split(".")[0]
        if name in names:
            raise parameters.source.error(f"templates: two are named {name}, give them different names")
        names.append(name)
        yield row, name


def _template_inputs(
    parameters: "MatchParameters",
    name: str,
    particle: Particle,
    header: VolumeHeader,
    voxel_size: float,
    tilts: TiltSeries | None,
) -> MatchInputs:
    kind = parameters.mask_kind if parameters.mask_kind != "auto" else mask_kind(particle.mask)
    return MatchInputs(
        parameters=parameters,
        shape=header.shape,
        voxel_size=voxel_size,
        origin=header.origin,
        particle=particle,
        angles=load_angles(parameters, voxel_size, particle),
        tilts=tilts,
        band=_band(parameters, particle, voxel_size),
        mask_kind=kind,
        name=name,
    )


def _header(parameters: "MatchParameters", key: str, name: str, level: int = 0) -> VolumeHeader:
    with parameters.source.placed(key):
        return read_header(parameters.locate(name), level)


def _volume(parameters: "MatchParameters", key: str, name: str) -> np.ndarray:
    with parameters.source.placed(key):
        return read_volume(parameters.locate(name))


def _load_tilts(parameters: "MatchParameters") -> TiltSeries | None:
    given = parameters.tilts
    if given is None:
        return None
    if isinstance(given, str):
        with parameters.source.placed("tilts"):
            tilts = read_tilts(
                parameters.locate(given),
                parameters.tomo_num,
                tomo_name=parameters.tomo_name,
                tilt_column=parameters.tilt_column,
                defocus=_located(parameters, parameters.defocus_file),
                dose=_located(parameters, parameters.dose_file),
                tilt_com=_located(parameters, parameters.tilt_com),
            )
    else:
        tilts = TiltSeries(angles=np.array(given, dtype=np.float64), is_range=True)
    if len(tilts.angles) < 2:
        raise parameters.source.wrong("tilts", given, f"{len(tilts.angles)} tilt, expected 2 or more")
    return tilts.with_sign(parameters.tilt_sign)


def _located(parameters: "MatchParameters", name: str | None) -> str | None:
    return parameters.locate(name) if name else None


def _voxel_size(parameters: "MatchParameters", header: VolumeHeader, tilts: TiltSeries | None) -> float:
    """Take the voxel size from parameters, wedge list or header, and hold these against each other."""
    known = {}
    if parameters.voxel_size:
        known["voxel_size"] = parameters.voxel_size
    if tilts is not None and tilts.voxel_size:
        known["tilt metadata"] = tilts.voxel_size
    elif tilts is not None and tilts.pixel_size:
        known["pixelsize x binning"] = tilts.pixel_size * parameters.binning
    if header.voxel_size:
        known["header"] = header.voxel_size
    if not known:
        name = Path(parameters.tomogram).name
        raise parameters.source.error(f"{name}: {_unknown_size(header)}, set voxel_size")
    (best, value), *others = known.items()
    for word, other in others:
        _compare(parameters, other, word, value, best)
    return value


def _unknown_size(header: VolumeHeader) -> str:
    if header.spacing is None:
        return "voxel size unknown (header 0 or 1)"
    return f"voxels are not cubic ({', '.join(f'{size:g}' for size in header.spacing)} angstrom in z, y, x)"


def _compare(parameters: "MatchParameters", other: float, word: str, value: float, best: str) -> None:
    apart = abs(other - value) / value
    text = f"voxel size {other:.3f} ({word}) contradicts {value:.3f} ({best})"
    if apart > CONFLICT and best != "voxel_size":
        mend = "binning or voxel_size" if "binning" in best else "voxel_size"
        raise parameters.source.error(f"{text}; set {mend} to the right one")
    if apart > DOUBT:
        log.warning("%s%s", parameters.source.place, text)


def _compare_template(parameters: "MatchParameters", header: VolumeHeader, value: float) -> None:
    """Refuse a template of another sampling, unless `voxel_size` says that headers are wrong."""
    name = Path(parameters.template).name
    if header.spacing is not None and header.voxel_size is None:
        raise parameters.source.error(f"{name}: {_unknown_size(header)}, resample it to cubic ones")
    if header.voxel_size is None:
        return
    apart = abs(header.voxel_size - value) / value
    text = f"voxel size {header.voxel_size:.3f} (header of {name}) contradicts {value:.3f} "
    if apart > CONFLICT and not parameters.voxel_size:
        mend = f"resample the template to {value:.3f}, or set voxel_size where the header is wrong"
        raise parameters.source.error(f"{text}(tomogram); {mend}")
    if apart > DOUBT:
        far = f"; the template must be sampled at {value:.3f} too" if apart > CONFLICT else ""
        log.warning("%s%s(tomogram)%s", parameters.source.place, text, far)


def _load_particle(parameters: "MatchParameters", voxel_size: float, tomogram: VolumeHeader) -> Particle:
    header = _header(parameters, "template", parameters.template)
    _compare_template(parameters, header, voxel_size)
    edge = max(header.shape)
    # before anything of that size is read or made
    _check_box(parameters, edge, edge, tomogram)
    mask: np.ndarray | Sphere
    if isinstance(parameters.mask, SphereMask):
        mask = Sphere(parameters.mask.sphere / voxel_size, parameters.mask.edge / voxel_size)
        _check_box(parameters, box_edge(edge, mask.reach), edge, tomogram)
    else:
        mask = _volume(parameters, "mask", parameters.mask)
    template = _volume(parameters, "template", parameters.template)
    particle = make_particle(template, mask, parameters)
    _check_box(parameters, particle.box, edge, tomogram)
    return particle


def _check_box(parameters: "MatchParameters", box: int, given: int, tomogram: VolumeHeader) -> None:
    for axis, size in zip("zyx", tomogram.shape, strict=True):
        if box > size:
            grown = f" (the box grew from {given} for the mask)" if box > given else ""
            raise parameters.source.error(f"template box {box} exceeds tomogram {axis} = {size}{grown}")


def _check_shapes(parameters: "MatchParameters", header: VolumeHeader, tilts: TiltSeries | None) -> None:
    source = parameters.source
    if tilts is not None and tilts.tomogram_shape is not None:
        expected = [size / parameters.binning for size in tilts.tomogram_shape]
        if any(abs(a - b) > 1 for a, b in zip(expected, header.shape, strict=True)):
            sizes = ",".join(f"{size:.0f}" for size in expected)
            found = ",".join(map(str, header.shape))
            log.warning("%sshape %s, the wedge list / binning says %s", source.place, found, sizes)
    if parameters.tomogram_mask:
        mask = _header(parameters, "tomogram_mask", parameters.tomogram_mask).shape
        if mask != header.shape:
            found, expect = ",".join(map(str, mask)), ",".join(map(str, header.shape))
            label = source.label("tomogram_mask")
            raise source.error(f"{label}: shape {found}, expected {expect} (tomogram)")


def _band(parameters: "MatchParameters", particle: Particle, voxel_size: float) -> BandPass | None:
    """Return the band-pass in Fourier pixels of the box as it has grown for the mask."""
    band = parameters.band(particle.given_box, voxel_size)
    grown = particle.box / particle.given_box
    return band if band is None or grown == 1 else band.scaled(grown)


def load_angles(parameters: "MatchParameters", voxel_size: float, particle: Particle) -> np.ndarray:
    """Return the rotation list (row, 3), zxz degrees: read from its file or generated.

    A list from a file is used as it is; where it holds symmetry mates that is noted.
    """
    angles = parameters.angles
    if angles.file is not None:
        with parameters.source.placed("angles.file"):
            found = read_angle_list(parameters.locate(angles.file), angles.order, angles.units)
        if parameters.symmetry != "C1":
            _note_mates(parameters, found)
        return found
    step = angles.step
    if step is None:
        diameter = angles.diameter or parameters.particle_diameter or particle.diameter * voxel_size
        step = crowther_step(diameter, _resolution(parameters, voxel_size, particle), voxel_size)
    return _grid(
        float(step),
        angles.method,
        angles.cone if angles.cone is not None else 180.0,
        angles.inplane_step,
        angles.inplane_range,
        parameters.symmetry,
    )


def _resolution(parameters: "MatchParameters", voxel_size: float, particle: Particle) -> float:
    """Return the finest detail of the search, angstrom: as given, else that of the low-pass."""
    if parameters.angles.resolution or parameters.lowpass:
        return float(parameters.angles.resolution or parameters.lowpass or 0)
    radius = parameters.lp_rad or math.inf
    return max(2.0, particle.given_box / radius) * voxel_size


@functools.lru_cache(maxsize=8)
def _grid(
    step: float,
    method: Literal["healpix", "golden", "rings"],
    cone: float,
    inplane_step: float | None,
    inplane_range: float | None,
    symmetry: str,
) -> np.ndarray:
    return rotation_grid(
        step,
        method=method,
        cone=cone,
        inplane_step=inplane_step,
        inplane_range=inplane_range,
        symmetry=symmetry,
    )


def _note_mates(parameters: "MatchParameters", angles: np.ndarray) -> None:
    mates = count_symmetry_mates(rotation_from_euler(angles), parameters.symmetry, tolerance=0.1)
    if mates:
        text = "%s%d of %d rotations are %s mates of others"
        log.warning(text, parameters.source.place, mates, len(angles), parameters.symmetry)


def viewing_directions(angles: np.ndarray) -> np.ndarray:
    """Number the viewing directions (theta, psi) of the rows: an axial mask is rotated once a direction."""
    axis = rotation_from_euler(angles).apply([0.0, 0.0, 1.0])
    return np.unique(np.round(axis, 6), axis=0, return_inverse=True)[1].reshape(-1)
