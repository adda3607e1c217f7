"""The preparation of a stack on the cluster: working images, decoys, and the basis of both."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from cryodask.arrays.npy import load_npy
from cryodask.errors import InputError
from cryodask.io.image_stacks import ImagePlaces
from cryodask.jobs.classify import preparation
from cryodask.jobs.classify.frc import half_shells
from cryodask.jobs.classify.model import Model
from cryodask.jobs.classify.parameters import ClassifyParameters
from cryodask.jobs.classify.preparation import WorkingShape
from cryodask.jobs.classify.randomness import Purpose, lowest_hashes, normal_images
from cryodask.jobs.classify.shards import Images
from cryodask.kernels.polar import PolarGrid
from cryodask.kernels.polar_correlation import AngleTable
from cryodask.kernels.steerable import EDGE, Basis, covariance_sum, make_basis
from cryodask.optics.ctf_image import ImageCtf, ctf_image
from cryodask.search.rounds import Rounds

FREQUENCIES, ANGLES = 24, 48
EXACT_ANGLES = 256
BAR_ANGLES, BAR_WIDEST = 180, 4  # steps of 2 degrees, 8 to either side, and what the refinement adds
FINE_RADIUS, SAMPLES, FINE_SAMPLES = 40, 128, 256
MOST_FOR_BASIS = 100_000
LEAST_DECOYS, MOST_DECOYS = 400, 2000
LEAST_AMPLITUDE = 1e-6  # of the largest, below which a ring is not raised further
DEVIANT = 3.0  # times, or a third of, the median standard deviation of the group


@dataclass(frozen=True)
class RawStack:
    """What tasks need of the input.

    Parameters
    ----------
    places : ImagePlaces
    optics : tuple of ImageCtf, or None
        One an image; None without CTF.
    group : (n,) int
        Optics group of each image, from 0.
    shape : WorkingShape
    sign : int
        -1 where the particles are dark.
    axis : (n,) radians, or None
        Of the filament in each image, from x to y.
    keep_sides : bool
        Leave what lies beside filaments as it is.
    amplitude : (shells,) float64 or None
        Factor of each ring of the spectrum, for phase-plate data.
    """

    places: ImagePlaces
    optics: tuple[ImageCtf, ...] | None
    group: np.ndarray
    shape: WorkingShape
    sign: int
    axis: np.ndarray | None = None
    keep_sides: bool = False
    amplitude: np.ndarray | None = None

    def take(self, rows: np.ndarray | slice) -> "RawStack":
        """Return some images."""
        optics = None if self.optics is None else tuple(np.array(self.optics, object)[rows])
        axis = None if self.axis is None else self.axis[rows]
        return replace(self, places=self.places.take(rows), optics=optics, group=self.group[rows], axis=axis)

    def backgrounds_removed(self, first: int = 0) -> np.ndarray:
        """Read the images, bright on dark, less their background; `first` is the row of the first."""
        images = self.places.read()
        _check_finite(images, first)
        return preparation.centred_background(images * np.float32(self.sign), self.shape)

    def transfer(self) -> np.ndarray:
        """Return the transfer functions (n, y, x//2 + 1) float32; one computation for equal optics."""
        assert self.optics is not None
        box = self.shape.box
        made: dict[ImageCtf, np.ndarray] = {}
        for each in self.optics:
            if each not in made:
                made[each] = ctf_image((box, box), each).astype(np.float32)
        return np.stack([made[each] for each in self.optics])


def _check_finite(images: np.ndarray, first: int) -> None:
    bad = np.argwhere(~np.isfinite(images))
    if len(bad):
        image, y, x = bad[0]
        raise InputError(
            f"images: {len(bad)} NaN or infinite pixels, first at (image {first + image + 1}, y {y}, x {x})"
        )


def optics_of(table: pd.DataFrame, pixel_size: float) -> tuple[ImageCtf, ...]:
    """Return the contrast transfer of each row of a particle table."""
    names = ["defocus_u", "defocus_v", "defocus_angle", "voltage", "cs", "amplitude_contrast", "phase_shift"]
    values = table[[*names, "b_factor"]].copy()
    for name, value in {"defocus_angle": 0.0, "phase_shift": 0.0, "b_factor": 0.0}.items():
        values[name] = values[name].fillna(value)
    return tuple(
        ImageCtf(
            pixel_size=pixel_size,
            defocus_u=u,
            defocus_v=v,
            astigmatism_angle=angle,
            voltage=voltage,
            spherical_aberration=cs,
            amplitude_contrast=contrast,
            phase_shift=phase,
            b_factor=b,
        )
        for u, v, angle, voltage, cs, contrast, phase, b in values.to_numpy(np.float64)
    )


@dataclass(frozen=True)
class Prepared:
    """A prepared stack.

    Parameters
    ----------
    particles, decoys : Images
    usable : (n,) bool
        False where the noise around a particle is out of the ordinary.
    contrast : float
        Mean within the particle less that outside, over all images; below 0 where particles are dark.
    """

    particles: Images
    decoys: Images
    usable: np.ndarray
    contrast: float


def prepare(
    raw: RawStack,
    particles: Images,
    parameters: ClassifyParameters,
    rounds: Rounds,
    tell: Callable[[str], None],
) -> Prepared:
    """Write working images and decoys, chunk by chunk; chunks that are there are not made again."""
    groups = int(raw.group.max()) + 1
    spans = [slice(k * particles.chunk, (k + 1) * particles.chunk) for k in range(particles.chunks)]
    if parameters.vpp:
        raw = replace(raw, amplitude=_amplitude(raw, spans, rounds))
    tasks = [(particles, k, raw.take(span), span.start, groups) for k, span in enumerate(spans)]
    totals, contrast = np.zeros((groups, len(_shells(raw.shape)) + 1)), 0.0
    for sums, inside in rounds.each(_resample_chunk, tasks):
        totals, contrast = totals + sums, contrast + inside
    power = totals[:, 1:] / np.maximum(totals[:, :1], 1)
    whitening = power if parameters.whiten_noise else None
    by_image = parameters.compat is not None
    masked = raw.axis is not None and not raw.keep_sides
    finish = [
        (particles, k, raw.shape, raw.group[span], whitening, masked, by_image)
        for k, span in enumerate(spans)
    ]
    deviation = np.concatenate(rounds.map(_whiten_chunk, finish))
    usable = _scale_particles(particles, raw.group, deviation, tell, by_image)
    decoys = _make_decoys(
        particles, raw, None if parameters.whiten_noise else power, parameters.seed, by_image
    )
    return Prepared(particles, decoys, usable, contrast / particles.count)


def _amplitude(raw: RawStack, spans: list[slice], rounds: Rounds) -> np.ndarray:
    """Return the inverse of the mean amplitude of all images in each ring, 1 at the origin."""
    total: np.ndarray | float = 0.0
    for sums in rounds.each(_amplitude_sum, [(raw.take(span), span.start) for span in spans]):
        total = total + sums
    mean = np.asarray(total) / len(raw.group)
    return np.append(1.0, 1 / np.maximum(mean[1:], LEAST_AMPLITUDE * mean[1:].max()))


def _amplitude_sum(raw: RawStack, first: int) -> np.ndarray:
    return preparation.ring_amplitudes(raw.backgrounds_removed(first)).sum(axis=0)


def _shells(shape: WorkingShape) -> np.ndarray:
    return np.arange(half_shells(shape.working_box).max() + 1)


def _resample_chunk(
    images: Images, chunk: int, raw: RawStack, first: int, groups: int
) -> tuple[np.ndarray, float]:
    """Write a chunk of resampled images; return counts and noise power of each group, and the contrast."""
    summary = images.path(chunk, "_power")
    if not summary.exists():
        values = raw.backgrounds_removed(first)
        inside = float(values[:, ~raw.shape.background].mean(axis=1, dtype=np.float64).sum())
        if raw.optics is not None:
            values = preparation.flipped(values, raw.transfer())
        if raw.amplitude is not None:
            values = preparation.amplified(values, raw.amplitude)
        values = preparation.resampled(values, raw.shape)
        if raw.axis is not None:
            values = preparation.turned_along(values, raw.axis)
        power = preparation.noise_power(values, raw.shape)
        sums = np.zeros((groups, power.shape[1] + 1))
        np.add.at(sums[:, 0], raw.group, 1)
        np.add.at(sums[:, 1:], raw.group, power)
        images.write(chunk, values, "_resampled")
        images.write(chunk, np.append(sums.ravel(), inside), "_power")
    found = load_npy(summary)
    return found[:-1].reshape(groups, -1), float(found[-1])


def _whiten_chunk(
    images: Images,
    chunk: int,
    shape: WorkingShape,
    group: np.ndarray,
    power: np.ndarray | None,
    masked: bool,
    by_image: bool,
) -> np.ndarray:
    """Write a chunk of working images; return the standard deviation of the noise of each."""
    record = images.path(chunk, "_deviation")
    if not record.exists():
        values = load_npy(images.path(chunk, "_resampled"))
        if power is not None:
            for number in np.unique(group):
                values[group == number] = preparation.whitened(values[group == number], power[number])
        level = preparation.levelled_inside if by_image else preparation.levelled
        values, deviation = level(values, shape)
        images.write(chunk, np.where(shape.rectangle, values, 0) if masked else values)
        images.write(chunk, deviation, "_deviation")
    images.path(chunk, "_resampled").unlink(missing_ok=True)
    return load_npy(record)


def _scale_particles(
    images: Images, group: np.ndarray, deviation: np.ndarray, tell: Callable[[str], None], by_image: bool
) -> np.ndarray:
    """Write the factor to unit noise of each group, and return which images have ordinary noise."""
    scale, usable = np.ones(len(group), np.float32), np.ones(len(group), bool)
    for number in np.unique(group):
        own = group == number
        median = float(np.median(deviation[own & (deviation > 0)])) if (deviation[own] > 0).any() else 0.0
        if median == 0:
            raise InputError("images: all are constant around the particle, expected noise there")
        usable[own] = (deviation[own] > median / DEVIANT) & (deviation[own] < median * DEVIANT)
        scale[own] = 1 / np.sqrt(np.square(deviation[own & usable]).mean())
    if by_image:
        scale = (1 / np.where(deviation > 0, deviation, 1)).astype(np.float32)
    if not usable.all():
        rows = np.flatnonzero(~usable) + 1
        tell(
            f"{len(rows)} images go to junk: the noise around them is over 3 times or below a third of their "
            f"optics group's (rows {', '.join(map(str, rows[:5]))}{' ..' if len(rows) > 5 else ''})"
        )
    images.publish("scale", scale)
    return usable


def _make_decoys(
    particles: Images, raw: RawStack, power: np.ndarray | None, seed: int, by_image: bool
) -> Images:
    """Write images of noise alone that went through what particles went through."""
    count = max(LEAST_DECOYS, min(particles.count, MOST_DECOYS))
    decoys = replace(particles, name="decoys", count=count)
    noise = normal_images(count, raw.shape.working_box, seed, Purpose.DECOY)
    group = raw.group[(np.arange(count) * particles.count // count) % particles.count]
    if power is not None:
        noise = np.stack(
            [preparation.coloured(n[None], power[g])[0] for n, g in zip(noise, group, strict=True)]
        )
    level = preparation.levelled_inside if by_image else preparation.levelled
    noise, deviation = level(noise, raw.shape)
    scale = np.ones(count, np.float32)
    for number in np.unique(group):
        scale[group == number] = 1 / np.sqrt(np.square(deviation[group == number]).mean())
    if by_image:
        scale = (1 / deviation).astype(np.float32)
    if raw.axis is not None and not raw.keep_sides:
        noise = np.where(raw.shape.rectangle, noise, 0)
    for k in range(decoys.chunks):
        decoys.write(k, noise[k * decoys.chunk : (k + 1) * decoys.chunk])
    decoys.publish("scale", scale)
    return decoys


def make_grid(parameters: ClassifyParameters) -> PolarGrid:
    """Return the rings of the working images."""
    radius, exact = parameters.target_radius, parameters.search == "exact"
    samples = FINE_SAMPLES if radius > FINE_RADIUS or exact else SAMPLES
    frequencies = min(int(np.pi * radius), samples // 2) + 1 if exact else FREQUENCIES
    return PolarGrid(parameters.ir, radius, parameters.rs, samples, frequencies)


def write_model(
    prepared: Prepared, centres: np.ndarray, parameters: ClassifyParameters, rounds: Rounds
) -> Model:
    """Make the basis of images about their centres, and write the model that all tasks read."""
    grid, images = make_grid(parameters), prepared.particles
    usable = np.flatnonzero(prepared.usable)
    chosen = np.sort(lowest_hashes(usable, MOST_FOR_BASIS, parameters.seed, Purpose.BASIS_SAMPLE))
    signal = _covariance(images, grid, chosen, centres[chosen], rounds)
    everyone = np.arange(prepared.decoys.count)
    noise = _covariance(prepared.decoys, grid, everyone, np.zeros((len(everyone), 2), np.float32), rounds)
    exact = parameters.search == "exact"
    basis = make_basis(signal, noise, len(chosen), edge=-np.inf if exact else EDGE)
    if parameters.filter == "tanh":
        basis = Basis(basis.starts, basis.profiles, np.ones_like(basis.weights))
    table = AngleTable(EXACT_ANGLES if exact else ANGLES, grid.frequencies)
    bar = 0.0
    if parameters.filament_width > 0:
        bar = parameters.filament_width * parameters.rho
        table = AngleTable(BAR_ANGLES, grid.frequencies, widest=BAR_WIDEST)
    model = Model(grid, basis, table, parameters.working_box, parameters.FH, parameters.FF, bar)
    model.write(Path(images.folder) / images.model_name)
    return model


def _covariance(
    images: Images, grid: PolarGrid, indices: np.ndarray, centres: np.ndarray, rounds: Rounds
) -> np.ndarray:
    tasks = [(images, grid, indices[part], centres[part]) for _, part in images.parts(indices)]
    total: np.ndarray | float = 0.0
    for sums in rounds.each(_covariance_chunk, tasks):
        total = total + sums
    return np.asarray(total) / len(indices)


def _covariance_chunk(
    images: Images, grid: PolarGrid, indices: np.ndarray, centres: np.ndarray
) -> np.ndarray:
    return covariance_sum(grid.coefficients(images.read(indices), centres))
