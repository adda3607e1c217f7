"""From a rotated template to the weights u of the locally normalised correlation."""

from typing import Any, Literal

import numpy as np

from cryodask.arrays.module import array_module
from cryodask.kernels.fft_library import fft_library
from cryodask.kernels.rotation import Interpolation, rotate

Normalization = Literal["weighted", "support", "product"]

# Below exp(-2) STOPGAP's filters and masks end.
STOPGAP_LEAST_MASK = float(np.exp(-2.0))


def normalization_mask(mask: Any, normalization: Normalization) -> Any:
    """Return the mask that a normalisation uses, for u, N, A and B alike.

    Parameters
    ----------
    mask
        (n, n, n), (z, y, x), rotated, 0..1.
    normalization
        ``product`` sets values below exp(-2) to 0, as STOPGAP does; the others keep the mask.
    """
    xp = array_module(mask)
    if normalization != "product":
        return mask
    return xp.where(mask < STOPGAP_LEAST_MASK, xp.float32(0.0), mask)


def normalise(template: Any, mask: Any, *, normalization: Normalization = "weighted") -> tuple[Any, Any]:
    """Return the weights u and the mask sum N of the locally normalised correlation.

    Parameters
    ----------
    template
        (n, n, n) float32, (z, y, x), rotated and filtered.
    mask
        (n, n, n) float32, (z, y, x), rotated, from :func:`normalization_mask`.
    normalization
        ``weighted``: mean and standard deviation weighted by the mask (Roseman 2003), Σu = 0.
        ``support``: those of the template where mask > 0 (cryoCAT).
        ``product``: those of mask·template where mask > 0, n - 1 degrees of freedom (STOPGAP).

    Returns
    -------
    u (n, n, n) float32, zero for a constant template, and N = Σ mask.
    """
    xp = array_module(template)
    if normalization == "weighted":
        return _weighted(xp, template, mask)
    count = xp.sum(mask, dtype=xp.float64)
    inside = mask > 0
    values = mask * template if normalization == "product" else template
    n_inside = xp.sum(inside)
    mean = xp.sum(xp.where(inside, values, 0), dtype=xp.float64) / n_inside
    spread = xp.where(inside, values - mean, 0)
    freedom = n_inside - 1 if normalization == "product" else n_inside
    u = mask * (template - mean) * _reciprocal(xp, xp.sqrt(xp.sum(spread * spread) / freedom))
    return u.astype(xp.float32), count


def _weighted(xp: Any, template: Any, mask: Any) -> tuple[Any, Any]:
    count = xp.sum(mask, dtype=xp.float64)
    mean = xp.sum(mask * template, dtype=xp.float64) / count
    deviation = template - mean.astype(xp.float32)
    u = mask * deviation
    variance = xp.sum(u * deviation, dtype=xp.float64) / count
    # A constant template leaves rounding alone.
    variance = xp.where(variance <= 1e-12 * mean * mean, 0.0, variance)
    u *= xp.asarray(_reciprocal(xp, xp.sqrt(variance))).astype(xp.float32)
    u -= mask * (xp.sum(u, dtype=xp.float64) / count).astype(xp.float32)
    return u, count


def _reciprocal(xp: Any, value: Any) -> Any:
    return xp.where(value > 0, 1.0 / xp.where(value > 0, value, 1.0), 0.0)


def filter_template(rotated: Any, filter_half: Any) -> Any:
    """Multiply a template's half spectrum by a filter.

    Parameters
    ----------
    rotated
        (n, n, n) float32, (z, y, x).
    filter_half
        (n, n, n//2 + 1) float32, half spectrum, zero frequency first.

    Returns
    -------
    (n, n, n) float32.
    """
    fft = fft_library(array_module(rotated))
    spectrum = fft.rfftn(rotated)
    spectrum *= filter_half
    return fft.irfftn(spectrum, rotated.shape)


def prepare_rotation(
    coefficients: Any,
    mask: Any,
    matrix: np.ndarray,
    *,
    interpolation: Interpolation = "cubic",
    filter_half: Any = None,
    normalization: Normalization = "weighted",
) -> tuple[Any, Any]:
    """Rotate, filter and normalise one template.

    Parameters
    ----------
    coefficients
        (n + 2p)^3 from :func:`cryodask.kernels.rotation.rotation_coefficients`.
    mask
        (n, n, n), (z, y, x), in the rotated frame, from :func:`normalization_mask`.
    matrix
        (3, 3), the active rotation in (x, y, z).
    interpolation
        That of the coefficients.
    filter_half
        (n, n, n//2 + 1) template filter, or none.
    normalization
        See :func:`normalise`.

    Returns
    -------
    u (n, n, n) float32 and N.
    """
    rotated = rotate(coefficients, matrix, interpolation)
    if filter_half is not None:
        rotated = filter_template(rotated, filter_half)
    return normalise(rotated, mask, normalization=normalization)
