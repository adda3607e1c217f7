"""The first task of a run: the image whitened, filtered and normalised, and the filters of its templates."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import scipy.fft

from cryodask.errors import IncompleteError, InputError
from cryodask.io.image import read_image
from cryodask.jobs.micrograph_matching import constants
from cryodask.jobs.micrograph_matching.binning import (
    Binning,
    crop_image,
    retained_share,
    searched_frequencies,
)
from cryodask.jobs.micrograph_matching.filter_block import PreprocessingFilters
from cryodask.kernels.slices import extract_slices, slice_axes, template_spectrum
from cryodask.optics.ctf_image import ImageCtf, ctf_at, half_plane
from cryodask.optics.image_filters import (
    Curve,
    filter_grid,
    frequency_lengths,
    normalized_image,
    whitening_curve,
)

SAMPLES = 32


@dataclass(frozen=True)
class SearchOptics:
    """The CTF of every hypothesis.

    Parameters
    ----------
    ctf
        At the image's own defocus and pixel size.
    defoci, pixel_offsets
        Searched, angstrom, relative.
    changes_cs
        A pixel size changes Cs alone, as in Leopard-EM 1.2, instead of scaling all frequencies.
    """

    ctf: ImageCtf
    defoci: tuple[float, ...]
    pixel_offsets: tuple[float, ...]
    changes_cs: bool

    def filters(self, shape: tuple[int, int], ratio: float) -> np.ndarray:
        """Return the CTFs (n_p, n_d, n, n//2 + 1) over a box searched at a ratio of the full size."""
        ky, kx = (k * ratio for k in half_plane(shape))
        rows = []
        for offset in self.pixel_offsets:
            ctf, shift = self.ctf, offset
            if self.changes_cs:
                factor = (1.0 + offset / ctf.pixel_size) ** -4
                ctf = replace(ctf, spherical_aberration=ctf.spherical_aberration * factor)
                shift = 0.0
            rows.append([ctf_at(ky, kx, ctf, defocus_offset=d, pixel_offset=shift) for d in self.defoci])
        return np.array(rows)


@dataclass(frozen=True)
class ImagePreparation:
    """How the image of a run is made ready.

    Parameters
    ----------
    path
        The micrograph.
    label
        Place and field for messages.
    filters, optics, binning
        What is applied.
    clip_sigma
        Pixels farther than this many standard deviations from the mean take the mean.
    is_one_of_many
        A micrograph that cannot be used fails alone.
    """

    path: str
    label: str
    filters: PreprocessingFilters
    optics: SearchOptics
    binning: Binning
    clip_sigma: float | None
    is_one_of_many: bool


def prepare_image(folder: Path, preparation: ImagePreparation) -> None:
    """Write the searched image and the template filters; doing it again does nothing.

    Raises
    ------
    InputError
        Pixels that are not finite, or an image without variance.
    IncompleteError
        The same, of one of many micrographs.
    """
    if constants.is_prepared(folder):
        return
    try:
        image = read_image(preparation.path)
        check_image(image, preparation.label)
    except InputError as error:
        if preparation.is_one_of_many:
            raise IncompleteError(str(error)) from None
        raise
    made, whitening = filtered_image(image, preparation.filters, preparation.clip_sigma)
    filters = template_filters(preparation, whitening)
    record = {"whitening": None if whitening is None else whitening.values.tolist()}
    constants.write_prepared(folder, crop_image(made, preparation.binning), filters, record)


def check_image(image: np.ndarray, label: str) -> None:
    """Refuse an image with pixels that are no numbers, or all equal."""
    bad = np.argwhere(~np.isfinite(image))
    if len(bad):
        raise InputError(
            f"{label}: {len(bad)} pixels are not finite, the first at (y, x) = {tuple(bad[0].tolist())}"
        )
    if not image.std(dtype=np.float64) > 0:
        raise InputError(f"{label}: image has no variance")


def filtered_image(
    image: np.ndarray, filters: PreprocessingFilters, clip_sigma: float | None = None
) -> tuple[np.ndarray, Curve | None]:
    """Return the filtered, normalised image (H, W) float32, and its whitening curve where that is on."""
    if clip_sigma is not None:
        mean, std = float(image.mean(dtype=np.float64)), float(image.std(dtype=np.float64))
        image = np.where(np.abs(image - mean) > clip_sigma * std, np.float32(mean), image)
    shape = (image.shape[0], image.shape[1])
    spectrum = scipy.fft.rfft2(image.astype(np.float32, copy=False))
    spectrum[0, 0] = 0
    whitening = image_whitening(spectrum, shape, filters)
    curves = (*((whitening,) if whitening is not None else ()), *filters.fixed_curves)
    return normalized_image(spectrum, shape, filter_grid(shape, curves), filters.band), whitening


def image_whitening(
    spectrum: np.ndarray, shape: tuple[int, int], filters: PreprocessingFilters
) -> Curve | None:
    """Return the whitening curve of an image, None where it is off."""
    settings = filters.whitening_filter
    if not settings.enabled:
        return None
    return whitening_curve(
        spectrum,
        shape,
        bins=settings.num_freq_bins,
        is_power=settings.do_power_spectrum,
        max_frequency=settings.max_freq,
    )


def template_filters(preparation: ImagePreparation, whitening: Curve | None) -> np.ndarray:
    """Return the filters of the searched templates, (n_p, n_d, n, n//2 + 1), float32 or complex64."""
    binning = preparation.binning
    k = searched_frequencies(binning)
    weight = curve_product(k, preparation.filters, whitening)
    ctf = preparation.optics.filters((binning.searched_box,) * 2, binning.ratio)
    return (ctf * weight).astype(np.complex64 if np.iscomplexobj(ctf) else np.float32)


def curve_product(k: np.ndarray, filters: PreprocessingFilters, whitening: Curve | None) -> np.ndarray:
    """Return the product of the image's filters at frequencies (cycles per full-size pixel)."""
    product = np.ones(k.shape)
    for curve in (*((whitening,) if whitening is not None else ()), *filters.fixed_curves):
        product *= curve(k)
    return product


def binned_share(
    volume: np.ndarray, matrices: np.ndarray, filters: PreprocessingFilters, ctf: ImageCtf, ratio: float
) -> float:
    """Return the share of the template's filtered power that a search binned by a ratio keeps.

    The whitening of a typical micrograph is near flat where templates have power, and is left out.
    """
    n = volume.shape[0]
    rows = np.linspace(0, len(matrices) - 1, min(SAMPLES, len(matrices))).round().astype(int)
    slices = extract_slices(template_spectrum(volume), slice_axes(matrices[rows]), n)
    ky, kx = half_plane((n, n))
    weight = curve_product(frequency_lengths((n, n)), filters, None) * np.abs(ctf_at(ky, kx, ctf))
    return retained_share(slices, weight, ratio)
