"""Matching from spectra that are ready, by the parameters of Leopard-EM's core_match_template."""

from pathlib import Path
from typing import Any

import numpy as np
import scipy.fft
import xarray as xr

import cryodask.results.accessor  # noqa: F401  (results have `.cryo`)
from cryodask.errors import InputError
from cryodask.jobs.disk import scratch_folder
from cryodask.jobs.micrograph_matching import constants
from cryodask.jobs.micrograph_matching.binning import Binning
from cryodask.jobs.micrograph_matching.filter_block import PreprocessingFilters
from cryodask.jobs.micrograph_matching.preparation import ImagePreparation, SearchOptics
from cryodask.jobs.micrograph_matching.problem import MicrographProblem
from cryodask.optics.ctf_image import ImageCtf
from cryodask.results.orientation_maps import with_best_angles
from cryodask.search.lazy import lazy_variables
from cryodask.search.plan import plan_tiles


def match_spectra(
    image_dft: Any,
    template_dft: Any,
    ctf_filters: Any,
    whitening_filter_template: Any,
    defocus_values: Any,
    pixel_values: Any,
    euler_angles: Any,
    device: str | None = None,
    orientation_batch_size: int | None = None,
    num_cuda_streams: int = 1,
) -> xr.Dataset:
    """Match an image's spectrum with a template's; the parameters are those of Leopard-EM's core function.

    Parameters
    ----------
    image_dft
        (H, W//2 + 1) complex, filtered and normalised: Σ |.|² over the full plane is its number of degrees of
        freedom. Its DC is taken as 0.
    template_dft
        (n, n, n//2 + 1) complex, of the volume with its centre at index 0, DC at (n//2, n//2, 0).
    ctf_filters
        (n_p, n_d, n, n//2 + 1), real or complex.
    whitening_filter_template
        (n, n//2 + 1), multiplied onto the CTFs.
    defocus_values, pixel_values
        (n_d,) and (n_p,) angstrom: labels of the filters.
    euler_angles
        (n_o, 3) degrees: phi, theta, psi.
    device
        ``cpu`` or ``cuda``; None for what there is.
    orientation_batch_size, num_cuda_streams
        Taken for compatibility; they have no effect on results.

    Returns
    -------
    xarray.Dataset
        Lazy maps of the whole image, as Leopard-EM returns them: the image is taken as periodic.

    Raises
    ------
    InputError
        Shapes that do not fit each other.
    """
    image, template, filters, angles = _checked(
        image_dft, template_dft, ctf_filters, whitening_filter_template, euler_angles
    )
    defoci, pixels = (np.atleast_1d(np.asarray(v, np.float64)) for v in (defocus_values, pixel_values))
    if filters.shape[:2] != (len(pixels), len(defoci)):
        raise InputError(
            f"ctf_filters: shape {filters.shape}, expected ({len(pixels)}, {len(defoci)}, n, n//2 + 1)"
        )
    folder = scratch_folder() / "constants"
    constants.write_tables(folder, spectrum=template, angles=angles, mask=None)
    constants.write_prepared(folder, image, filters, {})
    problem = _problem(folder, image.shape, filters.shape[2], len(angles), defoci, pixels, device)
    plan = plan_tiles(
        problem.shape,
        (problem.box - 1,) * 2,
        working_set=lambda block, tile: 0.0,
        memory=1.0,
        periodic=True,
    )
    variables = {name: (("y", "x"), array) for name, array in lazy_variables(problem, plan).items()}
    dataset = xr.Dataset(variables).assign(
        euler=(("row", "angle"), angles),
        defoci=("defocus_number", defoci),
        pixel_offsets=("pixel_size_number", pixels),
    )
    dataset.attrs = {
        "job": "match-spectra",
        "template_box": problem.box,
        "total_projections": len(angles) * len(defoci) * len(pixels),
        "total_orientations": len(angles),
        "total_defocus": len(defoci),
        "total_pixel_sizes": len(pixels),
    }
    return with_best_angles(dataset)


def _checked(
    image_dft: Any, template_dft: Any, ctf_filters: Any, whitening: Any, euler_angles: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the image in real space, template spectrum, template filters and angles."""
    spectrum = np.array(image_dft, np.complex64)
    template = np.asarray(template_dft, np.complex64)
    filters, white = np.asarray(ctf_filters), np.asarray(whitening, np.float32)
    angles = np.asarray(euler_angles, np.float64)
    n = template.shape[0]
    expected = {
        "image_dft": (spectrum.ndim, 2),
        "template_dft": (template.shape, (n, n, n // 2 + 1)),
        "ctf_filters": (filters.shape[2:], (n, n // 2 + 1)),
        "whitening_filter_template": (white.shape, (n, n // 2 + 1)),
        "euler_angles": (angles.shape[1:], (3,)),
    }
    for name, (found, wanted) in expected.items():
        if found != wanted:
            raise InputError(f"{name}: found {found}, expected {wanted}")
    spectrum[0, 0] = 0
    shape = (spectrum.shape[0], 2 * (spectrum.shape[1] - 1))
    image = scipy.fft.irfft2(spectrum, shape) * np.float32(np.sqrt(shape[0] * shape[1]))
    kind = np.complex64 if np.iscomplexobj(filters) else np.float32
    return image.astype(np.float32), template, (filters * white).astype(kind), angles


def _problem(
    folder: Path,
    shape: tuple[int, ...],
    box: int,
    orientations: int,
    defoci: np.ndarray,
    pixels: np.ndarray,
    device: str | None,
) -> MicrographProblem:
    optics = SearchOptics(ImageCtf(1.0, 0.0, 0.0), tuple(defoci.tolist()), tuple(pixels.tolist()), False)
    whole = (int(shape[0]), int(shape[1]))
    return MicrographProblem(
        folder=str(folder),
        shape=whole,
        box=box,
        orientations=orientations,
        defoci=optics.defoci,
        pixel_sizes=optics.pixel_offsets,
        scales=(1.0,) * len(pixels),  # the template is not rescaled here
        wrap=True,
        histogram=False,
        limit=1.0,
        leopard_size=None,
        device="auto" if device is None else device,
        # all is prepared already
        preparation=ImagePreparation(
            "", "", PreprocessingFilters(), optics, Binning(1, 1, box, whole), None, False
        ),
    )
